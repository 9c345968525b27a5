//! `handover throttle`: what the source is held to.

use clap::Args;
use handover_engine::throttle::hours::Hours;
use handover_engine::throttle::{Change, Limit, Rate, Signal, Throttled};

use crate::arguments::Which;

/// What is changed. Without any of it, what is kept to is shown.
#[derive(Debug, Args)]
pub struct ThrottleArguments {
    /// Which migration.
    #[command(flatten)]
    pub which: Which,
    /// Read no more than so many bytes per second: 20MB, 500kB, or off.
    #[arg(long, value_name = "RATE")]
    pub max_rate: Option<Rate>,
    /// Copy at these hours of the day alone: 22:00-06:00 (UTC), 22:00-06:00+01:00, several with commas, or always. A copy that is
    /// complete is kept up to date at any hour.
    #[arg(long, value_name = "HOURS")]
    pub hours: Option<Hours>,
    /// Copy more slowly while others keep the source's processors busier than so many percent, or off.
    #[arg(long, value_name = "PERCENT")]
    pub cpu: Option<Limit>,
    /// The same of the disks that hold its data.
    #[arg(long, value_name = "PERCENT")]
    pub disk: Option<Limit>,
    /// Copy more slowly while a replica is further behind than so many seconds, or off.
    #[arg(long, value_name = "SECONDS")]
    pub replica_lag: Option<Limit>,
    /// Copy more slowly while a database server works on more statements of others, or off.
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<Limit>,
    /// Copy more slowly while a database takes longer to answer a trivial question, or off.
    #[arg(long, value_name = "MILLISECONDS")]
    pub latency: Option<Limit>,
    /// Hold nothing back, but for what else is named.
    #[arg(long, conflicts_with = "reset")]
    pub off: bool,
    /// Go back to the throttle section of the target's configuration, but for what else is named.
    #[arg(long)]
    pub reset: bool,
}

impl ThrottleArguments {
    /// As it is asked for.
    pub fn change(&self) -> Change {
        let start = if self.off { Change::off() } else { Change::default() };
        let mut limits = start.limits;
        let named = [
            (Signal::CpuPercent, self.cpu),
            (Signal::DiskPercent, self.disk),
            (Signal::ReplicaLagSeconds, self.replica_lag),
            (Signal::Threads, self.threads),
            (Signal::LatencyMs, self.latency),
        ];
        limits.extend(named.into_iter().filter_map(|(signal, limit)| Some((signal, limit?))));
        Change {
            reset: self.reset,
            max_rate: self.max_rate.or(start.max_rate),
            hours: self.hours.clone().or(start.hours),
            limits,
        }
    }
}

/// What is kept to, and what comes of it.
pub fn text(throttled: Option<&Throttled>) -> String {
    let Some(throttled) = throttled else { return "nothing is read of the source any more".to_owned() };
    match &throttled.reason {
        Some(reason) => format!("{}\n{reason}", throttled.settings),
        None => format!("{}\nnothing is held back now", throttled.settings),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Verb};

    fn change(args: &[&str]) -> Change {
        let parsed = Arguments::try_parse_from([&["handover", "throttle"], args].concat()).unwrap();
        let Verb::Throttle(throttle) = parsed.verb else { panic!("{:?}", parsed.verb) };
        throttle.change()
    }

    #[test]
    fn what_is_named_changes() {
        assert!(change(&[]).is_empty() && change(&["m-1"]).is_empty());
        let off_but_one = change(&["--off", "--cpu", "50"]);
        assert_eq!(off_but_one.limits[&Signal::CpuPercent], Limit(Some(50)));
        assert_eq!(off_but_one.limits[&Signal::Threads], Limit(None));
        assert_eq!(off_but_one.max_rate, Some(Rate(None)));
        let some = change(&["--max-rate", "20MB", "--hours", "22:00-06:00", "--reset"]);
        assert_eq!((some.max_rate, some.limits.len(), some.reset), (Some(Rate(Some(20_000_000))), 0, true));
        for bad in [["--cpu", "lots"], ["--hours", "noon"], ["--max-rate", "1"]] {
            let told = Arguments::try_parse_from([&["handover", "throttle"], &bad[..]].concat()).unwrap_err();
            assert!(told.to_string().contains(bad[1]), "{told}");
        }
    }
}
