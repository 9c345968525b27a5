//! What may run out is shown, and a migration stops before it does.

use std::time::Duration;

use handover_engine::time::Timestamp;
use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Status};
use handover_tests::poll;
use serde_json::Value;

use super::settle_and_compare;

const SOON: Duration = Duration::from_secs(60);

#[track_caller]
fn wait_until_stuck(bed: &Bed) -> Status {
    poll::until("the migration to stop", SOON, || Ok(bed.status().ok().filter(Status::is_stuck))).unwrap()
}

#[track_caller]
fn wait_for(bed: &Bed, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    poll::until(what, SOON, || Ok(bed.json(&["status"]).ok().filter(|status| is_so(status)))).unwrap()
}

#[test]
fn a_disk_keeps_its_reserve() {
    let mut bed = Bed::temporary(&Spec::small(70)).unwrap();
    // It must not be over before anybody has looked.
    bed.configure_target(|text| {
        let text = text.replace("[throttle]\n", "[throttle]\nmax_rate = \"1MB\"\n");
        text + "\n[limits]\nreserve_bytes = 1000000000000000\n"
    })
    .unwrap();
    bed.start().unwrap();
    let stuck = wait_until_stuck(&bed);
    let told = stuck.failure.to_string();
    for part in ["at the target", "to be kept free", "reserve_bytes", "handover resume"] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    assert_eq!(stuck.allowed, ["resume", "abort"]);
    // It looks again, and stops again, until there is room.
    bed.json(&["resume"]).unwrap();
    wait_until_stuck(&bed);
    bed.configure_target(|text| text.replace("reserve_bytes = 1000000000000000", "reserve_bytes = 0"))
        .unwrap();
    bed.json(&["throttle", "--off"]).unwrap();
    bed.json(&["resume"]).unwrap();
    settle_and_compare(&bed);
}

#[test]
fn changes_that_wait_keep_to_their_limit() {
    let mut bed = Bed::temporary(&Spec::small(71)).unwrap();
    let at = |hours: i64| {
        Timestamp::from_millis(poll::wall_ms() + hours * 3_600_000).to_string()[11..16].to_owned()
    };
    let hours = format!("hours = \"{}-{}\"", at(2), at(3));
    bed.configure_target(|text| {
        let text = text.replace("[throttle]\n", &format!("[throttle]\n{hours}\n"));
        text + "\n[limits]\nspool_bytes = 2000\nreserve_bytes = 0\n"
    })
    .unwrap();
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    // The copy waits for its hours; what changes meanwhile is kept.
    let status =
        wait_for(&bed, "what waits to be shown", |status| status["room"]["logs"]["app"]["bytes"].is_u64());
    let room = &status["room"];
    assert_eq!(room["waiting"]["app"]["limit"], 2000, "{status}");
    for side in ["source", "target"] {
        let disk = &room[side][0];
        assert!(
            disk["free"].as_u64() <= disk["total"].as_u64() && disk["total"].as_u64() > Some(0),
            "{status}"
        );
    }
    let text = bed.cli(&["status"]).unwrap().text();
    assert!(text.contains("of 2.0 KiB wait") && text.contains("free at the source"), "{text}");
    for seed in 0..20 {
        bed.original().change(seed).unwrap();
    }
    let told = wait_until_stuck(&bed).failure.to_string();
    assert!(told.contains("spool_bytes") && told.contains("resume"), "{told}");
    bed.configure_target(|text| text.replace("spool_bytes = 2000", "spool_bytes = 200000000")).unwrap();
    bed.json(&["resume"]).unwrap();
    bed.json(&["throttle", "--hours", "always"]).unwrap();
    wait_for(&bed, "the target to catch up", |status| {
        assert_eq!(status["condition"], "good", "{status}");
        status["following"]["app"]["waiting"] == 0
    });
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}
