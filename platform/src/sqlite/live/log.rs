//! The table of changes: looked at, told, and forgotten once it has been taken.

use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::name::CaptureId;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, Schema, TableName};
use handover_engine::time::{Clock, Timestamp};
use rusqlite::Connection;

use super::super::catalog::quote;
use super::super::error;
use super::super::shape::value;
use super::super::{estimate, read};
use super::{Names, Shared, widest, width};
use crate::SystemClock;

/// Changes that are told at once.
const PART: usize = 50_000;

impl Shared {
    /// Whether there are changes after a position; true as well when that cannot be told.
    pub(super) fn has_changes(&self, capture: &CaptureId, after: &LogPosition) -> Result<bool> {
        let (names, after, db) = (Names::of(capture), self.number(after)?, self.reader()?);
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE seq > {after})", quote(&names.changes));
        Ok(db.query_row(&sql, [], |row| row.get(0)).unwrap_or(true))
    }

    /// The changes after a position.
    pub(super) fn changes(&self, capture: &CaptureId, after: &LogPosition) -> Result<Changes> {
        let (names, after, db) = (Names::of(capture), self.number(after)?, self.reader()?);
        let now = SystemClock.now();
        // One view for what is checked and what is told.
        db.execute_batch("BEGIN").map_err(self.failed("its changes cannot be read"))?;
        let known = self.schema(&db).map_err(self.failed("its schema cannot be read"))?;
        self.check(&db, &known, &names, after)?;
        part(&db, &known.schema, &names, after, now).map_err(self.failed("its changes cannot be read"))
    }

    /// What is before a position has been taken.
    pub(super) fn confirm(&self, capture: &CaptureId, until: &LogPosition) -> Result<()> {
        let (names, until) = (Names::of(capture), self.number(until)?);
        let table = quote(&names.changes);
        let behind = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE seq < {until})");
        let db = self.reader()?;
        self.check_tables(&db, &names)?;
        let is_behind = db.query_row(&behind, [], |row| row.get::<_, bool>(0));
        if !is_behind.map_err(self.failed("its changes cannot be read"))? {
            return Ok(());
        }
        drop(db);
        // The newest stays, so that numbers never start anew.
        let delete = format!("DELETE FROM {table} WHERE seq < min({until}, (SELECT max(seq) FROM {table}))");
        self.change("changes that were taken cannot be dropped", estimate::BUSY, |db| {
            Ok(db.execute_batch(&delete)?)
        })
    }

    fn number(&self, position: &LogPosition) -> Result<i64> {
        position
            .0
            .parse()
            .map_err(|e| Failure::permanent(self.item(), "a position in its changes that is none").because(e))
    }
}

/// The changes after a number.
fn part(
    db: &Connection,
    schema: &Schema,
    names: &Names,
    after: i64,
    now: Timestamp,
) -> error::Result<Changes> {
    let utf16 = schema.settings.get("encoding").is_some_and(|encoding| encoding != "UTF-8");
    let columns: Vec<String> = (0..widest(schema)).map(|n| value(&format!("k{n}"), utf16)).collect();
    let sql = format!(
        "SELECT seq, tbl, {} FROM {} WHERE seq > ? AND tbl <> '' ORDER BY seq LIMIT {PART}",
        columns.join(", "),
        quote(&names.changes)
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([after])?;
    let (mut tables, mut changes): (Vec<(TableName, usize)>, _) = (Vec::new(), Vec::new());
    let (mut until, mut seen) = (after, 0);
    while let Some(row) = rows.next()? {
        until = row.get(0)?;
        seen += 1;
        let name = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let at = match tables.iter().position(|(table, _)| table.name == name) {
            Some(at) => at,
            None => {
                let name = TableName::plain(name);
                let Some(spec) = schema.table(&name) else { continue };
                tables.push((name, width(&spec.key)));
                tables.len() - 1
            }
        };
        let key = Key(read::print_row(row, 2, tables[at].1, utf16)?);
        changes.push(Change::Row { table: u32::try_from(at).unwrap_or(u32::MAX), key });
    }
    Ok(Changes {
        is_end: seen < PART,
        tables: tables.into_iter().map(|(name, _)| name).collect(),
        changes,
        until: LogPosition(until.to_string()),
        at: now,
    })
}
