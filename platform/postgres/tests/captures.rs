//! What a server keeps for those who follow a database goes when nobody comes for it, or it gets too much.

mod support;

use std::sync::Arc;
use std::time::Duration;

use handover_engine::change::LogPosition;
use handover_engine::failure::Class;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::{ChangeSource, ChangesRequest, Result};
use handover_platform::SystemClock;
use handover_platform::manifest::Manifest;
use handover_platform::source::{CaptureLimits, LocalSource};
use support::Server;
use support::followed::traces;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A source's host.
struct Host {
    server: Arc<Server>,
    database: String,
    state: TempDir,
}

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

impl Host {
    fn new() -> Self {
        let server = Server::shared();
        let database = server.create("kept", "");
        server
            .sql(&database, "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')");
        let state = tempfile::tempdir().unwrap();
        let url = server.url("postgres", &database);
        let text = format!("[appliance]\nname = \"test\"\n\n[[database]]\nname = \"app\"\nurl = \"{url}\"\n");
        std::fs::write(state.path().join("appliance.toml"), text).unwrap();
        Self { server, database, state }
    }

    fn begin(&self, idle_ms: u64, bytes: u64) -> Life {
        let manifest = Manifest::read(&self.state.path().join("appliance.toml")).unwrap();
        let limits = CaptureLimits { idle: Duration::from_millis(idle_ms), bytes };
        let (lease, clock) = (Duration::from_secs(60), Arc::new(SystemClock));
        let source =
            LocalSource::new(&manifest, self.state.path(), lease, limits, clock, Changeover::default())
                .unwrap();
        let watched = source.clone();
        Life { source, watch: tokio::spawn(async move { watched.end_stale_captures().await }) }
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    /// Waits until the slot is gone.
    async fn gone(&self) {
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
        for _ in 0..800 {
            if self.sql(slots) == "0" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("what was kept is still there: {}", traces(&self.server, &self.database));
    }
}

impl Life {
    async fn ask(&self, after: &LogPosition) -> Result<LogPosition> {
        let (dataset, capture) = names();
        let request = ChangesRequest { dataset, capture, after: after.clone(), wait: Duration::ZERO };
        self.source.changes(request).await.map(|told| told.until)
    }

    async fn assert_told(&self, after: &LogPosition, why: &str) {
        let failure = self.ask(after).await.unwrap_err();
        let text = failure.to_string();
        assert_eq!(failure.class, Class::NeedsOperator, "{text}");
        assert!(text.contains(why) && text.contains("capture_hours"), "{text}");
    }
}

fn names() -> (DatasetName, CaptureId) {
    ("app".parse().unwrap(), "c1".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_nobody_asks_for_goes_also_after_a_restart() {
    let host = Host::new();
    let (dataset, capture) = names();
    let life = host.begin(3_000, u64::MAX);
    let mut after = life.source.begin(&dataset, &capture).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        after = life.ask(&after).await.unwrap();
    }
    drop(life);
    let life = host.begin(3_000, u64::MAX);
    host.gone().await;
    life.assert_told(&after, "nobody has asked for them").await;
    drop(life);
    let life = host.begin(3_000, u64::MAX);
    life.assert_told(&after, "nobody has asked for them").await;
    assert_eq!(traces(&host.server, &host.database), "");
    life.source.end(&dataset, &capture, false).await.unwrap();
    let after = life.source.begin(&dataset, &capture).await.unwrap();
    life.ask(&after).await.unwrap();
    life.source.end(&dataset, &capture, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_keeps_too_much_goes() {
    let host = Host::new();
    let (dataset, capture) = names();
    let life = host.begin(10_000, 4 << 20);
    let after = life.source.begin(&dataset, &capture).await.unwrap();
    // The log is the whole server's: what others write is kept, too.
    host.server.sql("postgres", "SELECT pg_logical_emit_message(false, 'test', repeat('x', 8 << 20))");
    host.gone().await;
    life.assert_told(&after, "had gathered").await;
    assert_eq!(traces(&host.server, &host.database), "");
    host.sql("UPDATE t SET v = 'b'");
}

/// A target that dies between the fence and its last word must not keep the server's log for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_goes_behind_a_fence_too_and_the_fence_stays() {
    let host = Host::new();
    let (dataset, capture) = names();
    let life = host.begin(10_000, 4 << 20);
    let after = life.source.begin(&dataset, &capture).await.unwrap();
    life.source.fence(&dataset, &capture, Duration::from_secs(5)).await.unwrap();
    drop(life);
    let life = host.begin(10_000, 4 << 20);
    host.server.sql("postgres", "SELECT pg_logical_emit_message(false, 'test', repeat('x', 8 << 20))");
    host.gone().await;
    let refused = host.server.attempt(&host.database, "UPDATE t SET v = 'b'").unwrap_err();
    assert!(refused.contains("being moved"), "{refused}");
    life.assert_told(&after, "had gathered").await;
    // A cut-over that is called off lets writers in; following says why it cannot go on.
    life.source.unfence(&dataset, &capture).await.unwrap();
    host.sql("UPDATE t SET v = 'b'");
    life.assert_told(&after, "had gathered").await;
    life.source.end(&dataset, &capture, false).await.unwrap();
    assert_eq!(traces(&host.server, &host.database), "");
}
