//! The source's side of an SQLite database.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Database, DatabaseSnapshot, Result};
use handover_engine::rows::{KeyRange, RowsChunk, Schema, SnapshotId, TableName};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::error::{Error, failed, item};
use super::{catalog, estimate, read};
use crate::tree::blocking;

/// Names of private copies begin so.
const COPY: &str = "copy-";

/// Removes private copies that a crashed run has left. To be called once, at the start: nobody else may use the directory.
pub fn remove_stale_copies(scratch: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(scratch) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(COPY) {
            std::fs::remove_file(entry.path()).map_err(|error| {
                Failure::operator(entry.path().display().to_string(), "a left-over copy cannot be removed")
                    .because(error)
            })?;
        }
    }
    Ok(())
}

/// A database to be read.
#[derive(Clone)]
pub struct SqliteDatabase {
    dataset: DatasetName,
    path: PathBuf,
    exclude: Vec<String>,
    scratch: PathBuf,
    wait: Duration,
}

impl SqliteDatabase {
    /// The database at `path` without the excluded tables. A database in another mode than WAL is copied into `scratch` for
    /// as long as a snapshot is used, since its readers make writers wait.
    pub fn new(dataset: DatasetName, path: PathBuf, exclude: Vec<String>, scratch: PathBuf) -> Self {
        Self { dataset, path, exclude, scratch, wait: estimate::BUSY }
    }

    /// Waits so long for a lock, instead of ten seconds.
    #[must_use]
    pub fn busy_timeout(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    fn failed<E: Into<Error>>(&self, what: &str) -> impl Fn(E) -> Failure {
        move |error| failed(&self.dataset, &self.path, what, error)
    }

    fn exists(&self) -> Result<()> {
        if self.path.is_file() {
            return Ok(());
        }
        Err(Failure::operator(item(&self.dataset, &self.path), "there is no such database")
            .hint("correct `url` in appliance.toml, or make the database"))
    }

    fn look(&self) -> Result<DatabaseFacts> {
        self.exists()?;
        let mut facts =
            estimate::facts(&self.path, &self.exclude, self.wait).map_err(self.failed("cannot be read"))?;
        if estimate::journal_mode(&self.path) != "wal" {
            let note = "it is not in WAL mode: a private copy is made, during which writers wait";
            facts.notes.push(note.to_owned());
        }
        Ok(facts)
    }

    fn take_snapshot(&self) -> Result<Snapshot> {
        self.exists()?;
        let db = estimate::open(&self.path, "", self.wait).map_err(self.failed("cannot be opened"))?;
        estimate::check_exclusions(&db, &self.exclude).map_err(self.failed("cannot be read"))?;
        let mode = catalog::pragma(&db, "journal_mode").map_err(self.failed("cannot be read"))?;
        let id = random_id(&self.dataset)?;
        // In WAL mode readers and writers do not wait for each other. In the other modes a reader makes writers wait: it
        // must be short, so the database is copied in one go and the copy read at leisure.
        let (db, copy) = if mode == "wal" {
            (db, None)
        } else {
            let copy = Copy(self.scratch.join(format!("{COPY}{id}")));
            let private = self.copy(&db, &copy.0)?;
            (private, Some(copy))
        };
        let schema = self.begin(&db, mode).map_err(self.failed("no snapshot can be taken"))?;
        Ok(Snapshot {
            dataset: self.dataset.clone(),
            path: self.path.clone(),
            id: SnapshotId(id),
            schema: Arc::new(schema),
            db: Arc::new(Mutex::new(db)),
            _copy: copy,
        })
    }

    /// Begins the one transaction of a snapshot, with its schema.
    fn begin(&self, db: &Connection, mode: String) -> super::error::Result<Schema> {
        db.execute_batch("BEGIN")?;
        let mut schema = catalog::read(db, &self.exclude)?;
        estimate::fill(db, &self.path, &mut schema, estimate::COUNTED_AT_ONCE)?;
        // A private copy has a mode of its own.
        schema.settings.insert("journal_mode".to_owned(), mode);
        self.add_owner(&mut schema);
        Ok(schema)
    }

    /// Mode and owner of the file itself, for the file that is made at the target.
    fn add_owner(&self, schema: &mut Schema) {
        if let Ok(meta) = std::fs::metadata(&self.path) {
            let file = format!("{:o} {} {}", meta.mode() & 0o7777, meta.uid(), meta.gid());
            schema.state.insert("file".to_owned(), file);
        }
    }

    fn copy(&self, from: &Connection, to: &Path) -> Result<Connection> {
        let unusable = |error: std::io::Error| {
            Failure::operator(item(&self.dataset, &self.scratch), "no private copy can be made there")
                .because(error)
                .hint("free space there, or change the directory in the agent's configuration")
        };
        std::fs::create_dir_all(&self.scratch).map_err(unusable)?;
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(unusable)?;
        let failed = |error| failed(&self.dataset, to, "no private copy can be made", Error::Sqlite(error));
        let mut copy = Connection::open(to).map_err(failed)?;
        // Thrown away after a crash: no need to make it durable.
        copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").map_err(failed)?;
        let backup = Backup::new(from, &mut copy).map_err(failed)?;
        // All pages under one lock. A writer that holds it is waited for by the connection's own busy handler.
        if backup.step(-1).map_err(failed)? != StepResult::Done {
            return Err(Failure::transient(item(&self.dataset, &self.path), "it stays locked by a writer")
                .hint("another process holds it locked: it is tried again"));
        }
        drop(backup);
        copy.execute_batch("PRAGMA query_only = ON").map_err(failed)?;
        copy.set_prepared_statement_cache_capacity(64);
        Ok(copy)
    }
}

/// A name that no other snapshot has.
fn random_id(dataset: &DatasetName) -> Result<String> {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut random| std::io::Read::read_exact(&mut random, &mut bytes));
    read.map_err(|e| Failure::operator(dataset.to_string(), "no random numbers").because(e))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn facts(&self) -> Result<DatabaseFacts> {
        let this = self.clone();
        blocking(&self.dataset, move || this.look()).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn DatabaseSnapshot>> {
        let this = self.clone();
        blocking(&self.dataset, move || Ok(Arc::new(this.take_snapshot()?) as Arc<dyn DatabaseSnapshot>))
            .await
    }
}

/// A private copy, removed with its last user.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "a private copy could not be removed");
            }
            _ => {}
        }
    }
}

/// A view of a database: one read transaction on one connection.
struct Snapshot {
    dataset: DatasetName,
    path: PathBuf,
    id: SnapshotId,
    schema: Arc<Schema>,
    // Before the copy: the connection is closed first.
    db: Arc<Mutex<Connection>>,
    _copy: Option<Copy>,
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
        let (db, schema) = (self.db.clone(), self.schema.clone());
        let (dataset, path) = (self.dataset.clone(), self.path.clone());
        let (table, range) = (table.clone(), range.clone());
        blocking(&self.dataset, move || {
            let db = db.lock().unwrap_or_else(PoisonError::into_inner);
            let chunk = read::chunk(&db, &schema, &table, &range, budget);
            chunk.map_err(|error| failed(&dataset, &path, &format!("table {table} cannot be read"), error))
        })
        .await
    }
}
