//! What there is in one simulated run: both hosts, what happens to them, and what was seen to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::ports::hooks::Moment;
use handover_engine::time::{Clock, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use super::journal::Books;
use super::source::SourceSide;
use super::target::TargetSide;

/// Where a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// A call to the source.
    Source,
    /// A change at the target, before it is made.
    Write,
    /// A change at the target, after it is durable: only the answer can be lost.
    Written,
    /// Something read at the target.
    Read,
    /// A journal commit, before and after it is durable.
    Commit,
    Committed,
}

/// The state of a run.
pub struct World {
    pub rng: StdRng,
    pub chance: f64,
    pub faults_left: u32,
    pub changes_left: u32,
    /// Faults and changes are over.
    pub quiet: bool,
    pub disk_full: bool,
    /// The source opens snapshots, but reading them always fails.
    pub mute: bool,
    pub moment: u64,
    pub source: SourceSide,
    pub target: TargetSide,
    pub books: Books,
    /// Digests of everything that the source has really sent.
    pub sent: BTreeSet<Digest>,
    /// What hooks were told: at the source (or the target), and which moment.
    pub moments: Vec<(bool, Moment)>,
    pub trace: Vec<String>,
    pub wrong: Vec<String>,
    /// Counts the target agent's lives. What belongs to an earlier one can do nothing any more.
    pub life: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let chance = [0.0, 0.02, 0.05, 0.1][rng.random_range(0..4)];
        let faults_left = rng.random_range(3..25);
        let changes_left = if rng.random_bool(0.25) { 0 } else { rng.random_range(1..15) };
        let mut moment = 1000;
        let source = SourceSide::make(&mut rng, &mut moment);
        let target = TargetSide::make(&mut rng, &mut moment);
        World {
            rng,
            chance,
            faults_left,
            changes_left,
            quiet: false,
            disk_full: false,
            mute: false,
            moment,
            source,
            target,
            books: Books::default(),
            sent: BTreeSet::new(),
            moments: Vec::new(),
            trace: Vec::new(),
            wrong: Vec::new(),
            life: 0,
        }
    }

    pub fn now(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        let life = self.life;
        self.trace.push(format!("[{life}] {text}"));
    }

    /// Notes that something is not as it must be.
    pub fn wrong(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.say(format!("WRONG: {text}"));
        self.wrong.push(text);
    }

    /// True when a fault strikes now.
    pub fn strikes(&mut self) -> bool {
        let strikes = !self.quiet && self.faults_left > 0 && self.rng.random_bool(self.chance);
        self.faults_left -= u32::from(strikes);
        strikes
    }

    /// The source's rows and files may change at any time.
    pub fn may_change_source(&mut self) {
        if !self.quiet && self.changes_left > 0 && self.rng.random_bool(0.03) {
            self.changes_left -= 1;
            self.change_source();
        }
    }

    pub fn change_source(&mut self) {
        let World { rng, moment, source, .. } = self;
        let text = source.change(rng, moment);
        self.say(text);
    }

    /// What happens at a site: nothing, a failure, or the end of the agent (`None`).
    fn fate(&mut self, site: Site, what: &str) -> Option<Result<()>> {
        let full = || {
            Failure::operator(what.to_owned(), "no space left on device")
                .hint("free space on the file system, then resume")
        };
        if site == Site::Source {
            self.may_change_source();
        }
        if site == Site::Write && self.disk_full {
            return Some(Err(full()));
        }
        if !self.strikes() {
            return Some(Ok(()));
        }
        let lost = Failure::transient(what.to_owned(), "the answer was lost");
        let pick = self.rng.random_range(0..4);
        let fate = match (site, pick) {
            (Site::Source, 0) => {
                self.source.restart();
                Some(Err(Failure::transient(what.to_owned(), "the source was restarted")))
            }
            (Site::Source, _) | (Site::Write | Site::Read | Site::Written, 0) => Some(Err(lost)),
            (Site::Write, 1) => {
                self.disk_full = true;
                Some(Err(full()))
            }
            (Site::Commit, 0 | 1) => Some(Err(Failure::operator("journal", "a record cannot be written"))),
            _ => None,
        };
        let text = match &fate {
            Some(Err(failure)) => format!("fault at {what}: {failure}"),
            _ => format!("crash at {what} ({site:?})"),
        };
        self.say(text);
        fate
    }
}

/// A way into the world, for one life of the target agent.
#[derive(Clone)]
pub struct Port {
    pub world: Arc<Mutex<World>>,
    pub crashed: Arc<Notify>,
    pub life: u64,
}

impl Port {
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A change at the target: it can fail before, and its answer can be lost after.
    pub async fn change<T: Send>(
        &self,
        what: &str,
        act: impl FnOnce(&mut World) -> Result<T> + Send,
    ) -> Result<T> {
        self.step(Site::Write, what).await?;
        let changed = self.with(act)?;
        self.step(Site::Written, what).await?;
        Ok(changed)
    }

    /// Takes a little time, then whatever happens at this site. Never returns to an agent that has crashed: what a real
    /// one would still do ends with its process.
    pub async fn step(&self, site: Site, what: &str) -> Result<()> {
        let pause = self.with(|world| world.rng.random_range(0..12));
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let fate = self.with(|world| (world.life == self.life).then(|| world.fate(site, what)));
        match fate {
            Some(Some(result)) => result,
            Some(None) => {
                self.with(|world| world.life += 1);
                self.crashed.notify_one();
                std::future::pending().await
            }
            None => std::future::pending().await,
        }
    }
}

impl Clock for Port {
    fn now(&self) -> Timestamp {
        self.with(|world| Timestamp::from_millis(i64::try_from(world.now()).unwrap_or(i64::MAX)))
    }
}

/// A dataset's name.
pub fn dataset(name: &str) -> DatasetName {
    name.parse().expect("a name")
}

/// The databases of the appliance.
pub fn databases() -> [DatasetName; 2] {
    [dataset("db"), dataset("mail")]
}

/// The tree of the appliance.
pub fn tree() -> DatasetName {
    dataset("www")
}

/// By dataset.
pub type PerDataset<T> = BTreeMap<DatasetName, T>;
