//! Who may do what: decided by the certificate alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::crashes::{busy_spec, wait_for_some_progress};
use super::settle_and_compare;
use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Output};
use handover_tests::locate::{Binaries, Profile};

fn certs(args: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(Binaries::find(Profile::Same).unwrap().cli);
    command.arg("certs").args(args);
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    Output::of(&mut command).unwrap()
}

/// The verb is refused, and what is printed names the reason.
#[track_caller]
fn refused(bed: &Bed, identity: &Path, verb: &[&str], reason: &[&str]) {
    let output = Output::of(bed.command_as(identity).args(verb)).unwrap();
    let text = output.text().to_lowercase();
    assert!(output.code.is_some_and(|code| code != 0), "{verb:?} was allowed: {text}");
    assert!(reason.iter().any(|word| text.contains(word)), "none of {reason:?} in: {text}");
}

#[test]
fn each_role_does_its_own() {
    let bed = Bed::temporary(&Spec::small(20)).unwrap();
    let digest = bed.plan().unwrap();
    let watcher = bed.identity("watcher");
    refused(&bed, &watcher, &["start", &digest], &["watcher", "role", "operator"]);
    for role in ["source", "target"] {
        refused(&bed, &bed.identity(role), &["list"], &[role, "role", "operator"]);
    }
    let listed = Output::of(bed.command_as(&watcher).arg("list")).unwrap();
    assert_eq!(listed.code, Some(0), "a watcher may look: {}", listed.text());
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    let bed = Bed::temporary(&Spec::small(21)).unwrap();
    let ca = bed.root().join("foreign-ca");
    let out = bed.root().join("foreign");
    certs(&["init", "--trust-domain", "demo.example"], &[("--ca", &ca)]).success().unwrap();
    certs(&["issue", "--role", "operator", "--name", "mallory"], &[("--ca", &ca), ("--out", &out)])
        .success()
        .unwrap();
    refused(&bed, &out, &["list"], &["certificate", "tls"]);
}

#[test]
fn a_revoked_certificate_is_refused_without_a_restart() {
    let bed = Bed::temporary(&Spec::small(22)).unwrap();
    let out: PathBuf = bed.root().join("pki/leaver");
    certs(&["issue", "--role", "operator", "--name", "leaver"], &[("--ca", &bed.ca()), ("--out", &out)])
        .success()
        .unwrap();
    Output::of(bed.command_as(&out).arg("list")).unwrap().success().unwrap();
    certs(&["revoke"], &[("--ca", &bed.ca()), ("--identity", &out)]).success().unwrap();
    // The list reaches the target the way an operator would bring it there.
    std::fs::copy(bed.ca().join("crl.pem"), bed.identity("target").join("crl.pem")).unwrap();
    handover_tests::poll::until("the revocation to be seen", Duration::from_secs(30), || {
        Ok((Output::of(bed.command_as(&out).arg("list"))?.code != Some(0)).then_some(()))
    })
    .unwrap();
    bed.cli(&["list"]).unwrap().success().unwrap();
}

#[test]
fn a_revoked_target_is_cut_off_in_the_middle() {
    let mut bed = Bed::temporary(&busy_spec(23)).unwrap();
    bed.configure_target(|text| text + "\n[limits]\npatience_seconds = 1\n").unwrap();
    // Slow enough that something is left: the source's pieces wait for the link.
    let link = bed.through_link().unwrap();
    link.slow_down(Duration::from_millis(20));
    bed.start().unwrap();
    wait_for_some_progress(&bed);
    let (ca, target) = (bed.ca(), bed.identity("target"));
    certs(&["revoke"], &[("--ca", &ca), ("--identity", &target)]).success().unwrap();
    certs(&["publish"], &[("--ca", &ca), ("--identity", &bed.identity("source"))]).success().unwrap();
    let stuck = handover_tests::poll::until("the migration to stop", Duration::from_secs(60), || {
        Ok(bed.status().ok().filter(handover_tests::bed::Status::is_stuck))
    })
    .unwrap();
    assert!(stuck.failure.to_string().contains("source"), "{stuck:?}");
    let log = std::fs::read_to_string(bed.source.log()).unwrap();
    assert!(log.contains("no longer trusted"), "the connection was not ended");
    link.slow_down(Duration::ZERO);
    certs(&["issue", "--role", "target", "--name", "target-2"], &[("--ca", &ca), ("--out", &target)])
        .success()
        .unwrap();
    bed.target.restart().unwrap();
    handover_tests::poll::until("the target to be let in", Duration::from_secs(30), || {
        Ok((bed.cli(&["resume"])?.code == Some(0)).then_some(()))
    })
    .unwrap();
    settle_and_compare(&bed);
}

#[test]
fn a_ca_is_swapped_under_a_running_migration() {
    let mut bed = Bed::temporary(&busy_spec(24)).unwrap();
    let link = bed.through_link().unwrap();
    link.slow_down(Duration::from_millis(5));
    bed.start().unwrap();
    wait_for_some_progress(&bed);
    let (old, new) = (bed.ca(), bed.root().join("pki/new-ca"));
    let roles = ["source", "target", "operator"].map(|role| bed.identity(role));
    let each = |verb: &str| {
        for identity in &roles {
            certs(&[verb], &[("--ca", &new), ("--identity", identity)]).success().unwrap();
        }
    };
    certs(&["rotate"], &[("--ca", &old), ("--new", &new)]).success().unwrap();
    each("publish");
    each("renew");
    certs(&["retire"], &[("--ca", &new)]).success().unwrap();
    // The agents have the renewed certificates before the old CA goes.
    handover_tests::poll::until("the agents to reload", Duration::from_secs(30), || {
        let reloads =
            |log: &Path| std::fs::read_to_string(log).map(|log| log.matches("certificates reloaded").count());
        Ok((reloads(bed.source.log())? > 0 && reloads(bed.target.log())? > 0).then_some(()))
    })
    .unwrap();
    each("publish");
    link.slow_down(Duration::ZERO);
    settle_and_compare(&bed);
    assert_eq!(bed.json(&["report"]).unwrap()["totals"]["chunks_resent"], 0);
}
