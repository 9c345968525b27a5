//! A database's schema as it travels: what to run before the load, the tables, what to run after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Key, TableName};
use crate::digest::Digest;

/// A database's schema, in two halves around the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The engine: `sqlite`, `mariadb`, `postgres`. Target and source must agree.
    pub engine: String,
    /// The engine's version at the source.
    pub version: String,
    /// Settings of the database itself (SQLite: page size, encoding, journal mode, …), by the engine's own names.
    pub settings: BTreeMap<String, String>,
    /// Tables and their primary keys, in the order to run.
    pub before_load: Vec<Ddl>,
    /// Secondary indexes, foreign keys, views, triggers, in the order to run.
    pub after_load: Vec<Ddl>,
    /// What changes with the data and is set at the end: sequence positions, statistics, the database file's owner. By
    /// the engine's own names.
    #[serde(default)]
    pub state: BTreeMap<String, String>,
    /// The tables whose rows are copied.
    pub tables: Vec<TableSpec>,
}

impl Schema {
    /// Digest of all that must not change between approval and the end of the copy: the statements and the tables'
    /// shapes, but neither their sizes and cuts nor the engine's version.
    pub fn structure(&self) -> Digest {
        let mut bare = self.clone();
        bare.state.clear();
        bare.version.clear();
        for table in &mut bare.tables {
            (table.estimated_rows, table.estimated_bytes) = (0, 0);
            table.cuts.clear();
            // Depends on the source's settings too.
            table.followed = false;
        }
        // Sizes aside, a schema is plain data: strings, numbers and lists, which always serialize.
        Digest::of(&serde_json::to_vec(&bare).unwrap_or_default())
    }

    /// The table called `name`.
    pub fn table(&self, name: &TableName) -> Option<&TableSpec> {
        self.tables.iter().find(|table| table.name == *name)
    }
}

/// One statement that makes one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ddl {
    /// What kind of object: `table`, `index`, `view`, `trigger`, ….
    pub kind: String,
    /// Its name, for messages.
    pub name: String,
    /// The statement, in the engine's own dialect.
    pub sql: String,
}

/// A table whose rows are copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// Its name.
    pub name: TableName,
    /// The columns that a row of a block carries, in order (generated columns are left out).
    pub columns: Vec<ColumnSpec>,
    /// How its rows are ordered and found.
    pub key: TableKey,
    /// The engine's estimate, for progress.
    pub estimated_rows: u64,
    /// The engine's estimate of the text bytes, for progress.
    pub estimated_bytes: u64,
    /// Keys that cut a large table into parts, in key order; each part is copied by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<Key>,
    /// The source can tell which of its rows change, by key. Those of any other table are read again at cut-over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub followed: bool,
}

/// A column that travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its name as the engine stores it.
    pub name: String,
    /// Its declared type, as declared (may be empty in SQLite).
    pub declared: String,
}

/// How the rows of a table are ordered and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TableKey {
    /// By these columns (positions in `TableSpec::columns`), unique and not null together.
    Columns(Vec<u32>),
    /// By a hidden key of the engine under this name (SQLite's rowid). It travels as the first value of every row.
    Hidden(String),
    /// By nothing: read in one sweep of one snapshot; keys are positions in that sweep.
    Position,
}
