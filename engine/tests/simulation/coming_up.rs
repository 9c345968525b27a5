//! The target has taken over and does not come up: that is left to the operator, or everything is undone, as the plan says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::changeover::{CertificateAction, CertificateFacts, CertificateMaterial};
use handover_engine::driver::{Driver, Handle, Settings, Status};
use handover_engine::failure::{Class, Failure};
use handover_engine::journal::{Event, Journal, Migration};
use handover_engine::name::MigrationId;
use handover_engine::phase::{Condition, Operation, Phase, State, Task};
use handover_engine::plan::{OnFailure, StepKind};
use handover_engine::ports::Result;
use handover_engine::ports::changeover::{Certificates, Changeover, Label, Services};
use handover_engine::report::{Cutover, Report, Terms};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::{Port, World};
use super::{migration, ports};

/// What the host that comes up was asked for, in this order.
const COMES_UP: [&str; 4] = ["install", "show", "start", "prove"];
/// What goes back on it.
const GOES_BACK: [&str; 4] = ["stop", "take away", "restore", "put back"];

/// A host that does not do all that it is asked for.
#[derive(Default)]
struct Host {
    asked: Mutex<Vec<&'static str>>,
    /// What fails, and how.
    fails: Mutex<BTreeMap<&'static str, Failure>>,
    /// What is begun and not done.
    hangs: Mutex<Option<&'static str>>,
}

impl Host {
    async fn act(&self, what: &'static str) -> Result<()> {
        self.asked.lock().unwrap().push(what);
        let hangs = *self.hangs.lock().unwrap() == Some(what);
        if hangs {
            std::future::pending::<()>().await;
        }
        self.fails.lock().unwrap().get(what).map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn fails(&self, what: &'static str, failure: &Failure) {
        self.fails.lock().unwrap().insert(what, failure.clone());
    }

    fn mend(&self) {
        self.fails.lock().unwrap().clear();
        *self.hangs.lock().unwrap() = None;
    }
}

#[async_trait]
impl Services for Host {
    async fn stop(&self, _: &MigrationId, _: Option<Duration>) -> Result<()> {
        self.act("stop").await
    }

    async fn start(&self, _: &MigrationId) -> Result<()> {
        self.act("start").await
    }

    async fn put_back(&self, _: &MigrationId) -> Result<()> {
        self.act("put back").await
    }
}

#[async_trait]
impl Certificates for Host {
    async fn facts(&self) -> Result<Vec<CertificateFacts>> {
        let (name, action) = ("www".to_owned(), CertificateAction::Copy);
        let names = vec!["www.example".to_owned()];
        Ok(vec![CertificateFacts { name, action, names, fingerprint: None, expires: None, problem: None }])
    }

    async fn install(&self, _: &MigrationId, _: &[CertificateMaterial]) -> Result<()> {
        self.act("install").await
    }

    async fn prove(&self, _: &MigrationId) -> Result<()> {
        self.act("prove").await
    }

    async fn restore(&self, _: &MigrationId) -> Result<()> {
        self.act("restore").await
    }
}

#[async_trait]
impl Label for Host {
    async fn show(&self, _: &MigrationId) -> Result<()> {
        self.act("show").await
    }

    async fn is_known(&self, _: &MigrationId) -> Result<bool> {
        Ok(true)
    }

    async fn take_away(&self, _: &MigrationId) -> Result<()> {
        self.act("take away").await
    }
}

/// A cut-over whose target has taken over, and is about to come up.
struct Cutting {
    port: Port,
    host: Arc<Host>,
    stop: CancellationToken,
}

impl Cutting {
    async fn over(on_failure: OnFailure) -> Self {
        let mut world = World::new(1);
        world.quiet = true;
        let port = Port { world: Arc::new(Mutex::new(world)), crashed: Arc::default(), life: 0 };
        let mut migration = migration();
        (migration.plan.options.follow, migration.plan.options.on_failure) = (true, on_failure);
        migration.plan.steps.truncate(4);
        let kinds = [StepKind::Maintain, StepKind::Certify, StepKind::Label, StepKind::Serve];
        for (step, kind) in migration.plan.steps.iter_mut().zip(kinds) {
            step.step = kind;
        }
        let task = Some(Task::CutOver);
        migration.state = State { phase: Phase::CuttingOver, task, condition: Condition::Good };
        migration.outcome.cutover = Some(Cutover { committed: true, ..Cutover::default() });
        port.create(&migration).await.unwrap();
        Self { port, host: Arc::default(), stop: CancellationToken::new() }
    }

    fn journaled(&self) -> Migration {
        self.port.with(|world| world.books.migration.clone().unwrap())
    }

    /// An agent takes it up.
    fn drive(&mut self) -> (JoinHandle<Result<()>>, Handle) {
        self.stop = CancellationToken::new();
        let mut ports = ports(&self.port);
        let (services, certificates, label) = (self.host.clone(), self.host.clone(), self.host.clone());
        let own = Changeover { services, certificates, label, ..Changeover::default() };
        ports.here = ports.here.with_changeover(own);
        let last = self.port.with(|world| world.books.events.len() as u64);
        let settings = Settings { patience: Duration::from_secs(60), ..Settings::default() };
        let (driver, handle) = Driver::new(ports, settings, self.journaled(), last, self.stop.clone());
        (tokio::spawn(driver.run()), handle)
    }

    /// Whether the report tells of a certificate that was put in place, and whether that it was taken back.
    fn certified(&self) -> Option<bool> {
        let changed = self.journaled().outcome.changed;
        let certificate = changed.iter().find(|change| change.item == "certificate www");
        certificate.map(|change| change.undone_at.is_some())
    }

    fn notes(&self) -> Vec<String> {
        let note = |event: &Event| match event {
            Event::Note { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.port.with(|world| world.books.events.iter().filter_map(|logged| note(&logged.event)).collect())
    }
}

async fn reach(handle: &Handle, there: impl FnMut(&Status) -> bool) -> Status {
    handle.status().wait_for(there).await.expect("it gets there").clone()
}

fn is_failed(status: &Status) -> bool {
    matches!(status.state.condition, Condition::Failed(_))
}

async fn resume(handle: &Handle) {
    handle.ask(Operation::Resume, Terms::default(), "operator").await.unwrap();
}

/// As a service is told of that does not come up.
fn down() -> Failure {
    Failure::operator("service web.service", "it did not come up:\n    web: no such drive").hint("look at it")
}

/// The same where nobody can resume any more.
fn given_up() -> Failure {
    down().hint("put it right, then plan and start again")
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_up_is_left_to_the_operator() {
    for (at, what) in COMES_UP.into_iter().enumerate().take(3) {
        let mut cutting = Cutting::over(OnFailure::Stop).await;
        cutting.host.fails(what, &down());
        let (driver, handle) = cutting.drive();
        let status = reach(&handle, is_failed).await;
        assert_eq!(status.state.condition, Condition::Failed(down()));
        assert_eq!((status.state.phase, &status.undone_because), (Phase::CuttingOver, &None));
        assert_eq!(cutting.host.asked(), COMES_UP[..=at]);
        cutting.host.mend();
        resume(&handle).await;
        reach(&handle, |status| status.state.phase == Phase::Trial).await;
        assert_eq!(cutting.host.asked(), COMES_UP[at..]);
        cutting.stop.cancel();
        driver.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_up_is_undone_where_the_plan_says_so() {
    for (at, what) in COMES_UP.into_iter().enumerate() {
        let mut cutting = Cutting::over(OnFailure::Undo).await;
        cutting.host.fails(what, &down());
        let (driver, handle) = cutting.drive();
        driver.await.unwrap().unwrap();
        let status = handle.status().borrow().clone();
        let aborted = State { phase: Phase::Aborted, task: None, condition: Condition::Good };
        assert_eq!((&status.state, &status.undone_because), (&aborted, &Some(given_up())));
        let asked: Vec<_> = COMES_UP[..=at].iter().chain(&GOES_BACK).copied().collect();
        assert_eq!(cutting.host.asked(), asked);
        let kept = cutting.journaled();
        assert_eq!(Report::of(&kept, Default::default()).outcome.undone_because, Some(given_up()));
        let told = format!("everything is undone, as the plan says: {}", given_up());
        assert!(cutting.notes().contains(&told), "{:?}", cutting.notes());
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_come_up_by_itself_is_waited_for_first() {
    for what in ["start", "prove"] {
        let mut cutting = Cutting::over(OnFailure::Undo).await;
        cutting.host.fails(what, &Failure::transient("systemd", "the bus is away"));
        let (driver, handle) = cutting.drive();
        driver.await.unwrap().unwrap();
        let because = handle.status().borrow().undone_because.clone().unwrap();
        assert_eq!((because.item.as_str(), because.what.as_str()), ("systemd", "the bus is away"));
        let tries = cutting.host.asked().iter().filter(|asked| **asked == what).count();
        assert!((10..40).contains(&tries), "{what}: {tries} tries");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_go_back_is_tried_for_so_long_and_left_to_the_operator() {
    let mut cutting = Cutting::over(OnFailure::Undo).await;
    cutting.host.fails("start", &down());
    let away = Failure::transient("systemd", "the bus is away");
    cutting.host.fails("restore", &away);
    let (driver, handle) = cutting.drive();
    let status = reach(&handle, is_failed).await;
    assert_eq!((status.state.phase, status.state.condition), (Phase::Aborting, Condition::Failed(away)));
    let tries = cutting.host.asked().iter().filter(|asked| **asked == "restore").count();
    assert!((10..40).contains(&tries), "{tries} tries");
    cutting.host.mend();
    resume(&handle).await;
    driver.await.unwrap().unwrap();
    assert_eq!(handle.status().borrow().state.phase, Phase::Aborted);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_stopped_meanwhile_undoes_nothing() {
    let mut cutting = Cutting::over(OnFailure::Undo).await;
    cutting.host.fails("start", &Failure::transient("systemd", "the bus is away"));
    let (driver, _handle) = cutting.drive();
    tokio::time::sleep(Duration::from_secs(5)).await;
    cutting.stop.cancel();
    driver.await.unwrap().unwrap();
    let kept = cutting.journaled();
    assert_eq!((kept.state.phase, kept.outcome.undone_because), (Phase::CuttingOver, None));
    assert!(!cutting.host.asked().iter().any(|asked| GOES_BACK.contains(asked)));

    // The next one brings it up, or undoes it; cut short in the middle of that, yet another one ends it.
    cutting.host.fails("start", &down());
    *cutting.host.hangs.lock().unwrap() = Some("restore");
    let (driver, handle) = cutting.drive();
    reach(&handle, |status| status.state.phase == Phase::Aborting).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    cutting.host.mend();
    cutting.host.asked();
    let (driver, handle) = cutting.drive();
    driver.await.unwrap().unwrap();
    let status = handle.status().borrow().clone();
    assert_eq!((status.state.phase, status.undone_because), (Phase::Aborted, Some(given_up())));
    assert_eq!(cutting.host.asked().last(), Some(&"put back"));
}

/// As a certificate is told of that is not served.
fn not_served() -> Failure {
    Failure::operator("certificate www", "localhost:443 does not serve what is in place").hint("then resume")
}

/// The same once what was in place before is so again.
fn taken_back(class: Class) -> Failure {
    let what = "localhost:443 does not serve what is in place; what was in place before is so again";
    Failure::new(class, "certificate www", what).hint("then resume")
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_served_is_taken_back_until_it_is_tried_again() {
    let mut cutting = Cutting::over(OnFailure::Stop).await;
    cutting.host.fails("prove", &not_served());
    let (driver, handle) = cutting.drive();
    let failed = Condition::Failed(taken_back(Class::NeedsOperator));
    assert_eq!(reach(&handle, is_failed).await.state.condition, failed);
    assert_eq!(cutting.host.asked(), ["install", "show", "start", "prove", "restore"]);
    assert_eq!(cutting.certified(), Some(true), "the report tells of it as if it was in place");
    // Tried again, it is put in place again, and goes again.
    resume(&handle).await;
    assert_eq!(reach(&handle, is_failed).await.state.condition, failed);
    assert_eq!(cutting.host.asked(), ["install", "start", "prove", "restore"]);
    assert_eq!(cutting.certified(), Some(true));
    cutting.stop.cancel();
    driver.await.unwrap().unwrap();

    cutting.host.mend();
    let (driver, handle) = cutting.drive();
    assert!(is_failed(&handle.status().borrow()), "nobody has asked for another try");
    resume(&handle).await;
    reach(&handle, |status| status.state.phase == Phase::Trial).await;
    assert_eq!(cutting.host.asked(), ["install", "start", "prove"]);
    assert_eq!(cutting.certified(), Some(false), "the report tells of it as if it was taken back");
    cutting.stop.cancel();
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_while_it_takes_a_certificate_back_tries_again() {
    let mut cutting = Cutting::over(OnFailure::Stop).await;
    cutting.host.fails("prove", &not_served());
    *cutting.host.hangs.lock().unwrap() = Some("restore");
    let (driver, _handle) = cutting.drive();
    tokio::time::sleep(Duration::from_secs(5)).await;
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    assert_eq!(cutting.host.asked(), ["install", "show", "start", "prove", "restore"]);
    assert_eq!(cutting.journaled().state.condition, Condition::Good);

    *cutting.host.hangs.lock().unwrap() = None;
    let (driver, handle) = cutting.drive();
    reach(&handle, is_failed).await;
    assert_eq!(cutting.host.asked(), ["install", "start", "prove", "restore"]);
    // What is back already is put back once more by an abort.
    handle.ask(Operation::Abort, Terms::default(), "operator").await.unwrap();
    driver.await.unwrap().unwrap();
    let status = handle.status().borrow().clone();
    assert_eq!((status.state.phase, status.undone_because), (Phase::Aborted, None), "somebody has asked");
    assert_eq!(cutting.host.asked(), GOES_BACK);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_served_by_itself_is_waited_for_and_taken_back() {
    let mut cutting = Cutting::over(OnFailure::Stop).await;
    let mut silent = not_served();
    silent.class = Class::Transient;
    cutting.host.fails("prove", &silent);
    let (driver, handle) = cutting.drive();
    let failed = Condition::Failed(taken_back(Class::NeedsOperator));
    assert_eq!(reach(&handle, is_failed).await.state.condition, failed, "it was tried for long enough");
    let asked = cutting.host.asked();
    let times = |what| asked.iter().filter(|asked| **asked == what).count();
    assert!((10..40).contains(&times("prove")), "{asked:?}");
    assert_eq!((times("start"), times("restore")), (1, 1), "{asked:?}");
    cutting.stop.cancel();
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_back_is_told_beside_the_failure() {
    let mut cutting = Cutting::over(OnFailure::Stop).await;
    cutting.host.fails("prove", &not_served());
    cutting.host.fails("restore", &Failure::operator("web.service", "it does not reload"));
    let (driver, handle) = cutting.drive();
    assert_eq!(reach(&handle, is_failed).await.state.condition, Condition::Failed(not_served()));
    let told = "what was in place before is not all so again: web.service: it does not reload";
    assert!(cutting.notes().iter().any(|note| note == told), "{:?}", cutting.notes());
    cutting.stop.cancel();
    driver.await.unwrap().unwrap();
}
