//! The rate that the source's signals leave for bulk reads: it falls by a factor while one is over its limit, and rises again when
//! all are well below. Pure: what it is told decides.

use std::collections::BTreeMap;

use super::{Rate, Reading, Signal};

/// It never falls below this, in bytes per second: a host that is always busy is copied slowly, not never.
pub const FLOOR: f64 = 256.0 * 1024.0;
/// What is left of the rate when a signal is over its limit.
const CUT: f64 = 0.6;
/// Steps between two cuts: what the last one brought is seen first.
const SETTLE: u32 = 2;
/// The rate rises while every signal is below this share of its limit.
const WELL_BELOW: f64 = 0.9;
/// How it rises with every step: by a factor, and by some bytes per second.
const RISE: f64 = 1.2;
const RISE_BYTES: f64 = 512.0 * 1024.0;

/// What bulk reads did since the last step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Bytes per second that were read.
    pub rate: f64,
    /// Somebody had to wait for the rate.
    pub waited: bool,
}

/// The rate, and why it is no higher.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Unbounded where `None`.
    rate: Option<f64>,
    /// Steps since it was cut.
    settled: u32,
    /// The signal that held it back last, and how it was.
    held_by: Option<Signal>,
    reason: String,
    is_over: bool,
}

impl Pace {
    /// A step, once a second: the signals as they are told now. Nothing changes without any.
    pub fn step(&mut self, limits: &BTreeMap<Signal, u32>, readings: &[Reading], done: Done) {
        let shares = readings.iter().filter_map(|reading| {
            let limit = *limits.get(&reading.signal)?;
            Some((reading.value / f64::from(limit), reading, limit))
        });
        let worst = shares.max_by(|a, b| a.0.total_cmp(&b.0));
        self.settled = self.settled.saturating_add(1);
        self.is_over = worst.is_some_and(|(share, ..)| share > 1.0);
        match worst {
            Some((share, reading, limit)) if share > 1.0 => {
                self.reason = words(reading, limit);
                self.held_by = Some(reading.signal);
                if self.rate.is_none() || self.settled >= SETTLE {
                    // From what was read, where that is less: a rate that nobody uses need not fall first.
                    let from = self.rate.unwrap_or(f64::MAX).min(done.rate.max(FLOOR));
                    self.rate = Some((from * CUT).max(FLOOR));
                    self.settled = 0;
                }
            }
            Some((share, ..)) if share < WELL_BELOW => self.rise(done),
            // Close to the limit, or not told.
            _ => {}
        }
    }

    /// The limits are others now: what held it back may be off.
    pub fn limit(&mut self, limits: &BTreeMap<Signal, u32>) {
        if self.held_by.is_some_and(|signal| !limits.contains_key(&signal)) {
            self.rate = None;
        }
    }

    fn rise(&mut self, done: Done) {
        let Some(rate) = self.rate else { return };
        // Nobody is held back by it any more: it is of no use.
        let is_idle = !done.waited && done.rate < rate / 2.0;
        self.rate = (!is_idle).then_some(rate * RISE + RISE_BYTES);
    }

    /// Bytes per second; unbounded where `None`.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Why it is not unbounded, where it is not.
    pub fn reason(&self) -> Option<String> {
        let rate = Rate(Some(self.rate? as u64));
        Some(match self.is_over {
            true => format!("{}: reading at {rate}", self.reason),
            false => format!("{} a while ago: reading at {rate} by now", self.reason),
        })
    }
}

/// A reading and its limit in words.
fn words(reading: &Reading, limit: u32) -> String {
    let (name, unit) = reading.signal.words();
    let of = reading.dataset.as_ref().map(|dataset| format!(" of {dataset}")).unwrap_or_default();
    format!("{name}{of} at {:.0}{unit}, limit {limit}{unit}", reading.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Throttle;

    fn cpu(value: f64) -> Vec<Reading> {
        vec![Reading { signal: Signal::CpuPercent, dataset: None, value }]
    }

    const MB: f64 = 1e6;

    /// Steps at a processor's load with bytes read; the rate after each.
    fn check(steps: &[(f64, f64, bool)], expected: &[Option<f64>]) {
        let mut pace = Pace::default();
        let limits = Throttle::default().limits;
        for (n, ((load, rate, waited), expected)) in steps.iter().zip(expected).enumerate() {
            pace.step(&limits, &cpu(*load), Done { rate: *rate, waited: *waited });
            assert_eq!(pace.rate(), *expected, "step {n} of {steps:?}");
        }
    }

    #[test]
    fn the_rate_falls_and_rises() {
        // An idle host is read as fast as it goes.
        check(&[(5.0, 500.0 * MB, false), (80.0, 500.0 * MB, false)], &[None, None]);
        // Over the limit: by a factor, every other step, from what was read.
        check(
            &[
                (95.0, 100.0 * MB, false),
                (95.0, 60.0 * MB, true),
                (95.0, 60.0 * MB, true),
                (85.0, 36.0 * MB, true),
            ],
            &[Some(60.0 * MB), Some(60.0 * MB), Some(36.0 * MB), Some(36.0 * MB)],
        );
        // Well below: it rises, until nobody is held back any more.
        check(
            &[(95.0, 10.0 * MB, false), (50.0, 6.0 * MB, true), (50.0, 1.0 * MB, false)],
            &[Some(6.0 * MB), Some(7.2 * MB + RISE_BYTES), None],
        );
        // Never below the floor, however long, and also where nothing was read.
        check(&[(99.0, 0.0, false); 9], &[Some(FLOOR); 9]);
    }

    #[test]
    fn it_comes_down_to_the_floor_and_back() {
        let (mut pace, limits) = (Pace::default(), Throttle::default().limits);
        for _ in 0..60 {
            let rate = pace.rate().unwrap_or(200.0 * MB);
            pace.step(&limits, &cpu(100.0), Done { rate, waited: true });
        }
        assert_eq!(pace.rate(), Some(FLOOR));
        let mut steps = 0;
        while pace.rate().is_some_and(|rate| rate < 200.0 * MB) {
            let rate = pace.rate().unwrap_or_default();
            pace.step(&limits, &cpu(10.0), Done { rate, waited: true });
            steps += 1;
        }
        assert!(steps < 30, "{steps} seconds until it is read at full speed again");
    }

    #[test]
    fn the_worst_signal_is_the_reason() {
        let (mut pace, limits) = (Pace::default(), Throttle::default().limits);
        let mut readings = cpu(93.0);
        readings.push(Reading {
            signal: Signal::Threads,
            dataset: Some("shop".parse().unwrap()),
            value: 40.0,
        });
        let done = Done { rate: 20.0 * MB, waited: false };
        pace.step(&limits, &cpu(93.0), done);
        assert_eq!(pace.reason().unwrap(), "cpu at 93 %, limit 90 %: reading at 12.0 MB/s");
        pace.step(&limits, &readings, done);
        assert_eq!(pace.reason().unwrap(), "threads running of shop at 40, limit 25: reading at 12.0 MB/s");
        pace.step(&limits, &cpu(85.0), done);
        assert!(pace.reason().unwrap().contains("a while ago"));
        // One that is off is not looked at; a source that tells nothing changes nothing.
        let mut only_cpu = limits.clone();
        only_cpu.retain(|signal, _| *signal == Signal::CpuPercent);
        let mut other = Pace::default();
        other.step(&only_cpu, &readings[1..], done);
        assert_eq!(other.reason(), None);
        pace.step(&limits, &[], done);
        assert!(pace.rate().is_some());
        pace.limit(&limits);
        assert!(pace.rate().is_some());
        pace.limit(&BTreeMap::new());
        assert_eq!(pace.rate(), None);
    }
}
