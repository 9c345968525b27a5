//! The source's side of an SQLite database.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::inventory::{DatabaseFacts, TableFacts};
use handover_engine::name::DatasetName;
use handover_engine::ports::{Database, DatabaseSnapshot, Result};
use handover_engine::rows::{KeyRange, RowsChunk, Schema, SnapshotId, TableName};
use rusqlite::{Connection, OpenFlags};

use super::error::failed;
use super::{catalog, read};
use crate::tree::blocking;

/// Databases up to this size have their rows counted for an inventory; larger ones have them estimated.
const COUNTED: u64 = 1 << 30;
/// How long a lock is waited for.
const BUSY: Duration = Duration::from_secs(10);
/// Names of private copies begin so.
const COPY: &str = "copy-";

/// Removes private copies that a crashed run has left. Nobody else may use the directory.
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
}

impl SqliteDatabase {
    /// The database at `path` without the excluded tables. Private copies are made in `scratch`.
    pub fn new(dataset: DatasetName, path: PathBuf, exclude: Vec<String>, scratch: PathBuf) -> Self {
        Self { dataset, path, exclude, scratch }
    }

    fn failed<'a>(&'a self, what: &'a str) -> impl Fn(rusqlite::Error) -> Failure + 'a {
        move |error| failed(&self.dataset, &self.path, what, error)
    }

    fn open(&self) -> Result<Connection> {
        if !self.path.is_file() {
            return Err(Failure::operator(
                format!("{}, {}", self.dataset, self.path.display()),
                "there is no such database",
            )
            .hint("correct `url` in appliance.toml, or make the database"));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags).map_err(self.failed("cannot be opened"))?;
        db.busy_timeout(BUSY).map_err(self.failed("cannot be opened"))?;
        db.set_prepared_statement_cache_capacity(64);
        let names = catalog::table_names(&db).map_err(self.failed("cannot be read"))?;
        if let Some(missing) = self.exclude.iter().find(|table| !names.contains(*table)) {
            return Err(Failure::operator(
                self.dataset.to_string(),
                format!("`exclude` names the table {missing}, which is not there"),
            )
            .hint("correct appliance.toml"));
        }
        Ok(db)
    }

    fn look(&self) -> Result<DatabaseFacts> {
        let db = self.open()?;
        let mut facts = facts(&db, &self.path, &self.exclude).map_err(self.failed("cannot be read"))?;
        if catalog::pragma(&db, "journal_mode").map_err(self.failed("cannot be read"))? != "wal" {
            facts
                .notes
                .push("it is not in WAL mode: a private copy is made, during which writers wait".to_owned());
        }
        Ok(facts)
    }

    fn take_snapshot(&self) -> Result<Snapshot> {
        let db = self.open()?;
        let wal = catalog::pragma(&db, "journal_mode").map_err(self.failed("cannot be read"))? == "wal";
        let id = random_id(&self.dataset)?;
        // In WAL mode readers and writers do not wait for each other. In the other modes a reader makes writers wait: it
        // must be short, so the database is copied in one go and the copy read at leisure.
        let (db, copy) = if wal {
            (db, None)
        } else {
            let copy = Copy(self.scratch.join(format!("{COPY}{id}")));
            let private = self.copy(&db, &copy.0)?;
            (private, Some(copy))
        };
        let failed = self.failed("no snapshot can be taken");
        db.execute_batch("BEGIN").map_err(&failed)?;
        let mut schema = read::schema(&db, &self.exclude).map_err(&failed)?;
        if copy.is_some() {
            // The copy has settings of its own in this one respect.
            schema.settings.insert("journal_mode".to_owned(), self.journal_mode()?);
        }
        self.add_owner(&mut schema);
        Ok(Snapshot {
            dataset: self.dataset.clone(),
            path: self.path.clone(),
            id: SnapshotId(id),
            schema: Arc::new(schema),
            db: Arc::new(Mutex::new(db)),
            _copy: copy,
        })
    }

    fn journal_mode(&self) -> Result<String> {
        catalog::pragma(&self.open()?, "journal_mode").map_err(self.failed("cannot be read"))
    }

    /// Mode and owner of the file itself, for the file that is made at the target.
    fn add_owner(&self, schema: &mut Schema) {
        use std::os::unix::fs::MetadataExt;
        if let Ok(meta) = std::fs::metadata(&self.path) {
            let file = format!("{:o} {} {}", meta.mode() & 0o7777, meta.uid(), meta.gid());
            schema.state.insert("file".to_owned(), file);
        }
    }

    fn copy(&self, from: &Connection, to: &Path) -> Result<Connection> {
        let unusable = |error: std::io::Error| {
            Failure::operator(self.scratch.display().to_string(), "no room for private copies").because(error)
        };
        std::fs::create_dir_all(&self.scratch).map_err(unusable)?;
        let failed = self.failed("no private copy can be made");
        let mut copy = Connection::open(to).map_err(&failed)?;
        // Thrown away after a crash: no need to make it durable.
        copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").map_err(&failed)?;
        rusqlite::backup::Backup::new(from, &mut copy)
            .and_then(|backup| {
                loop {
                    use rusqlite::backup::StepResult::{Busy, Done, Locked, More};
                    match backup.step(-1)? {
                        Done => break Ok(()),
                        More | Busy | Locked | _ => std::thread::yield_now(),
                    }
                }
            })
            .map_err(&failed)?;
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

/// What is in an open database.
pub fn facts(db: &Connection, path: &Path, exclude: &[String]) -> rusqlite::Result<DatabaseFacts> {
    let schema = read::schema(db, exclude)?;
    let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
    let share = bytes / (schema.tables.len() as u64).max(1);
    let mut tables = Vec::with_capacity(schema.tables.len());
    for table in &schema.tables {
        let name = catalog::quote(&table.name.name);
        let count = if bytes <= COUNTED || !matches!(table.key, handover_engine::rows::TableKey::Hidden(_)) {
            format!("SELECT count(*) FROM main.{name}")
        } else {
            format!("SELECT coalesce(max(rowid), 0) FROM main.{name}")
        };
        let rows: i64 = db.query_row(&count, [], |row| row.get(0))?;
        tables.push(TableFacts { name: table.name.clone(), rows: rows.unsigned_abs(), bytes: share });
    }
    tables.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.name.cmp(&b.name)));
    Ok(DatabaseFacts {
        engine: "sqlite".to_owned(),
        version: schema.version.clone(),
        location: path.display().to_string(),
        structure: Some(schema.structure()),
        tables,
        bytes,
        notes: Vec::new(),
    })
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
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a private copy could not be removed");
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
