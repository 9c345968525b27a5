//! A certificate authority in a directory: `ca.pem`, `ca.key` (0600), `crl.pem`, and `index.json`, the list of what it has
//! issued. Every file is replaced in one step.

mod index;
mod params;

use std::path::{Path, PathBuf};

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use time::{Duration, OffsetDateTime};

use crate::file::{self, FileError, PUBLIC, SECRET};
use crate::identity::{Identity, IdentityError};

pub(crate) use index::to_hex as hex;
pub use index::{Index, Issued};
pub use params::{IssueOptions, KeyAlgorithm};

/// How long a CA is good for, unless told otherwise.
const CA_LIFETIME: Duration = Duration::days(3650);

/// What a CA cannot do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error("the certificate authority's files")]
    File(#[from] FileError),
    /// There is one already.
    #[error("{0}: there is a certificate authority already: choose another directory (a CA is never overwritten)")]
    Exists(PathBuf),
    /// The index is damaged or of another version.
    #[error("{path}: {problem}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate library.
    #[error("{what}")]
    Certificate {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// Not an identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nothing to revoke or renew.
    #[error("{0}: this CA has issued no such certificate; `handover certs show` lists what it has issued")]
    Unknown(String),
}

fn certificate(what: &str) -> impl Fn(rcgen::Error) -> AuthorityError {
    let what = what.to_owned();
    move |source| AuthorityError::Certificate { what: what.clone(), source }
}

/// Now, by the host's clock.
#[expect(clippy::disallowed_methods, reason = "the one place in this crate that reads the clock")]
pub(crate) fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}

/// A certificate authority.
pub struct Authority {
    dir: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    index: Index,
}

/// Which certificates to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one with this serial number, in hex.
    Serial(String),
    /// All of an identity's.
    Identity(Identity),
}

impl Authority {
    /// Makes a CA for a trust domain in `dir`. Never overwrites one.
    pub fn init(dir: &Path, trust_domain: &str) -> Result<Self, AuthorityError> {
        // Checks the trust domain by the rules for ids.
        Identity::new(trust_domain, crate::identity::Role::Source, "x")?;
        if dir.join("ca.pem").exists() || dir.join("ca.key").exists() {
            return Err(AuthorityError::Exists(dir.to_owned()));
        }
        file::make_directory(dir)?;
        let key = KeyPair::generate().map_err(certificate("a CA key cannot be made"))?;
        let params = params::ca(trust_domain, now(), CA_LIFETIME)?;
        let made = params.self_signed(&key).map_err(certificate("the CA certificate cannot be signed"))?;
        file::replace(&dir.join("ca.key"), key.serialize_pem().as_bytes(), SECRET)?;
        let index = Index::new(trust_domain);
        index.write(&dir.join("index.json"))?;
        file::replace(&dir.join("ca.pem"), made.pem().as_bytes(), PUBLIC)?;
        let authority = Self::open(dir)?;
        authority.write_crl()?;
        Ok(authority)
    }

    /// Opens a CA.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let text = |name: &str| {
            let path = dir.join(name);
            let problem = "is not text".to_owned();
            String::from_utf8(file::read(&path)?).map_err(|_| AuthorityError::Index { path, problem })
        };
        let (pem, key) = (text("ca.pem")?, text("ca.key")?);
        let key = KeyPair::from_pem(&key).map_err(certificate("the CA's key cannot be read"))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(certificate("the CA's certificate cannot be read"))?;
        let index = Index::read(&dir.join("index.json"))?;
        Ok(Self { dir: dir.to_owned(), certificate: pem, issuer, index })
    }

    /// What it has issued.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Issues a certificate with a new key into the directory `out`: `cert.pem`, `key.pem` (0600), `ca.pem`, `crl.pem`.
    pub fn issue(&mut self, identity: &Identity, options: &IssueOptions, out: &Path) -> Result<Issued, AuthorityError> {
        if identity.trust_domain != self.index.trust_domain {
            return Err(IdentityError::TrustDomain(identity.trust_domain.clone()).into());
        }
        let key = options.key_algorithm.generate().map_err(certificate("a key cannot be made"))?;
        let serial = params::random_serial().map_err(certificate("no random numbers"))?;
        let (params, issued) = params::leaf(identity, options, &serial, now())?;
        let made = params.signed_by(&key, &self.issuer).map_err(certificate("the certificate cannot be signed"))?;
        // Known to the CA before it is out in the world: what is lost in between can still be revoked.
        self.index.issued.push(issued.clone());
        self.index.write(&self.dir.join("index.json"))?;
        file::make_directory(out)?;
        file::replace(&out.join("key.pem"), key.serialize_pem().as_bytes(), SECRET)?;
        file::replace(&out.join("cert.pem"), made.pem().as_bytes(), PUBLIC)?;
        self.publish(out)?;
        Ok(issued)
    }

    /// Issues a new certificate with a new key for the identity in a directory that `issue` wrote. The old one stays good
    /// until it expires, so that nothing breaks in between.
    pub fn renew(&mut self, dir: &Path, options: &IssueOptions) -> Result<Issued, AuthorityError> {
        let identity = crate::summary::of_directory(dir)?.identity;
        self.issue(&identity, options, dir)
    }

    /// Writes this CA's certificate and revocation list beside an identity.
    pub fn publish(&self, dir: &Path) -> Result<(), AuthorityError> {
        file::replace(&dir.join("ca.pem"), self.certificate.as_bytes(), PUBLIC)?;
        file::replace(&dir.join("crl.pem"), &file::read(&self.dir.join("crl.pem"))?, PUBLIC)?;
        Ok(())
    }

    /// Revokes certificates and writes the revocation list; returns what was revoked. Those revoked already count again.
    pub fn revoke(&mut self, which: &Which) -> Result<Vec<Issued>, AuthorityError> {
        let at = now().unix_timestamp();
        let mut revoked = Vec::new();
        for issued in &mut self.index.issued {
            let meant = match which {
                Which::Serial(serial) => issued.serial.eq_ignore_ascii_case(serial),
                Which::Identity(identity) => issued.identity == *identity,
            };
            if meant {
                issued.revoked_at.get_or_insert(at);
                revoked.push(issued.clone());
            }
        }
        if revoked.is_empty() {
            return Err(AuthorityError::Unknown(match which {
                Which::Serial(serial) => format!("serial {serial}"),
                Which::Identity(identity) => identity.to_string(),
            }));
        }
        self.index.write(&self.dir.join("index.json"))?;
        self.write_crl()?;
        Ok(revoked)
    }

    fn write_crl(&self) -> Result<(), AuthorityError> {
        let revoked = self.index.issued.iter().filter_map(|issued| {
            let at = OffsetDateTime::from_unix_timestamp(issued.revoked_at?).ok()?;
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&index::from_hex(&issued.serial)?),
                revocation_time: at,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let this_update = now();
        let params = CertificateRevocationListParams {
            this_update,
            // Handed around by hand: it stays good as long as the CA, and is replaced at each revocation.
            next_update: this_update + CA_LIFETIME,
            crl_number: SerialNumber::from(this_update.unix_timestamp().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.issuer).map_err(certificate("the revocation list cannot be signed"))?;
        let pem = crl.pem().map_err(certificate("the revocation list cannot be written"))?;
        Ok(file::replace(&self.dir.join("crl.pem"), pem.as_bytes(), PUBLIC)?)
    }
}
