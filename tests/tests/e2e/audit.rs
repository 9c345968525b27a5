//! What a migration leaves behind to prove what was done: the signed report and the audit log.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Output};
use serde_json::Value;

use super::{SETTLES_WITHIN, settle_and_compare};

fn words(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Vec<OsString> {
    args.iter().map(|arg| arg.as_ref().to_owned()).collect()
}

/// Runs a verb without any agent or identity.
fn offline(bed: &Bed, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = bed.command_alone();
    Output::of(command.args(words(args))).unwrap()
}

#[track_caller]
fn refused(bed: &Bed, args: &[&dyn AsRef<std::ffi::OsStr>], part: &str) {
    let output = offline(bed, args);
    assert_eq!(output.code, Some(5), "{output:?}");
    assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
}

/// A copy of a file with a change.
fn changed(path: &Path, change: impl FnOnce(String) -> String) -> PathBuf {
    let to = path.with_extension("changed");
    fs::write(&to, change(fs::read_to_string(path).unwrap())).unwrap();
    to
}

/// One small migration to its end, with an agent that was killed and a refusal on its way.
fn migrated() -> (Bed, String) {
    let mut bed = Bed::temporary(&Spec::small(9)).unwrap();
    let id = bed.start().unwrap();
    settle_and_compare(&bed);
    assert_ne!(bed.cli(&["accept"]).unwrap().code, Some(0));
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    bed.cli(&["finalize"]).unwrap().success().unwrap();
    assert_eq!(bed.settle(SETTLES_WITHIN).unwrap().phase, "finalized");
    (bed, id)
}

#[test]
fn a_migration_can_be_proven() {
    let (bed, id) = migrated();
    let (report, log, ca) =
        (bed.root().join("report.json"), bed.root().join("audit.log"), bed.ca().join("ca.pem"));
    bed.cli(&words(&[&"report", &id, &"--out", &report])).unwrap().success().unwrap();
    bed.cli(&words(&[&"audit", &"--out", &log])).unwrap().success().unwrap();
    the_report_verifies(&bed, &id, &report, &ca);
    the_log_verifies(&bed, &report, &log, &ca);
    who_did_what_is_in_the_log(&bed, &id);
    a_changed_report_does_not(&bed, &report, &ca);
    a_changed_log_does_not(&bed, &report, &log, &ca);
    // The agent has kept one of its own, when it ended.
    let kept = bed.root().join(format!("target/state/reports/{id}.json"));
    let output = offline(&bed, &[&"report", &"--verify", &kept, &"--ca", &ca]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

fn the_report_verifies(bed: &Bed, id: &str, report: &Path, ca: &Path) {
    let output = offline(bed, &[&"--json", &"report", &"--verify", &report, &"--ca", &ca]);
    let proven: Value = output.json().unwrap();
    assert_eq!(proven["verified"], true);
    assert_eq!(proven["signed_by"]["identity"], "spiffe://demo.example/handover/target/target-1");
    let told = &proven["report"];
    assert_eq!((&told["migration"], &told["state"]["phase"]), (&id.into(), &"finalized".into()));
    assert_eq!(told["started_by"], "spiffe://demo.example/handover/operator/operator-1");
    assert!(
        told["ended_at"]["seconds"].is_i64() && told["outcome"]["verified"]["app"]["read"]["rows"].is_u64(),
        "{told}"
    );
    let output = offline(bed, &[&"report", &"--verify", &report, &"--ca", &ca]);
    assert!(output.stdout.contains("signed by spiffe://demo.example/handover/target/target-1"), "{output:?}");
}

fn the_log_verifies(bed: &Bed, report: &Path, log: &Path, ca: &Path) {
    let output = offline(bed, &[&"audit", &"--verify", &log, &"--report", &report, &"--ca", &ca]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let verified = bed.json(&words(&[&"audit", &"--report", &report, &"--verify"])).unwrap();
    assert_eq!(verified["verified"], true);
}

fn who_did_what_is_in_the_log(bed: &Bed, id: &str) {
    let all = bed.json(&["audit"]).unwrap();
    let entries = all["entries"].as_array().unwrap();
    let operator = "spiffe://demo.example/handover/operator/operator-1";
    let has = |by: &str, part: &str| {
        entries.iter().any(|entry| entry["by"] == by && entry["act"].to_string().contains(part))
    };
    for part in ["\"what\":\"plan", "\"what\":\"start", "\"what\":\"accept\"", "\"what\":\"finalize\""] {
        assert!(has(operator, part), "{part} in {all}");
    }
    let agent = "spiffe://demo.example/handover/target/target-1";
    for part in ["\"kind\":\"began\"", "\"refused\":", "\"step\":\"copy:app\"", "\"phase\":\"finalized\"", id]
    {
        assert!(has(agent, part), "{part} in {all}");
    }
    let begins = entries.iter().filter(|entry| entry["act"]["kind"] == "began").count();
    assert_eq!(begins, 2, "it was started again: {all}");
}

fn a_changed_report_does_not(bed: &Bed, report: &Path, ca: &Path) {
    let verify = |path: &Path, part: &str| refused(bed, &[&"report", &"--verify", &path, &"--ca", &ca], part);
    verify(
        &changed(report, |text| text.replacen("operator-1", "operator-2", 1)),
        "the text or the signature was changed",
    );
    verify(&changed(report, |text| text.trim_end().to_owned()), "something around the signed text");
    verify(&changed(report, |text| text[..text.len() / 2].to_owned()), "no signed document");
    let other = bed.root().join("other");
    let made = offline(bed, &[&"certs", &"init", &"--ca", &other, &"--trust-domain", &"demo.example"]);
    made.success().unwrap();
    refused(bed, &[&"report", &"--verify", &report, &"--ca", &other.join("ca.pem")], "not to be trusted");
}

fn a_changed_log_does_not(bed: &Bed, report: &Path, log: &Path, ca: &Path) {
    let verify = |path: &Path, part: &str| {
        refused(bed, &[&"audit", &"--verify", &path, &"--report", &report, &"--ca", &ca], part);
    };
    let by_line = |change: fn(&mut Vec<String>)| {
        changed(log, |text| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            change(&mut lines);
            lines.join("\n") + "\n"
        })
    };
    verify(&by_line(|lines| lines[1] = lines[1].replace("operator-1", "operator-2")), "entry 2 was changed");
    verify(&by_line(|lines| drop(lines.remove(2))), "entries 3 to 3 were removed");
    verify(&by_line(|lines| lines.swap(3, 4)), "entry 5 was moved");
    verify(&by_line(|lines| lines.insert(4, lines[1].clone())), "line 5 was put in");
    verify(&by_line(|lines| drop(lines.pop())), "were cut off");
    verify(&changed(log, |text| text[..text.len() - 20].to_owned()), "is torn");
}
