//! Changing files and putting them back. What was there is written down, durably, before the first of them is changed; by that
//! record alone, without a manifest, they are put back.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use handover_engine::changeover::Bundle;
use handover_engine::name::MigrationId;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, Held};
use crate::rows::record::Purpose;

/// The version of what is written here.
const VERSION: u32 = 1;

/// What is kept for migrations, in the agent's state directory.
#[derive(Debug, Clone)]
pub struct Kept {
    state: PathBuf,
    pub disk: Disk,
}

/// What is to be put in place.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    pub version: u32,
    pub bundle: Bundle,
}

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    version: u32,
    /// Whether all of the new ones were put in place.
    is_applied: bool,
    files: Vec<Changed>,
}

/// One file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// Where it really is.
    pub place: PathBuf,
    /// What was there.
    pub before: Option<Held>,
    /// What is put there.
    pub after: Option<Held>,
}

fn digest(held: Option<&Held>) -> Option<[u8; 32]> {
    held.map(|held| *blake3::hash(&held.bytes).as_bytes())
}

impl Kept {
    pub fn new(state: &Path, disk: Disk) -> Self {
        Self { state: state.to_owned(), disk }
    }

    /// The agent's state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What is kept for all migrations.
    pub fn all(&self) -> PathBuf {
        self.state.join("changeover")
    }

    /// What is kept for a migration.
    pub fn of(&self, migration: &MigrationId) -> PathBuf {
        self.all().join(migration.as_str())
    }

    /// Whoever has it changes files, what is kept, and how far swaps are; nobody else does, in no process.
    pub fn lock(&self) -> Result<std::fs::File> {
        disk::lock(&self.all().join("lock"))
    }

    /// Keeps what is to be put in place.
    pub fn stage(&self, migration: &MigrationId, bundle: Bundle) -> Result<()> {
        self.disk.record(&self.of(migration).join("staged.json"), &Staged { version: VERSION, bundle })
    }

    /// What is to be put in place.
    pub fn staged(&self, migration: &MigrationId) -> Result<Option<Bundle>> {
        let staged: Option<Staged> = disk::read_record(&self.of(migration).join("staged.json"))?;
        staged.map(|staged| versioned(staged.version, staged.bundle)).transpose()
    }

    fn undo(&self, migration: &MigrationId) -> Result<Option<Undo>> {
        let undo: Option<Undo> = disk::read_record(&self.undo_place(migration))?;
        undo.map(|undo| versioned(undo.version, undo)).transpose()
    }

    fn undo_place(&self, migration: &MigrationId) -> PathBuf {
        self.of(migration).join("undo.json")
    }

    /// Whether something was changed for a migration, wholly or in part.
    pub fn is_changed(&self, migration: &MigrationId) -> Result<bool> {
        let rows = self.undo_of_rows(migration, Purpose::Applied)?;
        Ok(self.undo(migration)?.is_some() || rows.is_some())
    }

    /// Changes files. `plan` tells which, from how they are; it is not asked again when this was begun before.
    pub fn apply<E: From<Error>>(
        &self,
        migration: &MigrationId,
        plan: impl FnOnce() -> std::result::Result<Vec<Changed>, E>,
    ) -> std::result::Result<(), E> {
        let place = self.undo_place(migration);
        let mut undo = match self.undo(migration)? {
            Some(undo) => undo,
            None => {
                let undo = Undo { version: VERSION, is_applied: false, files: plan()? };
                self.disk.record(&place, &undo)?;
                undo
            }
        };
        if undo.is_applied {
            return Ok(());
        }
        for file in &undo.files {
            if disk::read(&file.place)? != file.after {
                self.put(&file.place, file.after.as_ref())?;
            }
        }
        undo.is_applied = true;
        Ok(self.disk.record(&place, &undo)?)
    }

    /// Puts back what was there. What somebody else has made of a file meanwhile is kept, in `edited-settings` of the state
    /// directory; where, is returned. Nothing to do when nothing was changed.
    pub fn restore(&self, migration: &MigrationId) -> Result<Vec<PathBuf>> {
        let Some(undo) = self.undo(migration)? else { return Ok(Vec::new()) };
        let mut edited = Vec::new();
        for file in undo.files.iter().rev() {
            let now = disk::read(&file.place)?;
            if now == file.before {
                self.disk.tidy(&file.place)?;
                continue;
            }
            let of_now = digest(now.as_ref());
            if let Some(now) = &now
                && of_now != digest(file.after.as_ref())
                && of_now != digest(file.before.as_ref())
            {
                edited.push(self.keep_edited(migration, &file.place.to_string_lossy(), &now.bytes)?);
            }
            self.put(&file.place, file.before.as_ref())?;
        }
        self.disk.remove(&self.undo_place(migration))?;
        Ok(edited)
    }

    fn put(&self, place: &Path, held: Option<&Held>) -> Result<()> {
        match held {
            Some(held) => self.disk.write(place, held),
            None => self.disk.tidy(place).and_then(|()| self.disk.remove(place)),
        }
    }

    /// Keeps what somebody else has made of something; where, is returned.
    pub fn keep_edited(&self, migration: &MigrationId, what: &str, bytes: &[u8]) -> Result<PathBuf> {
        let directory = self.state.join("edited-settings").join(migration.as_str());
        disk::make_directory(&directory)?;
        let name = what.trim_start_matches('/').replace('/', "_");
        let hash = blake3::hash(bytes).to_hex();
        let tail: String = name.chars().rev().take(60).collect();
        let kept = directory.join(format!("{}.{}", tail.chars().rev().collect::<String>(), &hash[..12]));
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let held = Held { bytes: bytes.to_vec(), owner, mode: 0o600, attributes: Vec::new() };
        self.disk.write(&kept, &held)?;
        Ok(kept)
    }

    /// Forgets all that is kept for a migration.
    pub fn forget(&self, migration: &MigrationId) -> Result<()> {
        let directory = self.of(migration);
        for name in ["staged.json", "undo.json", "undo-rows.json", "swap.json"] {
            self.disk.tidy(&directory.join(name))?;
            self.disk.remove(&directory.join(name))?;
        }
        match std::fs::remove_dir(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A record, if this release can read it.
pub fn versioned<T>(version: u32, record: T) -> Result<T> {
    if version == VERSION {
        Ok(record)
    } else {
        Err(Error::other(format!("it was written by another release, in version {version}")))
    }
}

#[cfg(test)]
mod tests;
