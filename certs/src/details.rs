//! What a certificate says, read once for everybody who asks. Nothing here verifies it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::authority::KeyAlgorithm;
use crate::identity::{Identity, IdentityError};

/// A certificate's contents.
pub(crate) struct Details {
    pub(crate) identity: Identity,
    raw_serial: Vec<u8>,
    pub(crate) issuer: String,
    raw_issuer: Vec<u8>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    /// None for a kind that we do not issue.
    pub(crate) key_algorithm: Option<KeyAlgorithm>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) ip_addresses: Vec<IpAddr>,
}

impl Details {
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let identity = Identity::from_certificate(certificate)?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Certificate)?;
        let sans = parsed.subject_alternative_name().ok().flatten();
        let (mut dns_names, mut ip_addresses) = (Vec::new(), Vec::new());
        for name in sans.iter().flat_map(|san| &san.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => ip_addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(Self {
            identity,
            raw_serial: parsed.raw_serial().to_vec(),
            issuer: parsed.issuer().to_string(),
            raw_issuer: parsed.issuer().as_raw().to_vec(),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            key_algorithm: key_algorithm(&parsed),
            dns_names,
            ip_addresses,
        })
    }

    /// The serial number in hex, without the zero byte that DER puts before large numbers.
    pub(crate) fn serial(&self) -> String {
        let leading = self.raw_serial.iter().take_while(|byte| **byte == 0).count();
        crate::authority::hex(&self.raw_serial[leading..])
    }

    /// When one of these lists says that the certificate was revoked.
    pub(crate) fn revoked(&self, lists: &[impl AsRef<[u8]>]) -> Option<OffsetDateTime> {
        lists.iter().find_map(|list| {
            let (_, parsed) = CertificateRevocationList::from_der(list.as_ref()).ok()?;
            if parsed.issuer().as_raw() != self.raw_issuer {
                return None;
            }
            let entry =
                parsed.iter_revoked_certificates().find(|entry| entry.raw_serial() == self.raw_serial)?;
            Some(entry.revocation_date.to_datetime())
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
    }
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> Option<KeyAlgorithm> {
    let algorithm = &certificate.public_key().algorithm;
    if algorithm.algorithm == OID_SIG_ED25519 {
        return Some(KeyAlgorithm::Ed25519);
    }
    let curve = algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok())?;
    (algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_EC_P256)
        .then_some(KeyAlgorithm::EcdsaP256)
}
