//! The list of what a CA has issued.

use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{AuthorityError, KeyAlgorithm};
use crate::file::{self, SECRET};
use crate::identity::Identity;

/// The version that this release reads and writes.
const VERSION: u32 = 1;

/// What a CA has issued, oldest first: `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    version: u32,
    /// The trust domain of all its certificates.
    pub trust_domain: String,
    /// Number of the latest revocation list; it only grows.
    pub crl_number: u64,
    /// The certificates.
    pub issued: Vec<Issued>,
}

/// One certificate. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Its serial number in hex.
    pub serial: String,
    /// Whose it is.
    pub identity: Identity,
    /// The kind of key.
    pub key_algorithm: KeyAlgorithm,
    /// From when it is good.
    pub not_before: i64,
    /// When it expires.
    pub not_after: i64,
    /// When it was revoked, if it was.
    pub revoked_at: Option<i64>,
}

/// Which certificates to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one with this serial number, in hex; case, colons and leading zeros do not matter.
    Serial(String),
    /// All of an identity's.
    Identity(Identity),
}

impl Which {
    fn meant(&self, issued: &Issued) -> bool {
        match self {
            Which::Serial(serial) => plain(&issued.serial) == plain(serial),
            Which::Identity(identity) => issued.identity == *identity,
        }
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Which::Serial(serial) => write!(f, "serial {serial}"),
            Which::Identity(identity) => identity.fmt(f),
        }
    }
}

/// Other tools print serial numbers as `0A:1B:…`.
fn plain(serial: &str) -> String {
    serial.replace(':', "").trim_start_matches('0').to_ascii_lowercase()
}

impl Index {
    pub(super) fn new(trust_domain: &str) -> Self {
        Self { version: VERSION, trust_domain: trust_domain.to_owned(), crl_number: 0, issued: Vec::new() }
    }

    pub(super) fn read(path: &Path) -> Result<Self, AuthorityError> {
        let problem = |problem: String| AuthorityError::Damaged { path: path.to_owned(), problem };
        let json: serde_json::Value = serde_json::from_slice(&file::read(path)?)
            .map_err(|error| problem(format!("is not JSON: {error}")))?;
        // Looked at first, since another version may have other fields.
        if json["version"] != VERSION {
            return Err(problem(format!("has version {}, this release knows {VERSION}", json["version"])));
        }
        serde_json::from_value(json).map_err(|error| problem(error.to_string()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), AuthorityError> {
        let json = serde_json::to_vec_pretty(self)
            .map_err(|e| AuthorityError::Damaged { path: path.to_owned(), problem: e.to_string() })?;
        Ok(file::replace(path, &json, SECRET)?)
    }

    /// Marks as revoked; what was revoked before keeps its time, and is returned again.
    pub(super) fn revoke(
        &mut self,
        which: &Which,
        now: OffsetDateTime,
    ) -> Result<Vec<Issued>, AuthorityError> {
        let mut revoked = Vec::new();
        for issued in self.issued.iter_mut().filter(|issued| which.meant(issued)) {
            issued.revoked_at.get_or_insert(now.unix_timestamp());
            revoked.push(issued.clone());
        }
        if revoked.is_empty() { Err(AuthorityError::Unknown(which.to_string())) } else { Ok(revoked) }
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.len() % 2 == 1 {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        assert_eq!(from_hex(&to_hex(&[0, 0x1f, 0xff])), Some(vec![0, 0x1f, 0xff]));
        for text in ["0", "0g", "é"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn serials_are_compared_as_numbers() {
        assert_eq!(plain("00:4A:01"), plain("4a01"));
        assert_ne!(plain("4a01"), plain("4a10"));
    }
}
