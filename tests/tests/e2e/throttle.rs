//! A source that is spared: held to a rate, to hours of the day, and changed on the fly.

use std::time::{Duration, Instant};

use handover_engine::time::Timestamp;
use handover_tests::bed::{Bed, Output};
use handover_tests::poll;
use serde_json::Value;

use super::crashes::busy_spec;
use super::{SETTLES_WITHIN, settle_and_compare};

const SOON: Duration = Duration::from_secs(30);

/// A bed whose target is throttled like this from the start.
fn throttled(seed: u64, section: &str) -> Bed {
    let mut bed = Bed::temporary(&busy_spec(seed)).unwrap();
    bed.configure_target(|text| text.replace("[throttle]\n", &format!("[throttle]\n{section}\n"))).unwrap();
    bed
}

/// Bytes of chunks that the source has read and sent so far.
fn served(bed: &Bed) -> u64 {
    let log = std::fs::read_to_string(bed.source.log()).unwrap();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["target"] == "handover::served")
        .filter_map(|e| e["fields"]["bytes"].as_u64())
        .sum()
}

/// Waits until the reason that is shown has this in it.
#[track_caller]
fn wait_for_reason(bed: &Bed, part: &str) -> Value {
    poll::until(part, SOON, || {
        // An agent that is down is waited for.
        let Ok(status) = bed.json(&["status"]) else { return Ok(None) };
        let reason = status["throttle"]["reason"].as_str().unwrap_or_default();
        Ok(reason.contains(part).then_some(status.clone()))
    })
    .unwrap()
}

#[test]
fn a_copy_is_held_to_a_rate_until_it_is_not() {
    let mut bed = throttled(60, "max_rate = \"4MB\"");
    bed.start().unwrap();
    let begun = Instant::now();
    let status = wait_for_reason(&bed, "max-rate: reading at 4.0 MB/s at most");
    assert_eq!(status["throttle"]["rate"], 4_000_000, "{status}");
    let text = bed.cli(&["status"]).unwrap().success().unwrap().stdout;
    assert!(text.contains("max-rate: reading at 4.0 MB/s at most"), "{text}");
    let five_seconds = poll::until("five seconds and some bytes", SOON, || {
        let now = served(&bed);
        Ok((begun.elapsed() > Duration::from_secs(5) && now > 8_000_000).then_some(now))
    });
    let (bytes, seconds) = (five_seconds.unwrap(), begun.elapsed().as_secs_f64());
    // Small files and the first chunks may come early, in parts of up to 4 MiB.
    assert!((bytes as f64) < seconds * 4e6 + 25e6, "{bytes} bytes in {seconds} s");
    // Changed on the fly, by operators alone; an agent that is killed remembers.
    let watcher = bed.identity("watcher");
    let refused = Output::of(bed.command_as(&watcher).args(["throttle", "--off"])).unwrap();
    assert!(refused.code != Some(0) && refused.text().contains("watcher"), "{}", refused.text());
    Output::of(bed.command_as(&watcher).arg("throttle")).unwrap().success().unwrap();
    bed.json(&["throttle", "--max-rate", "3MB"]).unwrap();
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    wait_for_reason(&bed, "max-rate: reading at 3.0 MB/s at most");
    bed.json(&["throttle", "--max-rate", "off"]).unwrap();
    let status = settle_and_compare(&bed);
    assert!(begun.elapsed() < SETTLES_WITHIN);
    let trail = bed.cli(&["watch", &status.migration]).unwrap().text();
    for part in ["max-rate 3.0 MB/s", "max-rate off", "/handover/operator/"] {
        let told = trail.lines().any(|line| line.contains("note: throttle") && line.contains(part));
        assert!(told, "{part} is not in: {trail}");
    }
    assert_eq!(bed.json(&["report"]).unwrap()["totals"]["chunks_resent"], 0);
}

#[test]
fn a_copy_waits_for_its_hours() {
    let at = |hours: i64| {
        Timestamp::from_millis(poll::wall_ms() + hours * 3_600_000).to_string()[11..16].to_owned()
    };
    let hours = format!("{}-{}", at(2), at(3));
    let mut bed = throttled(61, &format!("hours = \"{hours}\""));
    bed.start().unwrap();
    let status = wait_for_reason(&bed, &format!("hours {hours}: copying waits until {} UTC", at(2)));
    assert_eq!(
        (&status["throttle"]["waiting"], &status["condition"]),
        (&true.into(), &"good".into()),
        "{status}"
    );
    // It can be paused, resumed and killed while it waits.
    bed.json(&["pause"]).unwrap();
    assert_eq!(bed.json(&["status"]).unwrap()["condition"], "paused");
    bed.json(&["resume"]).unwrap();
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    wait_for_reason(&bed, "copying waits");
    assert_eq!(served(&bed), 0);
    let refused = bed.cli(&["throttle", "--hours", "at night"]).unwrap();
    assert!(refused.code == Some(2) && refused.text().contains("at night"), "{}", refused.text());
    bed.json(&["throttle", "--hours", "always"]).unwrap();
    settle_and_compare(&bed);
}
