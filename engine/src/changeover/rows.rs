//! Settings that are rows of a table: one row for each key.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::DatasetName;

/// Which rows of which table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsRows {
    /// The database that the table is in.
    pub dataset: DatasetName,
    /// The table; for engines with schemas it may have one before a dot.
    pub table: String,
    /// The column of keys.
    pub key_column: String,
    /// The column of values.
    pub value_column: String,
    /// Columns that hold the same text in all of these rows: what tells them from others' in the same table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scope: BTreeMap<String, String>,
}

impl fmt::Display for SettingsRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} of {}", self.table, self.dataset)
    }
}

/// What a key has.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowValue {
    /// No row.
    Absent,
    /// A row whose value is NULL.
    Null,
    /// A row with this value, as text.
    Text(String),
}

/// Values may be secrets.
impl fmt::Debug for RowValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RowValue::Absent => "Absent",
            RowValue::Null => "Null",
            RowValue::Text(_) => "Text",
        })
    }
}

/// Values of keys.
pub type RowValues = BTreeMap<String, RowValue>;
