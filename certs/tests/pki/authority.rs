//! A CA's life: init, issue, renew, revoke, list.

use std::net::IpAddr;

use handover_certs::authority::{Authority, AuthorityError, InitOptions, IssueOptions, KeyAlgorithm, Which};
use handover_certs::identity::{Identity, Role};
use handover_certs::summary::{self, CertificateSummary, Summary};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::Duration;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::bed::{Bed, DOMAIN, expired, load, mode, now};

fn identity(role: Role, name: &str) -> Identity {
    Identity::new(DOMAIN, role, name).unwrap()
}

#[test]
fn a_ca_is_never_overwritten() {
    let bed = Bed::new();
    let again = Authority::init(&bed.path("ca"), DOMAIN, &InitOptions::default());
    assert!(matches!(again, Err(AuthorityError::Exists(_))), "{again:?}");
    let issued = bed.ca().issue(&identity(Role::Source, "a"), &IssueOptions::default()).unwrap();
    let written = issued.write(&bed.path("ca"));
    assert!(matches!(written, Err(AuthorityError::NotForIdentities(_))), "{written:?}");
    assert!(Authority::init(&bed.path("b"), "Not A Domain", &InitOptions::default()).is_err());
}

#[test]
fn certificates_say_what_they_are_for() {
    let bed = Bed::new();
    for role in Role::ALL {
        let dir = bed.issue(role);
        let der = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth);
        assert_eq!(usage.server_auth, matches!(role, Role::Source | Role::Target), "{role}");
        assert!(!certificate.is_ca());
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        assert_eq!(certificate.raw_serial().len(), 16);
        assert_eq!(Identity::from_certificate(&der).unwrap().role, role);
    }
    let der = CertificateDer::from_pem_file(bed.path("ca/ca.pem")).unwrap();
    let (_, ca) = X509Certificate::from_der(&der).unwrap();
    let constraints = ca.basic_constraints().unwrap().unwrap().value;
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
    let usage = ca.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
}

#[test]
fn what_cannot_be_issued_is_refused() {
    let bed = Bed::new();
    let mut ca = bed.ca();
    let foreign = Identity::new("other.example", Role::Source, "a").unwrap();
    let ours = identity(Role::Source, "a");
    let options = IssueOptions::default;
    let refused = ca.issue(&foreign, &options());
    assert!(matches!(refused, Err(AuthorityError::ForeignDomain { .. })), "{refused:?}");
    let refused = ca.issue(&ours, &IssueOptions { validity: Duration::days(4000), ..options() });
    assert!(matches!(refused, Err(AuthorityError::OutlivesAuthority { .. })), "{refused:?}");
    let refused = ca.issue(&ours, &IssueOptions { not_after: Some(now() - Duration::days(1)), ..options() });
    assert!(matches!(refused, Err(AuthorityError::EmptyValidity { .. })), "{refused:?}");
    assert!(ca.issue(&ours, &IssueOptions { dns_names: vec!["hôte".to_owned()], ..options() }).is_err());
    assert_eq!(ca.list(), []);
}

#[test]
fn renewing_keeps_all_but_key_and_serial() {
    let bed = Bed::new();
    let options = IssueOptions {
        validity: Duration::days(7),
        key_algorithm: KeyAlgorithm::Ed25519,
        dns_names: vec!["a.demo.example".to_owned()],
        ip_addresses: vec![IpAddr::from([192, 0, 2, 7]), "2001:db8::7".parse().unwrap()],
        ..IssueOptions::default()
    };
    let dir = bed.issue_by("ca", Role::Source, "a", &options);
    let before = CertificateSummary::of_directory(&dir).unwrap();
    let key = std::fs::read(dir.join("key.pem")).unwrap();
    bed.ca().renew(&dir).unwrap();
    let after = CertificateSummary::of_directory(&dir).unwrap();
    assert_ne!(before.serial, after.serial);
    assert_ne!(key, std::fs::read(dir.join("key.pem")).unwrap());
    assert_eq!((&before.identity, before.days_left), (&after.identity, after.days_left));
    assert_eq!((after.key_algorithm.as_str(), mode(&dir.join("key.pem"))), ("ed25519", 0o600));
    let der = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names[1], GeneralName::DNSName("a.demo.example"));
    assert_eq!(names[2], GeneralName::IPAddress(&[192, 0, 2, 7]));
    assert_eq!(names.len(), 4);
    let issued = bed.ca().list().to_vec();
    assert_eq!(issued.len(), 2);
    assert!(issued.iter().all(|issued| issued.revoked_at.is_none()));
}

#[test]
fn the_expired_can_be_renewed_and_the_revoked_cannot() {
    let bed = Bed::new();
    let dir = bed.issue_by("ca", Role::Source, "late", &expired());
    bed.ca().renew(&dir).unwrap();
    load(&dir);
    let dir = bed.issue(Role::Target);
    bed.ca().revoke(&Which::Serial(CertificateSummary::of_directory(&dir).unwrap().serial)).unwrap();
    let refused = bed.ca().renew(&dir);
    assert!(matches!(refused, Err(AuthorityError::Revoked { .. })), "{refused:?}");
}

#[test]
fn revoking_is_noted_listed_and_repeatable() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    bed.ca().renew(&source).unwrap();
    let mut ca = bed.ca();
    assert_eq!(ca.revoke(&Which::Identity(identity(Role::Source, "source"))).unwrap().len(), 2);
    let first = ca.list().to_vec();
    let serial = first[0].serial.to_uppercase();
    assert_eq!(ca.revoke(&Which::Serial(serial)).unwrap(), first[..1]);
    let unknown = ca.revoke(&Which::Serial("1234".to_owned())).unwrap_err().to_string();
    assert!(unknown.contains("serial 1234") && unknown.contains("handover certs show"), "{unknown}");
    // What was noted is what another process reads.
    assert_eq!(bed.ca().list(), first);
    let Summary::Authority(shown) = summary::of_directory(&bed.path("ca")).unwrap() else { panic!("a CA") };
    let revoked: Vec<bool> = shown.issued.iter().map(|certificate| certificate.revoked.is_some()).collect();
    assert_eq!(revoked, [true, false, true]);
    // An identity's directory knows as much as its list.
    assert_eq!(CertificateSummary::of_directory(&source).unwrap().revoked, None);
    bed.ca().publish(&source).unwrap();
    let shown = CertificateSummary::of_directory(&source).unwrap();
    assert!(shown.revoked.is_some() && shown.to_string().contains("\nrevoked "), "{shown}");
    assert_eq!(CertificateSummary::of_directory(&target).unwrap().revoked, None);
}

#[test]
fn two_processes_lose_nothing_of_each_other() {
    let bed = Bed::new();
    let (mut one, mut two) = (bed.ca(), bed.ca());
    one.issue(&identity(Role::Source, "a"), &IssueOptions::default()).unwrap();
    two.issue(&identity(Role::Target, "b"), &IssueOptions::default()).unwrap();
    one.revoke(&Which::Identity(identity(Role::Target, "b"))).unwrap();
    assert_eq!(bed.ca().list().len(), 2);
}

#[test]
fn a_damaged_ca_is_named() {
    let bed = Bed::new();
    let index = bed.path("ca/index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("\"version\": 1", "\"version\": 9")).unwrap();
    let error = Authority::open(&bed.path("ca")).unwrap_err().to_string();
    assert!(error.contains("index.json: has version 9, this release knows 1"), "{error}");
    std::fs::write(&index, "{").unwrap();
    assert!(Authority::open(&bed.path("ca")).unwrap_err().to_string().contains("is not JSON"));
}

#[test]
fn summaries_are_for_people_and_for_programs() {
    let bed = Bed::new();
    let shown = summary::of_directory(&bed.issue(Role::Target)).unwrap();
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(json["identity"]["identity"], "spiffe://demo.example/handover/target/target");
    assert_eq!(json["identity"]["key_algorithm"], "ecdsa-p256");
    assert_eq!(json["identity"]["days_left"], 89);
    let text = shown.to_string();
    assert!(text.contains("identity    spiffe://demo.example/handover/target/target\n"), "{text}");
    assert!(text.contains("(89 days left)"), "{text}");
    assert!(summary::of_directory(&bed.path("ca")).unwrap().to_string().contains("authority   demo.example"));
}
