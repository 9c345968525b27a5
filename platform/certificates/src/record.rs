//! What is written down before anything is changed: what lay there, and what is to lie there. It holds keys: its directory is for the
//! agent alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use handover_engine::changeover::CertificateMaterial;
use handover_engine::name::MigrationId;
use serde::{Deserialize, Serialize};

use crate::place::{self, Stored};

/// Grows with its form.
const VERSION: u32 = 1;

/// The record of a migration.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// By the names of their sections.
    pub entries: BTreeMap<String, Entry>,
}

/// What is known of a section's certificate.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its files, in the order in which they are replaced: the key's, then the chain's. One where that is the same.
    pub files: Vec<Kept>,
    /// What is to be in place. None while it is not known yet.
    pub after: Option<CertificateMaterial>,
    /// Digests of all contents that were ever to be put there for this migration: what else lies there is somebody else's.
    pub ours: BTreeSet<String>,
    /// Units that read it anew.
    pub services: Vec<String>,
}

/// A file, as it was before.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// As the manifest names it.
    pub path: PathBuf,
    /// None: it was not there.
    pub before: Option<Stored>,
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, entries: BTreeMap::new() }
    }
}

impl Entry {
    /// Whether we have put this there.
    pub fn is_ours(&self, stored: &Stored) -> bool {
        self.ours.contains(&digest(&stored.contents))
    }
}

/// SHA-256 in hex.
pub fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where records lie.
#[derive(Debug, Clone)]
pub struct Records(PathBuf);

impl Records {
    /// Below an agent's state directory.
    pub fn new(state: &Path) -> Self {
        Self(state.join("certificates"))
    }

    /// A migration's own directory.
    pub fn directory(&self, migration: &MigrationId) -> PathBuf {
        self.0.join(migration.as_str())
    }

    fn file(&self, migration: &MigrationId) -> PathBuf {
        self.directory(migration).join("record.json")
    }

    /// None when nothing was ever to be changed for it.
    pub fn read(&self, migration: &MigrationId) -> Result<Option<Record>> {
        let Some(bytes) = read_whole(&self.file(migration))? else { return Ok(None) };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|error| Error::other(format!("the undo record is damaged: {error}")))?;
        if record.version == VERSION {
            return Ok(Some(record));
        }
        Err(Error::other(format!(
            "the undo record has version {}, this agent reads {VERSION}",
            record.version
        )))
    }

    /// Durable when it returns.
    pub fn write(&self, migration: &MigrationId, record: &Record) -> Result<()> {
        place::make_directory(&self.0)?;
        place::make_directory(&self.directory(migration))?;
        let contents = serde_json::to_vec(record).map_err(Error::other)?;
        let file = self.file(migration);
        place::stage(&file, &Stored::in_place_of(None, contents, true))?;
        place::land(&file)?;
        place::settle(&file)
    }

    /// Durable when it returns. Idempotent.
    pub fn forget(&self, migration: &MigrationId) -> Result<()> {
        let directory = self.directory(migration);
        match std::fs::remove_dir_all(&directory) {
            Ok(()) => place::settle(&directory),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn read_whole(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
