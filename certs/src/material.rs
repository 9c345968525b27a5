//! What an identity consists of on disk: certificate, key, the CAs it trusts, what they have revoked.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use serde::Deserialize;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::file::{self, FileError};
use crate::identity::{Identity, IdentityError};

/// Where the parts are: either `dir` with the names that `handover certs issue` writes, or each by itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathsForm")]
pub struct MaterialPaths {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM (PKCS#8).
    pub key: PathBuf,
    /// Certificates of the CAs that are trusted, PEM; several during a CA swap.
    pub ca: PathBuf,
    /// What they have revoked, PEM; several during a CA swap.
    pub crl: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathsForm {
    dir: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
}

impl TryFrom<PathsForm> for MaterialPaths {
    type Error = &'static str;
    fn try_from(form: PathsForm) -> Result<Self, Self::Error> {
        match form {
            PathsForm { dir: Some(dir), certificate: None, key: None, ca: None, crl: None } => Ok(Self::in_dir(&dir)),
            PathsForm { dir: None, certificate: Some(certificate), key: Some(key), ca: Some(ca), crl } => {
                Ok(Self { certificate, key, ca, crl })
            }
            _ => Err("give either `dir`, or `certificate`, `key` and `ca` (and `crl`)"),
        }
    }
}

impl MaterialPaths {
    /// The files in a directory that `handover certs issue` wrote.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            certificate: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            ca: dir.join("ca.pem"),
            crl: Some(dir.join("crl.pem")),
        }
    }
}

/// Material that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A file cannot be read.
    #[error("cannot load the identity")]
    File(#[from] FileError),
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The certificate names nobody.
    #[error("{path}: no usable identity")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// Key and certificate do not belong together, or are of a kind that TLS cannot use.
    #[error("{path}: this key cannot be used with its certificate")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A loaded identity.
#[derive(Debug)]
pub struct Material {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) cas: Vec<CertificateDer<'static>>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
    pub(crate) key_path: PathBuf,
    identity: Identity,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

fn content(path: &Path, problem: impl Into<String>) -> MaterialError {
    MaterialError::Content { path: path.to_owned(), problem: problem.into() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let bytes = file::read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, format!("is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(content(path, "holds no certificate; `handover certs issue` writes one"));
    }
    Ok(found)
}

impl Material {
    /// Loads and checks the files at `paths`. An expired certificate loads (the peers will refuse it, by name); a key that
    /// others may read does not.
    pub fn load(paths: &MaterialPaths) -> Result<Self, MaterialError> {
        let chain = certificates(&paths.certificate)?;
        let cas = certificates(&paths.ca)?;
        let key = load_key(&paths.key)?;
        let crls = match &paths.crl {
            Some(path) => load_crls(path)?,
            None => Vec::new(),
        };
        let identity = Identity::from_certificate(&chain[0])
            .map_err(|source| MaterialError::Identity { path: paths.certificate.clone(), source })?;
        let (_, parsed) = X509Certificate::from_der(&chain[0]).map_err(|e| content(&paths.certificate, e.to_string()))?;
        let (not_before, not_after) =
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
        let material =
            Self { cas, crls, key, identity, not_before, not_after, key_path: paths.key.clone(), chain };
        material.check_key()?;
        Ok(material)
    }

    fn check_key(&self) -> Result<(), MaterialError> {
        let failed = |source| MaterialError::Key { path: self.key_path.clone(), source };
        let provider = crate::tls::provider();
        let key = provider.key_provider.load_private_key(self.key.clone_key()).map_err(failed)?;
        rustls::sign::CertifiedKey::new(self.chain.clone(), key).keys_match().map_err(failed)
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// How long it is good for in all.
    pub fn lifetime(&self) -> time::Duration {
        self.not_after - self.not_before
    }
}

fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, MaterialError> {
    let bytes = file::read(path)?;
    let mode = std::fs::metadata(path).map(|m| m.permissions().mode()).unwrap_or(0);
    if mode & 0o077 != 0 {
        let problem = format!("others may read this key (mode {:03o}): chmod 600 it", mode & 0o777);
        return Err(content(path, problem));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| content(path, format!("holds no private key: {error}")))
}

fn load_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, MaterialError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = file::read(path)?;
    CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, format!("is not PEM: {error}")))
}
