//! One run: a migration from its start to its end, with an agent that is started again whenever it ends, and an operator who knows what to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use handover_engine::driver::{Driver, Handle, Ports, Settings, Status};
use handover_engine::failure::Class;
use handover_engine::inventory::{DatabaseFacts, Dataset, DatasetFacts, Inventory};
use handover_engine::journal::{Journal, Migration};
use handover_engine::pass::TargetDataset;
use handover_engine::phase::{Condition, Operation, Phase, Task};
use handover_engine::plan::{Lasted, Options, Plan, Rates};
use handover_engine::ports::NoCredentials;
use handover_engine::report::Terms;
use handover_engine::time::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::planted::Planted;
use super::target::PlacePort;
use super::users::EVERY;
use super::world::{Fault, Obstacle, Port, Side, World};
use super::{checks, hosts};
use crate::world::databases;

/// No run takes longer than this, on its own clock.
const LONGEST: Duration = Duration::from_secs(1800);
/// An operator takes his time before he asks again.
const REACTION: Duration = Duration::from_secs(1);
/// So many writes the target takes in its trial.
const TRIED: u64 = 6;
/// An agent that is away for longer than a cut-over may take.
const AWAY: Duration = Duration::from_secs(60);

/// What becomes of a migration whose target has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Accept,
    Abort,
}

/// What follows a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The agent is started again at once, and goes on.
    GoesOn,
    /// It is started again a minute later.
    ComesLate,
    /// The operator has had enough.
    IsAborted,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Course {
    pub goal: Goal,
    /// What happens to the first call of this name, so that the cut-over is called off.
    pub obstacle: Option<Obstacle>,
    pub faults: Vec<Fault>,
    pub after: After,
    pub planted: Option<Planted>,
}

impl Course {
    /// One in which nothing goes wrong.
    pub fn smooth(goal: Goal) -> Self {
        Self { goal, obstacle: None, faults: Vec::new(), after: After::GoesOn, planted: None }
    }
}

/// What came of a run.
pub struct Ended {
    /// Calls since the cut-over began.
    pub calls: u64,
    pub phase: Phase,
    pub wrong: Option<String>,
    pub trace: Vec<String>,
}

fn inventory() -> Inventory {
    let facts = || DatabaseFacts { engine: "memory".to_owned(), ..DatabaseFacts::default() };
    let dataset = |name| Dataset {
        name,
        is_log: false,
        facts: DatasetFacts::Database(facts()),
        findings: Vec::new(),
        following: Vec::new(),
        returning: Vec::new(),
        offers: None,
        excluded: Vec::new(),
    };
    Inventory { datasets: databases().map(dataset).into(), ..Inventory::default() }
}

fn migration() -> Migration {
    let (both, rates) = (inventory(), Rates { copy: 1e8, reread: 1e9, lasted: Lasted::default() });
    let options = Options { follow: true, ..Options::default() };
    let plan = Plan::make(("source", &both), ("target", &both), options, &rates).expect("a plan");
    Migration::begun("m1".parse().expect("a name"), plan, "operator", Timestamp::default())
}

fn ports(port: &Port) -> Ports {
    let mut datasets = HashMap::new();
    for dataset in databases() {
        let place = PlacePort { port: port.clone(), dataset: dataset.clone() };
        datasets.insert(dataset, TargetDataset::Database(Arc::new(place)));
    }
    let shared = Arc::new(port.clone());
    Ports {
        source: hosts::source(port, Side::Source),
        here: hosts::source(port, Side::Target),
        datasets,
        journal: shared.clone(),
        holdings: shared.clone(),
        spools: shared.clone(),
        trials: None,
        clock: shared,
        credentials: Arc::new(NoCredentials),
    }
}

/// What the operator means to do.
struct Operator {
    goal: Goal,
    /// At once, whatever goes on.
    aborts: bool,
}

impl Operator {
    /// Works until dropped.
    async fn work(&mut self, port: &Port, handle: &Handle) {
        let mut status = handle.status();
        loop {
            let now = status.borrow_and_update().clone();
            let Some(operation) = port.with(|world| self.decide(world, &now)) else {
                if status.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            if operation == Operation::Resume {
                sleep(REACTION).await;
            }
            port.with(|world| world.say(format!("the operator asks: {operation}")));
            if let Err(refused) = handle.ask(operation, Terms::default(), "operator").await {
                port.with(|world| world.say(format!("refused: {refused}")));
                // Accepted already: nothing but that is left.
                self.aborts = false;
                sleep(REACTION).await;
            }
        }
    }

    fn decide(&mut self, world: &mut World, now: &Status) -> Option<Operation> {
        if self.aborts && now.state.next(handover_engine::phase::Trigger::Asked(Operation::Abort)).is_ok() {
            let is_begun = now.state.phase == Phase::Aborting;
            self.aborts = !is_begun;
            if !is_begun {
                return Some(Operation::Abort);
            }
        }
        match (&now.state.condition, now.state.phase, now.state.task) {
            (Condition::Failed(failure), ..) => {
                if failure.class == Class::Permanent {
                    world.wrong(format!("a permanent failure: {failure}"));
                    return None;
                }
                Some(Operation::Resume)
            }
            (_, Phase::Following, Some(Task::Follow)) => Some(Operation::Cutover),
            (_, Phase::Trial, _) if world.users.at_target >= TRIED => match self.goal {
                Goal::Accept => Some(Operation::Accept),
                Goal::Abort => Some(Operation::Abort),
            },
            (_, Phase::Accepted, None) => Some(Operation::Finalize),
            _ => None,
        }
    }
}

/// The agent, as often as it is started again, until the migration has ended.
async fn lives(world: &Arc<Mutex<World>>, course: &Course) {
    let mut operator = Operator { goal: course.goal, aborts: false };
    loop {
        let port = Port::of(world);
        let (migration, last) = port.with(|world| {
            world.say("the agent starts");
            (world.books.migration.clone().expect("a migration"), world.books.events.len() as u64)
        });
        if migration.state.phase.is_final() {
            return;
        }
        let settings = Settings { lanes: 2, ..Settings::default() };
        let (driver, handle) = Driver::new(ports(&port), settings, migration, last, CancellationToken::new());
        tokio::select! {
            biased;
            () = port.crashed.notified() => {}
            ended = driver.run() => match ended {
                Ok(()) => return,
                Err(failure) => port.with(|world| {
                    world.say(format!("the agent ends: {failure}"));
                    world.crash();
                }),
            },
            () = operator.work(&port, &handle) => {}
        }
        if port.with(|world| world.wrong.is_some()) {
            return;
        }
        // Users do not wait for it.
        port.with(|world| (0..2 * EVERY).for_each(|_| world.look()));
        match course.after {
            After::GoesOn => {}
            After::ComesLate => sleep(AWAY).await,
            After::IsAborted => operator.aborts = true,
        }
    }
}

/// Runs a course to its end.
pub fn run(course: &Course) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new(course.faults.clone());
        (world.planted, world.obstacle) = (course.planted, course.obstacle);
        let world = Arc::new(Mutex::new(world));
        let port = Port::of(&world);
        port.with(|world| (0..10 * EVERY).for_each(|_| world.look()));
        port.create(&migration()).await.expect("a migration");
        let ended = tokio::time::timeout(LONGEST, lives(&world, course)).await;
        port.with(|world| {
            match ended {
                Ok(()) => checks::at_the_end(world),
                Err(_) => world.wrong("it does not end"),
            }
            let (wrong, trace) = (world.wrong.take(), std::mem::take(&mut world.trace));
            Ended { calls: world.calls, phase: world.phase(), wrong, trace }
        })
    })
}
