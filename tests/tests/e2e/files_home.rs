//! An abort after the cut-over brings home the files that were written at the target.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::link::Link;
use handover_tests::poll;

use super::SETTLES_WITHIN;

/// A migration whose target has taken over.
fn on_trial(seed: u64, prepare: impl FnOnce(&Path), plan: &[&str]) -> Bed {
    let bed = Bed::temporary(&Spec::small(seed)).unwrap();
    prepare(&bed.original().files);
    take_over(&bed, plan);
    bed
}

fn take_over(bed: &Bed, plan: &[&str]) {
    let plan = bed.json(&[&["plan", "--follow"], plan].concat()).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    poll::until("the copy to be followed", SETTLES_WITHIN, || {
        Ok((bed.json(&["status"])?["phase"] == "following").then_some(()))
    })
    .unwrap();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
}

/// Every name below, with its type, mode, size, time and contents, as a listing.
fn listing(root: &Path) -> String {
    let script = "find . -path ./.handover -prune -o -printf '%P %y %m %l\\n' | sort; \
                  find . -path ./.handover -prune -o -type f -printf '%P %n %T@\\n' | sort; \
                  find . -path ./.handover -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";
    let out = Command::new("sh").args(["-c", script]).current_dir(root).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn assert_same(found: &Path, wanted: &str) {
    let found = listing(found);
    let [missing, extra] = [(wanted, &*found), (&*found, wanted)]
        .map(|(a, b)| a.lines().filter(|line| !b.lines().any(|other| other == *line)).collect::<Vec<_>>());
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}, not wanted: {extra:#?}");
}

fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
}

/// A tree in which there is something of each kind.
fn furnish(root: &Path) {
    for directory in ["home", "home/keep", "home/goes/deep", "home/becomes-file"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (name, text) in [
        ("changes", "before"),
        ("stays", "as it is"),
        ("goes/deep/a", "gone"),
        ("becomes-file/a", "gone"),
        ("becomes-directory", "gone"),
        ("opens", "mode"),
        ("twice", "two names"),
        ("both", "before"),
    ] {
        write(root.join("home").join(name), text);
    }
    write(root.join("home/large"), vec![7; 3 << 20]);
    fs::hard_link(root.join("home/twice"), root.join("home/twin")).unwrap();
    symlink("stays", root.join("home/points")).unwrap();
}

/// What users do to it.
fn use_it(root: &Path) {
    let home = root.join("home");
    write(home.join("changes"), "after");
    write(home.join("new"), "new");
    fs::create_dir_all(home.join("made/deep")).unwrap();
    write(home.join("made/deep/a"), "in a new directory");
    fs::remove_dir_all(home.join("goes")).unwrap();
    fs::remove_dir_all(home.join("becomes-file")).unwrap();
    write(home.join("becomes-file"), "a file now");
    fs::remove_file(home.join("becomes-directory")).unwrap();
    fs::create_dir(home.join("becomes-directory")).unwrap();
    fs::set_permissions(home.join("opens"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(home.join("points")).unwrap();
    symlink("new", home.join("points")).unwrap();
    let mut large = fs::read(home.join("large")).unwrap();
    large.splice(1000..1000, *b"in the middle");
    write(home.join("large"), large);
    // Other contents under both names.
    write(home.join("twice"), "two names, changed");
    // As old and as long as it was, and another file.
    let old = fs::metadata(home.join("stays")).unwrap().modified().unwrap();
    write(home.join("stays.new"), "as it IS");
    fs::File::options().write(true).open(home.join("stays.new")).unwrap().set_modified(old).unwrap();
    fs::rename(home.join("stays.new"), home.join("stays")).unwrap();
}

#[test]
fn files_that_were_written_at_the_target_come_home() {
    let bed = on_trial(171, furnish, &[]);
    use_it(&bed.copy().files);
    let used = listing(&bed.copy().files);
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_same(&bed.original().files, &used);
    let names =
        ["home/twice", "home/twin"].map(|n| fs::metadata(bed.original().files.join(n)).unwrap().ino());
    assert_eq!(names[0], names[1], "two names of one file");
    assert!(!bed.original().files.join(".handover").exists(), "something is left at the source");
    let report = bed.cli(&["report"]).unwrap();
    assert!(report.text().contains("are at the source again"), "{}", report.text());
    // And the next migration begins from there.
    take_over(&bed, &[]);
    assert_same(&bed.copy().files, &used);
}

#[test]
fn where_nothing_was_written_nothing_is_touched() {
    let bed = on_trial(172, furnish, &[]);
    let files = bed.original().files;
    let inodes = |root: &Path| {
        let out =
            Command::new("find").args([".", "-printf", "%i %C@ %p\\n"]).current_dir(root).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let before = inodes(&files);
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(inodes(&files), before);
}

#[test]
fn what_was_changed_at_both_stays_at_the_source_and_is_told_of() {
    let bed = on_trial(173, furnish, &[]);
    let (here, there) = (bed.copy().files.join("home"), bed.original().files.join("home"));
    write(here.join("both"), "the target's");
    write(there.join("both"), "the source's own");
    // A directory that was removed holds something of the source's own.
    fs::remove_dir_all(here.join("goes")).unwrap();
    write(there.join("goes/own"), "the source's");
    write(here.join("changes"), "after");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(fs::read_to_string(there.join("both")).unwrap(), "the source's own");
    assert_eq!(fs::read_to_string(there.join("changes")).unwrap(), "after");
    assert_eq!(fs::read_to_string(there.join("goes/own")).unwrap(), "the source's");
    assert!(!there.join("goes/deep").exists());
    let report = bed.cli(&["report"]).unwrap();
    assert!(report.text().contains("home/both"), "{}", report.text());
    assert!(report.text().contains("changed at the source, too"), "{}", report.text());
    let id = bed.json(&["status"]).unwrap()["migration"].as_str().unwrap().to_owned();
    let kept = bed.copy().files.join(format!(".handover/kept-{id}/home/both"));
    assert_eq!(fs::read_to_string(kept).unwrap(), "the target's");
}

#[test]
fn files_alone_come_home_too() {
    let bed = on_trial(174, furnish, &["--dataset", "files"]);
    use_it(&bed.copy().files);
    let used = listing(&bed.copy().files);
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_same(&bed.original().files, &used);
}

#[test]
fn who_gives_up_what_was_written_gets_the_sources_files() {
    let bed = on_trial(175, furnish, &[]);
    let before = listing(&bed.original().files);
    use_it(&bed.copy().files);
    bed.cli(&["abort", "--discard", "--watch"]).unwrap().success().unwrap();
    assert_same(&bed.original().files, &before);
}

/// An abort that is bringing home many files, over a slow link.
struct OnTheWay {
    bed: Bed,
    link: Link,
    /// The source's tree before, and the target's.
    before: String,
    used: String,
}

impl OnTheWay {
    fn begin(seed: u64) -> Self {
        let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
        furnish(&bed.original().files);
        let link = bed.through_link().unwrap();
        take_over(&bed, &[]);
        let before = listing(&bed.original().files);
        use_it(&bed.copy().files);
        let many = bed.copy().files.join("home/many");
        fs::create_dir(&many).unwrap();
        for n in 0..200_u32 {
            // Nothing that compression makes small.
            let noise = (0..40_000_u32).flat_map(|at| (at.wrapping_mul(n * 2 + 1) ^ at >> 3).to_le_bytes());
            write(many.join(n.to_string()), noise.collect::<Vec<u8>>());
        }
        let used = listing(&bed.copy().files);
        link.slow_down(Duration::from_millis(10));
        bed.json(&["abort"]).unwrap();
        Self { bed, link, before, used }
    }

    fn wait_for(&self, files: usize) {
        let many = self.bed.original().files.join("home/many");
        poll::until("files to come home", SETTLES_WITHIN, || {
            Ok((fs::read_dir(&many).map_or(0, Iterator::count) >= files).then_some(()))
        })
        .unwrap();
    }

    fn ends(&self) {
        self.link.slow_down(Duration::ZERO);
        poll::until("the abort to end", SETTLES_WITHIN, || {
            Ok((self.bed.json(&["status"])?["phase"] == "aborted").then_some(()))
        })
        .unwrap();
        assert!(!self.bed.original().files.join(".handover").exists(), "something is left at the source");
    }
}

#[test]
fn a_crash_of_either_agent_on_the_way_home_loses_nothing() {
    let mut way = OnTheWay::begin(176);
    way.wait_for(20);
    way.bed.source.kill().unwrap();
    way.bed.source.restart().unwrap();
    way.wait_for(60);
    way.bed.target.kill().unwrap();
    way.bed.target.restart().unwrap();
    way.ends();
    assert_same(&way.bed.original().files, &way.used);
}

#[test]
fn what_is_given_up_on_the_way_home_is_whole_as_far_as_it_has_come() {
    let way = OnTheWay::begin(177);
    way.wait_for(20);
    way.bed.json(&["abort", "--discard"]).unwrap();
    way.ends();
    // Every file is one of the two, never a part of one.
    let found = listing(&way.bed.original().files);
    let known = |line: &&str| way.before.lines().chain(way.used.lines()).any(|other| other == *line);
    let digests: Vec<&str> = found.lines().filter(|line| line.contains("  ./")).collect();
    assert!(digests.len() > 20, "{found}");
    let strange: Vec<&&str> = digests.iter().filter(|line| !known(line)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

#[test]
fn a_tree_that_is_not_found_at_the_target_removes_nothing_at_the_source() {
    let bed = on_trial(178, furnish, &[]);
    use_it(&bed.copy().files);
    let (used, before) = (listing(&bed.copy().files), listing(&bed.original().files));
    // As a file system that is not mounted.
    let aside = bed.root().join("aside");
    fs::rename(bed.copy().files, &aside).unwrap();
    fs::create_dir(bed.copy().files).unwrap();
    assert_eq!(bed.cli(&["abort", "--watch"]).unwrap().code, Some(3));
    // Whoever goes on without looking is stopped, too.
    for _ in 0..2 {
        assert_eq!(bed.cli(&["resume", "--watch"]).unwrap().code, Some(3));
        assert_same(&bed.original().files, &before);
    }
    fs::remove_dir_all(bed.copy().files).unwrap();
    fs::rename(&aside, bed.copy().files).unwrap();
    bed.cli(&["resume", "--watch"]).unwrap().success().unwrap();
    assert_same(&bed.original().files, &used);
}
