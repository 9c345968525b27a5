//! Chain and key as they are read: PEM taken apart, nothing in it believed yet.

use std::fmt;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// No file of a certificate, and nothing that comes from the other host, may be larger.
pub const LARGEST: usize = 256 * 1024;
/// Certificates in a chain.
const LONGEST_CHAIN: usize = 10;

/// Why a certificate is not put in place, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct Unfit {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Unfit {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// A chain with its key.
#[derive(PartialEq, Eq)]
pub struct Pair {
    /// The host's own certificate first; never empty.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// As the key was called in its file, kept for programs that know one form only.
    key_tag: String,
}

/// Without the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Pair {
    /// Takes apart what may be one text that holds both. What is neither a certificate nor a private key is left out.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Unfit> {
        let chain = certificates(chain)?;
        let (key_tag, key) = private_key(key)?;
        Ok(Self { chain, key, key_tag })
    }

    /// The chain in PEM, without the key.
    pub fn chain_pem(&self) -> String {
        let block = |certificate: &CertificateDer<'_>| Pem::new("CERTIFICATE", certificate.as_ref());
        pem::encode_many_config(&self.chain.iter().map(block).collect::<Vec<_>>(), form())
    }

    /// The key in PEM.
    pub fn key_pem(&self) -> String {
        pem::encode_config(&Pem::new(self.key_tag.clone(), self.key.secret_der()), form())
    }
}

fn form() -> EncodeConfig {
    EncodeConfig::new().set_line_ending(LineEnding::LF)
}

/// The blocks of a text, all of them whole.
fn blocks(text: &[u8], what: &str) -> Result<Vec<Pem>, Unfit> {
    let hint = format!("write the {what} again, as PEM");
    if text.len() > LARGEST {
        return Err(Unfit::new(format!("the {what} is larger than {LARGEST} bytes"), hint));
    }
    if text.trim_ascii().is_empty() {
        return Err(Unfit::new(format!("the {what} is empty"), hint));
    }
    let blocks = pem::parse_many(text)
        .map_err(|error| Unfit::new(format!("the {what} is no sound PEM ({error})"), &hint))?;
    let begun = text.windows(11).filter(|window| window == b"-----BEGIN ").count();
    if begun != blocks.len() {
        return Err(Unfit::new(format!("the {what} is cut short"), hint));
    }
    if blocks.is_empty() {
        return Err(Unfit::new(format!("the {what} is not PEM"), hint));
    }
    Ok(blocks)
}

/// The certificates of a text, at least one.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let is_certificate = |block: &Pem| ["CERTIFICATE", "X509 CERTIFICATE"].contains(&block.tag());
    let found: Vec<_> = blocks(text, "certificate")?
        .into_iter()
        .filter(is_certificate)
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect();
    match found.len() {
        0 => Err(Unfit::new("its file holds no certificate", "write the chain there, as PEM")),
        1..=LONGEST_CHAIN => Ok(found),
        many => {
            let hint = "leave in it the host's own certificate and those that lead to its CA";
            Err(Unfit::new(format!("the chain holds {many} certificates"), hint))
        }
    }
}

fn private_key(text: &[u8]) -> Result<(String, PrivateKeyDer<'static>), Unfit> {
    let keys: Vec<_> =
        blocks(text, "key")?.into_iter().filter(|block| block.tag().ends_with("PRIVATE KEY")).collect();
    let [key] = keys.as_slice() else {
        let what = format!("its file holds {} private keys", keys.len());
        return Err(Unfit::new(what, "leave the one that belongs to the certificate"));
    };
    if key.tag().starts_with("ENCRYPTED") || key.headers().get("Proc-Type").is_some() {
        let hint = "decrypt it: `openssl pkey -in KEY -out NEW`, and chmod 600 that";
        return Err(Unfit::new("the key is encrypted", hint));
    }
    let der = key.contents().to_vec();
    let parsed = match key.tag() {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(der.into()),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.into()),
        other => {
            let hint = "make it PKCS#8: `openssl pkey -in KEY -out NEW`";
            return Err(Unfit::new(format!("a key of the form `{other}` is not known"), hint));
        }
    };
    Ok((key.tag().to_owned(), parsed))
}
