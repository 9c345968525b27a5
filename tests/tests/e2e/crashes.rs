//! Agents that die: whatever the moment, the migration goes on where it was.

use std::time::Duration;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::poll;
use handover_tests::resent::{self, Applied, Round};

use super::{SETTLES_WITHIN, settle_and_compare};

/// Enough to move that something is left when it is struck.
pub fn busy_spec(seed: u64) -> Spec {
    let mut spec = Spec::small(seed);
    spec.rows = 40_000;
    spec.tree.large = 128 << 20;
    spec
}

/// A bed with that, and its migration.
fn busy_bed(seed: u64) -> (Bed, Round) {
    let bed = Bed::temporary(&busy_spec(seed)).unwrap();
    let round = Round { begun_ms: poll::wall_ms(), changed: None };
    bed.start().unwrap();
    (bed, round)
}

pub fn wait_for_some_progress(bed: &Bed) {
    poll::until("some progress", Duration::from_secs(60), || {
        Ok(bed.status().is_ok_and(|status| status.share() > 0.1 || status.is_settled()).then_some(()))
    })
    .unwrap();
}

/// Lets it settle, compares, and asks journal and log whether anything was sent twice.
fn nothing_is_lost_or_sent_again(mut bed: Bed, round: Round, mut applied: Applied) {
    settle_and_compare(&bed);
    let report = bed.json(&["report"]).unwrap();
    assert_eq!(report["totals"]["chunks_resent"], 0, "{report}");
    bed.target.kill().unwrap();
    applied.absorb(bed.target.state()).unwrap();
    assert!(!applied.is_empty());
    let served = resent::served(bed.source.log()).unwrap();
    assert_eq!(resent::resent(&[round], &served, &applied), Vec::<String>::new());
}

#[test]
fn both_agents_killed_at_once() {
    let (mut bed, round) = busy_bed(12);
    wait_for_some_progress(&bed);
    bed.target.kill().unwrap();
    bed.source.kill().unwrap();
    let mut applied = Applied::default();
    applied.absorb(bed.target.state()).unwrap();
    bed.source.restart().unwrap();
    bed.target.restart().unwrap();
    nothing_is_lost_or_sent_again(bed, round, applied);
}

#[test]
fn the_source_dies_and_comes_back() {
    let (mut bed, round) = busy_bed(13);
    wait_for_some_progress(&bed);
    bed.source.kill().unwrap();
    assert!(bed.status().is_ok(), "the target answers without its source");
    bed.source.restart().unwrap();
    nothing_is_lost_or_sent_again(bed, round, Applied::default());
}

#[test]
fn progress_never_goes_back_over_a_restart() {
    let (mut bed, _) = busy_bed(14);
    wait_for_some_progress(&bed);
    let before = bed.status().unwrap().share();
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    let mut last = before - 0.02;
    poll::until("the migration to settle", SETTLES_WITHIN, || {
        let status = bed.status()?;
        assert!((last..=1.0).contains(&status.share()), "{status:?} after {last}");
        last = status.share();
        Ok(status.is_settled().then_some(()))
    })
    .unwrap();
}

#[test]
fn an_agent_asked_to_end_ends_and_loses_nothing() {
    let (mut bed, round) = busy_bed(15);
    wait_for_some_progress(&bed);
    assert_eq!(bed.target.stop().unwrap(), Some(0));
    bed.target.restart().unwrap();
    nothing_is_lost_or_sent_again(bed, round, Applied::default());
}
