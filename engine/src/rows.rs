//! Rows in transit: tables, keys, key ranges, and the text blocks that carry them.
//!
//! A block is a sequence of rows in key order. Each row is its values, tab-separated, ended by a newline; NULL is
//! `\N`; the bytes NUL, backspace, tab, newline, vertical tab, form feed, carriage return and backslash are escaped
//! with a backslash. This is the text form of PostgreSQL's `COPY` (PostgreSQL manual, COPY, "Text Format"), which
//! MariaDB's `LOAD DATA` reads too. What stands inside a value is the database engine's own affair.

mod fresh;
mod named;
mod nearby;
pub mod schema;
pub mod text;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::LeaseId;

pub use fresh::Fresh;
pub use schema::{ColumnSpec, Ddl, Schema, TableKey, TableSpec};

/// A table's name; `schema` is empty where the engine has none (SQLite).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// The schema (PostgreSQL) or database (MariaDB) within the dataset, or empty.
    pub schema: String,
    /// The table's name as the engine stores it: unquoted, any characters.
    pub name: String,
}

impl TableName {
    /// A table of an engine without schemas.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { schema: String::new(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

/// A position in a table: the key columns of one row, as one row of a text block (without its newline).
/// Only the engine that printed it can order or interpret it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(pub Bytes);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// The rows with `after < key <= until`; an open end on either side where `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct KeyRange {
    /// Exclusive lower bound.
    pub after: Option<Key>,
    /// Inclusive upper bound.
    pub until: Option<Key>,
}

/// A chunk of rows that the target has applied and journaled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChunk {
    /// The part of the table it covers.
    pub range: KeyRange,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of its text block.
    pub bytes: u64,
    /// Digest of its text block.
    pub digest: Digest,
}

impl HeldChunk {
    /// This chunk, when it is not known what rows stand there: of no snapshot, and with a digest that no rows have, so that
    /// they are asked for again in any case.
    pub fn doubted(&self) -> (SnapshotId, Self) {
        (SnapshotId(String::new()), Self { digest: Digest([0; 32]), ..self.clone() })
    }
}

/// Names one consistent view of a database. Two views with the same id show the same rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotId(pub String);

/// What the target wants of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowsWanted {
    /// Everything in the range, as chunks of at most the budget.
    Range(KeyRange),
    /// Exactly these chunks again, in this order: one whose digest still holds comes back without its rows.
    Recheck(Vec<HeldChunk>),
}

/// A request for rows of one table of an open snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsRequest {
    /// The lease that holds the snapshot open.
    pub lease: LeaseId,
    /// The snapshot the target means; refused when the lease now holds another.
    pub snapshot: SnapshotId,
    /// The table.
    pub table: TableName,
    /// Which rows.
    pub wanted: RowsWanted,
    /// Text bytes after which a chunk ends; a chunk holds at least one row, however large.
    pub budget: u64,
}

/// Describes one chunk of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsHeader {
    /// The table.
    pub table: TableName,
    /// The part of the table the chunk covers: every row of it is in the block.
    pub range: KeyRange,
    /// Rows in the block.
    pub rows: u64,
    /// Bytes of the block.
    pub bytes: u64,
    /// Digest of the block.
    pub digest: Digest,
    /// A recheck found the held digest still true, and the block was left out.
    pub unchanged: bool,
}

/// Rows that were asked for by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRows {
    /// The keys that were looked up.
    pub keys: Vec<Key>,
    /// The rows that were found, in any order; its range means nothing.
    pub chunk: RowsChunk,
}

/// One chunk of rows, whole and in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsChunk {
    /// What it is.
    pub header: RowsHeader,
    /// The text block; empty where `header.unchanged`.
    pub block: Bytes,
}

impl RowsChunk {
    /// True when the block is the one the header describes.
    pub fn is_whole(&self) -> bool {
        self.header.unchanged && self.block.is_empty()
            || self.block.len() as u64 == self.header.bytes && Digest::of(&self.block) == self.header.digest
    }

    /// The record that the journal keeps of it.
    pub fn held(&self) -> HeldChunk {
        let RowsHeader { range, rows, bytes, digest, .. } = &self.header;
        HeldChunk { range: range.clone(), rows: *rows, bytes: *bytes, digest: *digest }
    }
}
