//! A source, a target, a whole move between them, and a comparison that shares no code with the adapter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget, Result};
use handover_engine::rows::{KeyRange, RowsChunk, TableName};
use handover_platform::sqlite::{SqliteDatabase, SqliteTarget};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tempfile::TempDir;

/// Bytes that the tests together may need at once.
const ROOM: u64 = 2 << 30;

pub struct Bed {
    pub dir: TempDir,
    pub exclude: Vec<String>,
}

impl Bed {
    /// In memory where the host has room: nothing here outlives a power cut, and syncing takes time.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let free = rustix::fs::statvfs(memory).map_or(0, |space| space.f_bavail * space.f_frsize);
        let dir = if free > ROOM { TempDir::new_in(memory) } else { TempDir::new() };
        Self { dir: dir.unwrap(), exclude: Vec::new() }
    }

    /// A bed whose source was made by some SQL.
    pub fn with(sql: &str) -> Self {
        let bed = Self::new();
        bed.source_db().execute_batch(sql).unwrap();
        bed
    }

    pub fn source_path(&self) -> PathBuf {
        self.dir.path().join("source.db")
    }

    pub fn target_path(&self) -> PathBuf {
        self.dir.path().join("there").join("target.db")
    }

    pub fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// A file beside the target's final place.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.target_path().display()))
    }

    pub fn source_db(&self) -> Connection {
        Connection::open(self.source_path()).unwrap()
    }

    pub fn target_db(&self) -> Connection {
        std::fs::create_dir_all(self.target_path().parent().unwrap()).unwrap();
        Connection::open(self.target_path()).unwrap()
    }

    pub fn source(&self) -> SqliteDatabase {
        SqliteDatabase::new("db".parse().unwrap(), self.source_path(), self.exclude.clone(), self.scratch())
    }

    pub fn target(&self) -> SqliteTarget {
        SqliteTarget::new("db".parse().unwrap(), self.target_path(), &migration())
    }

    /// Moves everything in chunks of `budget`, and publishes it.
    pub async fn try_move(&self, budget: u64) -> Result<Arc<dyn DatabaseSnapshot>> {
        let view = self.source().snapshot().await?;
        let target = self.target();
        self.load(&*view, &target, budget).await?;
        target.finish(view.schema()).await?;
        let here = target.reread_schema().await?;
        assert_eq!(here.before_load, view.schema().before_load);
        assert_eq!(here.after_load, view.schema().after_load);
        assert_eq!(here.structure(), view.schema().structure(), "{here:#?} {:#?}", view.schema());
        target.publish().await?;
        Ok(view)
    }

    /// Prepares the target and applies every chunk, then compares.
    pub async fn load(&self, view: &dyn DatabaseSnapshot, target: &SqliteTarget, budget: u64) -> Result<()> {
        target.prepare(view.schema()).await?;
        for table in &view.schema().tables {
            for chunk in chunks(view, &table.name, budget).await? {
                target.apply(std::slice::from_ref(&chunk)).await?;
                let again = target.reread(&table.name, &chunk.header.range).await?;
                assert_eq!(again.header, chunk.header);
            }
        }
        Ok(())
    }

    /// Moves everything and compares the two files.
    pub async fn moves(&self) {
        self.try_move(400).await.unwrap();
        assert_same(&self.source_path(), &self.target_path());
    }
}

pub fn migration() -> MigrationId {
    "m1".parse().unwrap()
}

pub async fn chunks(view: &dyn DatabaseSnapshot, table: &TableName, budget: u64) -> Result<Vec<RowsChunk>> {
    let (mut out, mut range) = (Vec::new(), KeyRange::default());
    loop {
        let chunk = view.read(table, &range, budget).await?;
        range.after.clone_from(&chunk.header.range.until);
        out.push(chunk);
        if range.after.is_none() {
            return Ok(out);
        }
    }
}

/// Every object and every row, with storage classes and all bytes.
pub fn dump(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut out = Vec::new();
    let objects = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY 1, 2";
    each(&db, objects, |row| out.push(format!("{row:?}")));
    let mut tables = Vec::new();
    let list = "SELECT name, wr, type FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') \
                AND name <> 'sqlite_schema' ORDER BY name";
    each(&db, list, |row| tables.push(row));
    for table in tables {
        let (name, without_rowid) = (&table[0], table[1] == "1");
        let mut columns = Vec::new();
        each(&db, &format!("SELECT name FROM pragma_table_xinfo({})", literal(name)), |row| {
            columns.push(row[0].clone());
        });
        let shadowed = |alias: &&str| !columns.iter().any(|c| c.eq_ignore_ascii_case(alias));
        let hidden = ["rowid", "_rowid_", "oid"].into_iter().find(shadowed);
        let numbered = hidden.filter(|_| !without_rowid && !name.starts_with("sqlite_")).unwrap_or("0");
        let values: Vec<String> = columns
            .iter()
            .map(|c| c.replace('"', "\"\""))
            .map(|c| {
                format!("typeof(\"{c}\"), iif(typeof(\"{c}\") = 'text', CAST(\"{c}\" AS BLOB), \"{c}\")")
            })
            .collect();
        let sql = format!("SELECT {numbered}, {} FROM \"{}\"", values.join(", "), name.replace('"', "\"\""));
        let mut rows = Vec::new();
        each(&db, &sql, |row| rows.push(format!("{name}: {row:?}")));
        if name.starts_with("sqlite_") {
            rows.sort();
        }
        out.extend(rows);
    }
    for setting in ["page_size", "encoding", "auto_vacuum", "user_version", "application_id", "journal_mode"]
    {
        each(&db, &format!("PRAGMA {setting}"), |row| out.push(format!("{setting} {row:?}")));
    }
    out
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn each(db: &Connection, sql: &str, mut take: impl FnMut(Vec<String>)) {
    let mut statement = db.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let width = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        take((0..width).map(|n| show(row.get_ref(n).unwrap())).collect());
    }
}

fn show(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(integer) => integer.to_string(),
        ValueRef::Real(real) => format!("{real} {:x}", real.to_bits()),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) if bytes.len() > 4096 => {
            format!("{} bytes, {}", bytes.len(), handover_engine::digest::Digest::of(bytes))
        }
        ValueRef::Blob(bytes) => bytes.escape_ascii().to_string(),
    }
}

/// The two databases hold the same.
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (dump(one), dump(other));
    for (a, b) in one.iter().zip(&other) {
        assert_eq!(a, b);
    }
    assert_eq!(one.len(), other.len());
}

/// What SQLite itself finds wrong with a file: `ok`, or something.
pub fn integrity(path: &Path) -> String {
    let db = Connection::open(path).unwrap();
    db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// SQLite itself finds nothing wrong with the file.
pub fn assert_sound(path: &Path) {
    assert_eq!(integrity(path), "ok");
}

/// The failure is of the class, names the dataset and the file, and tells what to do.
pub fn explained(failure: &Failure, class: Class, file: &str, hint: &str) {
    assert_eq!(failure.class, class, "{failure}");
    assert!(failure.item.starts_with("db") && failure.item.contains(file), "names no {file}: {failure}");
    assert!(failure.hint.contains(hint), "the hint has no {hint:?}: {failure}");
}
