use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::failure::Failure;
use crate::throttle::{Change, Signal};
use crate::time::Timestamp;

/// A clock that stands where it is set.
#[derive(Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Hands {
    fn set(&self, hour: i64) {
        self.0.store(hour * 3_600_000, Ordering::Relaxed);
    }
}

fn desk() -> (Desk, CancellationToken) {
    let (to, mut messages) = mpsc::channel(8);
    tokio::spawn(async move { while messages.recv().await.is_some() {} });
    let stop = CancellationToken::new();
    (Desk::new(to, stop.clone()), stop)
}

fn held_to(rate: &str) -> Throttle {
    Throttle::off().with(&Change { max_rate: Some(rate.parse().unwrap()), ..Change::default() })
}

const MB: u64 = 1_000_000;

/// Chunks of 1 MB, without end.
fn chunks() -> Answers<u64> {
    futures::stream::repeat_with(|| Ok(MB)).boxed()
}

/// How long it takes to read so many chunks over several streams.
async fn took(gate: &Gate, kind: Kind, lanes: usize, each: usize) -> Duration {
    let (desk, _stop) = desk();
    let began = Instant::now();
    let streams = (0..lanes).map(|_| gate.held(chunks(), kind, &desk, |bytes| *bytes).take(each));
    let read = futures::stream::select_all(streams.map(StreamExt::boxed)).collect::<Vec<_>>().await;
    assert!(read.iter().all(Result::is_ok) && read.len() == lanes * each);
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn reads_are_held_to_the_rate() {
    let gate = Gate::new(held_to("5MB"), Arc::<Hands>::default());
    for (kind, lanes) in [(Kind::Bulk, 1), (Kind::Keys, 4), (Kind::Bulk, 4)] {
        let took = took(&gate, kind, lanes, 100 / lanes).await.as_secs_f64();
        assert!((18.0..22.0).contains(&took), "100 MB at 5 MB/s took {took} s over {lanes} streams");
    }
    assert_eq!(gate.shown().reason.unwrap(), "max-rate: reading at 5.0 MB/s at most");
    assert_eq!(gate.shown().rate, Some(5 * MB));
    gate.set(Throttle::off());
    assert!(took(&gate, Kind::Bulk, 4, 1000).await < Duration::from_millis(10));
    assert_eq!(gate.shown().reason, None);
    let portion = |rate| Gate::new(held_to(rate), Arc::<Hands>::default()).portion(2 * MB);
    assert_eq!(["off", "100MB", "4MB", "1kB"].map(portion), [2 * MB, 2 * MB, MB, LEAST]);
    assert!(took(&Gate::default(), Kind::Bulk, 4, 1000).await < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_change_is_kept_to_at_once() {
    let gate = Gate::new(held_to("1kB"), Arc::<Hands>::default());
    let changing = async {
        sleep_until(Instant::now() + Duration::from_secs(5)).await;
        gate.set(held_to("10MB"));
    };
    let (took, ()) = tokio::join!(took(&gate, Kind::Bulk, 2, 50), changing);
    // What was in debt by then is paid at the new rate.
    assert!((Duration::from_secs(13)..Duration::from_secs(18)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn copying_waits_for_its_hours_and_following_does_not() {
    let clock = Arc::<Hands>::default();
    clock.set(12);
    let night = Change { hours: Some("22:00-06:00".parse().unwrap()), ..Change::default() };
    let gate = Gate::new(Throttle::off().with(&night), clock.clone());
    assert_eq!(gate.shown().reason.unwrap(), "hours 22:00-06:00: copying waits until 22:00 UTC");
    assert!(gate.shown().waiting);
    assert!(took(&gate, Kind::Keys, 1, 10).await < Duration::from_millis(10));
    let (desk, stop) = desk();
    let hour = tokio::time::timeout(Duration::from_secs(3600), gate.begin(&desk)).await;
    assert!(hour.is_err(), "it begins outside its hours");
    // The night comes, and is seen at the next step.
    let coming = async {
        clock.set(22);
        gate.step(None);
    };
    let (begun, ()) = tokio::join!(gate.begin(&desk), coming);
    begun.unwrap();
    clock.set(7);
    gate.step(None);
    // Whoever is asked to stop while it waits stops.
    let (stopped, ()) = tokio::join!(gate.take(Kind::Bulk, 1, &desk), async { stop.cancel() });
    assert_eq!(stopped.unwrap_err(), crate::pass::stopped());
}

#[tokio::test(start_paused = true)]
async fn signals_hold_copying_alone() {
    let gate = Gate::new(Throttle::default(), Arc::<Hands>::default());
    let busy = vec![Reading { signal: Signal::CpuPercent, dataset: None, value: 99.0 }];
    gate.step(Some(busy.clone()));
    let floor = super::super::pace::FLOOR as u64;
    assert_eq!(gate.shown().rate, Some(floor));
    assert_eq!(gate.shown().signals, busy);
    let bulk = took(&gate, Kind::Bulk, 1, 10).await;
    assert!(bulk > Duration::from_secs(30), "{bulk:?}");
    assert!(took(&gate, Kind::Keys, 1, 10).await < Duration::from_millis(10));
    // The lower of the two is the reason that is shown.
    gate.set(held_to("1kB"));
    assert_eq!(gate.shown().reason.unwrap(), "max-rate: reading at 1 kB/s at most");
}

#[tokio::test(start_paused = true)]
async fn what_fails_costs_nothing() {
    let gate = Gate::new(held_to("1MB"), Arc::<Hands>::default());
    let (desk, _stop) = desk();
    let began = Instant::now();
    for _ in 0..1000 {
        let failing: Answers<u64> = futures::stream::iter([Err(Failure::transient("x", "y"))]).boxed();
        let all: Vec<_> = gate.held(failing, Kind::Bulk, &desk, |bytes| *bytes).collect().await;
        assert!(all[0].is_err() && all.len() == 1);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
