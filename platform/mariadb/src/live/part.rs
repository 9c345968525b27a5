//! A part of the log as it is collected.

use std::collections::HashMap;

use handover_engine::change::Change;
use handover_engine::rows::{Key, TableName};

use super::position::Spot;

/// Changes that a part has at most, or a few more.
const CHANGES: usize = 20_000;
/// Bytes of their keys.
const BYTES: usize = 8 << 20;
/// Changes that are kept of a prepared XA transaction at most, and bytes of their keys.
const PREPARED_CHANGES: usize = 800_000;
const PREPARED_BYTES: usize = 128 << 20;

/// Rows whose keys a foreign key's action has changed: they are asked for by their new values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lookup {
    pub table: TableName,
    pub columns: Vec<u32>,
    pub values: Key,
}

/// What was read.
#[derive(Default)]
pub struct Part {
    pub tables: Vec<TableName>,
    places: HashMap<TableName, u32>,
    pub changes: Vec<Change>,
    pub lookups: Vec<Lookup>,
    bytes: usize,
    /// Where the last change lies in the log.
    pub last: Option<Spot>,
    /// XA transactions that were committed or rolled back.
    pub completed: Vec<Vec<u8>>,
}

impl Part {
    /// The place of a table.
    pub fn table(&mut self, name: &TableName) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        self.tables.push(name.clone());
        self.places.insert(name.clone(), place);
        place
    }

    pub fn push(&mut self, change: Change) {
        self.bytes += match &change {
            Change::Row { key, .. } => key.0.len(),
            Change::Children { values, .. } => values.0.len(),
            Change::Cleared { .. } => 0,
        };
        self.changes.push(change);
    }

    pub fn look_up(&mut self, lookup: Lookup) {
        self.bytes += lookup.values.0.len();
        self.lookups.push(lookup);
    }

    /// Appends what was told apart.
    pub fn append(&mut self, other: Self) {
        let places: Vec<u32> = other.tables.iter().map(|name| self.table(name)).collect();
        for mut change in other.changes {
            let (Change::Row { table, .. } | Change::Cleared { table } | Change::Children { table, .. }) =
                &mut change;
            *table = places[*table as usize];
            self.push(change);
        }
        other.lookups.into_iter().for_each(|lookup| self.look_up(lookup));
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.lookups.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.is_filled(CHANGES, BYTES)
    }

    /// Too much to be kept until an XA transaction ends.
    pub fn is_too_much(&self) -> bool {
        self.is_filled(PREPARED_CHANGES, PREPARED_BYTES)
    }

    fn is_filled(&self, changes: usize, bytes: usize) -> bool {
        self.changes.len() + self.lookups.len() >= changes || self.bytes >= bytes
    }
}
