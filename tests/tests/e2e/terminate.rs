//! A source that is gone for good: what was built at the target is taken away without it.

use std::fs;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::poll;

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
