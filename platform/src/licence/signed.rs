//! A licence as its issuer signs it: TOML, and an Ed25519 signature (RFC 8032) of it, as text.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use handover_engine::licence::Licence;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

/// What the signature covers ends before this line.
const BEGIN: &str = "-----BEGIN SIGNATURE-----\n";
const END: &str = "-----END SIGNATURE-----";
/// The beginning of an Ed25519 key in a certificate's form (RFC 8410, section 4); the key's 32 bytes follow.
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key that an issuer's licences are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKey([u8; 32]);

/// A text is no issuer's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write the issuer's Ed25519 key in PEM, as `openssl pkey -pubout` prints it")]
pub struct BadKey;

/// A document is no licence of this issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLicence {
    /// It has not its form.
    #[error("it has no signature behind a line {}", BEGIN.trim_end())]
    Unsigned,
    /// Somebody else signed it, or it was changed.
    #[error("its signature is not its issuer's")]
    Signature,
    /// What is signed cannot be read.
    #[error("what is signed says nothing that is understood: {0}")]
    Text(String),
}

#[derive(Deserialize)]
struct Text {
    guid: String,
    #[serde(default)]
    holder: String,
    maintenance_until: Option<String>,
}

impl IssuerKey {
    /// From PEM.
    pub fn parse(pem: &str) -> Result<Self, BadKey> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey)?;
        let key = key.as_ref().strip_prefix(&PREFIX).ok_or(BadKey)?;
        key.try_into().map(Self).map_err(|_| BadKey)
    }

    /// What a licence of this issuer says. What else it says is the product's matter.
    pub fn licence(&self, document: &[u8]) -> Result<Licence, BadLicence> {
        let text = std::str::from_utf8(document).map_err(|_| BadLicence::Unsigned)?;
        let (signed, rest) = text.split_once(BEGIN).ok_or(BadLicence::Unsigned)?;
        let (signature, behind) = rest.split_once(END).ok_or(BadLicence::Unsigned)?;
        if !behind.trim().is_empty() {
            return Err(BadLicence::Unsigned);
        }
        let signature: String = signature.split_whitespace().collect();
        let signature = STANDARD.decode(signature).map_err(|_| BadLicence::Unsigned)?;
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(signed.as_bytes(), &signature).map_err(|_| BadLicence::Signature)?;
        let bad = |problem: String| BadLicence::Text(problem.trim().to_owned());
        let Text { guid, holder, maintenance_until } =
            toml::from_str(signed).map_err(|e| bad(e.to_string()))?;
        let until = maintenance_until.map(|time| time.parse()).transpose();
        let maintenance_until = until.map_err(|e| bad(format!("`maintenance_until`: {e}")))?;
        Ok(Licence { guid, holder, maintenance_until })
    }
}
