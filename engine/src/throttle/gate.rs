//! The gate that every read of the source passes: buckets that fill with time, and empty with what is read.
//!
//! A chunk is paid for when it is asked for, by a guess, and set right when its size is known. So what the source reads ahead is what
//! is on its way (a few chunks a stream, and the windows of the connections), and no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::pace::{Done, Pace};
use super::{Rate, Reading, Throttle, Throttled};
use crate::pass::Desk;
use crate::ports::{Answers, Result};
use crate::time::Clock;

/// What the first chunk of a stream is guessed to be.
const GUESS: u64 = 256 << 10;
/// No part that is asked for is made smaller.
const LEAST: u64 = 128 << 10;
/// What has gathered while nothing was read, at most.
const BURST: Duration = Duration::from_millis(250);

/// What a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Copying: held to everything.
    Bulk,
    /// Keeping a copy up to date: held to the highest rate alone, since what is put off only becomes more.
    Keys,
}

/// Fills with time up to a burst, and may be in debt.
#[derive(Debug)]
struct Bucket {
    /// Bytes per second; unbounded where `None`.
    rate: Option<f64>,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: Option<f64>) -> Self {
        Self { rate, level: 0.0, at: Instant::now() }
    }

    fn set(&mut self, rate: Option<f64>) {
        if self.rate != rate {
            self.fill();
            if self.rate.is_none() {
                self.level = 0.0;
            }
            self.rate = rate;
        }
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let passed = now - std::mem::replace(&mut self.at, now);
        if let Some(rate) = self.rate {
            self.level = (self.level + rate * passed.as_secs_f64()).min(rate * BURST.as_secs_f64());
        }
    }

    /// When something may be taken; at once where `None`.
    fn ready(&mut self) -> Option<Instant> {
        self.fill();
        let rate = self.rate.filter(|_| self.level < 0.0)?;
        // Rounded up: a timer that is a little early would be asked again and again.
        Some(self.at + Duration::from_secs_f64(-self.level / rate) + Duration::from_millis(1))
    }

    fn take(&mut self, bytes: f64) {
        if self.rate.is_some() {
            self.level -= bytes;
        }
    }
}

struct State {
    throttle: Throttle,
    pace: Pace,
    readings: Vec<Reading>,
    /// Bulk reads wait for this time of day.
    closed_until: Option<String>,
    /// Held to by everything, and by bulk reads.
    all: Bucket,
    bulk: Bucket,
    /// Of bulk reads, since the last step.
    read: u64,
    waited: bool,
    stepped: Instant,
}

impl State {
    fn settle(&mut self, clock: &dyn Clock) {
        let hours = &self.throttle.hours;
        let now = (!hours.is_always()).then(|| clock.now());
        self.closed_until = now.filter(|now| !hours.has(*now)).map(|now| hours.next(now));
        self.all.set(self.throttle.max_rate.map(|rate| rate as f64));
        self.bulk.set(self.pace.rate());
    }

    /// The rate that bulk reads are held to.
    fn rate(&self) -> Option<f64> {
        [self.all.rate, self.bulk.rate].into_iter().flatten().reduce(f64::min)
    }
}

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    clock: Arc<dyn Clock>,
}

/// The gate. Its clones are the same one; by default it is open, and stays so.
#[derive(Clone, Default)]
pub struct Gate {
    inner: Option<Arc<Inner>>,
}

impl Gate {
    /// A gate that keeps to `throttle`.
    pub fn new(throttle: Throttle, clock: Arc<dyn Clock>) -> Self {
        let mut state = State {
            throttle,
            pace: Pace::default(),
            readings: Vec::new(),
            closed_until: None,
            all: Bucket::new(None),
            bulk: Bucket::new(None),
            read: 0,
            waited: false,
            stepped: Instant::now(),
        };
        state.settle(&*clock);
        Self {
            inner: Some(Arc::new(Inner { state: Mutex::new(state), changed: watch::Sender::new(()), clock })),
        }
    }

    /// Changes what is kept to; at once, also for those who wait.
    pub fn set(&self, throttle: Throttle) {
        let Some(inner) = &self.inner else { return };
        let mut state = inner.lock();
        state.throttle = throttle;
        let limits = state.throttle.limits.clone();
        state.pace.limit(&limits);
        inner.changed(state);
    }

    /// A step, once a second: what the source tells of its load now, where it tells anything.
    pub fn step(&self, readings: Option<Vec<Reading>>) {
        let Some(inner) = &self.inner else { return };
        let mut state = inner.lock();
        let passed = std::mem::replace(&mut state.stepped, Instant::now()).elapsed().as_secs_f64().max(1e-3);
        let (read, waited) = (std::mem::take(&mut state.read), std::mem::take(&mut state.waited));
        let done = Done { rate: read as f64 / passed, waited };
        let limits = state.throttle.limits.clone();
        let readings = readings.unwrap_or_default();
        state.pace.step(&limits, &readings, done);
        state.readings = readings;
        inner.changed(state);
    }

    /// What watchers see.
    pub fn shown(&self) -> Throttled {
        let Some(inner) = &self.inner else {
            return Throttled { settings: Throttle::off(), ..Throttled::default() };
        };
        let state = inner.lock();
        let by_pace = state.bulk.rate.is_some_and(|bulk| state.all.rate.is_none_or(|all| bulk < all));
        let reason = match (&state.closed_until, state.throttle.max_rate) {
            (Some(until), _) => Some(format!("hours {}: copying waits until {until}", state.throttle.hours)),
            (None, _) if by_pace => state.pace.reason(),
            (None, rate) => rate.map(|rate| format!("max-rate: reading at {} at most", Rate(Some(rate)))),
        };
        Throttled {
            settings: state.throttle.clone(),
            rate: state.rate().map(|rate| rate as u64),
            waiting: state.closed_until.is_some(),
            reason,
            signals: state.readings.clone(),
        }
    }

    /// Waits until copying may begin: nothing is to be opened at the source before.
    pub async fn begin(&self, desk: &Desk) -> Result<()> {
        self.wait(Kind::Bulk, 0, desk).await
    }

    /// Waits until about so many bytes may be asked for, and takes them. [`Gate::settle`] sets it right.
    pub async fn take(&self, kind: Kind, bytes: u64, desk: &Desk) -> Result<()> {
        self.wait(kind, bytes, desk).await
    }

    async fn wait(&self, kind: Kind, bytes: u64, desk: &Desk) -> Result<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let mut changed = inner.changed.subscribe();
        loop {
            desk.checkpoint()?;
            changed.mark_unchanged();
            let Some(until) = inner.admit(kind, bytes) else { return Ok(()) };
            let timer = async {
                match until {
                    Until::Time(at) => sleep_until(at).await,
                    Until::Change => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                _ = changed.changed() => {}
                () = desk.stopping() => {}
            }
        }
    }

    /// A part to ask for at once, of at most `usual` bytes: smaller where the rate is low, so that reads are spread over time.
    pub fn portion(&self, usual: u64) -> u64 {
        let rate = self.inner.as_ref().and_then(|inner| inner.lock().rate());
        let portion = rate.map_or(usual, |rate| (rate * BURST.as_secs_f64()) as u64);
        portion.clamp(LEAST.min(usual), usual)
    }

    /// So many bytes came where so many were guessed.
    pub fn settle(&self, kind: Kind, guessed: u64, came: u64) {
        let Some(inner) = &self.inner else { return };
        let mut state = inner.lock();
        let more = came as f64 - guessed as f64;
        state.all.take(more);
        if kind == Kind::Bulk {
            state.bulk.take(more);
            state.read += came;
        }
    }

    /// A stream whose next item is asked for only when that is allowed.
    pub fn held<T: Send + 'static>(
        &self,
        items: Answers<T>,
        kind: Kind,
        desk: &Desk,
        bytes: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Answers<T> {
        if self.inner.is_none() {
            return items;
        }
        let (gate, desk, bytes) = (self.clone(), desk.clone(), Arc::new(bytes));
        let held = futures::stream::unfold((Some(items), GUESS), move |(items, guess)| {
            let (gate, desk, bytes) = (gate.clone(), desk.clone(), bytes.clone());
            async move {
                let mut items = items?;
                if let Err(stopped) = gate.take(kind, guess, &desk).await {
                    return Some((Err(stopped), (None, guess)));
                }
                let item = items.next().await;
                let came = item.as_ref().and_then(|item| item.as_ref().ok()).map_or(0, |item| bytes(item));
                gate.settle(kind, guess, came);
                Some((item?, (Some(items), came)))
            }
        });
        held.boxed()
    }
}

enum Until {
    Time(Instant),
    Change,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is inside is numbers: a panic elsewhere leaves them usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rates follow what has changed, and those who wait look again.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.settle(&*self.clock);
        drop(state);
        self.changed.send_replace(());
    }

    /// Takes the bytes, or says how long to wait.
    fn admit(&self, kind: Kind, bytes: u64) -> Option<Until> {
        let mut state = self.lock();
        let mut until = state.all.ready();
        if kind == Kind::Bulk {
            if state.closed_until.is_some() {
                return Some(Until::Change);
            }
            until = until.max(state.bulk.ready());
        }
        if let Some(until) = until {
            state.waited |= kind == Kind::Bulk;
            return Some(Until::Time(until));
        }
        state.all.take(bytes as f64);
        if kind == Kind::Bulk {
            state.bulk.take(bytes as f64);
        }
        None
    }
}

#[cfg(test)]
mod tests;
