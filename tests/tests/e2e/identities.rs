//! Who may do what: decided by the certificate alone.

use std::path::{Path, PathBuf};
use std::process::Command;

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
    handover_tests::poll::until("the revocation to be seen", std::time::Duration::from_secs(30), || {
        Ok((Output::of(bed.command_as(&out).arg("list"))?.code != Some(0)).then_some(()))
    })
    .unwrap();
    bed.cli(&["list"]).unwrap().success().unwrap();
}
