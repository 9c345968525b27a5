//! Signed texts: whoever changes anything of one is found, and named.

use std::error::Error;
use std::path::Path;

use handover_certs::authority::{Authority, InitOptions, IssueOptions, KeyAlgorithm};
use handover_certs::identity::Role;
use handover_certs::material::MaterialPaths;
use handover_certs::reload::Credentials;
use handover_certs::signed::{Believed, Signed, SignedError, Signer};
use time::{Duration, OffsetDateTime};

use super::bed::{Bed, DOMAIN, now};

const TEXT: &str = "{\"format\":1,\"what\":\"two\\nlines, \u{fc}ml\u{e4}ut\"}";

fn sign(identity: &Path) -> Signed {
    Credentials::load(MaterialPaths::in_dir(identity), None).unwrap().sign(TEXT.to_owned()).unwrap()
}

fn believed(bed: &Bed, crl: bool) -> Believed {
    let crl = crl.then(|| bed.path("ca/crl.pem"));
    Believed::load(&bed.path("ca/ca.pem"), crl.as_deref(), Some(DOMAIN.to_owned())).unwrap()
}

fn verify(document: &[u8], believed: &Believed, at: OffsetDateTime) -> Result<Signer, SignedError> {
    Signed::read(document)?.verify(believed, |_| Some(at))
}

#[track_caller]
fn refused(document: &[u8], believed: &Believed, at: OffsetDateTime) -> String {
    let error = verify(document, believed, at).unwrap_err();
    let (mut told, mut cause) = (error.to_string(), error.source());
    while let Some(next) = cause {
        told += &format!(": {next}");
        cause = next.source();
    }
    told
}

#[test]
fn what_a_target_has_signed_verifies() {
    for key_algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let bed = Bed::new();
        let target = bed.issue_by(
            "ca",
            Role::Target,
            "new",
            &IssueOptions { key_algorithm, ..IssueOptions::default() },
        );
        let document = sign(&target).to_bytes();
        let signer = verify(&document, &believed(&bed, true), now()).unwrap();
        assert_eq!(signer.identity.to_string(), format!("spiffe://{DOMAIN}/handover/target/new"));
        assert_eq!(Signed::read(&document).unwrap().text(), TEXT);
    }
}

#[test]
fn a_change_of_any_byte_is_found() {
    for key_algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let bed = Bed::new();
        let target = bed.issue_by(
            "ca",
            Role::Target,
            "new",
            &IssueOptions { key_algorithm, ..IssueOptions::default() },
        );
        let (document, believed, now) = (sign(&target).to_bytes(), believed(&bed, true), now());
        for at in 0..document.len() {
            for mask in [0x01, 0x20] {
                let mut changed = document.clone();
                changed[at] ^= mask;
                assert!(verify(&changed, &believed, now).is_err(), "byte {at} of {}", document.len());
            }
        }
        for at in [0, document.len() / 2, document.len() - 1] {
            assert!(verify(&document[..at], &believed, now).is_err(), "cut at {at}");
        }
        let longer = [&document[..], b"\n"].concat();
        assert!(matches!(verify(&longer, &believed, now), Err(SignedError::Altered)));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let bed = Bed::new();
    let target = bed.issue(Role::Target);
    let (believed, now) = (believed(&bed, false), now());
    let document = String::from_utf8(sign(&target).to_bytes()).unwrap();
    let swap = |from: &str, to: &str| document.replacen(from, to, 1).into_bytes();
    let other = String::from_utf8(
        sign(&bed.issue_by("ca", Role::Target, "other", &IssueOptions::default())).to_bytes(),
    );
    let part = |document: &str, field: &str| {
        let value: serde_json::Value = serde_json::from_str(document).unwrap();
        value[field].to_string()
    };
    let other = other.unwrap();
    let changed = "the text or the signature was changed";
    let table = [
        (swap("two", "six"), changed),
        (swap(&part(&document, "signature"), &part(&other, "signature")), changed),
        (swap(&part(&document, "certificates"), &part(&other, "certificates")), changed),
        (swap("ecdsa-p256-sha256", "ed25519"), changed),
        (swap("ecdsa-p256-sha256", "none"), "its kind of signature is not known"),
        (swap("handover-signed-1", "handover-signed-9"), "its format is `handover-signed-9`"),
        (swap("{\"format\"", "{ \"format\""), "something around the signed text"),
        (swap("\"format\"", "\"extra\":1,\"format\""), "unknown field `extra`"),
        (document.as_bytes()[..90].to_vec(), "this is no signed document"),
    ];
    for (document, part) in table {
        let told = refused(&document, &believed, now);
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn only_targets_of_the_ca_are_believed() {
    let bed = Bed::new();
    let now = now();
    for role in [Role::Source, Role::Operator, Role::Watcher] {
        let told = refused(&sign(&bed.issue(role)).to_bytes(), &believed(&bed, true), now);
        assert!(told.contains("not of this CA's targets"), "{role}: {told}");
    }
    let target = bed.issue(Role::Target);
    let document = sign(&target).to_bytes();
    let foreign = Believed::load(&bed.path("ca/ca.pem"), None, Some("other.example".to_owned())).unwrap();
    assert!(refused(&document, &foreign, now).contains("not of the trust domain other.example"));
    Authority::init(&bed.path("other"), DOMAIN, &InitOptions::default()).unwrap();
    let stranger = Believed::load(&bed.path("other/ca.pem"), None, None).unwrap();
    assert!(refused(&document, &stranger, now).contains("UnknownIssuer"));
}

#[test]
fn it_counts_when_it_was_signed() {
    let bed = Bed::new();
    let target = bed.issue(Role::Target);
    let (document, believed, now) = (sign(&target).to_bytes(), believed(&bed, false), now());
    // Years later the certificate has expired, and the report is as good as ever.
    verify(&document, &believed, now).unwrap();
    for (at, part) in [
        (now - Duration::days(1), "the certificate is good from"),
        (now + Duration::days(100), "the certificate is good from"),
        (now + Duration::days(1), "has not come yet"),
    ] {
        let told = refused(&document, &believed, at);
        assert!(told.contains(part), "{at}: {told}");
    }
    let unread = Signed::read(&document).unwrap().verify(&believed, |_| None).unwrap_err();
    assert!(unread.to_string().contains("it tells no time"), "{unread}");
}

#[test]
fn a_revoked_signer_is_not_believed() {
    let bed = Bed::new();
    let target = bed.issue(Role::Target);
    let document = sign(&target).to_bytes();
    bed.ca()
        .revoke(&handover_certs::authority::Which::Identity(
            format!("spiffe://{DOMAIN}/handover/target/target").parse().unwrap(),
        ))
        .unwrap();
    verify(&document, &believed(&bed, false), now()).unwrap();
    assert!(refused(&document, &believed(&bed, true), now()).contains("Revoked"));
}
