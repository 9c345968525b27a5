//! What undo needs to know, kept in a file beside the database.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};

use super::place::{Place, sync_directory, with_suffix};

/// Version of the file.
const FORMAT: u32 = 1;

/// What undo needs to know, and what the source's file was like.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    migration: String,
    /// Something stood at the final place before this migration.
    pub had_before: bool,
    /// What stands at the final place is (about to be) ours.
    pub published: bool,
    /// The next build starts from what was published, if that is ours.
    pub continues: bool,
    /// What is being built was checked before its changes were followed.
    #[serde(default)]
    pub checked: bool,
    /// The source's journal mode.
    pub journal_mode: String,
    /// Mode, owner and group of the source's file.
    pub file: Option<String>,
}

impl Record {
    /// That of a migration which begins.
    pub fn new(migration: &str, had_before: bool) -> Self {
        Self {
            format: FORMAT,
            migration: migration.to_owned(),
            had_before,
            published: false,
            continues: true,
            checked: false,
            journal_mode: "delete".to_owned(),
            file: None,
        }
    }
}

fn path(place: &Place) -> PathBuf {
    with_suffix(place.path(), ".handover-state")
}

/// Reads the record, if there is one. That of another migration is refused.
pub fn read(place: &Place) -> Result<Option<Record>> {
    let path = path(place);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(place.io(&path, "cannot be read")(error)),
    };
    let damaged = || {
        Failure::permanent(place.item(&path), "is damaged or of another release")
            .hint("docs/recovery.md tells how to go on without it")
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| damaged().because(error))?;
    if record.format != FORMAT {
        return Err(damaged());
    }
    if record.migration != place.migration() {
        let what = format!("belongs to migration {}", record.migration);
        return Err(Failure::operator(place.item(&path), what)
            .hint("abort or finalize that migration; if its agent is gone for good, see docs/recovery.md"));
    }
    Ok(Some(record))
}

/// Writes the record, durably and in one step.
pub fn write(place: &Place, record: &Record) -> Result<()> {
    let path = path(place);
    let new = with_suffix(&path, ".new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        sync_directory(&path)
    };
    write().map_err(place.io(&path, "cannot be written"))
}

/// Removes the record. Idempotent.
pub fn remove(place: &Place) -> Result<()> {
    let path = path(place);
    remove_file(place, &with_suffix(&path, ".new"))?;
    remove_file(place, &path)?;
    match sync_directory(&path) {
        // The directory was never made.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map_err(place.io(&path, "cannot be removed durably")),
    }
}

/// Removes a file that may be gone already.
pub fn remove_file(place: &Place, path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(place.io(path, "cannot be removed")(error)),
        _ => Ok(()),
    }
}
