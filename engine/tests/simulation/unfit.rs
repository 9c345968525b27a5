//! Copies that are not fit to take their source's place: a cut-over does not begin, or is called off, and says why.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::driver::{Driver, Handle, Settings, Status};
use handover_engine::failure::Failure;
use handover_engine::journal::{Event, Journal, Logged, Migration};
use handover_engine::name::{CaptureId, DatasetName, MigrationId};
use handover_engine::phase::{Condition, Operation, Phase, State, Task};
use handover_engine::plan::{PlannedStep, StepKind};
use handover_engine::ports::hooks::Moment;
use handover_engine::ports::{
    Answers, Backlog, ChangeSource, ChangesRequest, Direction, KeysRequest, Result, Spool, SpoolMark, Spools,
    Window,
};
use handover_engine::report::{Terms, Verified, When};
use handover_engine::rows::{RowsChunk, TableName};
use handover_engine::time::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use super::world::{Port, World, dataset};
use super::{migration, ports};

/// A source's log in which nothing is written, unless it is said otherwise.
#[derive(Default)]
struct Log {
    /// Its end is far off.
    is_long: AtomicBool,
    /// It applies what another sends, which no fence stops.
    is_replica: AtomicBool,
    /// Something passes the fence once the target is about to be put in place.
    passes: Mutex<Option<Port>>,
}

impl Log {
    fn passed(&self) -> bool {
        let told = |world: &mut World| world.moments.contains(&(false, Moment::BeforePublish));
        self.passes.lock().unwrap().as_ref().is_some_and(|port| port.with(told))
    }
}

fn start() -> LogPosition {
    LogPosition("start".to_owned())
}

#[async_trait]
impl ChangeSource for Log {
    async fn begin(&self, _: &DatasetName, _: &CaptureId) -> Result<LogPosition> {
        Ok(start())
    }

    async fn changes(&self, request: ChangesRequest) -> Result<Changes> {
        tokio::time::sleep(request.wait.max(Duration::from_millis(1))).await;
        let (mut tables, mut changes) = (Vec::new(), Vec::new());
        if self.passed() {
            tables.push(TableName::plain("t"));
            changes.push(Change::Cleared { table: 0 });
        }
        let is_end = !self.is_long.load(Ordering::Relaxed);
        Ok(Changes { tables, changes, until: start(), at: Timestamp::default(), is_end })
    }

    async fn confirm(&self, _: &DatasetName, _: &CaptureId, _: &LogPosition) -> Result<()> {
        Ok(())
    }

    async fn end(&self, _: &DatasetName, _: &CaptureId, _: bool) -> Result<()> {
        Ok(())
    }

    async fn keys(&self, _: KeysRequest) -> Result<Answers<RowsChunk>> {
        Err(Failure::permanent("source", "nothing has changed"))
    }

    async fn fence(&self, _: &DatasetName, _: &CaptureId, _: Duration) -> Result<()> {
        Ok(())
    }

    async fn may_fence(&self, dataset: &DatasetName) -> Result<()> {
        if self.is_replica.load(Ordering::Relaxed) {
            return Err(Failure::operator(format!("dataset {dataset}"), "it is a replica").hint("stop it"));
        }
        Ok(())
    }

    async fn unfence(&self, _: &DatasetName, _: &CaptureId) -> Result<()> {
        Ok(())
    }
}

/// A spool in which something has waited for so long.
#[derive(Default)]
struct Waiting {
    position: Mutex<Option<LogPosition>>,
    lag_ms: AtomicI64,
    changes: AtomicU64,
}

#[async_trait]
impl Spool for Waiting {
    async fn position(&self) -> Result<Option<LogPosition>> {
        Ok(self.position.lock().unwrap().clone())
    }

    async fn begin(&self, at: &LogPosition) -> Result<()> {
        *self.position.lock().unwrap() = Some(at.clone());
        Ok(())
    }

    async fn append(&self, part: &Changes) -> Result<()> {
        self.changes.fetch_add(part.changes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn oldest(&self, _: usize) -> Result<Option<Window>> {
        Ok(None)
    }

    async fn done(&self, _: SpoolMark) -> Result<()> {
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        let lag_ms = self.lag_ms.load(Ordering::Relaxed);
        let known_at = Timestamp::from_millis(lag_ms);
        let changes = self.changes.load(Ordering::Relaxed) + u64::from(lag_ms > 0);
        Backlog { changes, known_at, ..Backlog::default() }
    }

    fn end(&self) -> SpoolMark {
        SpoolMark::default()
    }

    async fn remove(&self) -> Result<()> {
        Ok(())
    }
}

struct Only(Arc<Waiting>);

#[async_trait]
impl Spools for Only {
    async fn spool(&self, _: &MigrationId, _: &DatasetName, _: Direction) -> Result<Arc<dyn Spool>> {
        Ok(self.0.clone())
    }
}

/// A migration of one database, which is driven.
struct Bed {
    port: Port,
    spool: Arc<Waiting>,
    log: Arc<Log>,
    handle: Handle,
    _stop: tokio_util::sync::DropGuard,
}

impl Bed {
    async fn of(migration: Migration, log: Log) -> Self {
        let mut world = World::new(1);
        world.quiet = true;
        let rows = (1..40).map(|key| (key, format!("row {key}"))).collect();
        world.source.rows.insert(dataset("db"), [(TableName::plain("t"), rows)].into());
        let port = Port { world: Arc::new(Mutex::new(world)), crashed: Arc::default(), life: 0 };
        port.create(&migration).await.unwrap();
        let (mut ports, spool, log) = (ports(&port), Arc::new(Waiting::default()), Arc::new(log));
        ports.source.changes = log.clone();
        ports.spools = Arc::new(Only(spool.clone()));
        let stop = CancellationToken::new();
        let (driver, handle) = Driver::new(ports, Settings::default(), migration, 0, stop.clone());
        tokio::spawn(driver.run());
        Self { port, spool, log, handle, _stop: stop.drop_guard() }
    }

    /// One whose database is copied and followed. None of its tables can be followed by key.
    async fn following() -> Self {
        Self::following_as(Log::default()).await
    }

    /// The same, of a source with this log.
    async fn following_as(log: Log) -> Self {
        let (db, mut migration) = (dataset("db"), migration());
        migration.plan.options.follow = true;
        let step = |step| PlannedStep { step, ..migration.plan.steps[0].clone() };
        let kinds = [
            StepKind::Prepare,
            StepKind::Capture(db.clone()),
            StepKind::Copy(db.clone()),
            StepKind::Verify(db.clone()),
            StepKind::Fence,
            StepKind::CatchUp(db.clone()),
            StepKind::Finish(db),
            StepKind::Publish,
        ];
        migration.plan.steps = kinds.into_iter().map(step).collect();
        let bed = Self::of(migration, log).await;
        bed.until(|status| !status.following.is_empty()).await;
        bed
    }

    async fn until(&self, is_so: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.handle.status();
        let seen = status.wait_for(|now| {
            assert_eq!(now.state.condition, Condition::Good, "{:?}", now.state);
            is_so(now)
        });
        seen.await.expect("it is driven").clone()
    }

    async fn ask(&self, when: When, max_lag_ms: u64) -> Result<State> {
        let terms = Terms { when, max_lag_ms, ..Terms::default() };
        self.handle.ask(Operation::Cutover, terms, "operator").await
    }

    /// What a cut-over comes to, and what was noted of it.
    async fn cut_over(&self, when: When, max_lag_ms: u64) -> (Status, String) {
        self.ask(when, max_lag_ms).await.unwrap();
        let status = self.until(|status| status.state.phase != Phase::CuttingOver).await;
        (status, self.notes().pop().unwrap_or_default())
    }

    /// All that was noted of cut-overs.
    fn notes(&self) -> Vec<String> {
        let note = |logged: &Logged| match &logged.event {
            Event::Note { item, text } if item == "cutover" => Some(text.clone()),
            _ => None,
        };
        self.port.with(|world| world.books.events.iter().filter_map(note).collect())
    }
}

const LAG: u64 = 5_000;

#[tokio::test(start_paused = true)]
async fn tables_that_are_copied_again_are_read_again() {
    let bed = Bed::following().await;
    // The source has not changed, so that nothing is sent again.
    bed.port.with(|world| {
        let base = world.target.bases.get_mut(&dataset("db")).unwrap().building.as_mut().unwrap();
        base.rows.get_mut(&TableName::plain("t")).unwrap().pop_first();
    });
    let (status, note) = bed.cut_over(When::Now, LAG).await;
    assert_eq!(status.state.phase, Phase::Following, "{note}");
    let parts =
        ["called off", "copied again behind the fence", "table t, keys", "its rows are not the source's"];
    assert!(parts.iter().all(|part| note.contains(part)), "{note}");
    // What differs is copied anew.
    let (status, note) = bed.cut_over(When::Now, LAG).await;
    assert_eq!(status.state.phase, Phase::Trial, "{note}");
    bed.port.with(|world| {
        let published = world.target.bases[&dataset("db")].published.clone().unwrap();
        assert_eq!(published.rows, world.source.rows[&dataset("db")]);
    });
}

#[tokio::test(start_paused = true)]
async fn another_schema_is_named_before_the_fence() {
    let bed = Bed::following().await;
    bed.port.with(|world| world.source.schema_version = 2);
    for when in [When::DryRun, When::Now] {
        let (status, note) = bed.cut_over(when, LAG).await;
        let cutover = status.cutover.unwrap();
        assert_eq!((status.state.phase, cutover.fenced_at), (Phase::Following, None), "{note}");
        assert!(note.contains("changed since it was copied: index i1 is gone; index i2 is new"), "{note}");
    }
    bed.port.with(|world| world.source.schema_version = 1);
    let (status, note) = bed.cut_over(When::DryRun, LAG).await;
    assert!(status.cutover.unwrap().predicted_ms > 0 && note.starts_with("a dry run"), "{note}");
    assert_eq!(bed.cut_over(When::Now, LAG).await.0.state.phase, Phase::Trial);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_would_not_come_up_is_told_of_before() {
    let bed = Bed::following_as(Log { is_replica: true.into(), ..Log::default() }).await;
    let (status, note) = bed.cut_over(When::DryRun, LAG).await;
    assert!(status.cutover.unwrap().predicted_ms > 0 && note.starts_with("a dry run"), "{note}");
    let told = "no fence can be put up as it is now, unless a hook at before-fence sees to it: dataset db: it is a replica";
    assert!(bed.notes().iter().any(|note| note.starts_with(told)), "{:?}", bed.notes());
    let (status, note) = bed.cut_over(When::Now, LAG).await;
    assert_eq!((status.state.phase, status.cutover.unwrap().fenced_at), (Phase::Following, None), "{note}");
    let parts = ["called off", "dataset db", "it is a replica", "stop it"];
    assert!(parts.iter().all(|part| note.contains(part)), "{note}");
    bed.port.with(|world| assert!(world.moments.contains(&(false, Moment::CalledOff))));
    bed.log.is_replica.store(false, Ordering::Relaxed);
    assert_eq!(bed.cut_over(When::Now, LAG).await.0.state.phase, Phase::Trial);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_behind_catches_up_first() {
    let bed = Bed::following().await;
    let (status, note) = bed.cut_over(When::Now, 0).await;
    assert!(status.state.phase == Phase::Following && note.contains("too far behind"), "{note}");
    bed.spool.lag_ms.store(3_000, Ordering::Relaxed);
    let lag = |status: &Status| status.following.get(&dataset("db")).map(|figures| figures.lag_ms);
    bed.until(|status| lag(status) == Some(3_000)).await;
    for when in [When::DryRun, When::Now] {
        let refused = bed.ask(when, 1_000).await.unwrap_err();
        assert_eq!(refused.what, "it is 3000 ms behind, and a cut-over takes 1000 ms");
        assert!(refused.hint.contains("--max-lag"), "{refused}");
    }
    // One that is planned waits for that.
    let at = Timestamp::from_millis(bed.port.now().millis() + 100);
    bed.ask(When::At(at), 1_000).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bed.port.now() > at, "its time has not come");
    let status = bed.until(|_| true).await;
    assert!(status.state.phase == Phase::Following && status.planned.is_some(), "{status:?}");
    bed.spool.lag_ms.store(0, Ordering::Relaxed);
    bed.until(|status| status.state.phase == Phase::Trial).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_which_that_is_not_known_does_not_take_over() {
    let bed = Bed::following_as(Log { is_long: true.into(), ..Log::default() }).await;
    for when in [When::DryRun, When::Now] {
        let refused = bed.ask(when, LAG).await.unwrap_err();
        assert_eq!(refused.item, "dataset db");
        assert!(refused.what.starts_with("how far it is behind is not known yet"), "{refused}");
    }
    // One that is planned waits for that.
    let at = Timestamp::from_millis(bed.port.now().millis() + 100);
    bed.ask(When::At(at), LAG).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bed.port.now() > at, "its time has not come");
    let status = bed.until(|_| true).await;
    assert!(status.state.phase == Phase::Following && status.planned.is_some(), "{status:?}");
    assert!(!status.following[&dataset("db")].known, "{status:?}");
    bed.log.is_long.store(false, Ordering::Relaxed);
    bed.until(|status| status.state.phase == Phase::Trial).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_over_that_is_asked_for_too_early_waits_a_moment() {
    let bed = Bed::following_as(Log { is_long: true.into(), ..Log::default() }).await;
    let later = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        bed.log.is_long.store(false, Ordering::Relaxed);
    };
    let ((status, note), ()) = tokio::join!(bed.cut_over(When::Now, LAG), later);
    assert_eq!(status.state.phase, Phase::Trial, "{note}");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_looked_at_once_all_else_is_done_behind_the_fence() {
    let bed = Bed::following().await;
    *bed.log.passes.lock().unwrap() = Some(bed.port.clone());
    let (status, note) = bed.cut_over(When::Now, LAG).await;
    assert_eq!(status.state.phase, Phase::Following, "{note}");
    let parts = ["called off", "dataset db, table t", "its rows have changed behind the fence"];
    assert!(parts.iter().all(|part| note.contains(part)), "{note}");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_differ_is_put_right_first() {
    let mut different = migration();
    different.plan.options.follow = true;
    different.plan.steps.clear();
    let task = Some(Task::Follow);
    different.state = State { phase: Phase::Following, task, condition: Condition::Good };
    let verified = Verified { differences: 3, ..Verified::default() };
    different.outcome.verify(dataset("db"), 1, verified, Vec::new());
    let bed = Bed::of(different, Log::default()).await;
    let later = Timestamp::from_millis(bed.port.now().millis() + 1_000_000);
    for when in [When::Now, When::DryRun, When::At(later)] {
        let refused = bed.ask(when, LAG).await.unwrap_err();
        assert_eq!(refused.what, "verification found 3 differences, which were not put right");
        assert!(refused.hint.contains("`handover verify --repair`"), "{refused}");
    }
    let status = bed.until(|_| true).await;
    assert_eq!((status.state.phase, status.planned, status.cutover), (Phase::Following, None, None));
}
