//! The source's side of the way back: rows are written to the database behind its fence.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use handover_engine::name::DatasetName;
use handover_engine::ports::{FencedDatabase, KeyedTarget, Result};
use handover_engine::rows::{Key, KeyedRows, RowsChunk, Schema, TableName};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::{self, failed};
use super::{catalog, estimate, write};
use crate::tree::blocking;

/// A database that is written to where it stands, past its fence.
pub struct SqliteFenced {
    dataset: DatasetName,
    path: PathBuf,
}

/// Writes in one transaction in which no trigger fires, the fence's neither, and no foreign key acts.
fn change(path: &PathBuf, work: impl FnOnce(&Connection, &Schema) -> error::Result<()>) -> error::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(estimate::BUSY)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    db.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON",
    )?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let schema = catalog::read(&transaction, &[])?;
    work(&transaction, &schema)?;
    Ok(transaction.commit()?)
}

impl SqliteFenced {
    /// The database at `path`.
    pub fn new(dataset: DatasetName, path: PathBuf) -> Self {
        Self { dataset, path }
    }

    async fn run(
        &self,
        what: String,
        work: impl FnOnce(&Connection, &Schema) -> error::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (dataset, path) = (self.dataset.clone(), self.path.clone());
        blocking(&self.dataset, move || {
            change(&path, work).map_err(|error| failed(&dataset, &path, &what, error))
        })
        .await
    }
}

#[async_trait]
impl KeyedTarget for SqliteFenced {
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        let rows = rows.to_vec();
        self.run("changed rows cannot be brought back".to_owned(), move |db, schema| {
            rows.iter().try_for_each(|rows| write::apply_keys(db, schema, rows))
        })
        .await
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        self.run(format!("table {table} cannot be emptied"), move |db, _| write::clear(db, &table)).await
    }

    /// None: triggers fire for what foreign keys do, so each row is told of.
    async fn children(&self, _table: &TableName, _columns: &[u32], _values: &[Key]) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl FencedDatabase for SqliteFenced {
    async fn make_ready(&self) -> Result<()> {
        // Nothing acts where triggers are off for whoever writes.
        Ok(())
    }

    async fn fill(&self, chunk: &RowsChunk) -> Result<()> {
        let chunk = chunk.clone();
        let what = format!("rows of {} cannot be brought back", chunk.header.table);
        self.run(what, move |db, schema| write::apply(db, schema, &chunk)).await
    }

    async fn stand_down(&self) -> Result<()> {
        Ok(())
    }

    async fn set_positions(&self, schema: &Schema) -> Result<()> {
        // One that has none there begins anew here, too. Those of tables that are not there are left as they are.
        let mut positions: BTreeMap<String, Option<String>> =
            schema.tables.iter().map(|table| (table.name.name.clone(), None)).collect();
        let there = schema.state.iter();
        let there = there.filter_map(|(key, position)| Some((key.strip_prefix("sequence/")?, position)));
        positions.extend(there.map(|(table, position)| (table.to_owned(), Some(position.clone()))));
        self.run("AUTOINCREMENT cannot be set".to_owned(), move |db, _| {
            if !db.table_exists(None, "sqlite_sequence")? {
                return Ok(());
            }
            for (table, position) in positions {
                db.execute("DELETE FROM sqlite_sequence WHERE name = ?", [&table])?;
                if let Some(position) = position {
                    let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES (?, CAST(? AS INTEGER))";
                    db.execute(sql, (table, position))?;
                }
            }
            Ok(())
        })
        .await
    }
}
