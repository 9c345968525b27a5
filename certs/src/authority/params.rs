//! What the certificates say.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::AuthorityError;
use super::error::certificate;
use super::index::{Issued, to_hex};
use crate::details::Details;
use crate::identity::{Identity, Role};

/// Certificates are good from a little before they are made: clocks differ.
const BACKDATED: Duration = Duration::minutes(5);

/// The kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAlgorithm {
    /// ECDSA over P-256.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

impl KeyAlgorithm {
    pub(super) fn generate(self) -> Result<KeyPair, AuthorityError> {
        let made = KeyPair::generate_for(match self {
            KeyAlgorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
        });
        made.map_err(certificate("a key cannot be made"))
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyAlgorithm::EcdsaP256 => "ecdsa-p256",
            KeyAlgorithm::Ed25519 => "ed25519",
        })
    }
}

impl FromStr for KeyAlgorithm {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519];
        known
            .into_iter()
            .find(|algorithm| algorithm.to_string() == text)
            .ok_or_else(|| format!("`{text}` is no kind of key: use ecdsa-p256 or ed25519"))
    }
}

/// How to make a CA. The default: ten years, ECDSA P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// How long the CA is good for.
    pub validity: Duration,
    /// The kind of key.
    pub key_algorithm: KeyAlgorithm,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { validity: Duration::days(3650), key_algorithm: KeyAlgorithm::default() }
    }
}

/// How to issue. The default: ninety days from now (less five minutes, since clocks differ), ECDSA P-256, no names but the
/// SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueOptions {
    /// How long the certificate is good for; counts from `not_before` where that is given.
    pub validity: Duration,
    /// The kind of key.
    pub key_algorithm: KeyAlgorithm,
    /// DNS names, for peers other than ours: ours look at the SPIFFE id alone.
    pub dns_names: Vec<String>,
    /// IP addresses, likewise.
    pub ip_addresses: Vec<IpAddr>,
    /// Exactly from when.
    pub not_before: Option<OffsetDateTime>,
    /// Exactly until when, instead of `validity`.
    pub not_after: Option<OffsetDateTime>,
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self {
            validity: Duration::days(90),
            key_algorithm: KeyAlgorithm::default(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            not_before: None,
            not_after: None,
        }
    }
}

impl IssueOptions {
    /// What it takes to issue a certificate like this one: as long, same kind of key, same names.
    pub(super) fn like(details: &Details) -> Self {
        Self {
            validity: details.not_after - details.not_before - BACKDATED,
            key_algorithm: details.key_algorithm.unwrap_or_default(),
            dns_names: details.dns_names.clone(),
            ip_addresses: details.ip_addresses.clone(),
            not_before: None,
            not_after: None,
        }
    }

    fn alternative_names(&self, identity: &Identity) -> Result<Vec<SanType>, AuthorityError> {
        let uri = identity.to_string().try_into().map_err(certificate("the id cannot be written"))?;
        let mut names = vec![SanType::URI(uri)];
        for name in &self.dns_names {
            let what = format!("`{name}` is no DNS name");
            names.push(SanType::DnsName(name.as_str().try_into().map_err(certificate(&what))?));
        }
        names.extend(self.ip_addresses.iter().copied().map(SanType::IpAddress));
        Ok(names)
    }
}

pub(super) fn ca(
    trust_domain: &str,
    now: OffsetDateTime,
    validity: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let serial = random_serial()?;
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
    now: OffsetDateTime,
) -> Result<(CertificateParams, Issued), AuthorityError> {
    let serial = random_serial()?;
    let not_before = options.not_before.unwrap_or(now - BACKDATED);
    let not_after = options.not_after.unwrap_or(options.not_before.unwrap_or(now) + options.validity);
    if not_after <= not_before {
        return Err(AuthorityError::EmptyValidity { not_before, not_after });
    }
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (not_before, not_after);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, identity.name.clone());
    params.subject_alt_names = options.alternative_names(identity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if matches!(identity.role, Role::Source | Role::Target) {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let issued = Issued {
        serial: to_hex(&serial),
        identity: identity.clone(),
        key_algorithm: options.key_algorithm,
        not_before: not_before.unix_timestamp(),
        not_after: not_after.unix_timestamp(),
        revoked_at: None,
    };
    Ok((params, issued))
}

/// 128 bits, all but the upper two random: positive (RFC 5280, 4.1.2.2), and of one length in every form.
fn random_serial() -> Result<[u8; 16], AuthorityError> {
    let mut serial = [0; 16];
    crate::tls::provider().secure_random.fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}
