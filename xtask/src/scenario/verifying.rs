//! What it costs to verify a copy while its source is written to: once, once more right after that, and with nobody at work.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handover_tests::bed::{Bed, SERVED};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use serde_json::{Value, json};

use super::live::load::Running;
use super::live::make;
use super::{Options, Outcome};
use crate::shell::say;
use crate::workplace::Workplace;

/// How long the load runs to find out what the server can do.
const ALONE: Duration = Duration::from_secs(5);
/// The copy must be complete, and caught up with, within this time.
const COPIED_WITHIN: Duration = Duration::from_secs(1800);
/// A copy that is no further behind than this has caught up.
const CAUGHT_UP_MS: u64 = 1_000;

/// Ranges that the source has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ranges {
    count: u64,
    bytes: u64,
}

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    let place = Workplace::fresh("scenario-verify")?;
    let binaries = Binaries::build(Profile::Release)?;
    let (data, load) = make(options, &place)?;
    let rate = load.measure(None, ALONE)?.per_second / 3.0;
    say(format!("{rate:.0} transactions per second are asked for, a third of what it can do alone"));
    let mut running = load.start(rate)?;
    let bed = Bed::at(place.path(), binaries, vec![data.dataset()], SERVED)?;
    let digest = bed.json(&["plan", "--follow"])?["digest"].as_str().unwrap_or_default().to_owned();
    bed.json(&["start", &digest])?;
    poll::until("the copy to catch up", COPIED_WITHIN, || {
        let status = bed.json(&["status"])?;
        ensure!(status["condition"] == "good", "the migration stands still: {status}");
        let lag = status["following"]["app"]["lag_ms"].as_u64();
        let has_caught_up = lag.is_some_and(|lag| lag <= CAUGHT_UP_MS);
        Ok((status["activity"] == "following" && has_caught_up).then_some(()))
    })?;
    let mut all = Vec::new();
    for which in ["first", "second"] {
        say(format!("verifying under load, the {which} time"));
        all.push(verify(&bed, which, Some(&mut running))?);
    }
    drop(running);
    say("verifying with nobody at work");
    all.push(verify(&bed, "at rest", None)?);
    let ok = all.iter().all(|one| one["differences"] == 0 && one["unsettled"] == 0);
    Ok(Outcome { ok, figures: json!({ "engine": options.engine, "verified": all }) })
}

/// One verification: what it read, and what of that travelled.
fn verify(bed: &Bed, which: &str, mut load: Option<&mut Running>) -> Result<Value> {
    let known = fs::metadata(bed.source.log())?.len();
    let mark = load.as_deref_mut().map(Running::mark).transpose()?;
    let began = Instant::now();
    bed.cli(&["verify", "--watch"])?.success()?;
    let took = began.elapsed();
    // Tools tell of themselves once a second: of less time, nothing.
    let measured = load.zip(mark).and_then(|(running, mark)| running.since(mark).ok());
    let transactions = measured.map(|measured| measured.per_second * took.as_secs_f64());
    let log = fs::read(bed.source.log())?;
    let since = log.get(usize::try_from(known)?..).context("the source's log has become shorter")?;
    let (same, sent) = read(&String::from_utf8_lossy(since));
    let verified = bed.json(&["report"])?["outcome"]["verified"]["app"].clone();
    let figures = json!({
        "which": which,
        "ms": took.as_millis() as u64,
        "transactions": transactions.map(|count| count.round() as u64),
        "rows": verified["read"]["rows"],
        "ranges": same.count + sent.count,
        "bytes": same.bytes + sent.bytes,
        "ranges_sent": sent.count,
        "bytes_sent": sent.bytes,
        "differences": verified["differences"],
        "unsettled": verified["unsettled"],
    });
    say(figures.to_string());
    Ok(figures)
}

/// What the source's log tells of: ranges that were the same on both sides, and those whose rows were sent.
fn read(log: &str) -> (Ranges, Ranges) {
    let (mut same, mut sent) = (Ranges::default(), Ranges::default());
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let ranges = match line["target"].as_str() {
            Some("handover::served::same") => &mut same,
            Some("handover::served") => &mut sent,
            _ => continue,
        };
        ranges.count += 1;
        ranges.bytes += line["fields"]["bytes"].as_u64().unwrap_or(0);
    }
    (same, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compared_and_what_was_sent_are_counted_apart() {
        let line = |target: &str, bytes: u32| {
            format!("{{\"target\":\"{target}\",\"fields\":{{\"bytes\":{bytes}}}}}\n")
        };
        let log = [
            line("handover::served::same", 10),
            line("handover::served", 3),
            "not JSON\n".to_owned(),
            line("handover_source", 99),
            line("handover::served::same", 20),
        ];
        let expected = (Ranges { count: 2, bytes: 30 }, Ranges { count: 1, bytes: 3 });
        assert_eq!(read(&log.concat()), expected);
    }
}
