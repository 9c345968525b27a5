//! A certificate authority in a directory: `ca.pem` (its own certificate first, then other CAs to be trusted during a
//! swap), `ca.key` (0600), `crl.pem`, and `index.json`, the list of what it has issued. Every file is replaced in one step.
//!
//! Several processes may work with one CA: what changes it takes a lock and reads the index again.

mod error;
mod index;
mod issued;
mod params;
mod swap;

use std::path::{Path, PathBuf};

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::bundle;
use crate::clock::now;
use crate::details::Details;
use crate::file::{self, PUBLIC, SECRET};
use crate::identity::{Identity, Role};

pub use error::AuthorityError;
use error::certificate;
pub(crate) use index::from_hex;
pub(crate) use index::to_hex as hex;
pub use index::{Index, Issued, Which};
pub use issued::IssuedIdentity;
pub use params::{InitOptions, IssueOptions, KeyAlgorithm};

/// Revocation lists are carried around by hand and replaced at each revocation: they name an update as far away as a CA
/// lives, and one that has passed is still heeded rather than letting every connection fail.
const CRL_LIFETIME: Duration = Duration::days(3650);

/// A certificate authority.
pub struct Authority {
    dir: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
    index: Index,
}

/// Without the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("dir", &self.dir)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a CA for a trust domain in `dir`. Never overwrites one, not even a damaged one.
    pub fn init(dir: &Path, trust_domain: &str, options: &InitOptions) -> Result<Self, AuthorityError> {
        // Checks the trust domain by the rules for ids.
        Identity::new(trust_domain, Role::Source, "x")?;
        if ["ca.pem", "ca.key", "index.json"].iter().any(|name| dir.join(name).exists()) {
            return Err(AuthorityError::Exists(dir.to_owned()));
        }
        file::make_directory(dir)?;
        let key = options.key_algorithm.generate()?;
        let params = params::ca(trust_domain, now(), options.validity)?;
        let made = params.self_signed(&key).map_err(certificate("the CA certificate cannot be signed"))?;
        file::replace(&dir.join("ca.key"), key.serialize_pem().as_bytes(), SECRET)?;
        Index::new(trust_domain).write(&dir.join("index.json"))?;
        file::replace(&dir.join("ca.pem"), made.pem().as_bytes(), PUBLIC)?;
        let authority = Self::open(dir)?;
        authority.write_crl(&authority.index, &[])?;
        Ok(authority)
    }

    /// Opens a CA. Refuses one whose key others may read.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (pem, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let damaged = |path: &Path, problem: &str| {
            let (path, problem) = (path.to_owned(), problem.to_owned());
            move || AuthorityError::Damaged { path, problem }
        };
        let no_certificate = damaged(&pem, "holds no certificate that can be read");
        let own = CertificateDer::from_pem_slice(&file::read(&pem)?).map_err(|_| no_certificate())?;
        let key_text = String::from_utf8(file::read(&key)?).map_err(|_| damaged(&key, "is not PEM")())?;
        file::check_secret(&key)?;
        let key_pair = KeyPair::from_pem(&key_text).map_err(|_| damaged(&key, "holds no private key")())?;
        let (_, parsed) = X509Certificate::from_der(&own)
            .map_err(|_| damaged(&pem, "holds a certificate that cannot be read")())?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key_pair) {
            return Err(damaged(&pem, "does not begin with the certificate of the key in ca.key")());
        }
        let (name, not_after) = (parsed.subject().to_string(), parsed.validity().not_after.to_datetime());
        let issuer = Issuer::from_ca_cert_der(&own, key_pair)
            .map_err(certificate("the CA's certificate cannot be used"))?;
        let index = Index::read(&dir.join("index.json"))?;
        Ok(Self { dir: dir.to_owned(), name, issuer, not_after, index })
    }

    /// What it has issued, oldest first, as far as this value knows: at `open` and after its own changes.
    pub fn list(&self) -> &[Issued] {
        &self.index.issued
    }

    /// Its name, as certificates give it for their issuer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The trust domain that it issues for.
    pub fn trust_domain(&self) -> &str {
        &self.index.trust_domain
    }

    /// When the CA itself expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Issues a certificate with a new key. It is in the index when this returns, and on disk after `write`.
    pub fn issue(
        &mut self,
        identity: &Identity,
        options: &IssueOptions,
    ) -> Result<IssuedIdentity, AuthorityError> {
        if identity.trust_domain != self.index.trust_domain {
            let (identity, ours) = (identity.clone(), self.index.trust_domain.clone());
            return Err(AuthorityError::ForeignDomain { identity, ours });
        }
        let (params, record) = params::leaf(identity, options, now())?;
        if params.not_after > self.not_after {
            return Err(AuthorityError::OutlivesAuthority { ca: self.not_after });
        }
        let key = options.key_algorithm.generate()?;
        let made =
            params.signed_by(&key, &self.issuer).map_err(certificate("the certificate cannot be signed"))?;
        // Known to the CA before it is out in the world: what is lost in between can still be revoked.
        let _lock = self.lock()?;
        self.index = self.read_index()?;
        self.index.issued.push(record.clone());
        self.index.write(&self.index_path())?;
        Ok(IssuedIdentity {
            record,
            certificate_pem: made.pem(),
            key_pem: key.serialize_pem(),
            ca_pem: self.text("ca.pem")?,
            crl_pem: self.text("crl.pem")?,
        })
    }

    /// Issues and writes a new certificate with a new key and serial for the identity in a directory that `issue` wrote: of
    /// the same length, kind of key and names. The old one stays good until it expires, so that nothing breaks in between;
    /// revoke it if its key is out. A revoked identity is not renewed. May be called by the new CA during a swap.
    pub fn renew(&mut self, dir: &Path) -> Result<IssuedIdentity, AuthorityError> {
        let old = details_in(dir)?;
        let lists = revocation_lists(&self.dir.join("crl.pem"))?;
        if old.revoked(&lists).is_some() {
            return Err(AuthorityError::Revoked { serial: old.serial(), identity: old.identity });
        }
        let issued = self.issue(&old.identity, &IssueOptions::like(&old))?;
        issued.write(dir)?;
        Ok(issued)
    }

    /// Revokes certificates and writes the revocation list; returns what was revoked. Those revoked already count again, so
    /// that a crash in between is mended by revoking again. Peers get to know by [`publish`](Self::publish).
    pub fn revoke(&mut self, which: &Which) -> Result<Vec<Issued>, AuthorityError> {
        let _lock = self.lock()?;
        let mut index = self.read_index()?;
        let revoked = index.revoke(which, now())?;
        index.crl_number += 1;
        index.write(&self.index_path())?;
        self.index = index;
        self.write_crl(&self.index, &[&self.dir.join("crl.pem")])?;
        Ok(revoked)
    }

    /// Writes this CA's revocation list together with those of other CAs in `others`.
    fn write_crl(&self, index: &Index, others: &[&Path]) -> Result<(), AuthorityError> {
        let revoked = index.issued.iter().filter_map(|issued| {
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&from_hex(&issued.serial)?),
                revocation_time: OffsetDateTime::from_unix_timestamp(issued.revoked_at?).ok()?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let this_update = now();
        let params = CertificateRevocationListParams {
            this_update,
            next_update: this_update + CRL_LIFETIME,
            crl_number: SerialNumber::from(index.crl_number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl =
            params.signed_by(&self.issuer).map_err(certificate("the revocation list cannot be signed"))?;
        let bundle = bundle::revocation_lists(Some(crl.der()), others)?;
        Ok(file::replace(&self.dir.join("crl.pem"), bundle.as_bytes(), PUBLIC)?)
    }

    /// The key's file is never replaced, so that its lock is everybody's.
    fn lock(&self) -> Result<std::fs::File, AuthorityError> {
        Ok(file::lock(&self.dir.join("ca.key"))?)
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    fn read_index(&self) -> Result<Index, AuthorityError> {
        Index::read(&self.index_path())
    }

    fn text(&self, name: &str) -> Result<String, AuthorityError> {
        let path = self.dir.join(name);
        let text = String::from_utf8(file::read(&path)?);
        text.map_err(|_| AuthorityError::Damaged { path, problem: "is not PEM".to_owned() })
    }
}

/// What the certificate in an identity's directory says.
pub(crate) fn details_in(dir: &Path) -> Result<Details, AuthorityError> {
    let path = dir.join("cert.pem");
    let read = CertificateDer::from_pem_slice(&file::read(&path)?)
        .map_err(|_| crate::identity::IdentityError::Certificate)
        .and_then(|certificate| Details::read(&certificate));
    read.map_err(|source| AuthorityError::NoIdentity { path, source })
}

/// The revocation lists in a file, newest first; none if it is not there.
pub(crate) fn revocation_lists(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, AuthorityError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&file::read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| AuthorityError::Damaged { path: path.to_owned(), problem: error.to_string() })?;
    bundle::newest_first(&mut lists);
    Ok(lists)
}
