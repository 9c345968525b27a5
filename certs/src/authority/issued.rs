//! An identity that has been issued and not yet been written.

use std::fmt;
use std::path::Path;

use super::{AuthorityError, Issued};
use crate::file::{self, PUBLIC, SECRET};

/// A new identity: everything that belongs into its directory.
pub struct IssuedIdentity {
    /// What the CA has noted about it.
    pub record: Issued,
    /// `cert.pem`.
    pub certificate_pem: String,
    /// `key.pem`, PKCS#8. Secret.
    pub key_pem: String,
    /// `ca.pem`: whom it trusts; several CAs during a swap.
    pub ca_pem: String,
    /// `crl.pem`: what they have revoked.
    pub crl_pem: String,
}

impl IssuedIdentity {
    /// Writes the four files into `dir`, which is made if it is not there. What they hold already is replaced; a reader that
    /// comes in between finds a key that does not match and reads again. Refuses a CA's directory.
    pub fn write(&self, dir: &Path) -> Result<(), AuthorityError> {
        if dir.join("ca.key").exists() {
            return Err(AuthorityError::NotForIdentities(dir.to_owned()));
        }
        file::make_directory(dir)?;
        // Trust first: nobody may see the new certificate while still refusing its CA's peers.
        Ok(file::replace_all(&[
            (dir.join("ca.pem"), self.ca_pem.as_bytes(), PUBLIC),
            (dir.join("crl.pem"), self.crl_pem.as_bytes(), PUBLIC),
            (dir.join("key.pem"), self.key_pem.as_bytes(), SECRET),
            (dir.join("cert.pem"), self.certificate_pem.as_bytes(), PUBLIC),
        ])?)
    }
}

/// Without the key.
impl fmt::Debug for IssuedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedIdentity").field("record", &self.record).finish_non_exhaustive()
    }
}
