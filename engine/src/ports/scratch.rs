//! What a rehearsal needs: a database beside the target's own to try rows in, and a record of what has been tried.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Result, Source};
use crate::digest::Digest;
use crate::name::DatasetName;
use crate::rehearsal::ConflictKind;
use crate::rehearsal::quarantine::Entry;
use crate::rows::{ColumnSpec, HeldChunk, Schema, TableName, TableSpec};

/// A column that rows are tried against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedColumn {
    /// Its name and declared type.
    pub spec: ColumnSpec,
    /// A row must bring a value for it: it takes no NULL, and has no default.
    pub needed: bool,
}

/// A table that rows are tried against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTable {
    /// Its name.
    pub name: TableName,
    /// The columns that take values, in order.
    pub columns: Vec<WantedColumn>,
    /// The name of its hidden key, where rows may bring one (SQLite's rowid).
    pub hidden: Option<String>,
}

impl WantedTable {
    /// A table of a schema; `needed` tells which columns a row must bring a value for.
    pub fn of(table: &TableSpec, needed: impl Fn(&ColumnSpec) -> bool) -> Self {
        let column = |spec: &ColumnSpec| WantedColumn { spec: spec.clone(), needed: needed(spec) };
        Self { name: table.name.clone(), columns: table.columns.iter().map(column).collect(), hidden: None }
    }
}

/// A foreign key, checked by a query once all rows are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Its name, or one made of its columns.
    pub name: String,
    /// The table that refers.
    pub table: TableName,
    /// Its columns.
    pub columns: Vec<String>,
    /// The table that is referred to.
    pub parent: TableName,
    /// Its columns, in the same order.
    pub parent_columns: Vec<String>,
}

/// The schema that production's rows are tried against.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// It is that of the target's own database; otherwise the source's.
    pub own: bool,
    /// The tables that rows can be tried in.
    pub tables: Vec<WantedTable>,
    /// Tables that are there, and in which no row can be tried.
    pub untried: Vec<TableName>,
    /// The foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// How a check script finds the scratch database: names and values of environment variables. Never a secret.
    pub environment: Vec<(String, String)>,
}

/// A scratch database that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What rows are tried against.
    pub wanted: Wanted,
    /// Names this making of it: another one begins empty.
    pub token: String,
}

/// Names what a scratch database is made for: rows of one schema, to be tried against another.
pub fn made_for(source: &Schema, against: &Schema) -> String {
    Digest::of(format!("{}/{}", source.structure(), against.structure()).as_bytes()).to_string()
}

/// The tables that production does not have: the new system has filled them itself, and rows may refer to theirs.
pub fn only_in<'a>(against: &'a Schema, source: &'a Schema) -> impl Iterator<Item = &'a TableSpec> {
    against.tables.iter().filter(|table| source.table(&table.name).is_none())
}

/// How a check script finds a database of a server.
#[derive(Debug, Clone, Copy)]
pub struct OnServer<'a> {
    /// The engine's name.
    pub engine: &'a str,
    /// The database.
    pub database: &'a str,
    /// The account.
    pub user: &'a str,
    /// The socket to connect to, or the directory it is in, where it is one.
    pub socket: Option<&'a Path>,
    /// The host, where it is none.
    pub host: &'a str,
    /// The port, where there is one: PostgreSQL's tell its sockets apart, too.
    pub port: Option<u16>,
    /// Where the password is, where it is in a file.
    pub password_file: Option<&'a Path>,
}

impl OnServer<'_> {
    /// As environment variables. A password is in none of them.
    pub fn environment(&self) -> Vec<(String, String)> {
        let place = match self.socket {
            Some(socket) => ("HANDOVER_SOCKET", socket.display().to_string()),
            None => ("HANDOVER_HOST", self.host.to_owned()),
        };
        let file = self.password_file.map(|file| ("HANDOVER_PASSWORD_FILE", file.display().to_string()));
        let port = self.port.map(|port| ("HANDOVER_PORT", port.to_string()));
        let all = [
            ("HANDOVER_ENGINE", self.engine.to_owned()),
            ("HANDOVER_DATABASE", self.database.to_owned()),
            ("HANDOVER_USER", self.user.to_owned()),
            place,
        ];
        all.into_iter().chain(port).chain(file).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A row to be tried. Its number is unique within the scratch database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedRow {
    /// Its number.
    pub number: u64,
    /// Its values, as a row of a block, without the newline.
    pub values: Bytes,
}

/// Rows of a table, to be tried.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The table, as the wanted schema names it.
    pub table: TableName,
    /// What the values are: columns named as in the wanted schema, declared as where the values come from.
    pub columns: Arc<[ColumnSpec]>,
    /// The rows.
    pub rows: Vec<TriedRow>,
}

/// Why a row was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of constraint.
    pub kind: ConflictKind,
    /// The constraint or the column.
    pub constraint: String,
    /// The number of the row that is in the way of a unique value, where it can be told.
    pub in_the_way: Option<u64>,
}

/// A database beside the target's own that is there to be tried. Foreign keys are not in force in it: they are checked by
/// [`orphans`](Self::orphans), so that the order of rows does not matter. Every other constraint is.
#[async_trait]
pub trait Scratch: Send + Sync {
    /// Makes it, with the schema of the target's own database where that has one, otherwise with `source`; finds it where it was made
    /// for the same two schemas before. One of another schema is made anew, named by `fresh`. A database of its name that is not
    /// its own is refused. Rows of tables that `source` does not have are those of the target's own database.
    async fn make(&self, source: &Schema, fresh: &str) -> Result<Made>;

    /// Adds rows, durably: every one that the constraints let in. Returns the others, in their order.
    async fn load(&self, batch: &Batch) -> Result<Vec<(u64, Refusal)>>;

    /// Removes the rows with numbers in these ranges, durably. Acts on no other row. Idempotent.
    async fn remove(&self, table: &TableName, numbers: &[RangeInclusive<u64>]) -> Result<()>;

    /// Values of rows, as rows of a block without the newline, in any order; a row that is not there is left out.
    async fn read(&self, table: &TableName, columns: &[ColumnSpec], numbers: &[u64])
    -> Result<Vec<TriedRow>>;

    /// Numbers of rows that refer to nothing by this foreign key, at most so many.
    async fn orphans(&self, key: &ForeignKey, limit: usize) -> Result<Vec<u64>>;

    /// Drops it. Idempotent; a database of its name that is not its own stays.
    async fn drop_scratch(&self) -> Result<()>;
}

/// A chunk of rows that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedChunk {
    /// Its number: those of its rows begin with it.
    pub id: u64,
    /// What it is; none as long as it is not known what of it is in the scratch database.
    pub held: Option<HeldChunk>,
}

/// A change of the record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is not known any more what of these chunks is in the scratch database.
    Doubt(Vec<u64>),
    /// Nothing of these chunks is there, nor in quarantine.
    Forget(Vec<u64>),
    /// This chunk was tried: all of it is there but for these rows.
    Keep(u64, HeldChunk, Vec<Entry>),
    /// This row is in quarantine, as told; what was known of it before is replaced.
    Hold(Entry),
    /// This row is in quarantine no more.
    Release(u64),
}

/// What was tried in a scratch database, kept between rehearsals. Each call is one durable transaction.
#[async_trait]
pub trait TrialLedger: Send + Sync {
    /// Makes the record one of this making of the scratch database: what is known of another is forgotten. Returns whether anything
    /// is known.
    async fn begin(&self, dataset: &DatasetName, token: &str) -> Result<bool>;

    /// The chunks of a table, in any order.
    async fn chunks(&self, dataset: &DatasetName, table: &TableName) -> Result<Vec<TriedChunk>>;

    /// The rows of a table in quarantine, in any order; only those with these numbers, where any are given.
    async fn entries(
        &self,
        dataset: &DatasetName,
        table: &TableName,
        only: Option<&[u64]>,
    ) -> Result<Vec<Entry>>;

    /// A number for a new chunk of a table, which is in doubt until it is kept. No number is used twice.
    async fn allot(&self, dataset: &DatasetName, table: &TableName) -> Result<u64>;

    /// Makes changes, all or none.
    async fn change(&self, dataset: &DatasetName, table: &TableName, changes: Vec<Change>) -> Result<()>;

    /// Forgets everything of a dataset. Idempotent.
    async fn clear(&self, dataset: &DatasetName) -> Result<()>;
}

/// What a plan works with that brings databases into the schemas that stand at the target.
#[derive(Clone)]
pub struct Trials {
    /// Where rows are tried, by database.
    pub scratch: HashMap<DatasetName, Arc<dyn Scratch>>,
    /// What was tried.
    pub ledger: Arc<dyn TrialLedger>,
    /// The target's own databases as they would be with the rows that were tried: their schemas, with the rows of the scratch databases.
    pub fitted: Source,
}
