//! What a source keeps for those who follow it goes when nobody comes for it.

use std::sync::Arc;
use std::time::Duration;

use handover_engine::change::LogPosition;
use handover_engine::failure::Class;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::{ChangeSource, ChangesRequest};
use handover_platform::SystemClock;
use handover_platform::manifest::Manifest;
use handover_platform::source::{CaptureLimits, LocalSource};
use tokio::task::JoinHandle;

use crate::support::Bed;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')";

/// A source agent's life: it is watched until dropped.
struct Life {
    source: Arc<LocalSource>,
    watch: JoinHandle<()>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Life {
    fn begin(bed: &Bed, limits: CaptureLimits) -> Self {
        let file = bed.dir.path().join("appliance.toml");
        let text = format!(
            "[appliance]\nname = \"test\"\n\n[[database]]\nname = \"app\"\nurl = \"sqlite:{}\"\n",
            bed.source_path().display()
        );
        std::fs::write(&file, text).unwrap();
        let manifest = Manifest::read(&file).unwrap();
        let (state, lease) = (bed.dir.path(), Duration::from_secs(60));
        let source =
            LocalSource::new(&manifest, state, lease, limits, Arc::new(SystemClock), Changeover::default())
                .unwrap();
        let watched = source.clone();
        Self { source, watch: tokio::spawn(async move { watched.end_stale_captures().await }) }
    }

    async fn ask(&self, after: &LogPosition) -> handover_engine::ports::Result<LogPosition> {
        let (dataset, capture) = names();
        let request = ChangesRequest { dataset, capture, after: after.clone(), wait: Duration::ZERO };
        self.source.changes(request).await.map(|told| told.until)
    }
}

fn names() -> (DatasetName, CaptureId) {
    ("app".parse().unwrap(), "c1".parse().unwrap())
}

fn limits(idle_ms: u64, bytes: u64) -> CaptureLimits {
    CaptureLimits { idle: Duration::from_millis(idle_ms), bytes }
}

fn traces(bed: &Bed) -> i64 {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%handover%'";
    bed.source_db().query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn gone(bed: &Bed) {
    until(|| traces(bed) == 0).await;
}

async fn until(is_gone: impl Fn() -> bool) {
    for _ in 0..400 {
        if is_gone() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("what was kept is still there");
}

async fn assert_told(life: &Life, after: &LogPosition, why: &str) {
    let failure = life.ask(after).await.unwrap_err();
    let text = failure.to_string();
    assert_eq!(failure.class, Class::NeedsOperator, "{text}");
    assert!(text.contains(why) && text.contains("capture_hours"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asks_for_goes_also_after_a_restart() {
    let bed = Bed::with(TABLE);
    let (dataset, capture) = names();
    let life = Life::begin(&bed, limits(800, u64::MAX));
    let mut after = life.source.begin(&dataset, &capture).await.unwrap();
    // Asked for now and then, it stays.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        after = life.ask(&after).await.unwrap();
    }
    assert!(traces(&bed) > 0);
    drop(life);
    let life = Life::begin(&bed, limits(800, u64::MAX));
    gone(&bed).await;
    assert_told(&life, &after, "nobody has asked for them").await;
    drop(life);
    let life = Life::begin(&bed, limits(800, u64::MAX));
    assert_told(&life, &after, "nobody has asked for them").await;
    // An abort finds nothing, and a new beginning is one.
    life.source.end(&dataset, &capture, false).await.unwrap();
    let after = life.source.begin(&dataset, &capture).await.unwrap();
    life.ask(&after).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_goes() {
    let bed = Bed::with(TABLE);
    let (dataset, capture) = names();
    let life = Life::begin(&bed, limits(4_000, 64 * 50));
    let after = life.source.begin(&dataset, &capture).await.unwrap();
    bed.source_db()
        .execute_batch("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT i + 1, 'x' FROM n")
        .unwrap();
    gone(&bed).await;
    assert_told(&life, &after, "had gathered").await;
    bed.source_db().execute_batch("UPDATE t SET v = 'c'").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_goes_behind_a_fence_too_and_the_fence_stays() {
    let bed = Bed::with(TABLE);
    let (dataset, capture) = names();
    let life = Life::begin(&bed, limits(800, u64::MAX));
    let after = life.source.begin(&dataset, &capture).await.unwrap();
    bed.source_db().execute_batch("UPDATE t SET v = 'b'").unwrap();
    life.source.fence(&dataset, &capture, Duration::from_secs(1)).await.unwrap();
    drop(life);
    let life = Life::begin(&bed, limits(800, u64::MAX));
    let kept = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%handover%' AND name NOT LIKE '%handover\\_fence%' ESCAPE '\\'";
    let rest = || bed.source_db().query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap();
    until(|| rest() == 0).await;
    assert!(bed.source_db().execute_batch("UPDATE t SET v = 'c'").is_err(), "the fence has fallen by itself");
    assert_told(&life, &after, "nobody has asked for them").await;
    // The target comes back, and calls its cut-over off.
    life.source.unfence(&dataset, &capture).await.unwrap();
    bed.source_db().execute_batch("UPDATE t SET v = 'c'").unwrap();
    assert_told(&life, &after, "nobody has asked for them").await;
    life.source.end(&dataset, &capture, false).await.unwrap();
    assert_eq!(traces(&bed), 0);
}

#[tokio::test]
async fn a_file_that_is_none_is_told() {
    let bed = Bed::with(TABLE);
    std::fs::write(bed.dir.path().join("captures.json"), "[{").unwrap();
    let file = bed.dir.path().join("appliance.toml");
    std::fs::write(&file, "[appliance]\nname = \"test\"\n").unwrap();
    let manifest = Manifest::read(&file).unwrap();
    let (state, lease) = (bed.dir.path(), Duration::from_secs(60));
    let opened = LocalSource::new(
        &manifest,
        state,
        lease,
        CaptureLimits::default(),
        Arc::new(SystemClock),
        Changeover::default(),
    );
    let text = opened.err().unwrap().to_string();
    assert!(text.contains("captures.json") && text.contains("move it away"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_nobody_waits_for_any_more_does_not_outlive_its_end() {
    let bed = Bed::with(TABLE);
    let (dataset, capture) = names();
    let life = Life::begin(&bed, CaptureLimits::default());
    life.source.begin(&dataset, &capture).await.unwrap();
    let writer = bed.source_db();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let fence = life.source.fence(&dataset, &capture, Duration::from_secs(20));
    tokio::time::timeout(Duration::from_millis(300), fence).await.unwrap_err();
    let source = life.source.clone();
    let unfence = tokio::spawn(async move { source.unfence(&dataset, &capture).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!unfence.is_finished(), "the fence that still waits is not waited for");
    writer.execute_batch("COMMIT").unwrap();
    unfence.await.unwrap().unwrap();
    bed.source_db().execute_batch("UPDATE t SET v = 'c'").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_writer_to_leave_behind_a_fence_keeps_nobody_from_reading() {
    let bed = Bed::with(&format!("PRAGMA journal_mode = WAL; {TABLE}"));
    let (dataset, capture) = names();
    let life = Life::begin(&bed, CaptureLimits::default());
    let position = life.source.begin(&dataset, &capture).await.unwrap();
    let writer = bed.source_db();
    writer.execute_batch("INSERT INTO t (v) VALUES ('b')").unwrap();
    life.source.fence(&dataset, &capture, Duration::from_secs(5)).await.unwrap();
    drop(writer);
    // It would have brought the log into the database, which nobody may read meanwhile, and removed it.
    let log = format!("{}-wal", bed.source_path().display());
    assert!(std::fs::metadata(&log).is_ok_and(|log| log.len() > 0));
    assert_ne!(life.ask(&position).await.unwrap(), position);
    life.source.end(&dataset, &capture, true).await.unwrap();
    assert!(!std::fs::exists(&log).unwrap(), "the log goes once nobody reads any more");
}
