//! Throttling on the wire.

use handover_engine::throttle::{Change, Limit, Rate, Reading, Signal};
use handover_proto::v1;

use super::{BadField, FromWire, IntoWire, name};

impl IntoWire<v1::ThrottleRequest> for Change {
    /// Without the migration's name.
    fn into_wire(self) -> v1::ThrottleRequest {
        let limit = |signal| self.limits.get(&signal).map(|limit| limit.0.unwrap_or(0));
        v1::ThrottleRequest {
            migration: String::new(),
            reset: self.reset,
            max_rate: self.max_rate.map(|rate| rate.0.unwrap_or(0)),
            cpu_percent: limit(Signal::CpuPercent),
            disk_percent: limit(Signal::DiskPercent),
            replica_lag_seconds: limit(Signal::ReplicaLagSeconds),
            threads: limit(Signal::Threads),
            latency_ms: limit(Signal::LatencyMs),
            hours: self.hours.map(String::from),
        }
    }
}

impl FromWire<v1::ThrottleRequest> for Change {
    fn from_wire(message: v1::ThrottleRequest) -> Result<Self, BadField> {
        let limits = [
            (Signal::CpuPercent, message.cpu_percent),
            (Signal::DiskPercent, message.disk_percent),
            (Signal::ReplicaLagSeconds, message.replica_lag_seconds),
            (Signal::Threads, message.threads),
            (Signal::LatencyMs, message.latency_ms),
        ];
        // As text, so that the same bounds hold as for what people write.
        let written = |number: u64| if number == 0 { "off".to_owned() } else { number.to_string() };
        let limits = limits.into_iter().filter_map(|(signal, limit)| Some((signal, u64::from(limit?))));
        let limits = limits.map(|(signal, limit)| {
            let limit: Result<Limit, _> = written(limit).parse();
            Ok((signal, limit.map_err(|bad| BadField::bad(signal.as_str(), bad))?))
        });
        let max_rate: Option<Result<Rate, _>> = message.max_rate.map(|rate| written(rate).parse());
        let hours = message.hours.map(|hours| hours.parse());
        Ok(Self {
            reset: message.reset,
            max_rate: max_rate.transpose().map_err(|bad| BadField::bad("max_rate", bad))?,
            hours: hours.transpose().map_err(|bad| BadField::bad("hours", bad))?,
            limits: limits.collect::<Result<_, BadField>>()?,
        })
    }
}

/// Numbers that signals have on the wire.
const NUMBERS: [(Signal, v1::Signal); 5] = [
    (Signal::CpuPercent, v1::Signal::CpuPercent),
    (Signal::DiskPercent, v1::Signal::DiskPercent),
    (Signal::ReplicaLagSeconds, v1::Signal::ReplicaLagSeconds),
    (Signal::Threads, v1::Signal::Threads),
    (Signal::LatencyMs, v1::Signal::LatencyMs),
];

impl IntoWire<v1::SignalsReply> for Vec<Reading> {
    fn into_wire(self) -> v1::SignalsReply {
        let reading = |reading: Reading| {
            let number = NUMBERS.iter().find(|(signal, _)| *signal == reading.signal);
            v1::Reading {
                signal: number.map_or(0, |(_, number)| (*number).into()),
                dataset: reading.dataset.map(Into::into).unwrap_or_default(),
                value: reading.value,
            }
        };
        v1::SignalsReply { readings: self.into_iter().map(reading).collect() }
    }
}

impl FromWire<v1::SignalsReply> for Vec<Reading> {
    fn from_wire(message: v1::SignalsReply) -> Result<Self, BadField> {
        let mut readings = Vec::new();
        for reading in message.readings {
            // A signal of a later release is none that anybody has set a limit to.
            let known = NUMBERS.iter().find(|(_, number)| i32::from(*number) == reading.signal);
            let Some((signal, _)) = known else { continue };
            if !reading.value.is_finite() || reading.value < 0.0 {
                return Err(BadField::bad("readings.value", "is no amount"));
            }
            let dataset = (!reading.dataset.is_empty()).then(|| name("readings.dataset", &reading.dataset));
            readings.push(Reading { signal: *signal, dataset: dataset.transpose()?, value: reading.value });
        }
        Ok(readings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_travel_whole() {
        let mut change = Change {
            reset: true,
            max_rate: Some(Rate(Some(5_000_000))),
            hours: Some("22:00-06:00+01:00".parse().unwrap()),
            ..Change::default()
        };
        change.limits.insert(Signal::CpuPercent, Limit(None));
        change.limits.insert(Signal::LatencyMs, Limit(Some(7)));
        for change in [change, Change::off(), Change::default()] {
            assert_eq!(Change::from_wire(change.clone().into_wire()).unwrap(), change);
        }
        let bad = v1::ThrottleRequest { max_rate: Some(5), ..v1::ThrottleRequest::default() };
        assert_eq!(Change::from_wire(bad).unwrap_err().field, "max_rate");
        let bad = v1::ThrottleRequest { hours: Some("noon".to_owned()), ..v1::ThrottleRequest::default() };
        assert_eq!(Change::from_wire(bad).unwrap_err().field, "hours");
        let bad = v1::ThrottleRequest { threads: Some(u32::MAX), ..v1::ThrottleRequest::default() };
        assert_eq!(Change::from_wire(bad).unwrap_err().field, "threads");
    }

    #[test]
    fn readings_travel_whole() {
        let mut readings: Vec<Reading> =
            Signal::ALL.map(|signal| Reading { signal, dataset: None, value: 1.5 }).into();
        readings[4].dataset = Some("shop".parse().unwrap());
        let mut wire = readings.clone().into_wire();
        // What a later release may tell is left out.
        wire.readings.push(v1::Reading { signal: 99, dataset: String::new(), value: 1.0 });
        assert_eq!(Vec::<Reading>::from_wire(wire.clone()).unwrap(), readings);
        wire.readings[0].value = f64::NAN;
        assert_eq!(Vec::<Reading>::from_wire(wire.clone()).unwrap_err().field, "readings.value");
        wire.readings[0] = v1::Reading { signal: 1, dataset: "../x".to_owned(), value: 1.0 };
        assert_eq!(Vec::<Reading>::from_wire(wire).unwrap_err().field, "readings.dataset");
    }
}
