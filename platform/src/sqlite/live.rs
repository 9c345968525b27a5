//! Following an SQLite database: triggers write the keys of changed rows into a table of ours, in the writer's own transaction,
//! so that a change is kept if and only if it happens, and is told only when it can be seen.
//!
//! `__handover_changes_<capture>` keeps the keys; `__handover_rows_<capture>` has one row whose number a VACUUM would change, as it
//! may change those of every table without an INTEGER PRIMARY KEY, and in it the inode of the file; `__handover_definitions_<capture>`
//! keeps what the schema was; `__handover_fence` is there while writers are refused.

mod check;
mod definitions;
mod fence;
mod known;
mod log;
mod triggers;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{LiveDatabase, Result};
use handover_engine::rows::{Key, RowsChunk, Schema, TableKey, TableName};
use rusqlite::{Connection, TransactionBehavior};
use tokio::time::Instant;

use self::known::Known;
pub(super) use self::triggers::strip;
use super::catalog::{self, OWN, quote};
use super::error::{self, Error, failed, item};
use super::{estimate, held, read};
use crate::tree::blocking;

/// How often the table is looked at while there is nothing.
const LOOK: Duration = Duration::from_millis(20);
/// The number of the one row that VACUUM would number anew.
const MARK: i64 = 1_000_003;
/// What a change takes, about: its number, its table's name and a key.
const CHANGE_BYTES: u64 = 64;

/// A database that is followed.
#[derive(Clone)]
pub struct SqliteLive {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: DatasetName,
    path: PathBuf,
    exclude: Vec<String>,
    /// The schema as it was read last.
    known: Mutex<Option<Arc<Known>>>,
}

impl SqliteLive {
    /// The database at `path` without the excluded tables.
    pub fn new(dataset: DatasetName, path: PathBuf, exclude: Vec<String>) -> Self {
        Self { shared: Arc::new(Shared { dataset, path, exclude, known: Mutex::default() }) }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(&self.shared.dataset, move || work(&shared)).await
    }
}

/// The names of a capture's tables.
struct Names {
    changes: String,
    rows: String,
    definitions: String,
    /// Its triggers' names begin so.
    triggers: String,
}

impl Names {
    fn of(capture: &CaptureId) -> Self {
        Self {
            changes: format!("{OWN}changes_{capture}"),
            rows: format!("{OWN}rows_{capture}"),
            definitions: format!("{}{capture}", definitions::beginning()),
            triggers: format!("{OWN}{capture}_"),
        }
    }

    fn tables(&self) -> [&str; 3] {
        [&self.changes, &self.rows, &self.definitions]
    }
}

/// How many values a key has.
fn width(key: &TableKey) -> usize {
    if let TableKey::Columns(columns) = key { columns.len() } else { 1 }
}

/// The most columns of a key, which the table of changes has room for.
fn widest(schema: &Schema) -> usize {
    schema.tables.iter().filter(|table| table.followed).map(|table| width(&table.key)).max().unwrap_or(1)
}

impl Shared {
    fn failed<E: Into<Error>>(&self, what: &str) -> impl Fn(E) -> Failure {
        move |error| failed(&self.dataset, &self.path, what, error)
    }

    fn item(&self) -> String {
        item(&self.dataset, &self.path)
    }

    fn reader(&self) -> Result<Connection> {
        estimate::open(&self.path, "", estimate::BUSY).map_err(self.failed("cannot be opened"))
    }

    /// Opens the database to be written to.
    fn writer(&self, wait: Duration) -> rusqlite::Result<Connection> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        db.busy_timeout(wait)?;
        Ok(db)
    }

    /// Changes the database in one transaction, which waits for writers as long as `wait`.
    fn change(
        &self,
        what: &str,
        wait: Duration,
        work: impl FnOnce(&Connection) -> error::Result<()>,
    ) -> Result<()> {
        let done = || {
            let mut db = self.writer(wait)?;
            // What others have written is theirs to bring from the log into the database: behind a fence that would take the longer the
            // larger the database is.
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            work(&transaction)?;
            Ok(transaction.commit()?)
        };
        done().map_err(|error: Error| failed(&self.dataset, &self.path, what, error))
    }

    fn begin(&self, capture: &CaptureId) -> Result<LogPosition> {
        let names = Names::of(capture);
        self.change("its changes cannot be kept", estimate::BUSY, |db| {
            if !db.table_exists(None, names.changes.as_str())? {
                let schema = catalog::read(db, &self.exclude)?;
                // Without declared types: each value keeps its storage class.
                let columns: String = (0..widest(&schema)).map(|n| format!(", k{n}")).collect();
                db.execute_batch(&format!(
                    "CREATE TABLE {0} (seq INTEGER PRIMARY KEY, tbl TEXT NOT NULL{columns}); \
                     INSERT INTO {0} (seq, tbl) VALUES (0, ''); \
                     CREATE TABLE {1} (inode); INSERT INTO {1} (rowid, inode) VALUES ({MARK}, {2})",
                    quote(&names.changes),
                    quote(&names.rows),
                    self.inode()?,
                ))?;
                triggers::capture(db, &schema, &names)?;
                definitions::keep(db, &schema, &names)?;
            }
            Ok(())
        })?;
        let end =
            self.reader()?.query_row(&format!("SELECT max(seq) FROM {}", quote(&names.changes)), [], |row| {
                row.get::<_, i64>(0)
            });
        Ok(LogPosition(end.map_err(self.failed("its changes cannot be read"))?.to_string()))
    }

    fn end(&self, capture: &CaptureId, keep_fence: bool) -> Result<()> {
        held::let_go(&self.path);
        let names = Names::of(capture);
        if !self.path.exists() {
            return Ok(());
        }
        let has_any = format!(
            "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE substr(name, 1, {}) = '{OWN}')",
            OWN.len()
        );
        let any = self.reader()?.query_row(&has_any, [], |row| row.get::<_, bool>(0));
        if !any.map_err(self.failed("cannot be read"))? {
            return Ok(());
        }
        self.change("what kept its changes cannot be removed", estimate::BUSY, |db| {
            triggers::drop_all(db, &names.triggers)?;
            if !keep_fence {
                triggers::unfence(db)?;
            }
            for table in names.tables() {
                db.execute_batch(&format!("DROP TABLE IF EXISTS {}", quote(table)))?;
            }
            Ok(())
        })
    }

    fn kept(&self, capture: &CaptureId) -> Result<Option<u64>> {
        let names = Names::of(capture);
        let unreadable = "its changes cannot be read";
        let db = self.reader()?;
        if !db.table_exists(None, names.changes.as_str()).map_err(self.failed(unreadable))? {
            return Ok(None);
        }
        let count = format!("SELECT max(seq) - min(seq) FROM {}", quote(&names.changes));
        let count = db.query_row(&count, [], |row| row.get::<_, i64>(0));
        Ok(Some(u64::try_from(count.map_err(self.failed(unreadable))?).unwrap_or(0) * CHANGE_BYTES))
    }

    fn rows(&self, table: &TableName, keys: &[Key], budget: u64) -> Result<RowsChunk> {
        let what = format!("rows of {table} cannot be read");
        let db = self.reader()?;
        // One view for the schema and the rows.
        db.execute_batch("BEGIN").map_err(self.failed(&what))?;
        let known = self.schema(&db).map_err(self.failed(&what))?;
        self.check_table(&db, &known, table)?;
        read::keyed(&db, &known.schema, table, keys, budget).map_err(self.failed(&what))
    }
}

#[async_trait]
impl LiveDatabase for SqliteLive {
    async fn begin(&self, capture: &CaptureId) -> Result<LogPosition> {
        let capture = capture.clone();
        self.run(move |shared| shared.begin(&capture)).await
    }

    async fn changes(&self, capture: &CaptureId, after: &LogPosition, wait: Duration) -> Result<Changes> {
        let deadline = Instant::now() + wait;
        loop {
            let (name, from) = (capture.clone(), after.clone());
            let is_over = Instant::now() >= deadline;
            if is_over || self.run(move |shared| shared.has_changes(&name, &from)).await? {
                let (name, from) = (capture.clone(), after.clone());
                return self.run(move |shared| shared.changes(&name, &from)).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn confirm(&self, capture: &CaptureId, until: &LogPosition) -> Result<()> {
        let (capture, until) = (capture.clone(), until.clone());
        self.run(move |shared| shared.confirm(&capture, &until)).await
    }

    async fn end(&self, capture: &CaptureId, keep_fence: bool) -> Result<()> {
        let capture = capture.clone();
        self.run(move |shared| shared.end(&capture, keep_fence)).await
    }

    async fn kept(&self, capture: &CaptureId) -> Result<Option<u64>> {
        let capture = capture.clone();
        self.run(move |shared| shared.kept(&capture)).await
    }

    async fn rows(&self, table: &TableName, keys: &[Key], budget: u64) -> Result<RowsChunk> {
        let (table, keys) = (table.clone(), keys.to_vec());
        self.run(move |shared| shared.rows(&table, &keys, budget)).await
    }

    async fn fence(&self, _capture: &CaptureId, wait: Duration) -> Result<()> {
        self.run(move |shared| shared.fence(wait)).await
    }

    async fn unfence(&self, _capture: &CaptureId) -> Result<()> {
        self.run(Shared::unfence).await
    }
}
