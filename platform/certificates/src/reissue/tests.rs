use super::*;
use crate::checked::Checked;
use crate::minted::{Ca, DAY, Minted, NOW, params};

fn issue(ca: &Minted, names: &[&str], days: u32) -> Result<Pair, String> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    Authority::read(ca.chain.as_bytes(), ca.key.as_bytes(), NOW)
        .and_then(|authority| authority.issue(&names, days, NOW))
        .map_err(|error| error.to_string())
}

#[test]
fn a_new_one_is_good_for_its_names_and_says_what_it_is_for() {
    let root = Ca::root("Root");
    let names = ["www.example.org", "*.example.org", "10.0.0.1"];
    let pair = issue(&root.minted, &names, 90).unwrap();
    assert_eq!(pair.chain.len(), 1, "a root is not sent along");
    let wanted = names.map(str::to_owned);
    let checked = Checked::new(pair, NOW, &wanted).unwrap();
    assert_eq!((checked.names(), checked.expires().seconds), (&wanted[..], NOW.seconds + 90 * DAY));
    let leaf = checked::parse(&checked.pair().chain[0]).unwrap();
    assert_eq!(leaf.subject().to_string(), "CN=www.example.org");
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
    let oids: Vec<_> = leaf.extensions().iter().map(|e| e.oid.to_id_string()).collect();
    for (what, oid) in [("subject's key", "2.5.29.14"), ("authority's key", "2.5.29.35")] {
        assert!(oids.contains(&oid.to_owned()), "{what}: {oids:?}");
    }
    let ca = checked::parse(&root.minted.pair().chain[0]).unwrap().subject().as_raw().to_vec();
    assert_eq!(leaf.issuer().as_raw(), ca);
}

#[test]
fn serials_and_keys_are_fresh() {
    let root = Ca::root("Root");
    let (one, two) = (issue(&root.minted, &["www"], 9).unwrap(), issue(&root.minted, &["www"], 9).unwrap());
    assert_ne!(one.key_pem(), two.key_pem());
    let serial = |pair: &Pair| checked::parse(&pair.chain[0]).unwrap().raw_serial().to_vec();
    assert_ne!(serial(&one), serial(&two));
    assert_eq!((serial(&one).len(), serial(&one)[0] & 0xc0), (16, 0x40));
}

#[test]
fn what_leads_to_the_root_comes_along() {
    let middle = Ca::root("Root").intermediate("Middle");
    let pair = issue(&middle.minted, &["www"], 9).unwrap();
    assert_eq!(pair.chain.len(), 2);
    Checked::new(pair, NOW, &["www".to_owned()]).unwrap();
}

#[test]
fn none_outlives_its_ca() {
    let mut short = params("Short", &[], -DAY, 5 * DAY);
    short.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = Ca::of(short, &rcgen::PKCS_RSA_SHA256);
    let checked = Checked::new(issue(&ca.minted, &["www"], 397).unwrap(), NOW, &[]).unwrap();
    assert_eq!(checked.expires().seconds, NOW.seconds + 5 * DAY);
}

#[test]
fn authorities_that_cannot_issue_are_refused() {
    let root = Ca::root("Root");
    let leaf = root.leaf(&["www"]);
    let mut old = params("Old", &[], -9 * DAY, -DAY);
    old.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let old = Ca::of(old, &rcgen::PKCS_ED25519);
    let mut weak = params("Weak", &[], -DAY, DAY);
    weak.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    weak.key_usages = vec![KeyUsagePurpose::CrlSign];
    let weak = Ca::of(weak, &rcgen::PKCS_ED25519);
    let mixed = Minted { key: leaf.key.clone(), ..root.minted.clone() };
    for (ca, names, part) in [
        (&leaf, &["www"][..], "is no CA that may sign"),
        (&weak.minted, &["www"], "is no CA that may sign"),
        (&old.minted, &["www"], "expired at"),
        (&mixed, &["www"], "the key does not belong"),
        (&root.minted, &[], "for no name"),
        (&root.minted, &["wörld"], "for these names"),
    ] {
        let told = issue(ca, names, 9).unwrap_err();
        assert!(told.contains(part), "{part}: {told}");
    }
}
