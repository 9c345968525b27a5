//! A cut-over that was planned, when its time comes.

use std::sync::{Arc, Mutex};

use handover_engine::driver::{Driver, Settings};
use handover_engine::expiry::Expiry;
use handover_engine::journal::{Event, Journal, Migration};
use handover_engine::phase::{Condition, Phase, State, Task};
use handover_engine::ports::Credentials;
use handover_engine::ports::hooks::Moment;
use handover_engine::report::{Planned, Terms, Verified, When};
use handover_engine::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::world::{Port, World};
use super::{migration, ports};

/// A certificate that ends.
struct Ends(Timestamp);

impl Credentials for Ends {
    fn expiries(&self) -> Vec<Expiry> {
        vec![Expiry::of_agent("source", self.0)]
    }
}

/// A migration that follows nothing, and whose cut-over is due.
fn due() -> Migration {
    let mut migration = migration();
    migration.plan.options.follow = true;
    migration.plan.steps.clear();
    let task = Some(Task::Follow);
    migration.state = State { phase: Phase::Following, task, condition: Condition::Good };
    let at = Timestamp::from_millis(0);
    let terms = Terms { when: When::At(at), ..Terms::default() };
    migration.outcome.planned = Some(Planned { at, terms, is_told: true });
    migration
}

/// What becomes of it, with a certificate that ends then: its phase, what was noted, and how often notice was given.
async fn comes_to(ends: Timestamp) -> (Phase, String, usize) {
    of(due(), ends).await
}

/// The same, of this one.
async fn of(migration: Migration, ends: Timestamp) -> (Phase, String, usize) {
    let mut world = World::new(1);
    world.quiet = true;
    let port = Port { world: Arc::new(Mutex::new(world)), crashed: Arc::default(), life: 0 };
    port.create(&migration).await.unwrap();
    let mut ports = ports(&port);
    ports.credentials = Arc::new(Ends(ends));
    let stop = CancellationToken::new();
    let (driver, handle) = Driver::new(ports, Settings::default(), migration, 0, stop.clone());
    let driver = tokio::spawn(driver.run());
    let mut status = handle.status();
    let decided = status.wait_for(|now| now.planned.is_none() && now.state.phase != Phase::CuttingOver);
    decided.await.expect("it is decided");
    let given = |world: &mut World| {
        let noted = world.books.events.iter().filter_map(|logged| match &logged.event {
            Event::Note { item, text } => Some(format!("{item}: {text}")),
            _ => None,
        });
        let notices = world.moments.iter().filter(|(_, moment)| *moment == Moment::Notice).count();
        (noted.collect::<Vec<_>>().join("\n"), notices)
    };
    // Notice is given beside all else.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let ((noted, notices), phase) = (port.with(given), handle.status().borrow().state.phase);
    stop.cancel();
    driver.await.unwrap().unwrap();
    (phase, noted, notices)
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_by_then_calls_it_off() {
    let (phase, noted, notices) = comes_to(Timestamp::from_millis(0)).await;
    let expected = "cutover: it was planned for 1970-01-01T00:00:00Z, and does not begin: certificate: the source's ended at \
                    1970-01-01T00:00:00Z";
    assert_eq!((phase, notices), (Phase::Following, 2));
    assert!(noted.starts_with(expected), "{noted}");
    // It would end while users wait.
    let (phase, noted, _) = comes_to(Timestamp::from_millis(20_000)).await;
    assert!(phase == Phase::Following && noted.contains("before all is expected to be done"), "{noted}");
}

#[tokio::test(start_paused = true)]
async fn what_lasts_lets_it_begin() {
    let (phase, noted, notices) = comes_to(Timestamp::from_millis(3_600_000)).await;
    assert_eq!((phase, noted.as_str(), notices), (Phase::Trial, "", 0));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_differs_does_not_take_over() {
    let mut different = due();
    let verified = Verified { differences: 3, ..Verified::default() };
    different.outcome.verify("db".parse().unwrap(), 1, verified, Vec::new());
    let (phase, noted, notices) = of(different.clone(), Timestamp::from_millis(3_600_000)).await;
    let expected = "cutover: it was planned for 1970-01-01T00:00:00Z, and does not begin: migration m1: verification found 3 differences";
    assert_eq!((phase, notices), (Phase::Following, 2));
    assert!(noted.starts_with(expected), "{noted}");
    // One under way has found none so far: it has not looked everywhere.
    different.state.task = Some(Task::VerifyLive);
    different.outcome.begin_verifying(false);
    let (phase, noted, _) = of(different, Timestamp::from_millis(3_600_000)).await;
    assert!(phase == Phase::Following && noted.starts_with(expected), "{noted}");
}
