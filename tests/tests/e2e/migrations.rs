//! What goes well: a first pass, further passes, the questions an operator asks.

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::resent;

use super::{SETTLES_WITHIN, settle_and_compare};

#[test]
fn everything_arrives_as_it_was() {
    for seed in [2, 3] {
        let bed = Bed::temporary(&Spec::small(seed)).unwrap();
        let id = bed.start().unwrap();
        let status = settle_and_compare(&bed);
        assert_eq!((status.migration, status.phase.as_str()), (id.clone(), "following"));
        let report = bed.json(&["report", &id]).unwrap();
        assert_eq!(
            (&report["totals"]["differences"], &report["totals"]["chunks_resent"]),
            (&0.into(), &0.into())
        );
        assert!(report["totals"]["rows"].as_u64() >= Some(6_000), "{report}");
    }
}

#[test]
fn a_second_pass_brings_what_changed_and_nothing_else() {
    let bed = Bed::temporary(&Spec::small(4)).unwrap();
    bed.start().unwrap();
    settle_and_compare(&bed);
    let before = resent::served(bed.source.log()).unwrap().len();
    bed.cli(&["sync"]).unwrap().success().unwrap();
    settle_and_compare(&bed);
    assert_eq!(resent::served(bed.source.log()).unwrap().len(), before, "nothing had changed");
    bed.original().change(5).unwrap();
    bed.cli(&["sync"]).unwrap().success().unwrap();
    settle_and_compare(&bed);
    assert!(resent::served(bed.source.log()).unwrap().len() > before);
}

#[test]
fn an_operator_sees_where_it_stands() {
    let bed = Bed::temporary(&Spec::small(5)).unwrap();
    let inventory = bed.json(&["inspect"]).unwrap().to_string();
    assert!(inventory.contains("invoice_line") && inventory.contains("sqlite"), "{inventory}");
    bed.json(&["check"]).unwrap();
    let id = bed.start().unwrap();
    bed.cli(&["watch", &id]).unwrap().success().unwrap();
    let status = bed.status().unwrap();
    assert!(status.is_settled(), "{status:?}");
    assert_eq!(status.progress.bytes_done, status.progress.bytes_total);
    for operation in ["sync", "verify", "abort", "finalize"] {
        assert!(status.allowed.iter().any(|allowed| allowed == operation), "{operation} in {status:?}");
    }
    assert!(bed.json(&["list"]).unwrap().to_string().contains(&id));
    bed.cli(&["verify"]).unwrap().success().unwrap();
    settle_and_compare(&bed);
}

#[test]
fn a_paused_migration_goes_on() {
    let mut spec = Spec::small(6);
    spec.tree.large = 192 << 20;
    let bed = Bed::temporary(&spec).unwrap();
    bed.start().unwrap();
    bed.cli(&["pause"]).unwrap().success().unwrap();
    let status = bed.status().unwrap();
    assert!(status.allowed.iter().any(|allowed| allowed == "resume"), "{status:?}");
    bed.cli(&["resume"]).unwrap().success().unwrap();
    settle_and_compare(&bed);
}

#[test]
fn an_abort_leaves_the_target_as_it_was() {
    let bed = Bed::temporary(&Spec::small(7)).unwrap();
    bed.start().unwrap();
    settle_and_compare(&bed);
    bed.cli(&["abort"]).unwrap().success().unwrap();
    let status = bed.settle(SETTLES_WITHIN).unwrap();
    assert_eq!(status.phase, "aborted");
    let copy = bed.copy();
    assert!(!copy.database.exists());
    let left: Vec<_> =
        std::fs::read_dir(&copy.files).map(|entries| entries.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_finalized_migration_is_over() {
    let bed = Bed::temporary(&Spec::small(8)).unwrap();
    bed.start().unwrap();
    settle_and_compare(&bed);
    bed.cli(&["finalize"]).unwrap().success().unwrap();
    let status = settle_and_compare(&bed);
    assert_eq!((status.phase.as_str(), status.allowed.len()), ("finalized", 0));
    assert_ne!(bed.cli(&["abort"]).unwrap().code, Some(0));
}
