//! A scratch database in a file beside the target's own, for rehearsals.
//!
//! For `main.db` it is `main.db.handover-rehearsal`; a table of its own in it says what it was made for. Every table has one more column,
//! which numbers the rows.

mod make;
mod refusal;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{Batch, ForeignKey, Made, Refusal, Scratch, TriedRow};
use handover_engine::rows::{ColumnSpec, Schema, TableName, text};
use rusqlite::{Connection, Statement};

use super::catalog::{ROW, quote};
use super::error::{self, Error, failed};
use super::read::print_row;
use super::shape::value;
use super::value::{BadValue, Value};
use crate::tree::blocking;

/// A scratch database.
#[derive(Clone)]
pub struct SqliteScratch {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: DatasetName,
    /// The target's own database.
    target: PathBuf,
    /// The scratch database.
    path: PathBuf,
    open: Mutex<Option<Open>>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// A connection, and what it was made for.
struct Open {
    db: Connection,
    utf16: bool,
}

impl SqliteScratch {
    /// Beside the database at `target` (behind it, where that is a symbolic link).
    pub fn new(dataset: DatasetName, target: PathBuf) -> Self {
        let target = behind_link(target);
        let path = Self::beside(target.clone());
        let (open, gate) = (Mutex::new(None), Arc::default());
        Self { shared: Arc::new(Shared { dataset, target, path, open, gate }) }
    }

    /// The file of the scratch database beside another.
    pub fn beside(target: PathBuf) -> PathBuf {
        make::with_suffix(&behind_link(target), ".handover-rehearsal")
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let gate = shared.gate.clone().lock_owned().await;
        blocking(&self.shared.dataset, move || {
            let _gate = gate;
            work(&shared)
        })
        .await
    }
}

fn behind_link(path: PathBuf) -> PathBuf {
    if path.is_symlink() { std::fs::canonicalize(&path).unwrap_or(path) } else { path }
}

impl Shared {
    fn failed<'a, E: Into<Error>>(&'a self, path: &'a Path, what: &'a str) -> impl Fn(E) -> Failure + 'a {
        move |error| failed(&self.dataset, path, what, error)
    }

    /// Runs `work` on the scratch database, in one transaction.
    fn with<T>(&self, what: &str, work: impl FnOnce(&Open) -> error::Result<T>) -> Result<T> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match open.take() {
            Some(now) => now,
            None => make::open(&self.path).map_err(self.failed(&self.path, what))?,
        };
        let result = now.db.unchecked_transaction().map_err(Error::from).and_then(|transaction| {
            let done = work(&now)?;
            transaction.commit()?;
            Ok(done)
        });
        *open = Some(now);
        result.map_err(self.failed(&self.path, what))
    }

    fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn load(open: &Open, batch: &Batch) -> error::Result<Vec<(u64, Refusal)>> {
    let mut refused = Vec::new();
    let mut insert = open.db.prepare_cached(&insert(open, batch))?;
    for row in &batch.rows {
        match insert_row(open, &mut insert, row, batch.columns.len()) {
            Ok(()) => {}
            Err(Error::Sqlite(error)) => {
                let why = refusal::of(&batch.table.name, &error).ok_or(error)?;
                let in_the_way = refusal::in_the_way(open, batch, row, &why)?;
                refused.push((row.number, Refusal { in_the_way, ..why }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// Whatever a constraint of the schema says, a row that breaks it is refused, and nothing else changes.
fn insert(open: &Open, batch: &Batch) -> String {
    let names: Vec<String> = batch.columns.iter().map(|column| quote(&column.name)).collect();
    let marks: Vec<String> = (0..names.len()).map(|n| placeholder(open.utf16, n)).collect();
    let number = if open.utf16 { 2 * names.len() + 1 } else { names.len() + 1 };
    format!(
        "INSERT OR ABORT INTO main.{} ({}, {}) VALUES ({}, ?{number})",
        quote(&batch.table.name),
        names.join(", "),
        quote(ROW),
        marks.join(", ")
    )
}

/// The placeholder of the `n`-th value, from 0.
fn placeholder(utf16: bool, n: usize) -> String {
    match utf16 {
        true => format!("iif(?{}, CAST(?{} AS TEXT), ?{})", 2 * n + 1, 2 * n + 2, 2 * n + 2),
        false => format!("?{}", n + 1),
    }
}

fn bind(statement: &mut Statement<'_>, utf16: bool, n: usize, value: &Value<'_>) -> error::Result<()> {
    if utf16 {
        statement.raw_bind_parameter(2 * n + 1, value.is_text())?;
        statement.raw_bind_parameter(2 * n + 2, value.as_blob())?;
    } else {
        statement.raw_bind_parameter(n + 1, value)?;
    }
    Ok(())
}

fn insert_row(open: &Open, insert: &mut Statement<'_>, row: &TriedRow, width: usize) -> error::Result<()> {
    let mut found = 0;
    for text in text::values(&row.values) {
        if found < width {
            bind(insert, open.utf16, found, &Value::parse(text)?)?;
        }
        found += 1;
    }
    if found != width {
        return Err(BadValue::from(text::BadText::Width { found, expected: width }).into());
    }
    let number = if open.utf16 { 2 * width + 1 } else { width + 1 };
    insert.raw_bind_parameter(number, i64::try_from(row.number).unwrap_or(i64::MAX))?;
    insert.raw_execute()?;
    Ok(())
}

fn remove(open: &Open, table: &TableName, numbers: &[RangeInclusive<u64>]) -> error::Result<()> {
    let sql = format!("DELETE FROM main.{} WHERE {} BETWEEN ? AND ?", quote(&table.name), quote(ROW));
    let mut delete = open.db.prepare_cached(&sql)?;
    for numbers in numbers {
        delete.execute([*numbers.start() as i64, *numbers.end() as i64])?;
    }
    Ok(())
}

fn read(
    open: &Open,
    table: &TableName,
    columns: &[ColumnSpec],
    numbers: &[u64],
) -> error::Result<Vec<TriedRow>> {
    let selected: Vec<String> =
        columns.iter().map(|column| value(&quote(&column.name), open.utf16)).collect();
    let sql =
        format!("SELECT {} FROM main.{} WHERE {} = ?", selected.join(", "), quote(&table.name), quote(ROW));
    let mut select = open.db.prepare_cached(&sql)?;
    let mut out = Vec::new();
    for number in numbers {
        let mut rows = select.query([*number as i64])?;
        while let Some(row) = rows.next()? {
            let values = print_row(row, 0, columns.len(), open.utf16)?;
            out.push(TriedRow { number: *number, values });
        }
    }
    Ok(out)
}

fn orphans(open: &Open, key: &ForeignKey, limit: usize) -> error::Result<Vec<u64>> {
    let pairs = key.columns.iter().zip(&key.parent_columns);
    let equal: Vec<String> =
        pairs.map(|(child, parent)| format!("p.{} = c.{}", quote(parent), quote(child))).collect();
    let refers: Vec<String> =
        key.columns.iter().map(|column| format!("c.{} NOT NULL", quote(column))).collect();
    let sql = format!(
        "SELECT c.{row} FROM main.{} c WHERE c.{row} NOT NULL AND {} \
         AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {}) ORDER BY 1 LIMIT {limit}",
        quote(&key.table.name),
        refers.join(" AND "),
        quote(&key.parent.name),
        equal.join(" AND "),
        row = quote(ROW),
    );
    let mut select = open.db.prepare_cached(&sql)?;
    let numbers = select.query_map([], |row| row.get::<_, i64>(0))?;
    numbers.map(|number| Ok(number?.unsigned_abs())).collect()
}

#[async_trait]
impl Scratch for SqliteScratch {
    async fn make(&self, source: &Schema, fresh: &str) -> Result<Made> {
        let (source, fresh) = (source.clone(), fresh.to_owned());
        self.run(move |shared| shared.make(&source, &fresh)).await
    }

    async fn load(&self, batch: &Batch) -> Result<Vec<(u64, Refusal)>> {
        let batch = batch.clone();
        let what = format!("rows of {} cannot be tried", batch.table);
        self.run(move |shared| shared.with(&what, |open| load(open, &batch))).await
    }

    async fn remove(&self, table: &TableName, numbers: &[RangeInclusive<u64>]) -> Result<()> {
        let (table, numbers) = (table.clone(), numbers.to_vec());
        let what = format!("rows of {table} cannot be removed");
        self.run(move |shared| shared.with(&what, |open| remove(open, &table, &numbers))).await
    }

    async fn read(
        &self,
        table: &TableName,
        columns: &[ColumnSpec],
        numbers: &[u64],
    ) -> Result<Vec<TriedRow>> {
        let (table, columns, numbers) = (table.clone(), columns.to_vec(), numbers.to_vec());
        let what = format!("rows of {table} cannot be read");
        self.run(move |shared| shared.with(&what, |open| read(open, &table, &columns, &numbers))).await
    }

    async fn orphans(&self, key: &ForeignKey, limit: usize) -> Result<Vec<u64>> {
        let key = key.clone();
        let what = format!("foreign key {} cannot be checked", key.name);
        self.run(move |shared| shared.with(&what, |open| orphans(open, &key, limit))).await
    }

    async fn drop_scratch(&self) -> Result<()> {
        self.run(Shared::drop_scratch).await
    }
}
