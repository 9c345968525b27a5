//! The source's side: a database, and views of it at one moment.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Database, DatabaseSnapshot, Result};
use handover_engine::rows::{Key, KeyRange, RowsChunk, Schema, SnapshotId, TableName, text};

use crate::Settings;
use crate::accounts::Accounts;
use crate::catalog::Reader;
use crate::connect::Conn;
use crate::error::{failed, is_lost_snapshot};
use crate::needs::needs;
use crate::read::Cursor;
use crate::shape::Shape;

/// Queries that are kept running for their next chunk, and connections for the next query.
const KEPT: usize = 8;
/// Tables smaller than this are not worth cutting.
const WORTH_CUTTING: u64 = 16 << 20;
/// Rows that cuts are chosen from, for each part.
const SAMPLE: u64 = 100;
/// Pages that they are chosen from at least: rows of one page often have neighbouring keys, and count for little more than one.
const SAMPLE_PAGES: u64 = 400;
/// Bytes of a page.
const PAGE: u64 = 8 << 10;

/// A database to be read.
#[derive(Debug, Clone)]
pub struct PostgresDatabase {
    dataset: DatasetName,
    settings: Settings,
    exclude: Vec<String>,
}

impl PostgresDatabase {
    /// The database of `settings` without the excluded tables (`schema.table`).
    pub fn new(dataset: DatasetName, settings: &Settings, exclude: Vec<String>) -> Self {
        Self { dataset, settings: settings.clone(), exclude }
    }

    async fn take(&self) -> Result<Snapshot> {
        let holder = Conn::open(&self.dataset, &self.settings).await?;
        let item = format!("{}, {}", self.dataset, self.settings.location());
        let refused = |error| failed(&item, "no snapshot can be taken", &error);
        // Before the snapshot, so that what was committed behind this position is either seen or follows it.
        let position = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
                        ELSE pg_catalog.pg_current_wal_lsn() END";
        let position = &holder.text(position).await.map_err(refused)?.unwrap_or_default();
        holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(refused)?;
        let sql = "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot(), \
                   extract(epoch FROM pg_catalog.clock_timestamp())";
        let rows = holder.rows(sql).await.map_err(refused)?;
        let row: Vec<String> = rows.into_iter().flatten().flatten().collect();
        let [exported, visible, taken] = &row[..] else {
            return Err(Failure::permanent(item, "the server exports no snapshot"));
        };
        let reader = self.reader(&holder);
        reader.lock_tables().await?;
        let mut schema = reader.schema(Some(exported)).await?;
        self.add_accounts(&holder, &mut schema).await?;
        schema.state.insert("wal_position".to_owned(), position.clone());
        Ok(Snapshot {
            dataset: self.dataset.clone(),
            settings: self.settings.clone(),
            id: SnapshotId(format!("{position} {visible} {exported} {taken}")),
            exported: exported.clone(),
            schema,
            holder,
            idle: Mutex::default(),
            cursors: Mutex::default(),
        })
    }

    fn reader<'a>(&'a self, conn: &'a Conn) -> Reader<'a> {
        Reader { dataset: &self.dataset, settings: &self.settings, conn, exclude: &self.exclude }
    }

    /// Adds the roles that the settings name; what an operator should know of them.
    async fn add_accounts(&self, conn: &Conn, schema: &mut Schema) -> Result<Vec<String>> {
        let names = &self.settings.accounts;
        if names.is_empty() {
            return Ok(vec!["roles and their passwords do not move (`accounts` in `url`)".to_owned()]);
        }
        let item = format!("{}, {}", self.dataset, self.settings.location());
        let mut notes = Accounts { item, conn }.add(names, schema).await?;
        notes.push(format!("the roles {} move, with their passwords", names.join(", ")));
        Ok(notes)
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn facts(&self) -> Result<DatabaseFacts> {
        let conn = Conn::open(&self.dataset, &self.settings).await?;
        let reader = self.reader(&conn);
        let mut schema = reader.schema(None).await?;
        let notes = self.add_accounts(&conn, &mut schema).await?;
        let mut facts = reader.facts(&schema).await?;
        facts.notes.extend(notes);
        let item = format!("{}, {}", self.dataset, self.settings.location());
        facts.needs = needs(&item, &schema, self.settings.owners);
        Ok(facts)
    }

    async fn snapshot(&self) -> Result<Arc<dyn DatabaseSnapshot>> {
        Ok(Arc::new(self.take().await?))
    }
}

/// A view of a database. The holder's transaction keeps it; readers share what it has exported.
struct Snapshot {
    dataset: DatasetName,
    settings: Settings,
    id: SnapshotId,
    exported: String,
    schema: Schema,
    holder: Conn,
    idle: Mutex<Vec<Conn>>,
    cursors: Mutex<Vec<Cursor>>,
}

impl Snapshot {
    fn item(&self, table: &TableName) -> String {
        format!("{}, table {table} of {}", self.dataset, self.settings.location())
    }

    fn gone(&self, table: &TableName) -> Failure {
        Failure::transient(self.item(table), "the snapshot is gone: the server ended its session")
            .hint("it is taken anew, and what has been copied is checked against it")
    }

    /// What was just read was read under the holder's locks. Readers keep the snapshot by themselves, but without those
    /// locks a table may be emptied or rewritten, and its rows are then missing from every snapshot.
    async fn still_holds(&self, table: &TableName) -> Result<()> {
        self.holder.batch_execute("SELECT 1").await.map_err(|_| self.gone(table))
    }

    fn failed(&self, table: &TableName, error: &tokio_postgres::Error) -> Failure {
        if is_lost_snapshot(error) || self.holder.is_closed() {
            return self.gone(table);
        }
        failed(self.item(table), "its rows cannot be read", error)
    }

    /// A reader's connection, inside the snapshot.
    async fn conn(&self, table: &TableName) -> Result<Conn> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(conn) = idle.filter(|conn| !conn.is_closed()) {
            return Ok(conn);
        }
        let conn = Conn::open(&self.dataset, &self.settings).await?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            crate::sql::literal(&self.exported)
        );
        conn.batch_execute(&begin).await.map_err(|e| self.failed(table, &e))?;
        let encoding = self.schema.settings.get("encoding").map_or("UTF8", String::as_str);
        conn.raw_text(encoding).await.map_err(|e| self.failed(table, &e))?;
        Ok(conn)
    }

    fn shape(&self, table: &TableName) -> Result<Shape> {
        Shape::of(&self.schema, table).map_err(|e| Failure::permanent(self.item(table), e.to_string()))
    }

    /// The running query that stands where a range begins, if any.
    fn resume(&self, table: &TableName, range: &KeyRange) -> Option<Cursor> {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cursors.iter().position(|c| c.table == *table && c.range == *range && !c.is_done())?;
        Some(cursors.remove(at))
    }

    async fn open(&self, table: &TableName, range: &KeyRange) -> Result<Cursor> {
        let shape = self.shape(table)?;
        let malformed = |e: crate::shape::BadShape| Failure::permanent(self.item(table), e.to_string());
        let sql = shape.read(range).map_err(malformed)?;
        let conn = self.conn(table).await?;
        Cursor::open(conn, table, shape, range, &sql).await.map_err(|e| self.failed(table, &e))
    }

    /// Keeps a cursor for its next chunk, or its connection for another query. The one longest unused goes.
    fn keep(&self, cursor: Cursor) {
        if cursor.is_done() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(cursor.into_conn());
            }
        } else {
            let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            cursors.push(cursor);
            if cursors.len() > KEPT {
                cursors.remove(0);
            }
        }
    }

    /// Keys of a sample of rows, in order, in text form.
    async fn sample(&self, table: &TableName, percent: f64) -> Result<Vec<Key>> {
        let shape = self.shape(table)?;
        let sql = format!(
            "COPY (SELECT {} FROM ONLY {} TABLESAMPLE SYSTEM ({percent}) ORDER BY {}) TO STDOUT",
            shape.key_columns(),
            shape.table,
            shape.order()
        );
        let conn = self.conn(table).await?;
        let mut cursor = Cursor::open(conn, table, shape, &KeyRange::default(), &sql)
            .await
            .map_err(|e| self.failed(table, &e))?;
        let chunk = cursor.chunk(u64::MAX).await.map_err(|e| self.failed(table, &e))?;
        self.keep(cursor);
        let rows =
            text::rows(&chunk.block).map_err(|e| Failure::permanent(self.item(table), e.to_string()))?;
        Ok(rows.map(|row| Key(Bytes::copy_from_slice(row))).collect())
    }
}

#[async_trait]
impl DatabaseSnapshot for Snapshot {
    fn id(&self) -> SnapshotId {
        self.id.clone()
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    async fn read(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        let mut cursor = match self.resume(table, range) {
            Some(cursor) => cursor,
            None => self.open(table, range).await?,
        };
        let chunk = cursor.chunk(budget).await.map_err(|e| self.failed(table, &e))?;
        self.still_holds(table).await?;
        self.keep(cursor);
        Ok(chunk)
    }

    async fn split(&self, table: &TableName, parts: usize) -> Result<Vec<Key>> {
        let spec = self.schema.table(table);
        let Some(spec) = spec.filter(|s| parts > 1 && s.estimated_bytes >= WORTH_CUTTING) else {
            return Ok(Vec::new());
        };
        let rows = spec.estimated_rows.max(spec.estimated_bytes / 1000).max(1);
        let pages = (spec.estimated_bytes / PAGE).max(1);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let share = |wanted: u64, all: u64| 100.0 * wanted as f64 / all as f64;
        let percent = share(SAMPLE * parts as u64, rows).max(share(SAMPLE_PAGES, pages)).clamp(0.001, 100.0);
        let keys = self.sample(table, percent).await?;
        let mut cuts: Vec<Key> =
            (1..parts).filter_map(|n| keys.get(keys.len() * n / parts).cloned()).collect();
        cuts.dedup();
        Ok(cuts)
    }
}
