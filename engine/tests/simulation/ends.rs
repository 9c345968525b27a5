//! How it ends once the target has taken over: what an abort may lose, and what is told and forgotten at the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::backup::Host;
use handover_engine::changeover::SwapStanding;
use handover_engine::driver::{Driver, Handle, Settings};
use handover_engine::failure::Failure;
use handover_engine::journal::{Journal, Migration};
use handover_engine::name::MigrationId;
use handover_engine::phase::{Condition, Operation, Phase, State, Task};
use handover_engine::plan::{PlannedStep, StepKind};
use handover_engine::ports::Result;
use handover_engine::ports::changeover::{Changeover, HostSettings, Services, Swap};
use handover_engine::ports::hooks::Moment;
use handover_engine::report::{Back, Change, Cutover, Terms};
use handover_engine::time::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::world::{Port, World, tree};
use super::{migration, ports};

/// A migration that has taken over; of files that do not come home.
fn taken_over(phase: Phase, task: Option<Task>, back: Back) -> Migration {
    let mut migration = migration();
    (migration.plan.options.follow, migration.plan.options.one_way) = (true, true);
    migration.plan.steps.retain(|step| step.step == StepKind::Copy(tree()));
    migration.state = State { phase, task, condition: Condition::Good };
    let live_at = Some(Timestamp::from_millis(1_800_000_000_000));
    migration.outcome.cutover = Some(Cutover { committed: true, live_at, back, ..Cutover::default() });
    migration
}

/// A host on which nothing goes wrong.
fn quiet() -> Port {
    let mut world = World::new(1);
    world.quiet = true;
    Port { world: Arc::new(Mutex::new(world)), crashed: Arc::default(), life: 0 }
}

/// Drives a migration until it has ended.
async fn drive(
    port: &Port,
    migration: &Migration,
    own: Option<Changeover>,
) -> (JoinHandle<Result<()>>, Handle) {
    port.create(migration).await.unwrap();
    let mut ports = ports(port);
    if let Some(own) = own {
        ports.here = ports.here.with_changeover(own);
    }
    let stop = CancellationToken::new();
    let (driver, handle) = Driver::new(ports, Settings::default(), migration.clone(), 0, stop);
    (tokio::spawn(driver.run()), handle)
}

async fn ask(handle: &Handle, operation: Operation) -> Result<State> {
    handle.ask(operation, Terms::default(), "operator").await
}

async fn reach(handle: &Handle, phase: Phase) {
    let mut status = handle.status();
    let there = status.wait_for(|now| now.state.phase == phase && now.state.task.is_none());
    there.await.expect("it gets there");
}

/// How often each host was told of a moment: the source and the target.
fn told(port: &Port, wanted: Moment) -> (usize, usize) {
    port.with(|world| {
        let of = |side: bool| world.moments.iter().filter(|told| **told == (side, wanted)).count();
        (of(true), of(false))
    })
}

#[tokio::test(start_paused = true)]
async fn what_the_target_alone_has_is_left_there_when_asked() {
    const NOT_FOLLOWED: &str = "the target has taken over, and the source does not follow it: what was written there since \
                                2027-01-15T08:00:00Z would not be at the source";
    const NO_MORE: &str = "the target was accepted, and the source follows it no more: what was written there since would not be at the source";
    for (phase, task, back, what, keep) in [
        (Phase::Trial, None, Back::Not, NOT_FOLLOWED, "accept"),
        (Phase::Accepted, None, Back::Not, NOT_FOLLOWED, "finalize"),
        (Phase::Accepted, None, Back::Ended, NO_MORE, "finalize"),
    ] {
        let port = quiet();
        let (driver, handle) = drive(&port, &taken_over(phase, task, back), None).await;
        let refused = ask(&handle, Operation::Abort).await.unwrap_err();
        assert_eq!((refused.item.as_str(), refused.what.as_str()), ("migration m1", what));
        let hint =
            format!("`handover {keep}` keeps it; `handover abort --discard` leaves it in what is kept aside");
        assert_eq!(refused.hint, hint);
        assert_eq!(handle.status().borrow().state.phase, phase, "something was begun");

        let terms = Terms { discard: true, ..Terms::default() };
        assert_eq!(handle.ask(Operation::Abort, terms, "operator").await.unwrap().phase, Phase::Aborting);
        driver.await.unwrap().unwrap();
        assert_eq!(handle.status().borrow().state.phase, Phase::Aborted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_home_keeps_an_abort_from_beginning() {
    let altered = Failure::operator("table t", "its definition was changed").hint("start again");
    let mut migration = taken_over(Phase::Trial, Some(Task::FollowBack), Back::Following);
    migration.state.condition = Condition::Failed(altered);
    let (driver, handle) = drive(&quiet(), &migration, None).await;
    let refused = ask(&handle, Operation::Abort).await.unwrap_err();
    let what = "the source has stopped following the target (table t: its definition was changed): what was written there since \
                would not be at the source";
    assert_eq!(refused.what, what);
    for part in ["handover accept", "handover abort --discard", "handover resume"] {
        assert!(refused.hint.contains(part), "{refused}");
    }
    assert_eq!(handle.status().borrow().state, migration.state, "something was begun");
    let terms = Terms { discard: true, ..Terms::default() };
    handle.ask(Operation::Abort, terms, "operator").await.unwrap();
    driver.await.unwrap().unwrap();
    assert_eq!(handle.status().borrow().state.phase, Phase::Aborted);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_home_does_not_either_once_it_is_accepted() {
    let altered = Failure::operator("table t", "its definition was changed");
    let mut migration = taken_over(Phase::Trial, Some(Task::FollowBack), Back::Following);
    migration.state.condition = Condition::Failed(altered);
    let port = quiet();
    let (driver, handle) = drive(&port, &migration, None).await;
    ask(&handle, Operation::Accept).await.unwrap();
    // However soon somebody asks, or the agent ends.
    let journaled = port.with(|world| world.books.migration.clone().unwrap());
    assert_eq!(
        (journaled.state.phase, journaled.outcome.cutover.unwrap().back),
        (Phase::Accepted, Back::Ended)
    );
    let refused = ask(&handle, Operation::Abort).await.unwrap_err();
    assert!(
        refused.what.starts_with("the target was accepted, and the source follows it no more"),
        "{refused}"
    );
    ask(&handle, Operation::Finalize).await.unwrap();
    driver.await.unwrap().unwrap();
    assert_eq!(handle.status().borrow().state.phase, Phase::Finalized);
}

#[tokio::test(start_paused = true)]
async fn an_abort_that_goes_on_or_loses_nothing_is_not_refused() {
    let mut begun = taken_over(Phase::Aborting, Some(Task::Undo), Back::Ended);
    begun.state.condition = Condition::Paused;
    let mut unpublished = taken_over(Phase::CuttingOver, Some(Task::CutOver), Back::Not);
    unpublished.state.condition = Condition::Paused;
    unpublished.outcome.cutover = Some(Cutover::default());
    // A host that was away may be there again.
    let mut unreachable = taken_over(Phase::Trial, Some(Task::FollowBack), Back::Following);
    unreachable.state.condition = Condition::Failed(Failure::transient("the source", "is away"));
    for migration in [begun, unpublished, unreachable, taken_over(Phase::Trial, None, Back::Following)] {
        let (driver, handle) = drive(&quiet(), &migration, None).await;
        ask(&handle, Operation::Abort).await.unwrap();
        driver.await.unwrap().unwrap();
        assert_eq!(handle.status().borrow().state.phase, Phase::Aborted);
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_are_told_of_the_acceptance_however_soon_it_is_finalized() {
    // One after the other: once.
    let port = quiet();
    let (driver, handle) = drive(&port, &taken_over(Phase::Trial, None, Back::Not), None).await;
    ask(&handle, Operation::Accept).await.unwrap();
    reach(&handle, Phase::Accepted).await;
    ask(&handle, Operation::Finalize).await.unwrap();
    driver.await.unwrap().unwrap();
    assert_eq!((told(&port, Moment::AfterAccept), told(&port, Moment::AfterFinalize)), ((1, 1), (1, 1)));

    // Before they were told, and between the two hosts.
    let port = quiet();
    let (driver, handle) = drive(&port, &taken_over(Phase::Trial, None, Back::Not), None).await;
    ask(&handle, Operation::Accept).await.unwrap();
    ask(&handle, Operation::Finalize).await.unwrap();
    driver.await.unwrap().unwrap();
    let (source, target) = told(&port, Moment::AfterAccept);
    assert!(source >= 1 && target >= 1, "they were not told: {source}, {target}");
    assert_eq!(port.with(|world| world.moments.last().copied()), Some((false, Moment::AfterFinalize)));

    // Taken up again by another agent.
    let port = quiet();
    let mut finalizing = taken_over(Phase::Accepted, Some(Task::Finalize), Back::Ended);
    let (driver, _handle) = drive(&port, &finalizing, None).await;
    driver.await.unwrap().unwrap();
    assert_eq!(told(&port, Moment::AfterAccept), (1, 1));
    finalizing.steps_done = vec!["hooks:after-accept".to_owned()];
    let port = quiet();
    let (driver, _handle) = drive(&port, &finalizing, None).await;
    driver.await.unwrap().unwrap();
    assert_eq!(told(&port, Moment::AfterAccept), (0, 0), "they were told twice");
}

/// Services that note what is forgotten of them.
#[derive(Default)]
struct Forgetful(Mutex<u32>);

#[async_trait]
impl Services for Forgetful {
    async fn forget(&self, _: &MigrationId) -> Result<()> {
        *self.0.lock().unwrap() += 1;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn services_that_were_started_alone_are_forgotten_too() {
    let mut migration = taken_over(Phase::Accepted, None, Back::Ended);
    let serve = PlannedStep { step: StepKind::Serve, ..migration.plan.steps[0].clone() };
    migration.plan.steps.push(serve);
    let services = Arc::new(Forgetful::default());
    let own = Changeover { services: services.clone(), ..Changeover::default() };
    let (driver, handle) = drive(&quiet(), &migration, Some(own)).await;
    ask(&handle, Operation::Finalize).await.unwrap();
    driver.await.unwrap().unwrap();
    assert_eq!(*services.0.lock().unwrap(), 1, "their record is left");
}

/// A source that does not answer any more.
#[derive(Default)]
struct Away(Mutex<u32>);

#[async_trait]
impl Services for Away {
    async fn put_back(&self, _: &MigrationId) -> Result<()> {
        *self.0.lock().unwrap() += 1;
        Err(Failure::transient("source", "it does not answer"))
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_whose_source_is_gone_is_tried_for_so_long_and_left_to_the_operator() {
    let mut migration = taken_over(Phase::Aborting, Some(Task::Undo), Back::Ended);
    let maintain = PlannedStep { step: StepKind::Maintain, ..migration.plan.steps[0].clone() };
    migration.plan.steps.push(maintain);
    let (port, services) = (quiet(), Arc::new(Away::default()));
    port.create(&migration).await.unwrap();
    let mut ports = ports(&port);
    let there = Changeover { services: services.clone(), ..Changeover::default() };
    ports.source = ports.source.with_changeover(there);
    let stop = CancellationToken::new();
    let settings = Settings { patience: Duration::from_secs(60), ..Settings::default() };
    let (driver, handle) = Driver::new(ports, settings, migration, 0, stop.clone());
    let (driver, began) = (tokio::spawn(driver.run()), Instant::now());
    let mut status = handle.status();
    let failed = status.wait_for(|status| matches!(status.state.condition, Condition::Failed(_)));
    assert_eq!(failed.await.unwrap().state.phase, Phase::Aborting);
    assert!(began.elapsed() < Duration::from_secs(90), "it took {:?}", began.elapsed());
    let tries = *services.0.lock().unwrap();
    assert!((10..40).contains(&tries), "{tries} tries");
    stop.cancel();
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_no_trial_is_told_as_of_its_start() {
    let mut migration = taken_over(Phase::Trial, None, Back::Not);
    let serve = PlannedStep { step: StepKind::Serve, ..migration.plan.steps[0].clone() };
    migration.plan.steps.push(serve);
    for (unit, trial) in [("web", ""), ("mail", "stopped")] {
        migration.plan.target.structure.insert(format!("service {unit}"), trial.to_owned());
    }
    let at = Timestamp::from_millis(5);
    let started = |unit: &str, what: &str| Change {
        step: "serve".to_owned(),
        host: Some(Host::Target),
        item: format!("service {unit}"),
        what: what.to_owned(),
        facts: Default::default(),
        at,
        undone_at: None,
    };
    migration.outcome.changed = vec![started("web", "started"), started("mail", "left stopped on trial")];
    let port = quiet();
    let (driver, handle) = drive(&port, &migration, None).await;
    ask(&handle, Operation::Accept).await.unwrap();
    reach(&handle, Phase::Accepted).await;
    let changed = port.with(|world| world.books.migration.clone().unwrap()).outcome.changed;
    let [web, mail] = &changed[..] else { panic!("{changed:?}") };
    assert_eq!(*web, started("web", "started"));
    assert_eq!(mail.what, "left stopped on trial until the target was accepted");
    assert!(mail.at > at, "{mail:?}");
    ask(&handle, Operation::Finalize).await.unwrap();
    driver.await.unwrap().unwrap();
}

/// A host whose settings were swapped, with a database that is down for a while.
struct Swapped {
    name: &'static str,
    log: Arc<Mutex<Vec<String>>>,
    standing: Mutex<SwapStanding>,
    down_for: Mutex<u32>,
}

impl Swapped {
    fn host(name: &'static str, log: &Arc<Mutex<Vec<String>>>, standing: SwapStanding) -> Changeover {
        let (standing, down_for) = (Mutex::new(standing), Mutex::new(3));
        let host = Arc::new(Self { name, log: log.clone(), standing, down_for });
        Changeover { swap: host.clone(), settings: host, ..Changeover::default() }
    }

    fn say(&self, what: &str) {
        self.log.lock().unwrap().push(format!("{} {what}", self.name));
    }
}

#[async_trait]
impl Swap for Swapped {
    async fn standing(&self, _: &MigrationId) -> Result<SwapStanding> {
        Ok(*self.standing.lock().unwrap())
    }

    async fn roll_back(&self, _: &MigrationId) -> Result<()> {
        *self.standing.lock().unwrap() = SwapStanding::RolledBack;
        self.say("files");
        Ok(())
    }
}

#[async_trait]
impl HostSettings for Swapped {
    async fn restore(&self, _: &MigrationId) -> Result<()> {
        let mut down_for = self.down_for.lock().unwrap();
        if *down_for > 0 {
            *down_for -= 1;
            return Err(Failure::transient("database shop", "the server does not answer"));
        }
        self.say("rows");
        Ok(())
    }

    async fn forget(&self, _: &MigrationId) -> Result<()> {
        self.say("forgotten");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn both_hosts_are_themselves_before_their_databases_are_asked() {
    // The source has noted it already, when the agent was cut short.
    let mut migration = taken_over(Phase::Aborting, Some(Task::Undo), Back::Ended);
    for step in [StepKind::Stage, StepKind::Configure, StepKind::Reboot] {
        let step = PlannedStep { step, ..migration.plan.steps[0].clone() };
        migration.plan.steps.push(step);
    }
    let log = Arc::default();
    let port = quiet();
    port.create(&migration).await.unwrap();
    let mut ports = ports(&port);
    ports.source = ports.source.with_changeover(Swapped::host("source", &log, SwapStanding::RolledBack));
    ports.here = ports.here.with_changeover(Swapped::host("target", &log, SwapStanding::Confirmed));
    let (driver, _handle) = Driver::new(ports, Settings::default(), migration, 0, CancellationToken::new());
    driver.run().await.unwrap();
    let expected = ["target files", "source rows", "target rows", "source forgotten", "target forgotten"];
    assert_eq!(*log.lock().unwrap(), expected);
}
