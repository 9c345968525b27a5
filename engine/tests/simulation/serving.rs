//! How long users were without the appliance: until its services are up at the target.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::driver::{Driver, Settings};
use handover_engine::journal::{Journal, Migration};
use handover_engine::name::MigrationId;
use handover_engine::phase::{Condition, Phase, State, Task};
use handover_engine::plan::StepKind;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::{Changeover, Services};
use handover_engine::report::{Cutover, Report};
use handover_engine::time::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use super::world::{Port, World};
use super::{migration, ports};

/// So often somebody looks at the clock, by which it goes on, before the services are up.
const LOOKS: i64 = 5_000;

/// Services that take their time.
struct Slow(Port);

#[async_trait]
impl Services for Slow {
    async fn start(&self, _: &MigrationId) -> Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..LOOKS {
            self.0.now();
        }
        Ok(())
    }
}

/// A migration whose databases are about to be published, with this step after that.
fn publishing(last: StepKind) -> Migration {
    let mut migration = migration();
    migration.plan.options.follow = true;
    migration.plan.steps.truncate(1);
    migration.plan.steps[0].step = last;
    let task = Some(Task::CutOver);
    migration.state = State { phase: Phase::CuttingOver, task, condition: Condition::Good };
    let fenced_at = Some(Timestamp::from_millis(0));
    migration.outcome.cutover = Some(Cutover { committed: true, fenced_at, ..Cutover::default() });
    migration
}

/// The cut-over once it is through; no downtime is told before.
async fn through(last: StepKind) -> (Cutover, Option<u64>) {
    let mut world = World::new(1);
    world.quiet = true;
    let port = Port { world: Arc::new(world.into()), crashed: Arc::default(), life: 0 };
    let migration = publishing(last);
    port.create(&migration).await.unwrap();
    let mut ports = ports(&port);
    let own = Changeover { services: Arc::new(Slow(port.clone())), ..Changeover::default() };
    ports.here = ports.here.with_changeover(own);
    let stop = CancellationToken::new();
    let (driver, handle) = Driver::new(ports, Settings::default(), migration, 0, stop.clone());
    let driver = tokio::spawn(driver.run());
    let (mut status, mut awaited) = (handle.status(), false);
    loop {
        let now = status.borrow_and_update().clone();
        if now.state.phase == Phase::Trial {
            break;
        }
        let cutover = now.cutover.unwrap();
        awaited |= cutover.awaits_services;
        assert!(!cutover.awaits_services || cutover.downtime_ms().is_none(), "{cutover:?}");
        status.changed().await.unwrap();
    }
    let cutover = handle.status().borrow().cutover.unwrap();
    assert_eq!(awaited, cutover.serving_at != cutover.live_at, "nobody waits for services: {cutover:?}");
    let kept = port.with(|world| world.books.migration.clone().unwrap());
    stop.cancel();
    driver.await.unwrap().unwrap();
    (cutover, Report::of(&kept, Default::default()).downtime_ms)
}

#[tokio::test(start_paused = true)]
async fn users_wait_until_services_are_up() {
    let (cutover, reported) = through(StepKind::Serve).await;
    let (live, serving) = (cutover.live_at.unwrap().millis(), cutover.serving_at.unwrap().millis());
    assert!(serving >= live + LOOKS, "{cutover:?}");
    assert_eq!((cutover.downtime_ms(), reported), (u64::try_from(serving).ok(), u64::try_from(serving).ok()));
}

#[tokio::test(start_paused = true)]
async fn where_none_are_started_they_wait_until_it_is_live() {
    let (cutover, reported) = through(StepKind::Publish).await;
    let live = u64::try_from(cutover.live_at.unwrap().millis()).ok();
    assert_eq!((cutover.serving_at, cutover.downtime_ms(), reported), (cutover.live_at, live, live));
}

#[test]
fn records_without_it_tell_when_it_was_live() {
    let old = r#"{"terms": {"max_downtime_ms": 30000, "max_lag_ms": 5000}, "fenced_at": {"seconds": 1, "nanos": 0},
                  "live_at": {"seconds": 1, "nanos": 700000000}}"#;
    let old: Cutover = serde_json::from_str(old).unwrap();
    assert_eq!((old.downtime_ms(), old.serving_at), (Some(700), None));
    assert_eq!(Cutover::default().downtime_ms(), None);
}
