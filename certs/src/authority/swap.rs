//! From an old CA to a new one without a moment in which peers refuse each other.
//!
//! 1. [`Authority::rotate`] makes the new CA; `ca.pem` and `crl.pem` of both now hold both.
//! 2. [`Authority::publish`] brings them to every identity directory (by either CA; agents reload by themselves).
//! 3. [`Authority::renew`], by the new CA, replaces the certificates one by one.
//! 4. [`Authority::trust_only_itself`] and `publish` again end the trust in the old CA.

use std::path::Path;

use super::{Authority, AuthorityError, InitOptions};
use crate::bundle;
use crate::file::{self, PUBLIC};

impl Authority {
    /// Makes a second CA for the trust domain of the CA in `old`, in the new directory `new`. Each then hands out trust in
    /// both. Returns the new one.
    pub fn rotate(old: &Path, new: &Path, options: &InitOptions) -> Result<Self, AuthorityError> {
        let before = Self::open(old)?;
        let after = Self::init(new, &before.index.trust_domain, options)?;
        after.trust(old)?;
        before.trust(new)?;
        Ok(after)
    }

    /// Adds the CAs and the newest revocation lists in `other`, a CA's or an identity's directory, to what this CA hands out.
    /// Idempotent; call it again when the other CA has revoked something.
    pub fn trust(&self, other: &Path) -> Result<(), AuthorityError> {
        let _lock = self.lock()?;
        let (ca, crl) = (self.dir.join("ca.pem"), self.dir.join("crl.pem"));
        let lists = bundle::revocation_lists(None, &[&crl, &other.join("crl.pem")])?;
        let certificates = bundle::certificates(&ca, &other.join("ca.pem"))?;
        Ok(file::replace_all(&[(ca, certificates.as_bytes(), PUBLIC), (crl, lists.as_bytes(), PUBLIC)])?)
    }

    /// Hands out trust in this CA alone from now on. Identities get to know by `publish`.
    pub fn trust_only_itself(&self) -> Result<(), AuthorityError> {
        let _lock = self.lock()?;
        let path = self.dir.join("ca.pem");
        let own = bundle::first_certificate(&path)?;
        file::replace(&path, own.as_bytes(), PUBLIC)?;
        self.write_crl(&self.read_index()?, &[])
    }

    /// Writes whom this CA trusts, and what has been revoked, into an identity's directory.
    pub fn publish(&self, dir: &Path) -> Result<(), AuthorityError> {
        if dir.join("ca.key").exists() {
            return Err(AuthorityError::NotForIdentities(dir.to_owned()));
        }
        let read = |name: &str| file::read(&self.dir.join(name));
        let (ca, crl) = (read("ca.pem")?, read("crl.pem")?);
        Ok(file::replace_all(&[(dir.join("ca.pem"), &ca, PUBLIC), (dir.join("crl.pem"), &crl, PUBLIC)])?)
    }
}
