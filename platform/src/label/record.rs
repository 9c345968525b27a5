//! What was ever to lie in the label's place for a migration.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_services::place;
use serde::{Deserialize, Serialize};

/// The version of the files.
const VERSION: u32 = 1;

/// The record of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// The label's file; none where hooks alone show it.
    pub file: Option<PathBuf>,
    /// Digests of all that was to lie there: what else does is somebody else's.
    pub ours: BTreeSet<String>,
    /// Units that read it anew.
    pub reload: Vec<String>,
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, file: None, ours: BTreeSet::new(), reload: Vec::new() }
    }
}

impl Record {
    /// Whether we have put this there.
    pub fn is_ours(&self, file: &Path, contents: &[u8]) -> bool {
        self.file.as_deref() == Some(file) && self.ours.contains(&digest(contents))
    }
}

/// BLAKE3 in hex.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The records of a host.
#[derive(Debug)]
pub struct Records(PathBuf);

impl Records {
    /// Those in a directory; it is made when the first is written.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn file(&self, migration: &MigrationId) -> PathBuf {
        self.0.join(format!("{migration}.json"))
    }

    /// None when nothing was ever to be shown for it.
    pub fn read(&self, migration: &MigrationId) -> Result<Option<Record>> {
        read(&self.file(migration))
    }

    /// Every one.
    pub fn all(&self) -> Result<Vec<Record>> {
        let failed = |error| {
            Failure::operator("label", format!("{} cannot be read", self.0.display()))
                .because(error)
                .hint("let the agent read its own state directory")
        };
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut out = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            // What was begun has another ending.
            if path.extension().is_some_and(|extension| extension == "json") {
                out.extend(read(&path)?);
            }
        }
        Ok(out)
    }

    /// Durable when it returns.
    pub fn write(&self, migration: &MigrationId, record: &Record) -> Result<()> {
        let file = self.file(migration);
        let written = || {
            if !self.0.is_dir() {
                std::fs::create_dir_all(&self.0)?;
                place::sync(place::directory(&self.0))?;
            }
            place::write(&file, &serde_json::to_vec_pretty(record)?, 0o600)
        };
        written().map_err(|error: std::io::Error| {
            Failure::operator("label", format!("{} cannot be written", file.display()))
                .because(error)
                .hint("is the disk full? Make room, then resume")
        })
    }

    /// Durable when it returns. Idempotent.
    pub fn forget(&self, migration: &MigrationId) -> Result<()> {
        let file = self.file(migration);
        place::remove(&file).map_err(|error| {
            Failure::operator("label", format!("{} cannot be removed", file.display()))
                .because(error)
                .hint("let the agent write to its own state directory, then resume")
        })
    }
}

fn read(file: &Path) -> Result<Option<Record>> {
    let refuse = |what: &str| {
        Failure::operator("label", format!("{} {what}", file.display()))
            .hint("put it back as it was, or take the label away by hand and remove it")
    };
    let Some(bytes) = place::read(file).map_err(|error| refuse("cannot be read").because(error))? else {
        return Ok(None);
    };
    let record: Record =
        serde_json::from_slice(&bytes).map_err(|error| refuse("is no record of a label").because(error))?;
    match record.version {
        VERSION => Ok(Some(record)),
        version => Err(refuse(&format!("has version {version}, and this agent knows {VERSION}"))),
    }
}
