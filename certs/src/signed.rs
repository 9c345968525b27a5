//! Texts that somebody has signed with the key of their certificate, in a form that can be checked offline, years later.
//!
//! The signature covers the text's bytes. With TLS the same key signs nothing that could pass for one of these texts: there, what is
//! signed begins with 64 spaces (RFC 8446, 4.4.3).

use std::path::Path;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use webpki::{EndEntityCert, OwnedCertRevocationList};

use crate::clock;
use crate::details::Details;
use crate::identity::{Identity, IdentityError, Role};
use crate::material::{self, MaterialError};
use crate::tls;

/// The form of the document.
const FORMAT: &str = "handover-signed-1";

/// How far the clock of whoever signed may be ahead of ours.
const AHEAD: Duration = Duration::minutes(5);

/// The kinds of signature, by name. The first that a key can make is used.
const SCHEMES: [(&str, SignatureScheme); 4] = [
    ("ecdsa-p256-sha256", SignatureScheme::ECDSA_NISTP256_SHA256),
    ("ed25519", SignatureScheme::ED25519),
    ("ecdsa-p384-sha384", SignatureScheme::ECDSA_NISTP384_SHA384),
    ("rsa-pss-sha256", SignatureScheme::RSA_PSS_SHA256),
];

/// Why a signed document is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// Not a signed document.
    #[error("this is no signed document: {0}")]
    Form(String),
    /// Something around the text was changed.
    #[error("this is not byte for byte what was written: something around the signed text was changed")]
    Altered,
    /// Text and signature do not belong together.
    #[error("the signature does not fit: the text or the signature was changed after it was signed")]
    Signature,
    /// The certificate does not lead to the CA.
    #[error(
        "the certificate it was signed with is not to be trusted: it was changed, or it is not of this CA's targets"
    )]
    Certificate(#[source] rustls::Error),
    /// The certificate names nobody.
    #[error("the certificate it was signed with names nobody: it was changed, or is none of ours")]
    Identity(#[source] IdentityError),
    /// Signed outside the time that the certificate is good for.
    #[error("it says that it was signed at {at}; the certificate is good from {not_before} to {not_after}")]
    Time {
        /// When it says it was signed.
        at: OffsetDateTime,
        /// From when the certificate is good.
        not_before: OffsetDateTime,
        /// Until when.
        not_after: OffsetDateTime,
    },
    /// Signed at a time that has not come yet.
    #[error("it says that it was signed at {0}, which has not come yet: is this host's clock right?")]
    Future(OffsetDateTime),
    /// The key cannot sign.
    #[error("the key cannot sign")]
    Key(#[source] rustls::Error),
}

/// Whom to believe.
pub struct Believed {
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<OwnedCertRevocationList>,
    trust_domain: Option<String>,
}

impl Believed {
    /// Targets of the CAs in `ca` that the lists in `crl` do not revoke; of this trust domain, where one is given.
    pub fn load(ca: &Path, crl: Option<&Path>, trust_domain: Option<String>) -> Result<Self, MaterialError> {
        let crls = crl.map(material::load_crls).transpose()?.unwrap_or_default();
        Ok(Self { anchors: material::load_anchors(ca)?, crls, trust_domain })
    }
}

/// Who has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// Who.
    pub identity: Identity,
    /// The certificate's serial number in hex.
    pub serial: String,
    /// Who has issued it.
    pub issuer: String,
}

/// A text with a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    text: String,
    scheme: &'static str,
    signature: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: String,
    text: String,
    algorithm: String,
    signature: String,
    certificates: Vec<String>,
}

impl Signed {
    /// Signs a text.
    pub(crate) fn make(text: String, key: &CertifiedKey) -> Result<Self, SignedError> {
        let none =
            || SignedError::Key(rustls::Error::General("it is of a kind that is not known here".to_owned()));
        let signer = key.key.choose_scheme(&SCHEMES.map(|(_, scheme)| scheme)).ok_or_else(none)?;
        let scheme = SCHEMES.iter().find(|(_, known)| *known == signer.scheme()).ok_or_else(none)?.0;
        let signature = signer.sign(text.as_bytes()).map_err(SignedError::Key)?;
        Ok(Self { text, scheme, signature, chain: key.cert.clone() })
    }

    /// Reads what [`Self::to_bytes`] has written. Nothing is verified yet, but that it is written as we write it.
    pub fn read(bytes: &[u8]) -> Result<Self, SignedError> {
        let form: Form =
            serde_json::from_slice(bytes).map_err(|error| SignedError::Form(error.to_string()))?;
        let bad = |what: &str| SignedError::Form(what.to_owned());
        if form.format != FORMAT {
            return Err(SignedError::Form(format!(
                "its format is `{}`, known here is `{FORMAT}`",
                form.format
            )));
        }
        let scheme = SCHEMES.iter().find(|(name, _)| *name == form.algorithm);
        let (scheme, _) = scheme.ok_or_else(|| bad("its kind of signature is not known here"))?;
        let signature = crate::authority::from_hex(&form.signature)
            .ok_or_else(|| bad("its signature is not hexadecimal"))?;
        let chain = form.certificates.iter().map(|text| CertificateDer::from_pem_slice(text.as_bytes()));
        let chain: Result<Vec<_>, _> = chain.collect();
        let chain = chain.map_err(|_| bad("its certificates are not PEM"))?;
        let signed = Self { text: form.text, scheme, signature, chain };
        // There are many ways to write the same values, and only one of them is ours.
        if signed.to_bytes() == bytes { Ok(signed) } else { Err(SignedError::Altered) }
    }

    /// The document: JSON on one line.
    pub fn to_bytes(&self) -> Vec<u8> {
        let pem = |der: &CertificateDer<'_>| {
            let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
            pem::encode_config(&Pem::new("CERTIFICATE", der.as_ref()), config)
        };
        let form = Form {
            format: FORMAT.to_owned(),
            text: self.text.clone(),
            algorithm: self.scheme.to_owned(),
            signature: crate::authority::hex(&self.signature),
            certificates: self.chain.iter().map(pem).collect(),
        };
        // Plain data with string keys: it always serializes.
        let mut bytes = serde_json::to_vec(&form).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The text. Nobody has said it before [`Self::verify`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who has signed the text, at the time that `at` reads in it: a target that the CA vouched for then, and does now.
    pub fn verify(
        &self,
        believed: &Believed,
        at: impl FnOnce(&str) -> Option<OffsetDateTime>,
    ) -> Result<Signer, SignedError> {
        let own = self.chain.first().ok_or(SignedError::Identity(IdentityError::Missing))?;
        let details = Details::read(own).map_err(SignedError::Identity)?;
        if !self.fits(own) {
            // Whose fault it is: a certificate that the CA has signed was not changed.
            self.check_chain(believed, &details, details.not_before)?;
            return Err(SignedError::Signature);
        }
        let at = at(&self.text).ok_or_else(|| SignedError::Form("it tells no time".to_owned()))?;
        let (not_before, not_after) = (details.not_before, details.not_after);
        if at < not_before || at > not_after {
            return Err(SignedError::Time { at, not_before, not_after });
        }
        if at > clock::now() + AHEAD {
            return Err(SignedError::Future(at));
        }
        self.check_chain(believed, &details, at)?;
        Ok(Signer { serial: details.serial(), issuer: details.issuer, identity: details.identity })
    }

    fn fits(&self, own: &CertificateDer<'_>) -> bool {
        let Ok(own) = EndEntityCert::try_from(own) else { return false };
        let Some((_, scheme)) = SCHEMES.iter().find(|(name, _)| *name == self.scheme) else { return false };
        let known = tls::provider().signature_verification_algorithms.mapping;
        let algorithms =
            known.iter().filter(|(known, _)| known == scheme).flat_map(|(_, algorithms)| *algorithms);
        let mut algorithms = algorithms.copied();
        algorithms.any(|how| own.verify_signature(how, self.text.as_bytes(), &self.signature).is_ok())
    }

    fn check_chain(
        &self,
        believed: &Believed,
        details: &Details,
        at: OffsetDateTime,
    ) -> Result<(), SignedError> {
        let since = std::time::Duration::from_secs(u64::try_from(at.unix_timestamp()).unwrap_or(0));
        let domain = believed.trust_domain.as_deref().unwrap_or(&details.identity.trust_domain);
        let at = UnixTime::since_unix_epoch(since);
        tls::verify_signer(&believed.anchors, &believed.crls, domain, Role::Target, &self.chain, at)
            .map_err(SignedError::Certificate)
    }
}
