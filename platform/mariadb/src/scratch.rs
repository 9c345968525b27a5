//! A scratch database beside the target's own, for rehearsals.
//!
//! For `db` it is `db__handover_rehearsal`; a table of its own in it says what it was made for. Every table has one more column, invisible
//! to those who select all, which numbers the rows. It holds tables, indexes, sequences and foreign keys; no triggers, events, views
//! or routines.

mod make;
mod refusal;

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{Batch, ForeignKey, Made, Refusal, Scratch, TriedRow};
use handover_engine::rehearsal::bisect::{self, Parts};
use handover_engine::rows::{ColumnSpec, Schema, TableName, text};
use tokio::sync::Mutex;

use self::make::Known;
use crate::session::{Role, Session};
use crate::settings::Settings;
use crate::shape::{self, POSITION};
use crate::sql::{qualified, quote};

/// Bytes of a statement, unless a single row is larger.
const STATEMENT: usize = 1 << 20;
/// Every constraint is in force but for foreign keys, and no value is changed to fit. Zero dates are let in, as a migration lets them.
const STRICT: &str = "SET sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', \
    check_constraint_checks = 1, unique_checks = 1, foreign_key_checks = 0";
const WHAT: &str = "rows cannot be tried";

/// A scratch database.
pub struct MariaScratch {
    dataset: DatasetName,
    settings: Settings,
    /// Its name.
    database: String,
    session: Mutex<Option<Session>>,
    known: Mutex<Option<Arc<Known>>>,
}

impl MariaScratch {
    /// Beside the database that the settings name.
    pub fn new(dataset: DatasetName, settings: Settings) -> Self {
        let database = make::name(&settings.database);
        Self { dataset, settings, database, session: Mutex::default(), known: Mutex::default() }
    }

    /// The settings that lead to the scratch database beside another.
    pub fn beside(settings: &Settings) -> Settings {
        let mut beside = settings.clone();
        beside.database = make::name(&settings.database);
        beside.accounts.clear();
        beside
    }

    async fn session(&self) -> Result<Session> {
        if let Some(session) = self.session.lock().await.take() {
            return Ok(session);
        }
        let mut session = Session::open(&self.dataset, &self.settings, Role::Loader).await?;
        session.run("cannot be set up", STRICT).await?;
        Ok(session)
    }

    /// Keeps a session for what comes next. One that something failed on is not kept: its transaction ends with it.
    async fn keep(&self, session: Session) {
        *self.session.lock().await = Some(session);
    }

    async fn known(&self) -> Result<Arc<Known>> {
        let unmade = || Failure::permanent(self.dataset.to_string(), "its scratch database was not made");
        self.known.lock().await.clone().ok_or_else(unmade)
    }

    fn table(&self, table: &TableName) -> String {
        qualified(&self.database, &table.name)
    }
}

/// A batch on its way.
struct Load<'a> {
    session: &'a mut Session,
    head: String,
    /// A row's values in SQL, each.
    tuples: Vec<String>,
    batch: &'a Batch,
    table: String,
    transactional: bool,
}

impl Parts for Load<'_> {
    async fn load(&mut self, rows: Range<usize>) -> Result<Option<Refusal>> {
        self.session.run_on(&self.batch.table.name, WHAT, "SAVEPOINT part").await?;
        let mut at = rows.start;
        while at < rows.end {
            let mut statement = self.head.clone();
            let first = at;
            while at < rows.end && (at == first || statement.len() + self.tuples[at].len() < STATEMENT) {
                if at > first {
                    statement.push(',');
                }
                statement.push_str(&self.tuples[at]);
                at += 1;
            }
            let Err(error) = self.session.try_run(&statement).await else { continue };
            let Some(why) = refusal::of(&self.batch.table.name, &error) else {
                return Err(self.session.failed(Some(&self.batch.table.name), WHAT, error));
            };
            self.take_back(rows).await?;
            return Ok(Some(why));
        }
        Ok(None)
    }
}

impl Load<'_> {
    async fn take_back(&mut self, rows: Range<usize>) -> Result<()> {
        self.session.run_on(&self.batch.table.name, WHAT, "ROLLBACK TO SAVEPOINT part").await?;
        if self.transactional {
            return Ok(());
        }
        let numbers: Vec<String> = self.batch.rows[rows].iter().map(|row| row.number.to_string()).collect();
        let delete = format!("DELETE FROM {} WHERE {POSITION} IN ({})", self.table, numbers.join(","));
        self.session.run_on(&self.batch.table.name, WHAT, &delete).await
    }
}

/// A row's values and number in SQL.
fn tuple(batch: &Batch, known: &Known, row: &TriedRow) -> Result<String> {
    let mut out = String::from("(");
    for literal in literals(batch, known, row)? {
        out.push_str(&literal);
        out.push(',');
    }
    Ok(format!("{out}{})", row.number))
}

/// A row's values in SQL.
fn literals(batch: &Batch, known: &Known, row: &TriedRow) -> Result<Vec<String>> {
    let malformed = |what: String| Failure::permanent(format!("table {}", batch.table), what);
    let mut out = Vec::with_capacity(batch.columns.len());
    for (n, value) in text::values(&row.values).enumerate() {
        let Some(column) = batch.columns.get(n) else {
            return Err(malformed("a row of too many values".to_owned()));
        };
        if value == text::NULL {
            out.push("NULL".to_owned());
            continue;
        }
        let value = text::unescape(value).map_err(|error| malformed(error.to_string()))?;
        let wanted = known.declared(&batch.table, &column.name);
        let literal = shape::converted(&column.declared, wanted, &value);
        out.push(
            literal
                .ok_or_else(|| malformed(format!("a value of {} that is none of its type", column.name)))?,
        );
    }
    if out.len() == batch.columns.len() {
        Ok(out)
    } else {
        Err(malformed("a row of too few values".to_owned()))
    }
}

#[async_trait]
impl Scratch for MariaScratch {
    async fn make(&self, source: &Schema, fresh: &str) -> Result<Made> {
        let mut session = self.session().await?;
        let (known, made) = make::make(&mut session, &self.settings, &self.database, source, fresh).await?;
        *self.known.lock().await = Some(Arc::new(known));
        self.keep(session).await;
        Ok(made)
    }

    async fn load(&self, batch: &Batch) -> Result<Vec<(u64, Refusal)>> {
        let known = self.known().await?;
        let tuples = batch.rows.iter().map(|row| tuple(batch, &known, row)).collect::<Result<Vec<_>>>()?;
        let columns: Vec<String> = batch.columns.iter().map(|column| quote(&column.name)).collect();
        let table = self.table(&batch.table);
        let head = format!("INSERT INTO {table} ({}, {POSITION}) VALUES ", columns.join(", "));
        let mut session = self.session().await?;
        session.run(WHAT, "START TRANSACTION").await?;
        let transactional = known.is_transactional(&batch.table);
        let mut load = Load { session: &mut session, head, tuples, batch, table, transactional };
        let refused = bisect::load(&mut load, batch.rows.len()).await?;
        let mut out = Vec::with_capacity(refused.len());
        for (at, why) in refused {
            let row = &batch.rows[at];
            let literals = literals(batch, &known, row)?;
            let in_the_way =
                refusal::in_the_way(&mut session, &self.database, &known, batch, &literals, &why).await;
            out.push((row.number, Refusal { in_the_way, ..why }));
        }
        session.run("rows that were tried cannot be committed", "COMMIT").await?;
        self.keep(session).await;
        Ok(out)
    }

    async fn remove(&self, table: &TableName, numbers: &[RangeInclusive<u64>]) -> Result<()> {
        let mut session = self.session().await?;
        for part in numbers.chunks(500) {
            let ranges: Vec<String> = part
                .iter()
                .map(|range| format!("{POSITION} BETWEEN {} AND {}", range.start(), range.end()))
                .collect();
            let delete = format!("DELETE FROM {} WHERE {}", self.table(table), ranges.join(" OR "));
            session.run_on(&table.name, "rows that were tried cannot be removed", &delete).await?;
        }
        self.keep(session).await;
        Ok(())
    }

    async fn read(
        &self,
        table: &TableName,
        columns: &[ColumnSpec],
        numbers: &[u64],
    ) -> Result<Vec<TriedRow>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session().await?;
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let selected: Vec<String> =
            columns.iter().map(|column| shape::selected(&column.declared, &quote(&column.name))).collect();
        let query = format!(
            "SELECT {POSITION}, {} FROM {} WHERE {POSITION} IN ({})",
            selected.join(", "),
            self.table(table),
            numbers.join(",")
        );
        let rows = session.records("rows that were tried cannot be read", &query).await?;
        self.keep(session).await;
        let row = |row: crate::session::Record| {
            let mut values = Vec::new();
            for n in 0..columns.len() {
                if n > 0 {
                    values.push(b'\t');
                }
                match row.bytes(n + 1) {
                    Some(value) => text::escape_into(&mut values, value),
                    None => values.extend_from_slice(text::NULL),
                }
            }
            TriedRow { number: row.number(0), values: values.into() }
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn orphans(&self, key: &ForeignKey, limit: usize) -> Result<Vec<u64>> {
        let pairs = key.columns.iter().zip(&key.parent_columns);
        let equal: Vec<String> =
            pairs.map(|(child, parent)| format!("p.{} = c.{}", quote(parent), quote(child))).collect();
        let refers: Vec<String> =
            key.columns.iter().map(|column| format!("c.{} IS NOT NULL", quote(column))).collect();
        let query = format!(
            "SELECT c.{POSITION} FROM {} c WHERE c.{POSITION} > 0 AND {} \
             AND NOT EXISTS (SELECT 1 FROM {} p WHERE {}) ORDER BY 1 LIMIT {limit}",
            self.table(&key.table),
            refers.join(" AND "),
            self.table(&key.parent),
            equal.join(" AND ")
        );
        let mut session = self.session().await?;
        let rows = session.records(&format!("foreign key {} cannot be checked", key.name), &query).await?;
        self.keep(session).await;
        Ok(rows.iter().map(|row| row.number(0)).collect())
    }

    async fn drop_scratch(&self) -> Result<()> {
        let mut session = self.session().await?;
        make::drop_ours(&mut session, &self.database).await?;
        *self.known.lock().await = None;
        self.keep(session).await;
        Ok(())
    }
}
