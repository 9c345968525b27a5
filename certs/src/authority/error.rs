//! What a CA cannot do.

use std::path::PathBuf;

use time::OffsetDateTime;

use crate::file::FileError;
use crate::identity::{Identity, IdentityError};

/// What a CA cannot do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is one already.
    #[error(
        "{0}: there is a certificate authority already: choose another directory (a CA is never overwritten)"
    )]
    Exists(PathBuf),
    /// An identity was to be written over a CA.
    #[error("{0}: this is a certificate authority's directory: write the identity to another one")]
    NotForIdentities(PathBuf),
    /// A file is damaged or of another version.
    #[error("{path}: {problem}: restore it from a backup, or use the release that wrote it")]
    Damaged {
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
    /// The certificate in a directory names nobody.
    #[error("{path}: no usable identity: issue one with `handover certs issue`")]
    NoIdentity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// Of another trust domain than the CA.
    #[error("{identity} is not of this CA's trust domain {ours}: use the CA of that domain")]
    ForeignDomain {
        /// Who was asked for.
        identity: Identity,
        /// The CA's.
        ours: String,
    },
    /// It would be good for no time at all.
    #[error("a certificate from {not_before} to {not_after} is never good: give an end after the beginning")]
    EmptyValidity {
        /// The beginning.
        not_before: OffsetDateTime,
        /// The end.
        not_after: OffsetDateTime,
    },
    /// It would outlive the CA.
    #[error(
        "the CA itself expires at {ca}: ask for a shorter validity, or make a new CA with `handover certs rotate`"
    )]
    OutlivesAuthority {
        /// The CA's end.
        ca: OffsetDateTime,
    },
    /// A revoked identity was to be renewed.
    #[error("{identity} was revoked (serial {serial}): issue a new identity instead of renewing this one")]
    Revoked {
        /// Whose it was.
        identity: Identity,
        /// Its serial number.
        serial: String,
    },
    /// Nothing to revoke.
    #[error("{0}: this CA has issued no such certificate: `handover certs show` lists what it has issued")]
    Unknown(String),
    /// The random number generator fails.
    #[error("the system gives no random numbers: see whether /dev/urandom can be read")]
    Random,
}

/// Names what was tried with the certificate library.
pub(super) fn certificate(what: &str) -> impl Fn(rcgen::Error) -> AuthorityError {
    let what = what.to_owned();
    move |source| AuthorityError::Certificate { what: what.clone(), source }
}
