//! Throttling: how fast the source is read, so that those who use it do not feel it.
//!
//! The source tells its load once a second ([`Signal`]). [`pace`] makes a rate of it, [`gate`] holds the reads to it; both keep to
//! the operator's settings ([`Throttle`]), which may change at any time.

pub mod gate;
pub mod hours;
pub mod pace;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::hours::Hours;
use crate::name::DatasetName;

/// What a host and its databases tell of their load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// How busy the host's processors are with others than us, in percent.
    CpuPercent,
    /// How busy the busiest disk that holds data is with others than us, in percent.
    DiskPercent,
    /// How far the slowest known replica is behind, in seconds.
    ReplicaLagSeconds,
    /// Statements that a database's server works on, ours left out.
    Threads,
    /// How long a database takes to answer a question that costs nothing, in milliseconds.
    LatencyMs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::CpuPercent, Self::DiskPercent, Self::ReplicaLagSeconds, Self::Threads, Self::LatencyMs];

    /// Its name in documents and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuPercent => "cpu_percent",
            Self::DiskPercent => "disk_percent",
            Self::ReplicaLagSeconds => "replica_lag_seconds",
            Self::Threads => "threads",
            Self::LatencyMs => "latency_ms",
        }
    }

    /// What a person reads, and its unit.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::CpuPercent => ("cpu", " %"),
            Self::DiskPercent => ("disk", " %"),
            Self::ReplicaLagSeconds => ("replica lag", " s"),
            Self::Threads => ("threads running", ""),
            Self::LatencyMs => ("query latency", " ms"),
        }
    }

    /// The limit where nobody has set one: what an idle host never comes near.
    fn usual_limit(self) -> u32 {
        match self {
            Self::CpuPercent | Self::DiskPercent => 90,
            Self::ReplicaLagSeconds => 10,
            Self::Threads => 25,
            Self::LatencyMs => 250,
        }
    }
}

/// A signal as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Which.
    pub signal: Signal,
    /// The database it is of; none for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetName>,
    /// How much.
    pub value: f64,
}

/// What an operator wants kept to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttle {
    /// Bytes per second at most, of rows as text and of files; unbounded where `None`.
    pub max_rate: Option<u64>,
    /// When bulk reading goes on.
    pub hours: Hours,
    /// The limits of signals; one that is not there is off.
    pub limits: BTreeMap<Signal, u32>,
}

impl Default for Throttle {
    fn default() -> Self {
        let limits = Signal::ALL.into_iter().map(|signal| (signal, signal.usual_limit())).collect();
        Self { max_rate: None, hours: Hours::default(), limits }
    }
}

impl Throttle {
    /// Nothing is held back.
    pub fn off() -> Self {
        Self { max_rate: None, hours: Hours::default(), limits: BTreeMap::new() }
    }

    /// The same with what a change names.
    #[must_use]
    pub fn with(mut self, change: &Change) -> Self {
        if let Some(rate) = change.max_rate {
            self.max_rate = rate.0;
        }
        if let Some(hours) = &change.hours {
            self.hours = hours.clone();
        }
        for (signal, limit) in &change.limits {
            match limit.0 {
                Some(limit) => drop(self.limits.insert(*signal, limit)),
                None => drop(self.limits.remove(signal)),
            }
        }
        self
    }
}

impl fmt::Display for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max-rate {}, hours {}", Rate(self.max_rate), self.hours)?;
        for signal in Signal::ALL {
            let (name, unit) = signal.words();
            match self.limits.get(&signal) {
                Some(limit) => write!(f, ", {name} {limit}{unit}")?,
                None => write!(f, ", {name} off")?,
            }
        }
        Ok(())
    }
}

/// What an operator changes. What is not named stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// First go back to what the target's configuration says.
    pub reset: bool,
    /// Bytes per second at most.
    pub max_rate: Option<Rate>,
    /// When bulk reading goes on.
    pub hours: Option<Hours>,
    /// Limits of signals.
    pub limits: BTreeMap<Signal, Limit>,
}

impl Change {
    /// Turns everything off.
    pub fn off() -> Self {
        let limits = Signal::ALL.into_iter().map(|signal| (signal, Limit(None))).collect();
        Self { reset: false, max_rate: Some(Rate(None)), hours: Some(Hours::default()), limits }
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A text is no setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// No rate.
    #[error("`{0}` is no rate like 500kB, 20MB or 1GiB (per second, at least {LEAST_RATE} bytes), nor `off`")]
    Rate(String),
    /// No limit.
    #[error("`{0}` is no number from 1 to 1000000, nor `off`")]
    Limit(String),
    /// No hours.
    #[error("`{0}` is no time of day like 22:00-06:00 (UTC) or 22:00-06:00+01:00, nor `always`")]
    Hours(String),
}

/// Less than this is no rate that a copy would ever end at.
const LEAST_RATE: u64 = 1000;

/// Bytes per second, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

impl FromStr for Rate {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        if text == "off" {
            return Ok(Self(None));
        }
        let bad = || BadSetting::Rate(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return Err(bad()),
        };
        let rate = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        rate.filter(|rate| *rate >= LEAST_RATE).map(|rate| Self(Some(rate))).ok_or_else(bad)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(rate) if rate < 1_000_000 => write!(f, "{:.0} kB/s", rate as f64 / 1e3),
            Some(rate) => write!(f, "{:.1} MB/s", rate as f64 / 1e6),
        }
    }
}

/// A signal's limit, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<u32>);

impl FromStr for Limit {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        if text == "off" {
            return Ok(Self(None));
        }
        let limit = text.parse().ok().filter(|limit| (1..=1_000_000).contains(limit));
        limit.map(|limit| Self(Some(limit))).ok_or_else(|| BadSetting::Limit(text.to_owned()))
    }
}

/// What watchers see of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttled {
    /// What is kept to.
    pub settings: Throttle,
    /// Bytes per second that bulk reads may take now; unbounded where `None`.
    pub rate: Option<u64>,
    /// Bulk reads wait for their hours.
    pub waiting: bool,
    /// Why it is not unbounded.
    pub reason: Option<String>,
    /// The source's signals, as they were told last.
    pub signals: Vec<Reading>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_people_write_them() {
        for (text, rate) in [
            ("20MB", Some(20_000_000)),
            ("20 MiB", Some(20 << 20)),
            ("1gib", Some(1 << 30)),
            ("500kB", Some(500_000)),
            ("1000", Some(1000)),
            ("off", None),
        ] {
            assert_eq!(text.parse(), Ok(Rate(rate)), "{text}");
        }
        for text in ["", "MB", "0", "999", "-1MB", "20 parsecs", "1.5MB", "99999999999GB"] {
            assert_eq!(text.parse::<Rate>(), Err(BadSetting::Rate(text.to_owned())));
        }
        assert_eq!(Rate(Some(20_000_000)).to_string(), "20.0 MB/s");
        for text in ["0", "80%", "-1", "1000001"] {
            assert_eq!(text.parse::<Limit>(), Err(BadSetting::Limit(text.to_owned())));
        }
    }

    #[test]
    fn a_change_changes_what_it_names() {
        let mut change = Change { max_rate: Some(Rate(Some(5_000_000))), ..Change::default() };
        change.limits.insert(Signal::Threads, Limit(None));
        change.limits.insert(Signal::CpuPercent, Limit(Some(50)));
        let now = Throttle::default().with(&change);
        assert_eq!(
            now.to_string(),
            "max-rate 5.0 MB/s, hours always, cpu 50 %, disk 90 %, replica lag 10 s, threads running off, \
             query latency 250 ms"
        );
        assert_eq!(now.with(&Change::off()), Throttle::off());
        assert!(Change::default().is_empty() && !change.is_empty());
    }

    #[test]
    fn settings_of_another_release_are_read() {
        let read: Throttle = serde_json::from_str(r#"{"max_rate": 5000, "later": 1}"#).unwrap();
        assert_eq!(read, Throttle { max_rate: Some(5000), ..Throttle::default() });
        let text = serde_json::to_string(&Throttle::default()).unwrap();
        assert_eq!(serde_json::from_str::<Throttle>(&text).unwrap(), Throttle::default());
    }
}
