//! Whether what the table of changes tells is all that has happened.

use std::os::unix::fs::MetadataExt;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{TableKey, TableName, TableSpec};
use rusqlite::{Connection, OptionalExtension};

use super::super::catalog::quote;
use super::super::error::Error;
use super::known::Known;
use super::{MARK, Names, Shared, definitions};

const UNREADABLE: &str = "its changes cannot be read";

/// What a capture was begun with: the number of its marked row, the inode of its file; and its newest change. By their places: captures that
/// were begun by an earlier version call the inode otherwise.
fn begun(db: &Connection, names: &Names) -> rusqlite::Result<(i64, i64, i64)> {
    let sql = format!(
        "SELECT (SELECT coalesce(max(seq), 0) FROM {}), rowid, * FROM {} LIMIT 1",
        quote(&names.changes),
        quote(&names.rows)
    );
    let found = db.query_row(&sql, [], |row| Ok((row.get(1)?, row.get(2)?, row.get(0)?))).optional()?;
    Ok(found.unwrap_or_default())
}

impl Shared {
    /// The inode of the file that the database is: another file has another.
    pub(super) fn inode(&self) -> rusqlite::Result<i64> {
        let meta = std::fs::metadata(&self.path);
        let cannot_open = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let meta = meta.map_err(|e| rusqlite::Error::SqliteFailure(cannot_open, Some(e.to_string())))?;
        Ok(meta.ino().cast_signed())
    }

    /// What keeps changes is all there, it is in the file in which it was begun, none of what was told is missing, rows have the numbers they
    /// had, and the schema is what it was.
    pub(super) fn check(&self, db: &Connection, known: &Known, names: &Names, after: i64) -> Result<()> {
        self.check_tables(db, names)?;
        let (mark, inode, newest) = begun(db, names).map_err(self.failed(UNREADABLE))?;
        if inode != self.inode().map_err(self.failed(UNREADABLE))? {
            return Err(self.missed("another file has been put in its place"));
        }
        // The newest stays in the table, whatever has been taken.
        if newest < after {
            return Err(self.missed("an older state of it has been put in its place"));
        }
        let by_number = |table: &TableSpec| matches!(table.key, TableKey::Hidden(_));
        if mark != MARK && known.schema.tables.iter().any(by_number) {
            return Err(self.missed("VACUUM has numbered its rows anew"));
        }
        if known.is_unchanged(&names.definitions) {
            return Ok(());
        }
        let altered = definitions::altered(db, &known.schema, names, &self.exclude);
        if let Some(found) = altered.map_err(self.failed(UNREADABLE))? {
            return Err(self.altered(&found.object, &found.what));
        }
        known.found_unchanged(&names.definitions);
        Ok(())
    }

    /// The tables of a capture are there.
    pub(super) fn check_tables(&self, db: &Connection, names: &Names) -> Result<()> {
        for table in names.tables() {
            if !db.table_exists(Some("main"), table).map_err(self.failed::<rusqlite::Error>(UNREADABLE))? {
                return Err(self.missed(&format!("what keeps its changes is gone (table {table})")));
            }
        }
        Ok(())
    }

    /// A table whose rows are asked for is as it was when they began to be followed.
    pub(super) fn check_table(&self, db: &Connection, known: &Known, table: &TableName) -> Result<()> {
        if known.is_unchanged(&table.name) {
            return Ok(());
        }
        let became = definitions::became(db, &table.name);
        if let Some(what) =
            became.map_err(self.failed::<Error>(&format!("table {table} cannot be looked at")))?
        {
            return Err(self.altered(&format!("table {table}"), what));
        }
        known.found_unchanged(&table.name);
        Ok(())
    }

    fn missed(&self, what: &str) -> Failure {
        Failure::operator(self.item(), what)
            .begin_anew("changes may have been missed: `handover abort`, then start again")
    }

    fn altered(&self, object: &str, what: &str) -> Failure {
        Failure::operator(format!("{}, {object}", self.item()), what)
            .begin_anew("abort this migration and start again: a new copy has the new definition")
    }
}
