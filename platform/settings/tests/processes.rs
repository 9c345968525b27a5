//! The dead-man watch as a process of its own, beside an agent, killed whenever it suits badly. The machine is a file: the name of
//! its boot is what it holds, and a reboot writes the next one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use handover_engine::changeover::{Bundle, Contents, Group, Setting, SwapStanding};
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::{HostSettings, Swap};
use handover_services::HostBoot;
use handover_settings::{Boot, LocalSettings, LocalSwap, Reboot, SettingsSection, watch};

/// A machine in a file.
#[derive(Clone)]
struct Machine(PathBuf);

impl Boot for Machine {
    fn id(&self) -> std::io::Result<String> {
        std::fs::read_to_string(&self.0)
    }

    fn time(&self) -> Duration {
        HostBoot::new().time()
    }
}

#[async_trait]
impl Reboot for Machine {
    async fn now(&self) -> Result<()> {
        let next = self.id().unwrap().parse::<u32>().unwrap() + 1;
        let partial = self.0.with_extension(std::process::id().to_string());
        std::fs::write(&partial, next.to_string()).unwrap();
        std::fs::rename(partial, &self.0).unwrap();
        Ok(())
    }
}

struct Host {
    dir: tempfile::TempDir,
    machine: Machine,
    settings: LocalSettings,
}

fn migration() -> MigrationId {
    "m1".parse().unwrap()
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (file, machine) = (dir.path().join("address"), Machine(dir.path().join("boot")));
        std::fs::write(&file, "own").unwrap();
        std::fs::write(&machine.0, "0").unwrap();
        let group = Group("network".into());
        let section = SettingsSection::of_file("address", group, file);
        let settings = LocalSettings::new(vec![section], &dir.path().join("state"));
        Self { dir, machine, settings }
    }

    fn swap(&self) -> LocalSwap {
        let machine = Arc::new(self.machine.clone());
        LocalSwap::new(self.settings.clone(), machine.clone(), machine)
    }

    async fn stage(&self) {
        let contents = Contents::Whole { bytes: b"new".to_vec(), mode: 0o644 };
        let setting = Setting { name: "address".into(), group: Group("network".into()), contents };
        self.settings.stage(&migration(), &Bundle { settings: vec![setting] }).await.unwrap();
    }

    fn look(&self) -> (String, String) {
        let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap();
        (read("address"), read("boot"))
    }

    /// A watch in another process.
    fn watcher(&self) -> Child {
        let program = std::env::current_exe().unwrap();
        Command::new(program).arg("watch").arg(self.dir.path()).spawn().unwrap()
    }
}

/// Ends with the process that it was given, at the latest when it is dropped.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ends {
    async fn ended(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success());
                return;
            }
            assert!(Instant::now() < end, "the watch does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn confirmed_beside_a_watch() {
    let host = Host::new();
    host.stage().await;
    let swap = host.swap();
    let keeper = Arc::new(host.machine.clone());
    let state = host.dir.path().join("state");
    // Until it is armed somebody has to be there: systemd's part.
    let arming = async { swap.arm(&migration(), Duration::from_secs(600)).await };
    let start = async {
        let end = Instant::now() + Duration::from_secs(60);
        while !state.join("dead-man/armed").exists() {
            assert!(Instant::now() < end, "nothing is armed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ends(host.watcher())
    };
    let (armed, mut watcher) = tokio::join!(arming, start);
    armed.unwrap();
    assert_eq!(host.look(), ("new".into(), "0".into()));
    swap.reboot(&migration()).await.unwrap();
    assert_eq!(swap.standing(&migration()).await.unwrap(), SwapStanding::Up);
    // Both change the record at the same time, for a while.
    for _ in 0..50 {
        swap.met(&migration()).await.unwrap();
        assert_eq!(swap.standing(&migration()).await.unwrap(), SwapStanding::Up);
    }
    swap.confirm(&migration()).await.unwrap();
    watcher.ended().await;
    watch(&state, keeper.clone(), keeper).await.unwrap();
    assert_eq!(host.look(), ("new".into(), "1".into()));
}

/// Watches are killed after ever longer times; what remains is done by the last one. Once.
async fn killed_at_any_time() {
    for round in 0..12_u32 {
        let host = Host::new();
        host.stage().await;
        let swap = host.swap();
        let first = Ends(host.watcher());
        let second = Ends(host.watcher());
        let limit = Duration::from_millis(300);
        let id = migration();
        let armed = tokio::join!(swap.arm(&id, limit), async {
            let state = host.dir.path().join("state");
            let end = Instant::now() + Duration::from_secs(60);
            while !state.join("dead-man/armed").exists() {
                assert!(Instant::now() < end, "nothing is armed");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ends(host.watcher())
        });
        let (armed, third) = armed;
        drop((first, second));
        // A watch that was slower than the limit has undone it before it was there.
        let _ = armed;
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 40)).await;
        drop(third);
        let mut pair = [Ends(host.watcher()), Ends(host.watcher())];
        for watcher in &mut pair {
            watcher.ended().await;
        }
        let (address, boots) = host.look();
        assert_eq!(address, "own", "round {round}");
        assert_eq!(boots, "1", "round {round}");
        assert!(!host.dir.path().join("state/dead-man/armed").exists());
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let [_, what, dir] = &arguments[..]
        && what == "watch"
    {
        let machine = Arc::new(Machine(Path::new(dir).join("boot")));
        runtime.block_on(watch(&Path::new(dir).join("state"), machine.clone(), machine)).unwrap();
        return;
    }
    // What runs tests asks which there are, and then for one by its name.
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("processes: test");
        }
        return;
    }
    runtime.block_on(confirmed_beside_a_watch());
    runtime.block_on(killed_at_any_time());
    println!("processes: ok");
}
