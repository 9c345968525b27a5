mod by_hand;
mod rows;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use handover_engine::changeover::{Bundle, Contents, Group, Setting};
use handover_engine::ports::changeover::HostSettings;

use super::watch::watch_on;
use super::*;
use crate::disk::Disk;
use crate::section::SettingsSection;

const LIMIT: Duration = Duration::from_secs(600);

fn migration() -> MigrationId {
    "m1".parse().unwrap()
}

/// A machine: its boot, its clock, its power switch.
#[derive(Default)]
struct Machine {
    boots: AtomicUsize,
    time: Mutex<Duration>,
    is_stuck: AtomicBool,
}

impl Machine {
    fn pass(&self, time: Duration) {
        *self.time.lock().unwrap() += time;
    }

    fn boot(&self) {
        self.boots.fetch_add(1, Ordering::SeqCst);
        *self.time.lock().unwrap() = Duration::from_secs(7);
    }

    fn boots(&self) -> usize {
        self.boots.load(Ordering::SeqCst)
    }
}

impl Boot for Machine {
    fn id(&self) -> std::io::Result<String> {
        Ok(format!("boot-{}", self.boots()))
    }

    fn time(&self) -> Duration {
        *self.time.lock().unwrap()
    }
}

#[async_trait]
impl Reboot for Machine {
    async fn now(&self) -> Result<()> {
        if self.is_stuck.swap(false, Ordering::SeqCst) {
            return Err(Failure::operator("reboot", "not now"));
        }
        self.boot();
        Ok(())
    }
}

struct Host {
    dir: tempfile::TempDir,
    machine: Arc<Machine>,
    settings: LocalSettings,
}

impl Host {
    fn new() -> Self {
        Self::on(Disk::default())
    }

    fn on(disk: Disk) -> Self {
        let dir = crate::disk::scratch();
        let file = dir.path().join("address");
        std::fs::write(&file, "own").unwrap();
        let section = SettingsSection::of_file("address", Group("network".into()), file);
        let settings = LocalSettings::on(disk, vec![section], &dir.path().join("state"));
        Self { dir, machine: Arc::default(), settings }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn address(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("address")).unwrap()
    }

    fn is_marked(&self) -> bool {
        armed_marker(&self.state()).exists()
    }

    fn swap(&self) -> LocalSwap {
        LocalSwap::new(self.settings.clone(), self.machine.clone(), self.machine.clone())
    }

    /// The same host with an undisturbed disk.
    fn calm(&self) -> LocalSwap {
        let Self { machine, .. } = self;
        let file = self.dir.path().join("address");
        let sections = vec![SettingsSection::of_file("address", Group("network".into()), file)];
        LocalSwap::new(LocalSettings::new(sections, &self.state()), machine.clone(), machine.clone())
    }

    async fn stage(&self) {
        let contents = Contents::Whole { bytes: b"new".to_vec(), mode: 0o644 };
        let setting = Setting { name: "address".into(), group: Group("network".into()), contents };
        let settings = self.calm().settings;
        settings.stage(&migration(), &Bundle { settings: vec![setting] }).await.unwrap();
    }

    async fn standing(&self) -> SwapStanding {
        self.calm().standing(&migration()).await.unwrap()
    }

    fn watch(&self) -> tokio::task::JoinHandle<Result<()>> {
        self.watch_on(Disk::default())
    }

    fn watch_on(&self, disk: Disk) -> tokio::task::JoinHandle<Result<()>> {
        let (state, machine) = (self.state(), self.machine.clone());
        tokio::spawn(async move { watch_on(disk, &state, machine.clone(), machine).await })
    }

    async fn watched(&self) {
        let state = self.state();
        poll(|| watch::is_watched(&state).unwrap()).await;
    }

    /// Armed, with nobody watching any more.
    async fn armed() -> Self {
        let host = Self::new();
        host.stage().await;
        let guard = held(&host);
        host.swap().arm(&migration(), LIMIT).await.unwrap();
        drop(guard);
        host
    }
}

/// Says that somebody watches.
fn held(host: &Host) -> std::fs::File {
    std::fs::create_dir_all(host.state().join("dead-man")).unwrap();
    let file = std::fs::File::create(host.state().join("dead-man/watching")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
    file
}

async fn poll(is: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(std::time::Instant::now() < end, "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_swap_is_confirmed() {
    let host = Host::armed().await;
    let (id, swap) = (migration(), host.swap());
    assert_eq!((host.standing().await, host.address()), (SwapStanding::Armed, "new".into()));
    assert!(host.is_marked());
    swap.arm(&id, LIMIT).await.unwrap();
    let told = host.settings.forget(&id).await.unwrap_err();
    assert!(told.what.contains("timer runs"), "{told}");
    swap.reboot(&id).await.unwrap();
    swap.reboot(&id).await.unwrap();
    assert_eq!((host.machine.boots(), host.standing().await), (1, SwapStanding::Up));
    let watch = host.watch();
    host.watched().await;
    swap.met(&id).await.unwrap();
    swap.confirm(&id).await.unwrap();
    swap.confirm(&id).await.unwrap();
    watch.await.unwrap().unwrap();
    host.machine.pass(LIMIT * 9);
    host.watch().await.unwrap().unwrap();
    assert_eq!((host.standing().await, host.address()), (SwapStanding::Confirmed, "new".into()));
    assert!(!host.is_marked());
    // Undone later all the same.
    swap.roll_back(&id).await.unwrap();
    assert_eq!((host.standing().await, host.address()), (SwapStanding::RolledBack, "own".into()));
    assert!(swap.confirm(&id).await.unwrap_err().what.contains("restored its own"));
    assert!(swap.arm(&id, LIMIT).await.is_err());
    swap.reboot(&id).await.unwrap();
    swap.reboot(&id).await.unwrap();
    assert_eq!(host.machine.boots(), 2);
    host.watch().await.unwrap().unwrap();
    assert!(!host.is_marked());
    host.settings.forget(&id).await.unwrap();
    assert_eq!(host.standing().await, SwapStanding::Own);
}

#[tokio::test]
async fn time_counts_within_a_boot_and_doubles_once() {
    for (steps, is_undone) in [
        (vec!["pass 599"], false),
        (vec!["pass 600"], true),
        (vec!["pass 599", "boot", "pass 592"], false),
        (vec!["pass 599", "boot", "look", "pass 599"], false),
        (vec!["boot", "look", "pass 600"], true),
        (vec!["boot", "look", "pass 500", "met", "pass 1199"], false),
        (vec!["boot", "look", "pass 500", "met", "pass 700", "met", "pass 500"], true),
        (vec!["boot", "look", "boot", "look", "boot", "look"], false),
        (vec!["boot", "look", "boot", "look", "boot", "look", "boot", "look"], true),
    ] {
        let host = Host::armed().await;
        let before = host.machine.boots();
        let mut reboots = 0;
        for step in &steps {
            match step.split_once(' ') {
                Some((_, seconds)) => host.machine.pass(Duration::from_secs(seconds.parse().unwrap())),
                None if *step == "boot" => {
                    host.machine.boot();
                    reboots += 1;
                }
                None if *step == "met" => host.swap().met(&migration()).await.unwrap(),
                None => drop(host.standing().await),
            }
        }
        let watch = host.watch();
        if is_undone {
            watch.await.unwrap().unwrap();
            assert_eq!(
                (host.standing().await, host.address()),
                (SwapStanding::RolledBack, "own".into()),
                "{steps:?}"
            );
            assert_eq!(host.machine.boots(), before + reboots + 1, "{steps:?}");
            assert!(!host.is_marked());
        } else {
            host.watched().await;
            assert_ne!(host.standing().await, SwapStanding::RolledBack, "{steps:?}");
            assert_eq!(host.address(), "new");
            host.swap().confirm(&migration()).await.unwrap();
            watch.await.unwrap().unwrap();
            assert_eq!(host.machine.boots(), before + reboots, "{steps:?}");
        }
    }
}

#[tokio::test]
async fn several_watchers_and_the_agent_do_it_once() {
    let host = Host::armed().await;
    host.machine.is_stuck.store(true, Ordering::SeqCst);
    let watches: Vec<_> = (0..4).map(|_| host.watch()).collect();
    host.watched().await;
    host.machine.pass(LIMIT);
    for watch in watches {
        watch.await.unwrap().unwrap();
    }
    assert_eq!((host.machine.boots(), host.address()), (1, "own".into()));
}

#[tokio::test]
async fn what_was_rolled_back_is_rebooted_by_the_watch_when_nobody_asks() {
    let host = Host::armed().await;
    host.machine.pass(LIMIT / 2);
    host.swap().roll_back(&migration()).await.unwrap();
    let watch = host.watch();
    host.watched().await;
    assert_eq!(host.machine.boots(), 0);
    host.machine.pass(LIMIT / 2);
    watch.await.unwrap().unwrap();
    assert_eq!(host.machine.boots(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_changed_when_nobody_watches() {
    let host = Host::new();
    assert!(host.swap().arm(&migration(), LIMIT).await.unwrap_err().what.contains("nothing is staged"));
    host.stage().await;
    let told = host.swap().arm(&migration(), LIMIT).await.unwrap_err();
    assert!(told.what.contains("nobody watches"), "{told}");
    assert_eq!((host.standing().await, host.address()), (SwapStanding::Own, "own".into()));
    assert!(!host.is_marked());
    assert!(host.swap().confirm(&migration()).await.is_err());
    host.swap().reboot(&migration()).await.unwrap();
    host.swap().roll_back(&migration()).await.unwrap();
    assert_eq!(host.machine.boots(), 0);
}

/// A disk on which the world ends at the step with this number.
fn ending_at(step: usize) -> (Disk, Arc<AtomicBool>) {
    let (steps, is_over) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let over = is_over.clone();
    let disk = Disk::stepping(Arc::new(move |_| {
        if steps.fetch_add(1, Ordering::SeqCst) >= step {
            over.store(true, Ordering::SeqCst);
            return Err(std::io::Error::from_raw_os_error(28));
        }
        Ok(())
    }));
    (disk, is_over)
}

#[tokio::test]
async fn arming_is_cut_at_every_step() {
    let mut step = 0;
    loop {
        let (disk, is_over) = ending_at(step);
        let host = Host::on(disk);
        host.stage().await;
        let guard = held(&host);
        let cut = host.swap().arm(&migration(), LIMIT).await;
        drop(guard);
        assert_eq!(cut.is_err(), is_over.load(Ordering::SeqCst), "step {step}: {cut:?}");
        let standing = host.standing().await;
        assert!(
            host.address() == "own" || (host.is_marked() && standing != SwapStanding::Own),
            "step {step}"
        );
        if step % 2 == 0 || cut.is_ok() {
            // The agent comes back and goes on.
            let _guard = held(&host);
            host.calm().arm(&migration(), LIMIT).await.unwrap();
            assert_eq!(
                (host.standing().await, host.address()),
                (SwapStanding::Armed, "new".into()),
                "step {step}"
            );
        } else {
            // The power was cut: nothing is left half done.
            host.machine.boot();
            host.watch().await.unwrap().unwrap();
            assert_eq!(host.address(), "own", "step {step}");
            assert!(!host.is_marked(), "step {step}");
        }
        if cut.is_ok() {
            break;
        }
        step += 1;
    }
    assert!(step > 20, "{step}");
}

#[tokio::test]
async fn the_watch_is_cut_at_every_step() {
    let mut step = 0;
    loop {
        let host = Host::armed().await;
        host.machine.pass(LIMIT);
        let (disk, is_over) = ending_at(step);
        let mut watch = host.watch_on(disk);
        tokio::select! {
            ended = &mut watch => ended.unwrap().unwrap(),
            () = poll(|| is_over.load(Ordering::SeqCst)) => {
                watch.abort();
                let _ = watch.await;
            }
        }
        host.watch().await.unwrap().unwrap();
        assert_eq!(
            (host.standing().await, host.address()),
            (SwapStanding::RolledBack, "own".into()),
            "step {step}"
        );
        assert_eq!(host.machine.boots(), 1, "step {step}");
        assert!(!host.is_marked(), "step {step}");
        if !is_over.load(Ordering::SeqCst) {
            break;
        }
        step += 1;
    }
    assert!(step > 10, "{step}");
}
