//! The target's replicas are set up while it serves: how far that is can be seen.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::driver::{Driver, Settings};
use handover_engine::failure::Failure;
use handover_engine::journal::Journal;
use handover_engine::name::MigrationId;
use handover_engine::phase::{Condition, Phase, State, Task};
use handover_engine::plan::{PlannedStep, StepKind};
use handover_engine::ports::Result;
use handover_engine::ports::changeover::{Changeover, Replicas};
use handover_engine::report::{Cutover, When};
use handover_engine::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::world::{Port, World};
use super::{migration, ports};

/// A replica that is lost once when it holds 30 rows of 50, and then set up anew.
#[derive(Default)]
struct Replica {
    rows: AtomicU64,
    tries: AtomicU32,
}

impl Replica {
    async fn get_on(&self, rows: u64) {
        for _ in 0..rows {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.rows.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Replicas for Replica {
    async fn set_up(&self, _: &MigrationId) -> Result<()> {
        if self.tries.fetch_add(1, Ordering::Relaxed) == 0 {
            self.get_on(30).await;
            return Err(Failure::transient("replica of shop", "it does not answer"));
        }
        self.get_on(50).await;
        Ok(())
    }

    async fn differences(&self) -> Result<Vec<String>> {
        self.get_on(50).await;
        Ok(Vec::new())
    }

    fn rows_done(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn rows_are_counted_and_the_rest_is_foretold() {
    let mut world = World::new(1);
    world.quiet = true;
    let port = Port { world: Arc::new(Mutex::new(world)), crashed: Arc::default(), life: 0 };
    let mut migration = migration();
    migration.plan.options.follow = true;
    let step = PlannedStep { step: StepKind::Replicate, rows: 100, files: 0, bytes: 0, expected_ms: 10_000 };
    migration.plan.steps = vec![step];
    let task = Some(Task::CutOver);
    migration.state = State { phase: Phase::CuttingOver, task, condition: Condition::Good };
    let live_at = Some(Timestamp::default());
    let mut cutover = Cutover { committed: true, live_at, ..Cutover::default() };
    cutover.terms.when = When::Now;
    migration.outcome.cutover = Some(cutover);
    port.create(&migration).await.unwrap();
    let mut ports = ports(&port);
    let own = Changeover { replicas: Arc::new(Replica::default()), ..Changeover::default() };
    ports.here = ports.here.with_changeover(own);
    let stop = CancellationToken::new();
    let (driver, handle) = Driver::new(ports, Settings::default(), migration, 0, stop.clone());
    let driver = tokio::spawn(driver.run());
    let (mut seen, mut status) = (Vec::new(), handle.status());
    loop {
        let now = status.borrow_and_update().clone();
        if now.state.phase == Phase::Trial {
            break;
        }
        let step = &now.progress.steps[0];
        assert_eq!(step.rows_total, 100);
        if step.rows > 0 {
            assert!(now.progress.remaining_ms.is_some_and(|ms| ms > 0), "{:?}", now.progress);
            seen.push((step.rows, now.progress.share));
        }
        status.changed().await.unwrap();
    }
    seen.dedup();
    // Begun anew, it goes back by nothing.
    assert!(seen.is_sorted() && seen.len() > 10, "{seen:?}");
    assert!(seen.iter().any(|(rows, share)| *rows == 75 && (0.7..0.8).contains(share)), "{seen:?}");
    stop.cancel();
    driver.await.unwrap().unwrap();
}
