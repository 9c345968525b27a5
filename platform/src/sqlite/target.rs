//! The target's side of an SQLite database: built beside its final place, put there in one step, taken back from there.
//!
//! Files beside `main.db`: `main.db.handover-<migration>` is being built; `main.db.handover-state` says what undo needs to
//! know; `main.db.handover-undo` is what stood there before; `main.db.handover-kept-<migration>` was published by one that was aborted.

mod connection;
mod kept;
mod place;
mod record;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::change::LogPosition;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::{CaptureId, DatasetName, MigrationId};
use handover_engine::ports::{DatabaseTarget, KeyedTarget, LiveDatabase, Result};
use handover_engine::rows::{Key, KeyRange, KeyedRows, RowsChunk, Schema, TableName};
use rusqlite::Connection;

use self::connection::CHECKPOINT_PAGES;
use self::place::Place;
use super::error::{self, Error, failed};
use super::live::SqliteLive;
use super::{catalog, estimate, read, write};
use crate::tree::blocking;

/// What of the log may wait for the end of a cut-over to be brought into the database.
const LAST_BYTES: u32 = 32 << 20;
/// How long others may read it when that is brought forward.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// What a migration builds beside a place.
pub fn partial(dataset: &DatasetName, path: PathBuf, migration: &MigrationId) -> PathBuf {
    Place::new(dataset.clone(), path, migration.clone()).partial().to_owned()
}

/// A database to be built.
#[derive(Clone)]
pub struct SqliteTarget {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: DatasetName,
    place: Place,
    /// The connection to what is being built (or, when nothing is, to what was published) and its schema.
    open: Mutex<Option<(Connection, Arc<Schema>)>>,
    /// One thing at a time: work that a caller no longer waits for goes on to its end, and must not meet an undo.
    gate: Arc<tokio::sync::Mutex<()>>,
}

type Open<'a> = MutexGuard<'a, Option<(Connection, Arc<Schema>)>>;

impl SqliteTarget {
    /// The database whose final place is `path` (behind it, where that is a symbolic link). The published file gets the mode
    /// and owner of the source's; where the source does not tell, mode 0640.
    pub fn new(dataset: DatasetName, path: PathBuf, migration: &MigrationId) -> Self {
        let place = Place::new(dataset.clone(), path, migration.clone());
        Self { shared: Arc::new(Shared { dataset, place, open: Mutex::new(None), gate: Arc::default() }) }
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

    /// What is being built, as a database whose changes are kept.
    async fn unfinished(&self) -> Result<SqliteLive> {
        self.run(|shared| {
            shared.close();
            Ok(())
        })
        .await?;
        let path = self.shared.place.partial().to_owned();
        Ok(SqliteLive::new(self.shared.dataset.clone(), path, Vec::new()))
    }
}

impl Shared {
    fn failed<E: Into<Error>>(&self, what: &str) -> impl Fn(E) -> Failure {
        move |error| failed(&self.dataset, self.place.newest(), what, error)
    }

    fn lock(&self) -> Open<'_> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the database that is being built, or else the published one.
    fn with<T>(&self, what: &str, work: impl FnOnce(&Connection, &Schema) -> error::Result<T>) -> Result<T> {
        let mut open = self.lock();
        let (db, schema) = match open.take() {
            Some(open) => open,
            None => {
                let db = self.place.open_newest()?;
                let schema = catalog::read(&db, &[]).map_err(self.failed(what))?;
                (db, Arc::new(schema))
            }
        };
        let result = work(&db, &schema).map_err(self.failed(what));
        *open = Some((db, schema));
        result
    }

    fn close(&self) {
        *self.lock() = None;
    }

    fn prepare(&self, schema: &Schema) -> Result<()> {
        self.close();
        self.place.begin()?;
        let db = self.place.open_partial(&schema.settings)?;
        write::make_tables(&db, schema).map_err(self.failed("its tables cannot be made"))?;
        drop(db);
        self.place.remember_settings(schema)
    }

    fn apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        let mut tables: Vec<&str> = chunks.iter().map(|chunk| chunk.header.table.name.as_str()).collect();
        tables.dedup();
        self.change(&format!("rows of {} cannot be written", tables.join(", ")), |db, schema| {
            chunks.iter().try_for_each(|chunk| write::apply(db, schema, chunk))
        })
    }

    /// Changes rows in one transaction. One that is not committed (a full disk) is rolled back when it is dropped. The commit
    /// is durable: synchronous = FULL.
    fn change(&self, what: &str, work: impl FnOnce(&Connection, &Schema) -> error::Result<()>) -> Result<()> {
        self.with(what, |db, schema| in_one_transaction(db, |db| work(db, schema)))
    }

    /// The same by key. What is being built has a write-ahead log: commits go there without waiting for the disk, and are durable once
    /// the log is.
    fn change_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        self.with("changed rows cannot be written", |db, schema| {
            if self.place.is_building() {
                db.pragma_update(None, "synchronous", "NORMAL")?;
            }
            let done = in_one_transaction(db, |db| {
                rows.iter().try_for_each(|rows| write::apply_keys(db, schema, rows))
            });
            db.pragma_update(None, "synchronous", "FULL")?;
            done
        })
    }

    /// Makes the log durable. Whoever puts it into the database makes that durable, too.
    fn make_durable(&self) -> Result<()> {
        if !self.place.is_building() {
            return Ok(());
        }
        // The gate is held: nobody commits meanwhile, nor is the log put into the database and removed.
        self.place.sync_log()
    }

    /// Brings the log into the database, so that writers need not wait for that, whatever its length is and wherever in the database its
    /// pages belong. From now on it may grow longer: mostly it is `finish` that does the same again.
    fn flush(&self) -> Result<bool> {
        if !self.place.is_building() {
            return Ok(false);
        }
        let busy = self.with("its log cannot be brought into it", |db, _| {
            let pages = LAST_BYTES / db.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))?;
            db.pragma_update(None, "wal_autocheckpoint", pages.max(CHECKPOINT_PAGES))?;
            db.busy_timeout(FLUSH_WAIT)?;
            let busy = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
            db.busy_timeout(estimate::BUSY)?;
            Ok(busy?)
        })?;
        // Publishing would fail for that, when there is no way back but an abort.
        if busy {
            let hint =
                "another process reads it (a backup, say): end that, or keep it away, then cut over again";
            return Err(self.place.in_use(self.place.partial()).hint(hint));
        }
        Ok(true)
    }

    /// The log goes into the database as it did before.
    fn resume_flushing(&self) -> Result<()> {
        if !self.place.is_building() {
            return Ok(());
        }
        self.with("its log cannot be kept short", |db, _| {
            Ok(db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?)
        })
    }

    fn finish(&self, schema: &Schema) -> Result<()> {
        if !self.place.is_building() {
            return self.place.published();
        }
        self.with("indexes, views and triggers cannot be made", |db, _| write::finish(db, schema))?;
        // What was read of the catalog before is no longer true.
        self.close();
        self.place.remember_settings(schema)
    }

    fn publish(&self) -> Result<()> {
        if !self.place.is_building() {
            return self.place.published();
        }
        if !self.place.is_checked()? {
            self.check("cannot be published")?;
        }
        self.close();
        self.place.publish()
    }

    /// Reads the whole database for damage.
    fn check(&self, what: &str) -> Result<()> {
        self.with(what, |db, _| {
            let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if found == "ok" { Ok(()) } else { Err(Error::Check(found)) }
        })
    }

    /// Makes the indexes of a copy that is followed from then on. It is checked now: at the cut-over users wait.
    fn index(&self, schema: &Schema) -> Result<()> {
        self.with("indexes cannot be made", |db, _| write::index(db, schema))?;
        self.check("it is damaged")?;
        self.place.remember_check()
    }

    fn occupied(&self) -> Result<Option<DatabaseFacts>> {
        let path = self.place.path();
        if !path.exists() {
            return Ok(None);
        }
        let facts = estimate::facts(path, &[], estimate::BUSY)
            .map_err(|e| failed(&self.dataset, path, "cannot be read", e));
        // Whatever it is, it stands there.
        let bytes = std::fs::metadata(path).map_or(1, |meta| meta.len().max(1));
        Ok(Some(facts.unwrap_or_else(|failure| DatabaseFacts {
            engine: "sqlite".to_owned(),
            location: path.display().to_string(),
            bytes,
            notes: vec![failure.to_string()],
            ..DatabaseFacts::default()
        })))
    }
}

fn in_one_transaction(
    db: &Connection,
    work: impl FnOnce(&Connection) -> error::Result<()>,
) -> error::Result<()> {
    let transaction = db.unchecked_transaction()?;
    work(db)?;
    Ok(transaction.commit()?)
}

#[async_trait]
impl KeyedTarget for SqliteTarget {
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        let rows = rows.to_vec();
        self.run(move |shared| shared.change_keys(&rows)).await
    }

    async fn make_durable(&self) -> Result<()> {
        self.run(Shared::make_durable).await
    }

    async fn flush(&self) -> Result<bool> {
        self.run(Shared::flush).await
    }

    async fn resume_flushing(&self) -> Result<()> {
        self.run(Shared::resume_flushing).await
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        self.run(move |shared| shared.change("a table cannot be emptied", |db, _| write::clear(db, &table)))
            .await
    }

    /// None: triggers fire for what foreign keys do, so the source tells of each row.
    async fn children(&self, _table: &TableName, _columns: &[u32], _values: &[Key]) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl DatabaseTarget for SqliteTarget {
    async fn occupied(&self) -> Result<Option<DatabaseFacts>> {
        self.run(Shared::occupied).await
    }

    async fn is_prepared(&self) -> Result<bool> {
        self.run(|shared| shared.place.is_prepared()).await
    }

    async fn prepare(&self, schema: &Schema) -> Result<()> {
        let schema = schema.clone();
        self.run(move |shared| shared.prepare(&schema)).await
    }

    async fn discard(&self) -> Result<()> {
        self.run(|shared| {
            shared.close();
            shared.place.discard()
        })
        .await
    }

    async fn apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        let chunks = chunks.to_vec();
        self.run(move |shared| shared.apply(&chunks)).await
    }

    async fn index(&self, schema: &Schema) -> Result<()> {
        let schema = schema.clone();
        self.run(move |shared| shared.index(&schema)).await
    }

    async fn keep(&self, capture: &CaptureId) -> Result<LogPosition> {
        self.unfinished().await?.begin(capture).await
    }

    async fn keep_none(&self, capture: &CaptureId) -> Result<()> {
        self.unfinished().await?.end(capture, false).await
    }

    async fn finish(&self, schema: &Schema) -> Result<()> {
        let schema = schema.clone();
        self.run(move |shared| shared.finish(&schema)).await
    }

    async fn reread(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk> {
        self.reread_part(table, range, u64::MAX).await
    }

    async fn reread_part(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        let (table, range) = (table.clone(), range.clone());
        self.run(move |shared| {
            let what = format!("table {table} cannot be read again");
            shared.with(&what, |db, schema| read::chunk(db, schema, &table, &range, budget))
        })
        .await
    }

    async fn reread_schema(&self) -> Result<Schema> {
        self.run(|shared| {
            let mut schema = shared.with("cannot be read again", |db, _| catalog::read(db, &[]))?;
            shared.place.recall_settings(&mut schema)?;
            Ok(schema)
        })
        .await
    }

    async fn publish(&self) -> Result<()> {
        self.run(Shared::publish).await
    }

    async fn undo(&self) -> Result<()> {
        self.run(|shared| {
            shared.close();
            shared.place.undo(|| Ok(()))
        })
        .await
    }

    async fn forget(&self) -> Result<()> {
        self.run(|shared| {
            shared.close();
            shared.place.forget()
        })
        .await
    }
}
