//! The list of what a CA has issued.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::AuthorityError;
use crate::file::{self, SECRET};
use crate::identity::Identity;

/// The version that this release reads and writes.
const FORMAT: u32 = 1;

/// What a CA has issued, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: u32,
    /// The trust domain of all its certificates.
    pub trust_domain: String,
    /// The certificates.
    pub issued: Vec<Issued>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Its serial number in hex.
    pub serial: String,
    /// Whose it is.
    pub identity: Identity,
    /// When it expires: seconds since the epoch.
    pub not_after: i64,
    /// When it was revoked, if it was.
    pub revoked_at: Option<i64>,
}

impl Index {
    pub(super) fn new(trust_domain: &str) -> Self {
        Self { format: FORMAT, trust_domain: trust_domain.to_owned(), issued: Vec::new() }
    }

    pub(super) fn read(path: &Path) -> Result<Self, AuthorityError> {
        let problem = |problem: String| AuthorityError::Index { path: path.to_owned(), problem };
        let index: Self = serde_json::from_slice(&file::read(path)?).map_err(|e| problem(e.to_string()))?;
        if index.format != FORMAT {
            return Err(problem(format!("has format {}, this release knows {FORMAT}", index.format)));
        }
        Ok(index)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), AuthorityError> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| AuthorityError::Index {
            path: path.to_owned(),
            problem: e.to_string(),
        })?;
        Ok(file::replace(path, &json, SECRET)?)
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.len() % 2 == 1 {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
