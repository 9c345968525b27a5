//! The source's side of following: which keys change, their rows, and a fence.
//!
//! Changes are kept by a logical replication slot and read with SQL functions. Not stopped by the fence, since no trigger
//! sees them: large objects, sequences, and what a subscription of the database itself brings.

mod fence;
mod keyed;
mod known;
mod part;
mod pgoutput;
mod position;
mod reading;
pub mod slot;
mod visible;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{LiveDatabase, Result};
use handover_engine::rows::{Key, RowsChunk, TableName};
use handover_engine::time::Timestamp;
use tokio::time::Instant;

use self::fence::Fence;
use self::keyed::{Found, Keyed, LOOK_UP, Refused};
use self::known::Known;
use self::part::Part;
use self::position::Position;
use self::reading::Reading;
use self::slot::Slot;
use crate::Settings;
use crate::catalog::Reader;
use crate::connect::Conn;
use crate::error::failed;
use crate::shape::Shape;

/// Connections that are kept for the next rows.
const KEPT: usize = 8;
/// Time between two looks at the end of the log; longer where a look takes longer.
const STEP: Duration = Duration::from_millis(25);
/// Seconds from 1970 to 2000, where the log's clock begins.
const EPOCH: i64 = 946_684_800;
/// Bytes of a row, before some were read.
const USUAL: f64 = 300.0;

/// A database, for messages and connections.
#[derive(Debug, Clone)]
pub struct At {
    dataset: DatasetName,
    settings: Settings,
    exclude: Vec<String>,
}

impl At {
    fn item(&self) -> String {
        format!("{}, {}", self.dataset, self.settings.location())
    }

    fn failed(&self, what: &str, error: &tokio_postgres::Error) -> Failure {
        failed(self.item(), what, error)
    }

    /// The failure of a table that is not what it was.
    fn altered(&self, table: &str) -> Failure {
        let what = "its definition was changed while it was followed, and the log does not tell of that";
        Failure::operator(format!("{}, table {table}", self.item()), what).begin_anew(
            "begin anew: the table has to be copied as it is now. Leave the schema alone during a migration",
        )
    }

    async fn conn(&self) -> Result<Conn> {
        Conn::open(&self.dataset, &self.settings).await
    }

    /// A connection whose text is in the database's own encoding.
    async fn raw(&self, known: &Known) -> Result<Conn> {
        let conn = self.conn().await?;
        let encoding = known.schema.settings.get("encoding").map_or("UTF8", String::as_str);
        let done = conn.raw_text(encoding).await;
        done.map_err(|e| self.failed("its session cannot be set up", &e))?;
        Ok(conn)
    }

    fn reader<'a>(&'a self, conn: &'a Conn) -> Reader<'a> {
        Reader { dataset: &self.dataset, settings: &self.settings, conn, exclude: &self.exclude }
    }
}

/// A database whose changes are followed.
pub struct PostgresLive {
    at: At,
    known: Mutex<Option<Arc<Known>>>,
    readings: Mutex<HashMap<CaptureId, Reading>>,
    /// Connections for rows, and for everything else.
    idle: Mutex<Vec<Conn>>,
    spare: Mutex<Option<Conn>>,
    /// Bytes of a usual row, by table.
    usual: Mutex<HashMap<TableName, f64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PostgresLive {
    /// The database of `settings` without the excluded tables (`schema.table`).
    pub fn new(dataset: DatasetName, settings: &Settings, exclude: Vec<String>) -> Self {
        Self {
            at: At { dataset, settings: settings.clone(), exclude },
            known: Mutex::default(),
            readings: Mutex::default(),
            idle: Mutex::default(),
            spare: Mutex::default(),
            usual: Mutex::default(),
        }
    }

    /// A connection for a few statements.
    async fn conn(&self) -> Result<Conn> {
        let spare = locked(&self.spare).take();
        match spare.filter(|conn| !conn.is_closed()) {
            Some(conn) => Ok(conn),
            None => self.at.conn().await,
        }
    }

    fn keep(&self, conn: Conn) {
        *locked(&self.spare) = Some(conn);
    }

    /// What is known of the tables.
    async fn known(&self) -> Result<Arc<Known>> {
        let known = locked(&self.known).clone();
        match known {
            Some(known) => Ok(known),
            None => self.look().await,
        }
    }

    /// Looks at the tables again.
    async fn look(&self) -> Result<Arc<Known>> {
        let conn = self.conn().await?;
        let known = Arc::new(Known::load(&self.at, &conn).await?);
        self.keep(conn);
        *locked(&self.known) = Some(known.clone());
        // They were set up for another encoding, perhaps.
        locked(&self.idle).clear();
        Ok(known)
    }

    fn slot(&self, capture: &CaptureId) -> String {
        slot::name(capture, &self.at.settings.database)
    }

    /// The capture's sessions, where they go on from `position`, or new ones.
    async fn reading(&self, capture: &CaptureId, position: Position, known: &Known) -> Result<Reading> {
        let kept = locked(&self.readings).remove(capture);
        if let Some(reading) = kept.filter(|reading| reading.position == position && reading.is_alive()) {
            return Ok(reading);
        }
        let conn = self.at.conn().await?;
        Ok(Reading::new(self.slot(capture), conn, self.at.raw(known).await?, position))
    }

    /// The connection and shape to read a table's rows by key.
    async fn rows_conn(&self, known: &Known) -> Result<Conn> {
        let idle = locked(&self.idle).pop();
        if let Some(conn) = idle.filter(|conn| !conn.is_closed()) {
            return Ok(conn);
        }
        let conn = self.at.raw(known).await?;
        let done = conn.text(LOOK_UP).await;
        done.map_err(|e| self.at.failed("its session cannot be set up", &e))?;
        Ok(conn)
    }

    /// Bytes of a usual row of a table.
    fn usual(&self, known: &Known, table: &TableName) -> f64 {
        if let Some(bytes) = locked(&self.usual).get(table) {
            return *bytes;
        }
        let spec = known.schema.table(table).filter(|spec| spec.estimated_rows > 0);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        spec.map_or(USUAL, |spec| spec.estimated_bytes as f64 / spec.estimated_rows as f64)
    }

    fn learn(&self, table: &TableName, before: f64, chunk: &RowsChunk) {
        if chunk.header.rows > 0 {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let now = chunk.header.bytes as f64 / chunk.header.rows as f64;
            locked(&self.usual).insert(table.clone(), before * 0.5 + now * 0.5);
        }
    }
}

/// Microseconds since 1970, or since `epoch`.
fn timestamp(epoch: i64, micros: i64) -> Timestamp {
    let nanos = u32::try_from(micros.rem_euclid(1_000_000)).unwrap_or_default() * 1000;
    Timestamp { seconds: epoch + micros.div_euclid(1_000_000), nanos }
}

/// Keeps the changes of a database that will be called `name` by the time they are asked for.
pub async fn begin_as(
    dataset: &DatasetName,
    settings: &Settings,
    name: &str,
    capture: &CaptureId,
) -> Result<LogPosition> {
    let at = At { dataset: dataset.clone(), settings: settings.clone(), exclude: Vec::new() };
    let conn = at.conn().await?;
    let known = Known::load(&at, &conn).await?;
    let begun = Slot { at: &at, conn: &conn, name: &slot::name(capture, name) }.begin(&known).await?;
    Ok(Position::at(begun).log())
}

/// Takes [`begin_as`] back.
pub async fn end_as(
    dataset: &DatasetName,
    settings: &Settings,
    name: &str,
    capture: &CaptureId,
) -> Result<()> {
    let at = At { dataset: dataset.clone(), settings: settings.clone(), exclude: Vec::new() };
    let conn = at.conn().await?;
    Slot { at: &at, conn: &conn, name: &slot::name(capture, name) }.drop().await
}

#[async_trait]
impl LiveDatabase for PostgresLive {
    async fn begin(&self, capture: &CaptureId) -> Result<LogPosition> {
        let known = self.look().await?;
        let conn = self.conn().await?;
        let slot = Slot { at: &self.at, conn: &conn, name: &self.slot(capture) };
        let begun = slot.begin(&known).await?;
        self.keep(conn);
        Ok(Position::at(begun).log())
    }

    async fn changes(&self, capture: &CaptureId, after: &LogPosition, wait: Duration) -> Result<Changes> {
        let deadline = Instant::now() + wait;
        let position = Position::of(after).map_err(|e| Failure::permanent(self.at.item(), e.to_string()))?;
        let known = self.known().await?;
        let at = &self.at;
        let mut reading = self.reading(capture, position, &known).await?;
        let asked = reading.end(at).await?;
        let mut part = Part::default();
        loop {
            let begun = Instant::now();
            if !reading.is_open() {
                let now = reading.end(at).await?;
                let flushed = reading.flushed(at, &now).await?;
                if !reading.has_reached(flushed) {
                    reading.open(at, flushed).await?;
                }
            }
            reading.fill(at, &known, &mut part).await?;
            let all = reading.has_reached(asked.written);
            let enough = !part.is_empty() && (part.is_full() || !reading.is_open());
            if enough || (all && Instant::now() >= deadline) {
                break;
            }
            if all {
                let pause = begun.elapsed().max(STEP);
                tokio::time::sleep_until((Instant::now() + pause).min(deadline)).await;
            }
        }
        reading.seen(at, &part.xids).await?;
        let is_end = reading.has_reached(asked.written);
        if is_end {
            let slot = Slot { at, conn: &reading.conn, name: &self.slot(capture) };
            slot.check_definitions(&known).await?;
        }
        let told =
            if is_end { timestamp(0, asked.now) } else { timestamp(EPOCH, part.at.unwrap_or_default()) };
        let until = reading.position.log();
        locked(&self.readings).insert(capture.clone(), reading);
        let (tables, changes) = part.into_changes();
        Ok(Changes { tables, changes, until, at: told, is_end })
    }

    async fn confirm(&self, capture: &CaptureId, until: &LogPosition) -> Result<()> {
        let position = Position::of(until).map_err(|e| Failure::permanent(self.at.item(), e.to_string()))?;
        let conn = self.conn().await?;
        let slot = Slot { at: &self.at, conn: &conn, name: &self.slot(capture) };
        slot.advance(position.base).await?;
        self.keep(conn);
        Ok(())
    }

    async fn end(&self, capture: &CaptureId, keep_fence: bool) -> Result<()> {
        drop(locked(&self.readings).remove(capture));
        let conn = self.conn().await?;
        if !keep_fence {
            Fence { at: &self.at, conn: &conn, capture }.open().await?;
        }
        Slot { at: &self.at, conn: &conn, name: &self.slot(capture) }.drop().await?;
        self.keep(conn);
        Ok(())
    }

    async fn kept(&self, capture: &CaptureId) -> Result<Option<u64>> {
        let conn = self.conn().await?;
        let kept = Slot { at: &self.at, conn: &conn, name: &self.slot(capture) }.kept().await?;
        self.keep(conn);
        Ok(kept)
    }

    async fn rows(&self, table: &TableName, keys: &[Key], budget: u64) -> Result<RowsChunk> {
        let item = || format!("{}, table {table} of {}", self.at.dataset, self.at.settings.location());
        let mut known = self.known().await?;
        if known.schema.table(table).is_none() {
            known = self.look().await?;
        }
        let shape = Shape::of(&known.schema, table).map_err(|e| Failure::permanent(item(), e.to_string()))?;
        let conn = self.rows_conn(&known).await?;
        let usual = self.usual(&known, table);
        let found = Keyed { table, shape: &shape, keys, budget, usual }.read(&conn).await;
        let Found { chunk, usable } = found.map_err(|refused| match refused {
            Refused::Server(error) => failed(item(), "its rows cannot be read by key", &error),
            Refused::Key(bad) => Failure::permanent(item(), bad.to_string()),
        })?;
        self.learn(table, usual, &chunk);
        let mut idle = locked(&self.idle);
        if usable && idle.len() < KEPT {
            idle.push(conn);
        }
        Ok(chunk)
    }

    async fn fence(&self, capture: &CaptureId, wait: Duration) -> Result<()> {
        let conn = self.conn().await?;
        Fence { at: &self.at, conn: &conn, capture }.close(wait).await?;
        self.keep(conn);
        Ok(())
    }

    async fn unfence(&self, capture: &CaptureId) -> Result<()> {
        let conn = self.conn().await?;
        Fence { at: &self.at, conn: &conn, capture }.open().await?;
        self.keep(conn);
        Ok(())
    }
}
