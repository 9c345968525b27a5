//! A verification that is interrupted goes on where it was, over tables and within them.

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::poll;
use rusqlite::Connection;
use serde_json::Value;

use super::SETTLES_WITHIN;
use super::verifying::{follow, following, named, plant, unfinished, verify, wait_for};

/// Ranges of a table whose verification is journaled at once.
const JOURNALED: usize = 16;

#[test]
fn an_interrupted_verification_goes_on() {
    let mut bed = following(64);
    let whole = verify(&bed, &[], 0)["outcome"]["verified"]["app"]["read"].clone();
    let planted = plant(&unfinished(&bed));
    bed.json(&["verify"]).unwrap();
    // With three tables to be looked at more closely there is time for this.
    let tables = |bed: &Bed, least: u64| {
        poll::until("a table to be through", SETTLES_WITHIN, || {
            let report = bed.json(&["report"])?;
            let verifying = &report["outcome"]["verifying"];
            assert!(!verifying.is_null(), "it is over: {report}");
            let tables = verifying["checked"]["app"]["tables"].as_u64().unwrap_or(0);
            Ok((tables >= least).then_some(tables))
        })
        .unwrap()
    };
    let through = tables(&bed, 1);
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    assert!(tables(&bed, through) >= through, "it began again");
    bed.json(&["pause"]).unwrap();
    assert_eq!(bed.json(&["status"]).unwrap()["condition"], "paused");
    bed.json(&["resume"]).unwrap();
    wait_for(&bed, "following");
    let report = bed.json(&["report"]).unwrap();
    assert_eq!(report["outcome"]["verified"]["app"]["read"]["tables"], whole["tables"], "{report}");
    assert_eq!(named(&report, "differences"), planted);
}

/// The ranges of a table that the source has read so far and found to be what the target has, by what they come after.
fn compared(bed: &Bed, table: &str) -> Vec<String> {
    let (log, beginning) = (std::fs::read_to_string(bed.source.log()).unwrap(), format!("table/{table} "));
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let same = entries.filter(|entry| entry["target"] == "handover::served::same");
    let chunks = same.filter_map(|entry| Some(entry["fields"]["chunk"].as_str()?.to_owned()));
    chunks.filter(|chunk| chunk.starts_with(&beginning)).collect()
}

#[test]
fn an_interrupted_verification_goes_on_within_a_table() {
    let mut bed = Bed::temporary(&Spec::small(68)).unwrap();
    let bulk = "CREATE TABLE bulk (id INTEGER PRIMARY KEY, v TEXT);
                INSERT INTO bulk (v) WITH RECURSIVE n AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < 5500)
                SELECT printf('%010000d', n) FROM n";
    Connection::open(bed.original().database).unwrap().execute_batch(bulk).unwrap();
    follow(&bed);
    let whole = verify(&bed, &[], 0)["outcome"]["verified"]["app"]["read"].clone();
    let ranges = compared(&bed, "bulk");
    assert!(ranges.len() > JOURNALED, "{ranges:?}");
    // So that there is time behind what is journaled first.
    bed.json(&["throttle", "--max-rate", "10MB"]).unwrap();
    bed.json(&["verify"]).unwrap();
    poll::until("a part of the table to be through", SETTLES_WITHIN, || {
        let report = bed.json(&["report"])?;
        let verifying = &report["outcome"]["verifying"];
        assert!(!verifying.is_null(), "it is over: {report}");
        Ok((!verifying["checked"]["app"]["after"].is_null()).then_some(()))
    })
    .unwrap();
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    bed.json(&["throttle", "--max-rate", "off"]).unwrap();
    wait_for(&bed, "following");
    let report = bed.json(&["report"]).unwrap();
    assert_eq!(report["outcome"]["verified"]["app"]["read"], whole, "{report}");
    let again = compared(&bed, "bulk").split_off(ranges.len());
    let times = |range: &String| again.iter().filter(|read| *read == range).count();
    let read: Vec<usize> = ranges.iter().map(times).collect();
    // What was under way when the target died may be read twice, what was journaled not.
    assert!(read[..JOURNALED].iter().all(|times| *times == 1), "it began again: {read:?}");
    assert!(read[JOURNALED..].iter().all(|times| (1..=2).contains(times)), "{read:?}");
}
