//! Both hosts of a cut-over, and calls to them: each is numbered, and something can happen to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, LeaseId};
use handover_engine::phase::Phase;
use handover_engine::ports::Result;
use handover_engine::rows::{Schema, SnapshotId};
use handover_engine::time::{Clock, Timestamp};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::base::Base;
use super::checks;
use super::planted::Planted;
use super::spool::Waiting;
use super::target::Place;
use super::users::{self, Users};
use crate::journal::Books;
use crate::model::Rows;
use crate::world::{PerDataset, databases};

/// What a call takes.
const STEP: Duration = Duration::from_millis(1);
/// No run takes more calls than this.
const MOST: u64 = 5_000;
/// What a slow one takes: longer than any cut-over may.
pub const SLOW: Duration = Duration::from_secs(40);

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// What can happen to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// The target's agent ends before it is made.
    CrashBefore,
    /// The target's agent ends once it is done.
    CrashAfter,
    /// The host is started again before it hears of it.
    Unheard,
    /// The host is started again after it was done: nobody is told.
    Unanswered,
    /// It is done, and the answer takes longer than a cut-over may.
    Slow,
    /// It is done so late; whoever waits for it no longer is not the one who stops it.
    Late,
    /// The host does not do it: somebody has to see to that first.
    Refused,
}

/// A call by the beginning of its name, and what happens to it: the cut-over is called off.
pub type Obstacle = (&'static str, Strike);

/// Something that happens once: to which call, and what.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The call, counted from the beginning of the cut-over.
    pub at: u64,
    pub strike: Strike,
}

/// A host.
#[derive(Default)]
pub struct Host {
    /// The databases that users find here.
    pub bases: PerDataset<Base>,
    /// Open snapshots.
    pub leases: BTreeMap<LeaseId, SnapshotId>,
    /// What every snapshot has shown.
    pub shown: BTreeMap<String, (Schema, Rows)>,
}

/// The state of a run.
pub struct World {
    pub source: Host,
    pub target: Host,
    /// What the target builds, and what stood there before.
    pub places: PerDataset<Place>,
    /// Changes on their way, by database and whether they go back.
    pub spools: BTreeMap<(DatasetName, bool), Waiting>,
    pub books: Books,
    pub users: Users,
    /// What is still to happen.
    pub faults: Vec<Fault>,
    /// The driver does this wrong.
    pub planted: Option<Planted>,
    /// Calls in all, and those since the cut-over began.
    made: u64,
    pub calls: u64,
    /// What happens to the first call of this name.
    pub obstacle: Option<Obstacle>,
    /// Counts the target agent's lives. What belongs to an earlier one can do nothing any more.
    pub life: u64,
    pub trace: Vec<String>,
    pub wrong: Option<String>,
    began: Instant,
}

impl World {
    /// Both hosts before anything has begun.
    pub fn new(faults: Vec<Fault>) -> Self {
        let source =
            Host { bases: databases().map(|database| (database, Base::empty())).into(), ..Host::default() };
        Self {
            source,
            target: Host::default(),
            places: databases().map(|database| (database, Place::default())).into(),
            spools: BTreeMap::new(),
            books: Books::default(),
            users: Users::new(),
            faults,
            planted: None,
            made: 0,
            calls: 0,
            obstacle: None,
            life: 0,
            trace: Vec::new(),
            wrong: None,
            began: Instant::now(),
        }
    }

    pub fn base(&self, side: Side, database: &DatasetName) -> Option<&Base> {
        let host = if side == Side::Source { &self.source } else { &self.target };
        host.bases.get(database)
    }

    pub fn host(&mut self, side: Side) -> &mut Host {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    pub fn phase(&self) -> Phase {
        self.books.migration.as_ref().map_or(Phase::Draft, |migration| migration.state.phase)
    }

    /// Part of a planted fault: users of a host are let in again.
    pub fn let_in(&mut self, side: Side) {
        self.host(side).bases.values_mut().for_each(|base| base.fences.clear());
        self.say(format!("PLANTED: users of the {side:?} are let in again"));
    }

    pub fn say(&mut self, text: impl Into<String>) {
        let (life, calls, text) = (self.life, self.calls, text.into());
        self.trace.push(format!("[{life}] {calls}: {text}"));
    }

    /// Notes that something is not as it must be. What follows from it says no more.
    pub fn wrong(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.say(format!("WRONG: {text}"));
        self.wrong.get_or_insert(text);
    }

    /// The target's agent is gone; what it had not made durable, too.
    pub fn crash(&mut self) {
        self.life += 1;
        self.spools.values_mut().for_each(Waiting::crash);
    }

    /// Users write, and everything is looked at.
    pub fn look(&mut self) {
        checks::at_any_time(self);
        users::write(self);
        checks::at_any_time(self);
    }

    /// What happens to the call that is made now.
    fn strike(&mut self, what: &str) -> Option<Strike> {
        self.made += 1;
        if self.made > MOST {
            self.wrong("it does not end");
        }
        if self.calls == 0 && self.phase() != Phase::CuttingOver {
            return None;
        }
        self.calls += 1;
        if let Some((_, strike)) = self.obstacle.take_if(|(name, _)| what.starts_with(*name)) {
            return Some(strike);
        }
        let (calls, faults) = (self.calls, &mut self.faults);
        let at = faults.iter().position(|fault| fault.at == calls)?;
        Some(faults.swap_remove(at).strike)
    }
}

/// A way into the world, for one life of the target's agent.
#[derive(Clone)]
pub struct Port {
    pub world: Arc<Mutex<World>>,
    pub crashed: Arc<Notify>,
    pub life: u64,
}

impl Port {
    /// A way for the life that begins now.
    pub fn of(world: &Arc<Mutex<World>>) -> Self {
        let life = world.lock().unwrap_or_else(PoisonError::into_inner).life;
        Self { world: world.clone(), crashed: Arc::default(), life }
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The target's agent ends here.
    async fn crash<T>(&self) -> T {
        self.with(World::crash);
        self.crashed.notify_one();
        std::future::pending().await
    }

    /// Makes a call to a host: what it does, and whatever happens to it. Never returns to an agent that has ended.
    pub async fn call<T, F>(&self, side: Side, what: &str, act: F) -> Result<T>
    where
        F: FnOnce(&mut World) -> Result<T> + Send,
        T: Send,
    {
        sleep(STEP).await;
        let (is_alive, strike) = self.with(|world| {
            let is_alive = world.life == self.life && world.wrong.is_none();
            let strike = if is_alive { world.strike(what) } else { None };
            if is_alive {
                world.say(strike.map_or_else(|| what.to_owned(), |strike| format!("{what}: {strike:?}")));
                world.look();
            }
            (is_alive, strike)
        });
        let lost = || Failure::transient(what, "there is no answer");
        let mut request = Request { port: self, act: Some(act) };
        match strike {
            None if is_alive => self.answered(request.carry_out()).await,
            None | Some(Strike::CrashBefore) => {
                request.act = None;
                if is_alive { self.crash().await } else { std::future::pending().await }
            }
            Some(Strike::CrashAfter) => {
                let _ = request.carry_out();
                self.crash().await
            }
            Some(Strike::Unheard) => {
                request.act = None;
                self.with(|world| world.host(side).leases.clear());
                Err(lost())
            }
            Some(Strike::Unanswered) => {
                let _ = request.carry_out();
                self.with(|world| world.host(side).leases.clear());
                Err(lost())
            }
            Some(Strike::Slow) => {
                let answer = request.carry_out();
                sleep(SLOW).await;
                self.answered(answer).await
            }
            Some(Strike::Late) => {
                sleep(SLOW).await;
                let answer = request.carry_out();
                self.answered(answer).await
            }
            Some(Strike::Refused) => {
                request.act = None;
                Err(Failure::operator(what, "it is refused"))
            }
        }
    }

    /// Hands an answer to an agent that is still there.
    async fn answered<T>(&self, answer: Result<T>) -> Result<T> {
        if self.with(|world| world.wrong.is_some()) {
            self.crashed.notify_one();
        }
        if self.with(|world| world.life == self.life && world.wrong.is_none()) {
            answer
        } else {
            std::future::pending().await
        }
    }
}

/// A call on its way: it arrives even when nobody waits for its answer any more.
struct Request<'a, T, F: FnOnce(&mut World) -> Result<T>> {
    port: &'a Port,
    act: Option<F>,
}

impl<T, F: FnOnce(&mut World) -> Result<T>> Request<'_, T, F> {
    fn carry_out(&mut self) -> Result<T> {
        let act = self.act.take().expect("it is carried out once");
        self.port.with(|world| {
            let answer = act(world);
            world.look();
            answer
        })
    }
}

impl<T, F: FnOnce(&mut World) -> Result<T>> Drop for Request<'_, T, F> {
    fn drop(&mut self) {
        let is_alive = self.port.with(|world| world.life == self.port.life && world.wrong.is_none());
        if self.act.is_some() && is_alive {
            self.port.with(|world| world.say("it arrives late"));
            let _ = self.carry_out();
        }
    }
}

impl Clock for Port {
    fn now(&self) -> Timestamp {
        let gone = self.with(|world| world.began.elapsed());
        Timestamp::from_millis(1_800_000_000_000 + i64::try_from(gone.as_millis()).unwrap_or(i64::MAX))
    }
}
