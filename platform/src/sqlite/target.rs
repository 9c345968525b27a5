//! The target's side of an SQLite database: built beside its final place, put there in one step, taken back from there.
//!
//! Files beside `main.db`: `main.db.handover-<migration>` is being built; `main.db.handover-state` says what undo needs to
//! know; `main.db.handover-undo` is what stood there before.

mod place;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::{DatabaseTarget, Result};
use handover_engine::rows::{KeyRange, RowsChunk, Schema, TableName};
use rusqlite::Connection;

use self::place::Place;
use super::error::failed;
use super::{database, read, write};
use crate::tree::blocking;

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
}

type Open<'a> = MutexGuard<'a, Option<(Connection, Arc<Schema>)>>;

impl SqliteTarget {
    /// The database whose final place is `path`.
    pub fn new(dataset: DatasetName, path: PathBuf, migration: &MigrationId) -> Self {
        let place = Place::new(dataset.clone(), path, migration.clone());
        Self { shared: Arc::new(Shared { dataset, place, open: Mutex::new(None) }) }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(&self.shared.dataset, move || work(&shared)).await
    }
}

impl Shared {
    fn failed<'a>(&'a self, what: &'a str) -> impl Fn(rusqlite::Error) -> Failure + 'a {
        move |error| failed(&self.dataset, self.place.partial(), what, error)
    }

    fn lock(&self) -> Open<'_> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the database that is being built, or else the published one.
    fn with<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Connection, &Schema) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut open = self.lock();
        if open.is_none() {
            let db = self.place.open_newest()?;
            let schema = read::schema(&db, &[]).map_err(self.failed(what))?;
            *open = Some((db, Arc::new(schema)));
        }
        match &*open {
            Some((db, schema)) => work(db, schema).map_err(self.failed(what)),
            None => Err(Failure::permanent(self.dataset.to_string(), "there is no database to work on")),
        }
    }

    fn close(&self) {
        *self.lock() = None;
    }

    fn prepare(&self, schema: &Schema) -> Result<()> {
        self.close();
        self.place.begin()?;
        let failed = self.failed("cannot be prepared");
        let db = self.place.open_partial(&schema.settings)?;
        write::drop_triggers(&db).map_err(&failed)?;
        write::make_tables(&db, schema).map_err(&failed)?;
        Ok(())
    }

    fn apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        let tables: Vec<String> = chunks.iter().map(|chunk| chunk.header.table.to_string()).collect();
        self.with(&format!("rows of {} cannot be written", tables.join(", ")), |db, schema| {
            db.execute_batch("BEGIN IMMEDIATE")?;
            let applied = chunks.iter().try_for_each(|chunk| write::apply(db, schema, chunk));
            // Durable with the commit: synchronous = FULL.
            let ended = applied.and_then(|()| db.execute_batch("COMMIT"));
            if ended.is_err() {
                // A failed commit (a full disk) may have rolled back already.
                let _ = db.execute_batch("ROLLBACK");
            }
            ended
        })
    }

    fn publish(&self) -> Result<()> {
        if !self.place.partial().exists() {
            return Ok(());
        }
        self.with("cannot be published", |db, _| {
            let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if found == "ok" {
                Ok(())
            } else {
                Err(rusqlite::Error::InvalidParameterName(format!("quick_check: {found}")))
            }
        })?;
        self.close();
        self.place.publish()
    }
}

#[async_trait]
impl DatabaseTarget for SqliteTarget {
    async fn occupied(&self) -> Result<Option<DatabaseFacts>> {
        self.run(|shared| {
            let path = shared.place.path();
            if !path.exists() {
                return Ok(None);
            }
            let facts = shared.place.open_published().and_then(|db| {
                database::facts(&db, path, &[])
                    .map_err(|e| failed(&shared.dataset, path, "cannot be read", e))
            });
            // Whatever it is, it stands there.
            let bytes = std::fs::metadata(path).map_or(1, |meta| meta.len().max(1));
            Ok(Some(facts.unwrap_or_else(|failure| DatabaseFacts {
                engine: "sqlite".to_owned(),
                location: path.display().to_string(),
                bytes,
                notes: vec![failure.to_string()],
                ..DatabaseFacts::default()
            })))
        })
        .await
    }

    async fn prepare(&self, schema: &Schema) -> Result<()> {
        let schema = schema.clone();
        self.run(move |shared| {
            shared.prepare(&schema)?;
            shared.place.remember_settings(&schema)
        })
        .await
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

    async fn finish(&self, schema: &Schema) -> Result<()> {
        let schema = schema.clone();
        self.run(move |shared| {
            shared.with("indexes, views and triggers cannot be made", |db, _| write::finish(db, &schema))?;
            // What was read of the catalog before is no longer true.
            shared.close();
            Ok(())
        })
        .await
    }

    async fn reread(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk> {
        let (table, range) = (table.clone(), range.clone());
        self.run(move |shared| {
            shared
                .with("cannot be read again", |db, schema| read::chunk(db, schema, &table, &range, u64::MAX))
        })
        .await
    }

    async fn reread_schema(&self) -> Result<Schema> {
        self.run(|shared| {
            let mut schema = shared.with("cannot be read again", |db, _| read::schema(db, &[]))?;
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
            shared.place.undo()
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
