//! Columns that travel, and the keys that rows are found by.

use std::collections::BTreeMap;

use handover_engine::ports::Result;
use handover_engine::rows::{ColumnSpec, TableKey};

use super::WHAT;
use crate::session::Session;
use crate::shape::{POSITION, declared};
use crate::sql;

/// An index that may serve as a key.
struct Index {
    name: String,
    columns: Vec<String>,
    usable: bool,
}

/// Columns and indexes of all tables of a database.
pub struct Columns {
    columns: BTreeMap<String, Vec<ColumnSpec>>,
    indexes: BTreeMap<String, Vec<Index>>,
}

/// Reads them.
pub async fn read(session: &mut Session, database: &str) -> Result<Columns> {
    let query = format!(
        "SELECT table_name, column_name, column_type, character_set_name, collation_name FROM information_schema.columns \
         WHERE table_schema = {} AND is_generated = 'NEVER' ORDER BY table_name, ordinal_position",
        sql::text(database)
    );
    let mut columns: BTreeMap<String, Vec<ColumnSpec>> = BTreeMap::new();
    for row in session.records(WHAT, &query).await? {
        let declared = declared(&row.text(2), row.maybe(3).as_deref(), row.maybe(4).as_deref());
        if row.text(1) != POSITION {
            columns.entry(row.text(0)).or_default().push(ColumnSpec { name: row.text(1), declared });
        }
    }
    let query = format!(
        "SELECT table_name, index_name, column_name, sub_part, nullable, index_type, collation FROM information_schema.statistics \
         WHERE table_schema = {} AND non_unique = 0 ORDER BY table_name, index_name <> 'PRIMARY', index_name, seq_in_index",
        sql::text(database)
    );
    let mut indexes: BTreeMap<String, Vec<Index>> = BTreeMap::new();
    for row in session.records(WHAT, &query).await? {
        let of_table = indexes.entry(row.text(0)).or_default();
        if of_table.last().is_none_or(|index| index.name != row.text(1)) {
            of_table.push(Index { name: row.text(1), columns: Vec::new(), usable: true });
        }
        if let Some(index) = of_table.last_mut() {
            let is_whole = row.maybe(3).is_none() && row.text(4) != "YES";
            index.usable &=
                is_whole && row.text(5) == "BTREE" && row.text(6) == "A" && row.text(2) != POSITION;
            index.columns.push(row.text(2));
        }
    }
    Ok(Columns { columns, indexes })
}

impl Columns {
    /// A table's columns, its key, and the index of that key.
    pub fn of(&self, table: &str) -> (Vec<ColumnSpec>, TableKey, Option<String>) {
        let columns = self.columns.get(table).cloned().unwrap_or_default();
        let position = |name: &String| columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
        let indexes = self.indexes.get(table).map(Vec::as_slice).unwrap_or_default();
        for index in indexes.iter().filter(|index| index.usable) {
            let key: Option<Vec<u32>> =
                index.columns.iter().map(|name| position(name).and_then(|n| u32::try_from(n).ok())).collect();
            if let Some(key) = key {
                return (columns, TableKey::Columns(key), Some(index.name.clone()));
            }
        }
        (columns, TableKey::Position, None)
    }
}
