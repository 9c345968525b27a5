//! Whether what the table of changes tells is all that has happened.

use std::os::unix::fs::MetadataExt;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Schema, TableKey, TableName, TableSpec};
use rusqlite::Connection;

use super::super::catalog::quote;
use super::super::error::Error;
use super::{MARK, Names, Shared, definitions};

const UNREADABLE: &str = "its changes cannot be read";

impl Shared {
    /// The number of the file that the database is: another file has another.
    pub(super) fn file(&self) -> rusqlite::Result<i64> {
        let meta = std::fs::metadata(&self.path);
        let cannot_open = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let meta = meta.map_err(|e| rusqlite::Error::SqliteFailure(cannot_open, Some(e.to_string())))?;
        Ok(meta.ino().cast_signed())
    }

    /// What keeps changes is all there, it is in the file in which it was begun, none of what was told is missing, rows have the numbers they
    /// had, and the schema is what it was.
    pub(super) fn check(&self, db: &Connection, schema: &Schema, names: &Names, after: i64) -> Result<()> {
        self.check_tables(db, names)?;
        let read = |sql: &str| -> Result<i64> {
            db.query_row(sql, [], |row| row.get(0)).map_err(self.failed::<rusqlite::Error>(UNREADABLE))
        };
        let file = read(&format!("SELECT coalesce(max(file), 0) FROM {}", quote(&names.rows)))?;
        if file != self.file().map_err(self.failed(UNREADABLE))? {
            return Err(self.missed("another file has been put in its place"));
        }
        // The newest stays in the table, whatever has been taken.
        if read(&format!("SELECT coalesce(max(seq), 0) FROM {}", quote(&names.changes)))? < after {
            return Err(self.missed("an older state of it has been put in its place"));
        }
        let is_marked =
            read(&format!("SELECT count(*) FROM {} WHERE rowid = {MARK}", quote(&names.rows)))? == 1;
        let by_number = |table: &TableSpec| matches!(table.key, TableKey::Hidden(_));
        if !is_marked && schema.tables.iter().any(by_number) {
            return Err(self.missed("VACUUM has numbered its rows anew"));
        }
        let altered = definitions::altered(db, schema, names, &self.exclude);
        match altered.map_err(self.failed(UNREADABLE))? {
            Some(found) => Err(self.altered(&found.object, &found.what)),
            None => Ok(()),
        }
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
    pub(super) fn check_table(&self, db: &Connection, table: &TableName) -> Result<()> {
        let became = definitions::became(db, &table.name);
        match became.map_err(self.failed::<Error>(&format!("table {table} cannot be looked at")))? {
            Some(what) => Err(self.altered(&format!("table {table}"), what)),
            None => Ok(()),
        }
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
