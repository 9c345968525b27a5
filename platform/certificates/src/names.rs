//! The names that a certificate is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// DNS names and addresses, in the certificate's order, DNS names in lower case. Common names are no names: no client looks at them.
pub fn of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let sans = certificate.subject_alternative_name().ok().flatten();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
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
