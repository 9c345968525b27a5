//! Settings that are rows of a table, read and changed by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::Result;
use crate::changeover::{RowValue, SettingsRows};
use crate::name::MigrationId;

/// Most rows that a section may have: all of them travel in one message, and are held in memory.
pub const MOST_ROWS: usize = 10_000;

/// A row with all its columns but those that are computed, each as its engine writes it, none for NULL. Only the engine that wrote it
/// reads it again.
pub type WholeRow = BTreeMap<String, Option<Vec<u8>>>;

/// A row that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    /// Its value; never absent.
    pub value: RowValue,
    /// All of it.
    pub whole: WholeRow,
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Its row has this value, and keeps its other columns; one that was not there has the defaults of its table in them. Absent: no row.
    Value(RowValue),
    /// Its row is this one.
    Whole(WholeRow),
}

/// How a change ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is there, durably.
    Commit,
    /// It is taken back: whether it could be made was to be seen.
    TakeBack,
}

/// Where the table is.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// In the database itself.
    Place,
    /// In what a migration builds beside it. There values are put in as rows that move are: no constraint is asked.
    Built(&'a MigrationId),
}

/// The rows of one section of settings.
#[async_trait]
pub trait SettingsTable: Send + Sync {
    /// The rows of these keys, or all where none are named; none at all where there is no such table. Refuses (operator) a table
    /// without a primary key, and keys that come more than once.
    async fn read(&self, keys: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>>;

    /// Changes rows in one transaction. The same again changes nothing.
    async fn write(&self, changes: &BTreeMap<String, RowChange>, ending: Ending) -> Result<()>;
}

/// The databases of a host that have such tables.
pub trait SettingsTables: Send + Sync {
    /// The table of a section. Nothing is asked of the database yet. Refuses (operator) a dataset that the manifest does not name.
    fn open(&self, rows: &SettingsRows, at: At<'_>) -> Result<Arc<dyn SettingsTable>>;
}

/// What every adapter refuses alike.
pub mod refused {
    use super::MOST_ROWS;
    use crate::failure::Failure;

    /// What to do about values that a table does not take.
    pub const UNFIT: &str =
        "the table does not take the other host's values: name other `keys`, or take the section out";

    /// A column that is not there.
    pub fn column(item: String, column: &str) -> Failure {
        Failure::operator(item, format!("it has no column {column}"))
            .hint("mend [[settings]] in appliance.toml")
    }

    /// A table whose rows cannot be told apart.
    pub fn keyless(item: String) -> Failure {
        Failure::operator(item, "it has no primary key")
            .hint("give it one, or take the section out of [[settings]] in appliance.toml")
    }

    /// A value that is no text.
    pub fn binary(item: String, key: &str) -> Failure {
        Failure::operator(item, format!("the value of {key} is binary"))
            .hint("settings are texts: name other `keys`")
    }

    /// Several rows of one key.
    pub fn twice(item: String, key: &str) -> Failure {
        Failure::operator(item, format!("the key {key} comes more than once"))
            .hint("write into `scope` what the columns hold that tell these rows apart")
    }

    /// More rows than travel in one message.
    pub fn too_many(item: String) -> Failure {
        Failure::operator(item, format!("it has more than {MOST_ROWS} rows")).hint("name single `keys`")
    }
}
