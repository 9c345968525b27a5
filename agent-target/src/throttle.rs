//! `[throttle]` of the target's configuration.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use handover_engine::throttle::hours::Hours;
use handover_engine::throttle::{Change, Limit, Rate, Signal, Throttle};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// How the source is throttled, until an operator says something else. What is left out is as usual.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThrottleSection {
    /// Bytes per second at most: `20MB`, or `off`.
    #[serde(deserialize_with = "setting")]
    pub max_rate: Option<Rate>,
    /// When the source is copied from: `22:00-06:00`, or `always`.
    pub hours: Option<Hours>,
    /// How busy the source's processors may be with others.
    #[serde(deserialize_with = "setting")]
    pub cpu_percent: Option<Limit>,
    /// How busy its disks may be with others.
    #[serde(deserialize_with = "setting")]
    pub disk_percent: Option<Limit>,
    /// How far its replicas may be behind.
    #[serde(deserialize_with = "setting")]
    pub replica_lag_seconds: Option<Limit>,
    /// Statements that its database servers may work on.
    #[serde(deserialize_with = "setting")]
    pub threads: Option<Limit>,
    /// How long its databases may take to answer.
    #[serde(deserialize_with = "setting")]
    pub latency_ms: Option<Limit>,
}

/// A number, or a text: `off`, or a number with its unit.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or a text like \"20MB\" or \"off\"")]
enum Written {
    Number(i64),
    Text(String),
}

fn setting<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    let text = match Written::deserialize(value)? {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    text.parse().map(Some).map_err(Error::custom)
}

impl ThrottleSection {
    /// The settings.
    pub fn throttle(&self) -> Throttle {
        let limits = [
            (Signal::CpuPercent, self.cpu_percent),
            (Signal::DiskPercent, self.disk_percent),
            (Signal::ReplicaLagSeconds, self.replica_lag_seconds),
            (Signal::Threads, self.threads),
            (Signal::LatencyMs, self.latency_ms),
        ];
        let limits: BTreeMap<Signal, Limit> =
            limits.into_iter().filter_map(|(signal, limit)| Some((signal, limit?))).collect();
        let change =
            Change { max_rate: self.max_rate, hours: self.hours.clone(), limits, ..Change::default() };
        Throttle::default().with(&change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Throttle, String> {
        let section: Result<ThrottleSection, _> = toml::from_str(text);
        section.map(|section| section.throttle()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_section_is_read() {
        assert_eq!(read(""), Ok(Throttle::default()));
        let all = "max_rate = '20MB'\nhours = '22:00-06:00'\ncpu_percent = 70\ndisk_percent = 'off'\n\
                   replica_lag_seconds = 'off'\nthreads = 'off'\nlatency_ms = '100'";
        assert_eq!(
            read(all).unwrap().to_string(),
            "max-rate 20.0 MB/s, hours 22:00-06:00, cpu 70 %, disk off, replica lag off, threads running off, \
             query latency 100 ms"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("cpu_percent = 0", "`0` is no number"),
            ("threads = -1", "`-1` is no number"),
            ("\nmax_rate = 'fast'", "line 2"),
            ("max_rate = 'fast'", "`fast` is no rate"),
            ("hours = 'at night'", "`at night` is no time of day"),
            ("cpu = 80", "unknown field `cpu`"),
            ("threads = [1]", "a number, or a text"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
