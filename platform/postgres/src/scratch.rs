//! A scratch database beside the target's own, for rehearsals.
//!
//! It is made as a migration's unfinished database is, under the name of a migration that there never is; a table of its own in it
//! says what it was made for. Every table has one more column, which numbers the rows. Foreign keys, triggers and rules are not in it.

mod make;
mod positions;
mod refusal;

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::pin::pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{Batch, ForeignKey, Made, Refusal, Scratch, TriedRow};
use handover_engine::rehearsal::bisect::{self, Parts};
use handover_engine::rows::{ColumnSpec, Schema, TableName, text};
use tokio::sync::Mutex;
use tokio_postgres::Error;

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::quote;
use crate::target::place::Place;

/// The column that numbers a table's rows.
pub(crate) const ROW: &str = "__handover_row";
const WHAT: &str = "rows cannot be tried";

/// A scratch database.
pub struct PostgresScratch {
    place: Place,
    open: Mutex<Option<Open>>,
}

/// A connection to it. Text in and out is in the source's encoding.
struct Open {
    conn: Conn,
    encoding: String,
}

impl PostgresScratch {
    /// Beside the database that the settings name.
    pub fn new(dataset: DatasetName, settings: &Settings) -> Self {
        Self { place: Place::of_rehearsal(dataset, settings.clone()), open: Mutex::default() }
    }

    /// The settings that lead to the scratch database beside another.
    pub fn beside(dataset: &DatasetName, settings: &Settings) -> Settings {
        let place = Place::of_rehearsal(dataset.clone(), settings.clone());
        Settings { accounts: Vec::new(), ..settings.with_database(&place.partial) }
    }

    /// Where sequences would have to stand that tables own, for the rows that are there: such a database has not been asked for numbers.
    pub async fn positions(dataset: &DatasetName, settings: &Settings) -> Result<BTreeMap<String, String>> {
        positions::of(dataset, settings).await
    }

    fn item(&self, table: &TableName) -> String {
        format!("{}, table {table} of {}", self.place.dataset, self.place.settings.location())
    }

    fn failed<'a>(&'a self, table: &'a TableName, what: &'a str) -> impl Fn(Error) -> Failure + 'a {
        move |error| failed(self.item(table), what, &error)
    }

    /// Takes the connection. One that something failed on is not given back: its transaction ends with it.
    async fn take(&self) -> Result<Open> {
        let unmade =
            || Failure::transient(self.place.dataset.to_string(), "its scratch database was not made");
        self.open.lock().await.take().ok_or_else(unmade)
    }

    async fn give_back(&self, open: Open) {
        *self.open.lock().await = Some(open);
    }
}

/// A table's name in SQL.
fn full(table: &TableName) -> String {
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}

fn in_list(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    format!("{ROW} IN ({})", numbers.join(","))
}

/// A batch on its way.
struct Load<'a> {
    conn: &'a Conn,
    sql: String,
    batch: &'a Batch,
    item: String,
}

impl Load<'_> {
    async fn copy(&self, rows: Range<usize>) -> std::result::Result<(), Error> {
        let mut block = Vec::new();
        for row in &self.batch.rows[rows] {
            block.extend_from_slice(&row.values);
            block.extend_from_slice(format!("\t{}\n", row.number).as_bytes());
        }
        let mut sink = pin!(self.conn.copy_in::<_, Bytes>(&self.sql).await?);
        let mut block = Bytes::from(block);
        while !block.is_empty() {
            sink.send(block.split_to(block.len().min(PIECE))).await?;
        }
        sink.finish().await.map(drop)
    }
}

/// Bytes that are sent at once.
const PIECE: usize = 1 << 20;

impl Parts for Load<'_> {
    async fn load(&mut self, rows: Range<usize>) -> Result<Option<Refusal>> {
        let failed = |error: Error| failed(&self.item, WHAT, &error);
        self.conn.batch_execute("SAVEPOINT part").await.map_err(failed)?;
        let Err(error) = self.copy(rows).await else {
            self.conn.batch_execute("RELEASE SAVEPOINT part").await.map_err(failed)?;
            return Ok(None);
        };
        let why = refusal::of(&self.batch.table.name, &error).ok_or_else(|| failed(error))?;
        self.conn
            .batch_execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
            .await
            .map_err(failed)?;
        Ok(Some(why))
    }
}

#[async_trait]
impl Scratch for PostgresScratch {
    async fn make(&self, source: &Schema, fresh: &str) -> Result<Made> {
        *self.open.lock().await = None;
        let (conn, made) = make::make(&self.place, source, fresh).await?;
        let encoding = source.settings.get("encoding").map_or("UTF8", String::as_str).to_owned();
        let set_up = conn.raw_text(&encoding).await;
        set_up.map_err(|e| failed(self.place.dataset.to_string(), "its session cannot be set up", &e))?;
        self.give_back(Open { conn, encoding }).await;
        Ok(made)
    }

    async fn load(&self, batch: &Batch) -> Result<Vec<(u64, Refusal)>> {
        let columns: Vec<String> = batch.columns.iter().map(|column| quote(&column.name)).collect();
        let sql = format!("COPY {} ({}, {ROW}) FROM STDIN", full(&batch.table), columns.join(", "));
        let open = self.take().await?;
        let failed = self.failed(&batch.table, WHAT);
        // What may wait for the end of a transaction does not.
        open.conn.batch_execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE").await.map_err(&failed)?;
        let mut load = Load { conn: &open.conn, sql, batch, item: self.item(&batch.table) };
        let refused = bisect::load(&mut load, batch.rows.len()).await?;
        let mut out = Vec::with_capacity(refused.len());
        for (at, why) in refused {
            let row = &batch.rows[at];
            let found = refusal::in_the_way(&open.conn, &open.encoding, batch, row, &why).await;
            let in_the_way = found.map_err(&failed)?;
            out.push((row.number, Refusal { in_the_way, ..why }));
        }
        open.conn.batch_execute("COMMIT").await.map_err(&failed)?;
        self.give_back(open).await;
        Ok(out)
    }

    async fn remove(&self, table: &TableName, numbers: &[RangeInclusive<u64>]) -> Result<()> {
        let open = self.take().await?;
        let failed = self.failed(table, "rows that were tried cannot be removed");
        for part in numbers.chunks(500) {
            let ranges: Vec<String> = part
                .iter()
                .map(|range| format!("{ROW} BETWEEN {} AND {}", range.start(), range.end()))
                .collect();
            let delete = format!("DELETE FROM ONLY {} WHERE {}", full(table), ranges.join(" OR "));
            open.conn.batch_execute(&delete).await.map_err(&failed)?;
        }
        self.give_back(open).await;
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
        let open = self.take().await?;
        let failed = self.failed(table, "rows that were tried cannot be read");
        let columns: Vec<String> = columns.iter().map(|column| quote(&column.name)).collect();
        let sql = format!(
            "COPY (SELECT {ROW}, {} FROM ONLY {} WHERE {}) TO STDOUT",
            columns.join(", "),
            full(table),
            in_list(numbers)
        );
        let block = copied(&open.conn, &sql).await.map_err(&failed)?;
        self.give_back(open).await;
        let malformed = |what: String| Failure::permanent(self.item(table), what);
        let mut out = Vec::new();
        for row in text::rows(&block).map_err(|error| malformed(error.to_string()))? {
            let tab = row.iter().position(|byte| *byte == b'\t').unwrap_or(row.len());
            let number = std::str::from_utf8(&row[..tab]).ok().and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| malformed("a row without a number".to_owned()))?;
            out.push(TriedRow {
                number,
                values: Bytes::copy_from_slice(row.get(tab + 1..).unwrap_or_default()),
            });
        }
        Ok(out)
    }

    async fn orphans(&self, key: &ForeignKey, limit: usize) -> Result<Vec<u64>> {
        let pairs = key.columns.iter().zip(&key.parent_columns);
        let equal: Vec<String> =
            pairs.map(|(child, parent)| format!("p.{} = c.{}", quote(parent), quote(child))).collect();
        let refers: Vec<String> =
            key.columns.iter().map(|column| format!("c.{} IS NOT NULL", quote(column))).collect();
        let sql = format!(
            "SELECT c.{ROW} FROM ONLY {} c WHERE c.{ROW} IS NOT NULL AND {} \
             AND NOT EXISTS (SELECT FROM {} p WHERE {}) ORDER BY 1 LIMIT {limit}",
            full(&key.table),
            refers.join(" AND "),
            full(&key.parent),
            equal.join(" AND ")
        );
        let open = self.take().await?;
        let what = format!("foreign key {} cannot be checked", key.name);
        let rows = open.conn.rows(&sql).await.map_err(self.failed(&key.table, &what))?;
        self.give_back(open).await;
        Ok(rows.iter().filter_map(|row| row.first()?.as_ref()?.parse().ok()).collect())
    }

    async fn drop_scratch(&self) -> Result<()> {
        *self.open.lock().await = None;
        self.place.drop_ours().await
    }
}

/// What a COPY tells, whole.
async fn copied(conn: &Conn, sql: &str) -> std::result::Result<Vec<u8>, Error> {
    let mut rows = Box::pin(conn.copy_out(sql).await?);
    let mut out = Vec::new();
    while let Some(piece) = rows.next().await.transpose()? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}
