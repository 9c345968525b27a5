//! What an identity consists of on disk: certificate, key, the CAs it trusts, what they have revoked.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use webpki::OwnedCertRevocationList;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::details::Details;
use crate::file::{self, FileError};
use crate::identity::{Identity, IdentityError};
use crate::{bundle, clock};

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
            PathsForm { dir: Some(dir), certificate: None, key: None, ca: None, crl: None } => {
                Ok(Self::in_dir(&dir))
            }
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
    /// A file is missing, cannot be read, or is a key that others may read.
    #[error(transparent)]
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
    #[error("{path}: no usable identity: issue one with `handover certs issue`")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// The certificate is no longer good.
    #[error("{path}: expired at {not_after}: renew it with `handover certs renew`")]
    Expired {
        /// The file.
        path: PathBuf,
        /// Since when.
        not_after: OffsetDateTime,
    },
    /// The certificate is not good yet.
    #[error("{path}: not valid before {not_before}: set this host's clock, or issue it again")]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// From when it will be.
        not_before: OffsetDateTime,
    },
    /// Key and certificate do not belong together, or are of a kind that TLS cannot use.
    #[error("{path}: this key cannot be used with {certificate}: renew both with `handover certs renew`")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A loaded identity. Everything in it has been parsed: making rustls configs of it does not fail for what a file holds.
pub struct Material {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    pub(crate) crls: Vec<OwnedCertRevocationList>,
    paths: MaterialPaths,
    identity: Identity,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// Without the key.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Material");
        shown.field("identity", &self.identity).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Material {
    /// Loads the files at `paths` and checks them against the host's clock. A missing revocation list is no error: it means
    /// that nothing has been revoked. A key that others may read is one ([`file::check_secret`]): it may be everybody's by now.
    pub fn load(paths: &MaterialPaths) -> Result<Self, MaterialError> {
        Self::load_at(paths, clock::now())
    }

    /// As `load`, at another time than the host's clock tells.
    pub fn load_at(paths: &MaterialPaths, now: OffsetDateTime) -> Result<Self, MaterialError> {
        let chain = certificates(&paths.certificate)?;
        let details = Details::read(&chain[0])
            .map_err(|source| MaterialError::Identity { path: paths.certificate.clone(), source })?;
        let material = Self {
            chain,
            key: load_key(&paths.key)?,
            anchors: load_anchors(&paths.ca)?,
            crls: paths.crl.as_deref().map(load_crls).transpose()?.unwrap_or_default(),
            paths: paths.clone(),
            identity: details.identity,
            not_before: details.not_before,
            not_after: details.not_after,
        };
        material.check_key()?;
        material.check_time(now)?;
        Ok(material)
    }

    fn check_key(&self) -> Result<(), MaterialError> {
        let provider = crate::tls::provider();
        let key =
            provider.key_provider.load_private_key(self.key.clone_key()).map_err(self.unusable_key())?;
        rustls::sign::CertifiedKey::new(self.chain.clone(), key).keys_match().map_err(self.unusable_key())
    }

    /// An error about the key, for what rustls says of it.
    pub(crate) fn unusable_key(&self) -> impl Fn(rustls::Error) -> MaterialError {
        let (path, certificate) = (self.paths.key.clone(), self.paths.certificate.clone());
        move |source| MaterialError::Key { path: path.clone(), certificate: certificate.clone(), source }
    }

    fn check_time(&self, now: OffsetDateTime) -> Result<(), MaterialError> {
        let path = self.paths.certificate.clone();
        if now > self.not_after {
            return Err(MaterialError::Expired { path, not_after: self.not_after });
        }
        if now < self.not_before {
            return Err(MaterialError::NotYetValid { path, not_before: self.not_before });
        }
        Ok(())
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// How long it is still good at `now`; negative when it has expired.
    pub fn expires_in(&self, now: OffsetDateTime) -> Duration {
        self.not_after - now
    }

    /// How long it is good for in all.
    pub fn lifetime(&self) -> Duration {
        self.not_after - self.not_before
    }
}

fn content(path: &Path, problem: impl Into<String>) -> MaterialError {
    MaterialError::Content { path: path.to_owned(), problem: problem.into() }
}

/// The objects of one kind in a PEM file.
fn objects<T: PemObject>(path: &Path) -> Result<Vec<T>, MaterialError> {
    let found = T::pem_slice_iter(&file::read(path)?).collect::<Result<_, _>>();
    found.map_err(|error| content(path, format!("is not PEM ({error}): write it again")))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let found: Vec<_> = objects(path)?;
    if found.is_empty() {
        return Err(content(path, "holds no certificate in PEM: `handover certs issue` writes one"));
    }
    Ok(found)
}

pub(crate) fn load_anchors(path: &Path) -> Result<Vec<TrustAnchor<'static>>, MaterialError> {
    let load = |certificate: &CertificateDer<'static>| {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        // webpki takes any certificate for a trust anchor: a peer's own, put here by mistake, would make it a CA.
        let anchor = parsed.is_ca().then(|| webpki::anchor_from_trusted_cert(certificate))?;
        anchor.ok().map(|anchor| anchor.to_owned())
    };
    let all: Option<Vec<_>> = certificates(path)?.iter().map(load).collect();
    all.ok_or_else(|| content(path, "holds a certificate that is no CA's: put the CA's `ca.pem` here"))
}

fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, MaterialError> {
    let bytes = file::read(path)?;
    file::check_secret(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        content(path, format!("holds no private key in PEM ({error}): `handover certs renew` writes one"))
    })
}

pub(crate) fn load_crls(path: &Path) -> Result<Vec<OwnedCertRevocationList>, MaterialError> {
    // Only a file that is not there: one that cannot be looked at must not pass for one that revokes nobody.
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Vec::new());
    }
    let mut lists: Vec<CertificateRevocationListDer<'static>> = objects(path)?;
    if lists.is_empty() {
        // A file that was cut short must not pass for one that revokes nobody.
        return Err(content(
            path,
            "holds no revocation list in PEM: copy the CA's `crl.pem` here, or remove the file",
        ));
    }
    bundle::newest_first(&mut lists);
    let load = |list| OwnedCertRevocationList::from_der(list);
    let loaded: Result<_, _> = lists.iter().map(|list| load(list)).collect();
    loaded.map_err(|error| {
        content(path, format!("holds an unusable revocation list ({error}): copy the CA's here"))
    })
}
