//! Hooks as real executables: order, environment, time limit, what they leave behind, and whose they may be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handover_engine::failure::Failure;
use handover_engine::ports::hooks::{Hooks, Moment, Occasion};
use handover_engine::time::Timestamp;
use handover_platform::hooks::{HookDirectory, Side};
use handover_platform::manifest::Manifest;
use tempfile::TempDir;

/// Longer than any hook here needs, shorter than a test may hang.
const DEADLINE: Duration = Duration::from_secs(20);

struct Host {
    dir: TempDir,
    sections: String,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("hooks.d")).unwrap();
        Self { dir, sections: String::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn hook(&self, name: &str) -> PathBuf {
        self.path("hooks.d").join(name)
    }

    /// Adds a hook for the moment before the fence and for a notice. In its script `$D` is the host's directory.
    fn add(&mut self, name: &str, settings: &str, script: &str) {
        let text = format!("#!/bin/sh\nD='{}'\n{script}\n", self.dir.path().display());
        fs::write(self.hook(name), text).unwrap();
        fs::set_permissions(self.hook(name), fs::Permissions::from_mode(0o755)).unwrap();
        self.declare(name, settings);
    }

    fn declare(&mut self, name: &str, settings: &str) {
        let section =
            format!("[[hook]]\nname = '{name}'\nmoments = ['before-fence', 'notice']\n{settings}\n");
        self.sections.push_str(&section);
    }

    fn hooks(&self) -> HookDirectory {
        let directory = self.path("hooks.d");
        let text = format!(
            "[appliance]\nname = 'mail'\n[hooks]\ndirectory = '{}'\n{}",
            directory.display(),
            self.sections
        );
        fs::write(self.path("appliance.toml"), text).unwrap();
        HookDirectory::new(&Manifest::read(&self.path("appliance.toml")).unwrap(), Side::Source)
    }

    async fn run(&self, moment: Moment) -> Result<Vec<String>, Failure> {
        let at = (moment == Moment::Notice).then(|| Timestamp::from_millis(1_800_000_000_000));
        let occasion = Occasion { migration: "m-1".parse().unwrap(), moment, at };
        let hooks = self.hooks();
        tokio::time::timeout(DEADLINE, hooks.run(&occasion)).await.expect("the hooks hang")
    }

    async fn refusal(&self) -> String {
        self.run(Moment::BeforeFence).await.unwrap_err().to_string()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

/// Waits until the process is gone (or only waits to be reaped by whoever has inherited it).
async fn gone(pid: &str) {
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    let begun = Instant::now();
    let runs = |stat: &Path| fs::read_to_string(stat).is_ok_and(|text| !text.contains(") Z "));
    while runs(&stat) {
        assert!(begun.elapsed() < DEADLINE, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn hooks_run_in_the_order_of_their_names_and_only_at_their_moments() {
    let mut host = Host::new();
    host.add("20-b", "", "echo b >> $D/record");
    host.add("10-a", "", "echo a >> $D/record");
    // Nobody has named it in the manifest.
    fs::copy(host.hook("10-a"), host.hook("15-c")).unwrap();
    assert_eq!(host.run(Moment::BeforeFence).await, Ok(vec![]));
    assert_eq!(host.run(Moment::AfterFence).await, Ok(vec![]));
    assert_eq!(host.read("record"), "a\nb\n");
}

#[tokio::test]
async fn a_hook_sees_what_it_is_told_and_nothing_else() {
    let mut host = Host::new();
    host.add("env", "", "env | sort > $D/env; pwd > $D/pwd; cat > $D/stdin; ls -l /proc/self/fd > $D/fds");
    host.hooks();
    let open = fs::File::open(host.path("appliance.toml")).unwrap();
    host.run(Moment::Notice).await.unwrap();
    drop(open);
    let names: Vec<String> =
        host.read("env").lines().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    let known =
        ["HANDOVER_APPLIANCE", "HANDOVER_AT", "HANDOVER_MIGRATION", "HANDOVER_MOMENT", "HANDOVER_ROLE"];
    // The shell adds some of its own.
    let names: Vec<&str> =
        names.iter().map(String::as_str).filter(|n| !["PWD", "OLDPWD", "SHLVL", "_"].contains(n)).collect();
    assert_eq!(names, [&known[..], &["LANG", "PATH"]].concat());
    for line in [
        "HANDOVER_MIGRATION=m-1",
        "HANDOVER_MOMENT=notice",
        "HANDOVER_ROLE=source",
        "HANDOVER_AT=2027-01-15T08:00:00Z",
    ] {
        assert!(host.read("env").lines().any(|l| l == line), "{line}: {}", host.read("env"));
    }
    assert_eq!((host.read("pwd").as_str(), host.read("stdin").as_str()), ("/\n", ""));
    let fds = host.read("fds");
    assert!(fds.contains("/dev/null") && !fds.contains("appliance.toml"), "{fds}");
}

#[tokio::test]
async fn a_failing_hook_stops_or_warns_as_its_section_says() {
    let mut host = Host::new();
    host.add("10-warns", "on_failure = 'warn'", "echo no disk >&2; exit 3");
    host.add("20-stops", "", "seq 1 100; echo 'users are\tat work'; exit 4");
    host.add("30-never", "", "touch $D/never");
    let refused = host.refusal().await;
    assert!(
        refused.starts_with("hook 20-stops at the source: it ended with exit code 4, saying: 94 | 95"),
        "{refused}"
    );
    assert!(refused.contains("100 | users areat work (before-fence)"), "{refused}");
    assert!(!host.path("never").exists());
    // Where nothing can be stopped, all of them run.
    let warnings = host.run(Moment::Notice).await.unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("10-warns") && warnings[0].contains("saying: no disk"), "{warnings:?}");
    assert!(host.path("never").exists());
}

#[test]
fn what_cannot_run_is_found_before_its_moment_comes() {
    let mut host = Host::new();
    host.add("10-good", "", "exit 1");
    host.add("20-plain", "", "");
    fs::set_permissions(host.hook("20-plain"), fs::Permissions::from_mode(0o644)).unwrap();
    host.add("30-open", "", "");
    fs::set_permissions(host.hook("30-open"), fs::Permissions::from_mode(0o777)).unwrap();
    host.declare("40-missing", "on_failure = 'warn'");
    let told = |hooks: HookDirectory| {
        let found = hooks.findings();
        assert!(found.iter().all(|finding| !finding.hint.is_empty()), "{found:?}");
        found.iter().map(|one| format!("{:?} {}: {}", one.severity, one.item, one.what)).collect::<Vec<_>>()
    };
    let found = told(host.hooks());
    let expected = [
        ("Error hook 20-plain", "is not executable"),
        ("Error hook 30-open", "may be written to by others"),
        ("Warning hook 40-missing", "cannot be looked at"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, (begin, part)) in found.iter().zip(expected) {
        assert!(found.starts_with(begin) && found.contains(part), "{found}");
    }
    fs::rename(host.path("hooks.d"), host.path("elsewhere")).unwrap();
    assert_eq!(told(host.hooks()).len(), 4, "no directory, no hook");
}

#[tokio::test]
async fn a_hook_that_takes_too_long_is_killed_with_all_that_it_started() {
    let mut host = Host::new();
    host.add(
        "10-slow",
        "seconds = 1",
        "echo begun; sleep 1000 & echo $! > $D/child; trap '' TERM; wait; sleep 1000",
    );
    let refused = host.refusal().await;
    assert!(refused.contains("took longer than 1 s and was killed, saying: begun"), "{refused}");
    gone(&host.read("child")).await;
}

#[tokio::test]
async fn what_a_hook_leaves_behind_is_killed() {
    let mut host = Host::new();
    host.add("10-daemon", "", "sleep 1000 & echo $! > $D/child");
    assert_eq!(host.run(Moment::BeforeFence).await, Ok(vec![]));
    gone(&host.read("child")).await;
}

#[tokio::test]
async fn a_process_that_leaves_the_group_keeps_nobody_waiting() {
    let mut host = Host::new();
    // It ends by itself: the test leaves nothing behind.
    host.add("10-daemon", "", "setsid sh -c 'echo $$ > '$D'/child; while [ -e '$D'/go-on ]; do sleep 0.05; done' & while [ ! -s $D/child ]; do sleep 0.01; done");
    fs::write(host.path("go-on"), "").unwrap();
    assert_eq!(host.run(Moment::BeforeFence).await, Ok(vec![]));
    fs::remove_file(host.path("go-on")).unwrap();
    gone(&host.read("child")).await;
}

#[tokio::test]
async fn whoever_is_not_interested_any_more_leaves_nothing_running() {
    let mut host = Host::new();
    host.add("10-hangs", "", "echo $$ > $D/own; sleep 1000");
    let hooks = host.hooks();
    let occasion = Occasion { migration: "m-1".parse().unwrap(), moment: Moment::BeforeFence, at: None };
    let begun = async {
        while host.read("own").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ended = hooks.run(&occasion) => panic!("it ended: {ended:?}"),
        () = begun => {}
    }
    gone(&host.read("own")).await;
}

#[tokio::test]
async fn what_others_can_write_to_is_not_run() {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let mut host = Host::new();
    host.add("10-a", "", "touch $D/ran");
    let refuse = async |part: &str| {
        let told = host.refusal().await;
        assert!(told.contains(part), "{part}: {told}");
        assert!(!host.path("ran").exists(), "{part}: it has run");
    };
    for bad in [0o775, 0o757] {
        mode(&host.hook("10-a"), bad);
        refuse("10-a may be written to by others").await;
    }
    mode(&host.hook("10-a"), 0o644);
    refuse("is not executable").await;
    mode(&host.hook("10-a"), 0o755);
    for bad in [0o775, 0o1777] {
        mode(&host.path("hooks.d"), bad);
        refuse("hooks.d may be written to by others").await;
    }
    mode(&host.path("hooks.d"), 0o755);
    mode(host.dir.path(), 0o777);
    refuse("may be written to by others").await;
    mode(host.dir.path(), 0o755);
    fs::rename(host.hook("10-a"), host.path("elsewhere")).unwrap();
    refuse("cannot be looked at").await;
    symlink(host.path("elsewhere"), host.hook("10-a")).unwrap();
    refuse("is no regular file").await;
    fs::remove_file(host.hook("10-a")).unwrap();
    fs::rename(host.path("elsewhere"), host.hook("10-a")).unwrap();
    assert_eq!(host.run(Moment::BeforeFence).await, Ok(vec![]));
    assert!(host.path("ran").exists());
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_not_run() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a file away.
        return;
    }
    let mut host = Host::new();
    host.add("10-a", "", "touch $D/ran");
    std::os::unix::fs::chown(host.hook("10-a"), Some(65534), None).unwrap();
    let told = host.refusal().await;
    assert!(told.contains("10-a belongs to somebody else than root"), "{told}");
    assert!(!host.path("ran").exists());
}

#[tokio::test]
async fn an_executable_without_an_interpreter_is_named() {
    let mut host = Host::new();
    host.declare("10-a", "");
    fs::write(host.hook("10-a"), "#!/no/such/shell\n").unwrap();
    fs::set_permissions(host.hook("10-a"), fs::Permissions::from_mode(0o755)).unwrap();
    let told = host.refusal().await;
    assert!(
        told.contains("hook 10-a at the source: it cannot be run (before-fence): No such file"),
        "{told}"
    );
}
