//! What the certificates say.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::index::{Issued, to_hex};
use super::{AuthorityError, certificate};
use crate::identity::{Identity, Role};

/// Certificates are good from a little before they are made: clocks differ.
const BACKDATED: Duration = Duration::minutes(5);

/// The kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlgorithm {
    /// ECDSA over P-256.
    #[default]
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

impl KeyAlgorithm {
    pub(super) fn generate(self) -> Result<KeyPair, rcgen::Error> {
        KeyPair::generate_for(match self {
            KeyAlgorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
        })
    }
}

/// How to issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueOptions {
    /// How long the certificate is good for.
    pub validity: Duration,
    /// The kind of key.
    pub key_algorithm: KeyAlgorithm,
    /// From when; now, where not given.
    pub not_before: Option<OffsetDateTime>,
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self { validity: Duration::days(90), key_algorithm: KeyAlgorithm::default(), not_before: None }
    }
}

pub(super) fn ca(trust_domain: &str, now: OffsetDateTime, validity: Duration) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let serial = random_serial().map_err(certificate("no random numbers"))?;
    // Two CAs of one trust domain must differ in name: the name finds the revocation list.
    let name = format!("Handover CA {trust_domain} {}", &to_hex(&serial)[..8]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - BACKDATED, now + validity);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

pub(super) fn leaf(
    identity: &Identity,
    options: &IssueOptions,
    serial: &[u8],
    now: OffsetDateTime,
) -> Result<(CertificateParams, Issued), AuthorityError> {
    let mut params = CertificateParams::default();
    let not_before = options.not_before.unwrap_or(now);
    (params.not_before, params.not_after) = (not_before - BACKDATED, not_before + options.validity);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, identity.name.clone());
    let uri = identity.to_string().try_into().map_err(certificate("the id cannot be written"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if matches!(identity.role, Role::Source | Role::Target) {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.serial_number = Some(SerialNumber::from_slice(serial));
    let issued = Issued {
        serial: to_hex(serial),
        identity: identity.clone(),
        not_after: params.not_after.unix_timestamp(),
        revoked_at: None,
    };
    Ok((params, issued))
}

/// 127 random bits, positive (RFC 5280, 4.1.2.2).
pub(super) fn random_serial() -> Result<Vec<u8>, rcgen::Error> {
    // A new key is 256 random bits; its public half hashes to a number nobody can foresee.
    let key = KeyPair::generate()?;
    let mut serial = key.public_key_raw()[1..17].to_vec();
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}
