use super::*;
use crate::minted::{Ca, DAY, Minted, NOW, self_signed};

fn check(minted: &Minted, wanted: &[&str]) -> Result<Checked, String> {
    let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let pair = Pair::read(minted.chain.as_bytes(), minted.key.as_bytes()).map_err(|e| e.to_string())?;
    Checked::new(pair, NOW, &wanted).map_err(|e| e.to_string())
}

#[test]
fn good_ones_are_taken() {
    let root = Ca::root("Root");
    let middle = root.intermediate("Middle");
    let leaf = middle.leaf(&["www.example.org", "*.example.net", "10.0.0.1", "fd00::1"]);
    let with_root = Minted { chain: format!("{}{}", leaf.chain, middle.minted.chain), ..leaf.clone() };
    let wanted =
        ["www.example.org", "WWW.example.org", "a.example.net", "*.example.net", "10.0.0.1", "fd00:0::1"];
    for chain in [&leaf, &with_root] {
        let checked = check(chain, &wanted).unwrap();
        assert_eq!(checked.names(), ["www.example.org", "*.example.net", "10.0.0.1", "fd00::1"]);
        assert_eq!((checked.expires().seconds, checked.warning()), (NOW.seconds + 90 * DAY, None));
    }
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        // As a host's, and as a CA's.
        let leaf = root.leaf_of(algorithm, &["www"], -DAY, DAY * 30);
        check(&leaf, &["www"]).unwrap();
        let mut params = crate::minted::params("CA", &[], -DAY, DAY * 30);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = Ca::of(params, algorithm);
        let leaf = ca.leaf(&["www"]);
        check(&Minted { chain: leaf.chain + &ca.minted.chain, ..leaf }, &["www"]).unwrap();
    }
}

#[test]
fn what_should_be_known_is_told() {
    let root = Ca::root("Root");
    let soon = root.leaf_of(&rcgen::PKCS_ED25519, &["www"], -DAY, WARN_SECONDS - 1);
    assert!(check(&soon, &[]).unwrap().warning().unwrap().contains("expires within 167 h"));
    let marked = self_signed(&["www"]);
    assert!(check(&marked, &["www"]).unwrap().warning().unwrap().contains("marked as a CA's"));
    // Just issued, by a host whose clock is ahead.
    check(&root.leaf_of(&rcgen::PKCS_ED25519, &["www"], 30, DAY), &[]).unwrap();
}

#[test]
fn bad_ones_are_refused() {
    let root = Ca::root("Root");
    let middle = root.intermediate("Middle");
    let (leaf, another) = (middle.leaf(&["www.example.org"]), middle.leaf(&["www.example.org"]));
    let stranger = Ca::root("Middle");
    let of = |from, to| middle.leaf_of(&rcgen::PKCS_ED25519, &["www.example.org"], from, to);
    let chain = |chain: String| Minted { chain, key: leaf.key.clone() };
    let key = |key: &str| Minted { key: key.to_owned(), ..leaf.clone() };
    let middle_only = middle.minted.chain.replace(&root.minted.chain, "");
    let encrypted = leaf.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let legacy =
        leaf.key.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n");
    let legacy = legacy.split_inclusive('\n').take(6).collect::<String>() + "-----END PRIVATE KEY-----\n";
    let (no_end, _) = leaf.chain.split_once("-----END").unwrap();
    let table: Vec<(&str, Minted, &str)> = vec![
        ("another's key", key(&another.key), "the key does not belong to the certificate"),
        ("order", chain(middle_only.clone() + &leaf.chain), "does not belong to the certificate"),
        ("gap", chain(leaf.chain.clone() + &root.minted.chain), "did not sign the one before it"),
        ("twice", chain(leaf.chain.clone() + &leaf.chain), "did not sign the one before it"),
        (
            "swapped",
            chain(leaf.chain.clone() + &root.minted.chain + &middle_only),
            "certificate 2 of the chain (CN=Root)",
        ),
        ("same name", chain(leaf.chain.clone() + &stranger.minted.chain), "did not sign the one before it"),
        ("expired", of(-9 * DAY, -1), "expired at 2027-01-15T07:59:59"),
        ("not yet", of(DAY, 2 * DAY), "is not valid before 2027-01-16"),
        (
            "names",
            middle.leaf(&["www.example.com"]),
            "not good for www.example.org, only for www.example.com",
        ),
        ("no names", middle.leaf(&[]), "only for no name at all"),
        ("a CA", Minted { chain: middle.minted.chain.clone(), key: middle.minted.key.clone() }, "is a CA's"),
        ("a root", Minted { chain: root.minted.chain.clone(), key: root.minted.key.clone() }, "is a CA's"),
        ("encrypted", key(&encrypted), "the key is encrypted"),
        ("encrypted, old form", key(&legacy), "the key is encrypted"),
        ("empty key", key(" \n"), "the key is empty"),
        ("empty chain", chain(String::new()), "the certificate is empty"),
        ("no PEM", chain("\u{1}\u{2}garbage".to_owned()), "the certificate is not PEM"),
        ("no key", key(&leaf.chain), "holds 0 private keys"),
        ("two keys", key(&(leaf.key.clone() + &another.key)), "holds 2 private keys"),
        ("no certificate", chain(leaf.key.clone()), "holds no certificate"),
        ("cut short", chain(leaf.chain.clone() + no_end), "cut short"),
        ("cut at once", chain(no_end.to_owned()), "cut short"),
        ("bad base64", chain(leaf.chain.replace("\nMI", "\n!!")), "no sound PEM"),
        ("bad DER", chain(leaf.chain.replace("\nMII", "\nMIA")), "cannot be read"),
        ("bad key", key(&leaf.key.replace("\nMI", "\nMA")), "the key cannot be used"),
        ("huge", chain("x".repeat(300 * 1024)), "is larger than"),
        ("long", chain(leaf.chain.repeat(11)), "holds 11 certificates"),
        ("openssh", key(&leaf.key.replace("PRIVATE", "OPENSSH PRIVATE")), "form `OPENSSH PRIVATE KEY`"),
    ];
    for (case, minted, part) in table {
        let told = check(&minted, &["www.example.org"]).unwrap_err();
        assert!(told.contains(part), "{case}: {told}");
        assert!(!told.contains("BEGIN"), "{case}: {told}");
    }
}

#[test]
fn an_expired_certificate_above_is_refused() {
    let root = Ca::root("Root");
    let mut params = crate::minted::params("Old", &[], -9 * DAY, -DAY);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let old = root.signed(params);
    let leaf = old.leaf(&["www"]);
    let chain = Minted { chain: leaf.chain + &old.minted.chain, key: leaf.key };
    assert!(check(&chain, &["www"]).unwrap_err().contains("CN=Old expired at"));
    // What vouches for itself at the end is nobody's matter: clients go by their own.
    let mut params = crate::minted::params("Old root", &[], -9 * DAY, -DAY);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let old = Ca::of(params, &rcgen::PKCS_ED25519);
    let leaf = old.leaf(&["www"]);
    check(&Minted { chain: leaf.chain + &old.minted.chain, key: leaf.key }, &["www"]).unwrap();
}
