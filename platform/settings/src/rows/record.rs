//! What rows were before they were changed, on disk: by it alone they are put back.

use std::collections::BTreeMap;
use std::io::Result;
use std::path::PathBuf;

use handover_engine::changeover::{RowValue, RowValues, SettingsRows};
use handover_engine::name::MigrationId;
use handover_engine::ports::settings_table::{HeldRow, RowChange, WholeRow};
use serde::{Deserialize, Serialize};

use crate::apply::{Kept, versioned};
use crate::disk;

/// The version of what is written here.
const VERSION: u32 = 1;

/// What was there before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    version: u32,
    /// Whether all of the new ones were put in place.
    pub is_applied: bool,
    pub changed: Vec<ChangedRows>,
}

impl Undo {
    pub fn new(changed: Vec<ChangedRows>) -> Self {
        Self { version: VERSION, is_applied: false, changed }
    }
}

/// The rows of one section that are changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangedRows {
    /// The section's name.
    pub name: String,
    pub rows: SettingsRows,
    /// The rows that were there; none for keys that had none.
    pub before: BTreeMap<String, Option<WholeRow>>,
    /// What is put there.
    pub after: RowValues,
}

/// What is to be done to put rows back, and what somebody else has made of them meanwhile.
#[derive(Debug, Default)]
pub struct Back {
    pub changes: BTreeMap<String, RowChange>,
    pub edited: RowValues,
}

impl ChangedRows {
    /// The keys that are changed.
    pub fn keys(&self) -> Vec<String> {
        self.after.keys().cloned().collect()
    }

    /// What puts the new values in place.
    pub fn forth(&self) -> BTreeMap<String, RowChange> {
        self.after.iter().map(|(key, value)| (key.clone(), RowChange::Value(value.clone()))).collect()
    }

    /// What puts back what was there, from how they are now.
    pub fn back(&self, now: &BTreeMap<String, HeldRow>) -> Back {
        let mut back = Back::default();
        for (key, before) in &self.before {
            let held = now.get(key);
            if held.map(|held| &held.whole) == before.as_ref() {
                continue;
            }
            let value = held.map_or(RowValue::Absent, |held| held.value.clone());
            if self.after.get(key).is_some_and(|after| *after != value) {
                back.edited.insert(key.clone(), value);
            }
            let change = match before {
                Some(whole) => RowChange::Whole(whole.clone()),
                None => RowChange::Value(RowValue::Absent),
            };
            back.changes.insert(key.clone(), change);
        }
        back
    }
}

/// What rows are changed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Settings of the other host are put in place.
    Applied,
    /// This host's own are put into what a migration builds.
    Retained,
}

impl Kept {
    fn rows_place(&self, migration: &MigrationId, purpose: Purpose) -> PathBuf {
        match purpose {
            Purpose::Applied => self.of(migration).join("undo-rows.json"),
            Purpose::Retained => self.state().join("retained").join(format!("{migration}.json")),
        }
    }

    /// Whoever has it changes rows; nobody else does, in no process. Another lock than that of files: the dead-man watch waits for no
    /// database.
    pub fn lock_rows(&self) -> Result<std::fs::File> {
        disk::lock(&self.all().join("lock-rows"))
    }

    /// What rows were before they were changed.
    pub fn undo_of_rows(&self, migration: &MigrationId, purpose: Purpose) -> Result<Option<Undo>> {
        let undo: Option<Undo> = disk::read_record(&self.rows_place(migration, purpose))?;
        undo.map(|undo| versioned(undo.version, undo)).transpose()
    }

    /// Keeps it, durably.
    pub fn keep_undo_of_rows(&self, migration: &MigrationId, purpose: Purpose, undo: &Undo) -> Result<()> {
        self.disk.record(&self.rows_place(migration, purpose), undo)
    }

    /// Forgets it.
    pub fn forget_undo_of_rows(&self, migration: &MigrationId, purpose: Purpose) -> Result<()> {
        let place = self.rows_place(migration, purpose);
        self.disk.tidy(&place)?;
        self.disk.remove(&place)
    }
}
