//! What a migration has built at the target is taken away: without its source, where that is gone for good, and what an abort has kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::{compare, poll};
use serde_json::json;

use super::SETTLES_WITHIN;

fn followed(seed: u64) -> Bed {
    let bed = Bed::temporary(&Spec::small(seed)).unwrap();
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    reach(&bed, "following");
    bed
}

fn reach(bed: &Bed, phase: &str) {
    poll::until(phase, SETTLES_WITHIN, || Ok((bed.json(&["status"])?["phase"] == phase).then_some(())))
        .unwrap();
}

#[test]
fn without_its_source_an_instance_is_terminated() {
    let mut bed = followed(81);
    assert!(bed.copy().files.exists());
    bed.source.kill().unwrap();
    let asks = bed.cli(&["terminate"]).unwrap();
    assert_eq!(asks.code, Some(5), "{}", asks.text());
    assert!(asks.text().contains("add --yes where the source is gone for good"), "{}", asks.text());
    assert_eq!(bed.json(&["status"]).unwrap()["phase"], "following");

    bed.cli(&["terminate", "--yes", "--watch"]).unwrap().success().unwrap();
    let status = bed.json(&["status"]).unwrap();
    assert_eq!(
        (status["phase"].as_str(), status["instance"].as_str()),
        (Some("aborted"), Some("Terminated"))
    );
    assert!(!bed.copy().database.exists(), "its database is still there");
    let left: Vec<_> =
        fs::read_dir(&bed.copy().files).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "files are still there: {left:?}");
    let report = bed.cli(&["report"]).unwrap();
    assert!(report.text().contains("the source was given up"), "{}", report.text());
    let again = bed.cli(&["terminate"]).unwrap().success().unwrap();
    assert!(again.text().contains("nothing of it is left"), "{}", again.text());
    assert!(bed.cli(&["audit"]).unwrap().text().contains("abort, without the source"));
    // The next one begins as if nothing had been.
    bed.source.restart().unwrap();
    bed.start().unwrap();
    reach(&bed, "following");
    assert_eq!(bed.compare().unwrap().found, 0);
}

#[test]
fn what_serves_is_not_terminated() {
    let bed = followed(82);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    reach(&bed, "trial");
    let refused = bed.cli(&["terminate", "--yes"]).unwrap();
    assert_eq!(refused.code, Some(5), "{}", refused.text());
    assert!(refused.text().contains("what was written there would be lost"), "{}", refused.text());
    bed.json(&["accept"]).unwrap();
    poll::until("the end of the trial", SETTLES_WITHIN, || {
        Ok((bed.json(&["status"])?["activity"] == "idle").then_some(()))
    })
    .unwrap();
    bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    let refused = bed.cli(&["terminate", "--yes"]).unwrap();
    assert!(refused.text().contains("has become the appliance itself"), "{}", refused.text());
}

/// A tree as it is now.
fn copied(root: &Path, to: &Path) -> PathBuf {
    assert!(Command::new("cp").arg("-a").arg(root).arg(to).status().unwrap().success());
    to.to_owned()
}

fn place(bed: &Bed, dataset: &str) -> PathBuf {
    let status = bed.json(&["status"]).unwrap();
    status["kept"][dataset]["place"].as_str().unwrap_or_else(|| panic!("nothing is kept: {status}")).into()
}

#[test]
fn what_an_abort_has_kept_is_there_until_it_is_terminated() {
    let mut bed = followed(83);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    reach(&bed, "trial");
    bed.copy().change(1).unwrap();
    fs::write(bed.copy().files.join("on trial"), "written by a user").unwrap();
    let served = copied(&bed.copy().files, &bed.root().join("served"));
    bed.json(&["abort"]).unwrap();
    // It goes on wherever that cuts it short.
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    reach(&bed, "aborted");

    let (database, files) = (place(&bed, "app"), place(&bed, "files"));
    assert!(!bed.copy().database.exists() && !bed.copy().files.join("on trial").exists());
    let found = compare::databases(&bed.original().database, &database).unwrap();
    assert_eq!(found.found, 0, "{}", found.describe());
    let found = compare::trees(&served, &files).unwrap();
    assert_eq!(found.found, 0, "{}", found.describe());
    let status = bed.json(&["status"]).unwrap();
    assert_eq!(
        (status["instance"].as_str(), &status["allowed"]),
        (Some("Miscellaneous"), &json!(["terminate"]))
    );
    // Nobody is kept from writing there.
    let db = rusqlite::Connection::open(&database).unwrap();
    db.execute_batch("UPDATE customer SET name = name").unwrap();
    drop(db);
    let shown = files.display().to_string();
    for verb in ["status", "list", "report", "check"] {
        let output = bed.cli(&[verb]).unwrap();
        assert!(output.text().contains(&shown), "{verb}: {}", output.text());
    }

    // The next one has nothing to do with it.
    let migration = status["migration"].as_str().unwrap().to_owned();
    bed.start().unwrap();
    reach(&bed, "following");
    bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.compare().unwrap().found, 0);
    assert!(database.exists() && files.join("on trial").exists());
    let asks = bed.cli(&["terminate", &migration]).unwrap();
    assert!(asks.code == Some(5) && asks.text().contains(&shown), "{}", asks.text());
    bed.cli(&["terminate", &migration, "--yes"]).unwrap().success().unwrap();
    assert!(!database.exists() && !files.exists() && !bed.copy().files.join(".handover").exists());
    let again = bed.cli(&["terminate", &migration, "--yes"]).unwrap().success().unwrap();
    assert!(again.text().contains("nothing of it is left"), "{}", again.text());
    assert!(!bed.cli(&["list"]).unwrap().text().contains(&shown));
    assert_eq!(bed.json(&["status", &migration]).unwrap()["instance"], "Terminated");
    assert_eq!(bed.compare().unwrap().found, 0);
    let log = bed.cli(&["audit"]).unwrap();
    assert!(log.text().contains("asks: terminate"), "{}", log.text());
    bed.cli(&["audit", "--verify"]).unwrap().success().unwrap();
}
