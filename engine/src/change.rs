//! What is known of a database's changes: which keys of which tables, never the rows themselves, which are read again.

use serde::{Deserialize, Serialize};

use crate::rows::{Key, TableName};
use crate::time::Timestamp;

/// A place in a database's change log, in the engine's own words (a GTID, an LSN, a number). Only its adapter reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogPosition(pub String);

/// Something that changed. Tables are places in [`Changes::tables`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The row of this key was made, changed or deleted. A row whose key changed is told with both.
    Row {
        /// The table.
        table: u32,
        /// The key, as chunks of the table write it (or so that the engine finds it equal).
        key: Key,
    },
    /// All rows that were there are gone (TRUNCATE).
    Cleared {
        /// The table.
        table: u32,
    },
    /// Rows with these values may have been changed or deleted by a foreign key's action that the log does not tell of
    /// (InnoDB's cascades).
    Children {
        /// The referencing table.
        table: u32,
        /// Its referencing columns, as places in `TableSpec::columns`.
        columns: Vec<u32>,
        /// The values that they had, as a row of a block writes them.
        values: Key,
    },
}

impl Change {
    /// The place of its table.
    pub fn table(&self) -> u32 {
        match self {
            Change::Row { table, .. } | Change::Cleared { table } | Change::Children { table, .. } => *table,
        }
    }
}

/// A part of a change log, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The tables that are named in it.
    pub tables: Vec<TableName>,
    /// What changed. May tell more than once of a key, and of changes that were told before.
    pub changes: Vec<Change>,
    /// Where the next part begins.
    pub until: LogPosition,
    /// Up to when, by the source's clock, everything that was committed is told.
    pub at: Timestamp,
    /// When it was asked for, the log held nothing further: everything that was committed before the call began is told.
    pub is_end: bool,
}
