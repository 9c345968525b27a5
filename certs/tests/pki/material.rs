//! Files that cannot be used are named, with what to do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use handover_certs::authority::{Authority, IssueOptions};
use handover_certs::identity::Role;
use handover_certs::material::{Material, MaterialPaths};
use time::Duration;

use super::bed::{Bed, expired, load, mode, now};

/// Loading fails, and the error names the file and what to do.
#[track_caller]
fn refused(dir: &Path, file: &str, advice: &str) {
    let error = Material::load(&MaterialPaths::in_dir(dir)).unwrap_err().to_string();
    assert!(error.contains(dir.join(file).to_str().unwrap()), "{file} is not named: {error}");
    assert!(error.contains(advice), "`{advice}` is not said: {error}");
}

#[test]
fn what_issue_wrote_loads() {
    let bed = Bed::new();
    let dir = bed.issue(Role::Target);
    let material = load(&dir);
    assert_eq!(material.identity().to_string(), "spiffe://demo.example/handover/target/target");
    let left = material.expires_in(now());
    assert!(left > Duration::days(89) && left <= Duration::days(90), "{left}");
    assert_eq!(material.lifetime(), Duration::days(90) + Duration::minutes(5));
    assert!(!format!("{material:?}").to_lowercase().contains("key"));
    assert_eq!(mode(&dir.join("key.pem")), 0o600);
    assert_eq!(mode(&bed.path("ca/ca.key")), 0o600);
    assert_eq!(mode(&dir.join("cert.pem")), 0o644);
}

#[test]
fn missing_and_damaged_files_are_named() {
    let bed = Bed::new();
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        let dir = bed.issue(Role::Target);
        std::fs::remove_file(dir.join(file)).unwrap();
        refused(&dir, file, "there is no such file: check the path");
    }
    for (file, advice) in [
        ("cert.pem", "`handover certs issue` writes one"),
        ("key.pem", "`handover certs renew` writes one"),
        ("ca.pem", "`handover certs issue` writes one"),
        ("crl.pem", "copy the CA's `crl.pem` here, or remove the file"),
    ] {
        let dir = bed.issue(Role::Target);
        std::fs::OpenOptions::new().write(true).truncate(true).open(dir.join(file)).unwrap();
        refused(&dir, file, advice);
    }
    let dir = bed.issue(Role::Target);
    let whole = std::fs::read(dir.join("cert.pem")).unwrap();
    std::fs::write(dir.join("cert.pem"), &whole[..whole.len() / 2]).unwrap();
    refused(&dir, "cert.pem", "is not PEM");
}

#[test]
fn what_does_not_belong_together_is_named() {
    let bed = Bed::new();
    let (dir, other) = (bed.issue(Role::Target), bed.issue(Role::Source));
    std::fs::copy(other.join("key.pem"), dir.join("key.pem")).unwrap();
    refused(&dir, "key.pem", "renew both");
    refused(&dir, "cert.pem", "renew both");
    let dir = bed.issue(Role::Target);
    std::fs::copy(dir.join("cert.pem"), dir.join("ca.pem")).unwrap();
    refused(&dir, "ca.pem", "no CA's");
    let dir = bed.issue(Role::Target);
    std::fs::copy(bed.path("ca/ca.pem"), dir.join("cert.pem")).unwrap();
    refused(&dir, "cert.pem", "issue one");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let bed = Bed::new();
    let dir = bed.issue(Role::Target);
    for (mode, said) in [(0o644, "(mode 644): chmod 600 it"), (0o660, "(mode 660): chmod 600 it")] {
        std::fs::set_permissions(dir.join("key.pem"), PermissionsExt::from_mode(mode)).unwrap();
        refused(&dir, "key.pem", said);
    }
    std::fs::set_permissions(bed.path("ca/ca.key"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(Authority::open(&bed.path("ca")).unwrap_err().to_string().contains("chmod 600 it"));
}

#[test]
fn out_of_time_is_said() {
    let bed = Bed::new();
    refused(&bed.issue_by("ca", Role::Target, "late", &expired()), "cert.pem", "renew it");
    let options = IssueOptions { not_before: Some(now() + Duration::days(1)), ..IssueOptions::default() };
    refused(&bed.issue_by("ca", Role::Target, "early", &options), "cert.pem", "not valid before");
}

#[test]
fn no_list_means_nothing_is_revoked() {
    let bed = Bed::new();
    let dir = bed.issue(Role::Target);
    std::fs::remove_file(dir.join("crl.pem")).unwrap();
    load(&dir);
    Material::load(&MaterialPaths { crl: None, ..MaterialPaths::in_dir(&dir) }).unwrap();
}
