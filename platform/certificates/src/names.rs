//! The names that a certificate is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// Letters of a subject, and names, that are shown.
const LONGEST_SHOWN: usize = 200;
const MOST_SHOWN: usize = 8;

/// DNS names and addresses, in the certificate's order, DNS names in lower case. Common names are no names: no client looks at them.
pub fn of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let sans = certificate.subject_alternative_name().ok().flatten();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().replace(char::is_control, "?")),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    sans.iter().flat_map(|san| &san.value.general_names).filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
    }
}

/// Whose it is, fit to be shown: it may be the peer's word.
pub fn subject(certificate: &X509Certificate<'_>) -> String {
    let shown: String = certificate.subject().to_string().chars().take(LONGEST_SHOWN).collect();
    let shown = shown.replace(char::is_control, "?");
    if shown.is_empty() { "a certificate without a subject".to_owned() } else { shown }
}

/// Names, fit to be shown.
pub fn shown(names: &[String]) -> String {
    match names {
        [] => "no name at all".to_owned(),
        all if all.len() <= MOST_SHOWN => all.join(", "),
        all => format!("{} and {} more", all[..MOST_SHOWN].join(", "), all.len() - MOST_SHOWN),
    }
}

/// Those of `wanted` that a client would not take the certificate for. A wanted `*.example.org` must be there as such.
pub fn missing(certificate: &CertificateDer<'_>, has: &[String], wanted: &[String]) -> Vec<String> {
    let end = webpki::EndEntityCert::try_from(certificate);
    let is_good_for = |name: &String| {
        if name.starts_with("*.") {
            return has.contains(&name.to_ascii_lowercase());
        }
        let Ok(server) = ServerName::try_from(name.as_str()) else { return false };
        end.as_ref().is_ok_and(|end| end.verify_is_valid_for_subject_name(&server).is_ok())
    };
    wanted.iter().filter(|name| !is_good_for(name)).cloned().collect()
}

/// The name to ask a server for: the first one, with `www` in the place of a wildcard.
pub fn to_ask_for(names: &[String]) -> Option<String> {
    let concrete = names.iter().find(|name| !name.starts_with('*'));
    concrete.cloned().or_else(|| names.first().map(|name| name.replacen('*', "www", 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_to_be_shown() {
        let many: Vec<_> = (0..10).map(|n| format!("n{n}")).collect();
        for (names, expected) in [
            (&many[..0], "no name at all"),
            (&many[..2], "n0, n1"),
            (&many[..8], "n0, n1, n2, n3, n4, n5, n6, n7"),
            (&many[..], "n0, n1, n2, n3, n4, n5, n6, n7 and 2 more"),
        ] {
            assert_eq!(shown(names), expected);
        }
    }

    #[test]
    fn a_name_to_ask_for_is_no_wildcard() {
        for (names, expected) in [
            (vec!["*.example.org", "example.org"], Some("example.org")),
            (vec!["*.example.org"], Some("www.example.org")),
            (vec![], None),
        ] {
            let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
            assert_eq!(to_ask_for(&names).as_deref(), expected);
        }
    }

    #[test]
    fn subjects_are_fit_to_be_shown() {
        for (common, expected) in
            [("a\u{1b}[31m\nb", "CN=a?[31m?b"), (&"x".repeat(999), &format!("CN={}", "x".repeat(197)))]
        {
            let params = crate::minted::params(common, &["www"], 0, 1);
            let minted = crate::minted::Ca::of(params, &rcgen::PKCS_ED25519).minted.pair();
            let shown = subject(&crate::checked::parse(&minted.chain[0]).unwrap());
            assert_eq!(shown, expected);
        }
    }
}
