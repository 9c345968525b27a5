//! How much there is: rows, bytes, and what an operator should know before a copy.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use handover_engine::inventory::{DatabaseFacts, TableFacts};
use handover_engine::rows::{KeyRange, Schema, TableKey};
use rusqlite::{Connection, OpenFlags};

use super::error::{Error, Result};
use super::shape::Shape;
use super::{catalog, read};

/// How long a lock is waited for.
pub const BUSY: Duration = Duration::from_secs(10);
/// Databases up to this size have their rows counted and their pages looked at; larger ones are estimated.
pub const COUNTED: u64 = 1 << 30;
/// Where writers may wait for it, only those up to this size are: counting takes a time that grows with the data.
pub const COUNTED_AT_ONCE: u64 = 32 << 20;
/// Text bytes that are read of a table to tell how long its rows are.
const SAMPLE: u64 = 16 << 10;

/// What is in the database at `path`. Leaves nothing beside it. A lock is waited for as long as `wait`.
pub fn facts(path: &Path, exclude: &[String], wait: Duration) -> Result<DatabaseFacts> {
    if let Some(before) = at_rest(path) {
        // Reading a database in WAL mode makes a log, which a reader cannot remove. Unless somebody uses it there is no
        // need for one; should somebody begin to, the result is thrown away.
        let facts = open(path, "?immutable=1", wait).and_then(|db| look(&db, path, exclude));
        if at_rest(path) == Some(before) && facts.is_ok() {
            return facts;
        }
    }
    look(&open(path, "", wait)?, path, exclude)
}

/// Opens a database to be read. A lock is waited for as long as `wait`.
pub fn open(path: &Path, how: &str, wait: Duration) -> Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri.push_str(how);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(uri, flags)?;
    db.busy_timeout(wait)?;
    db.set_prepared_statement_cache_capacity(64);
    if how.is_empty() && is_left_in_the_middle(&db) {
        roll_back(path, wait)?;
    }
    Ok(db)
}

/// A writer has ended in the middle of a transaction: its journal is to be rolled back before anything is read, which needs the right to write
/// (SQLite manual, "Result and Error Codes", `SQLITE_READONLY_ROLLBACK` and `SQLITE_READONLY_RECOVERY`).
fn is_left_in_the_middle(db: &Connection) -> bool {
    use rusqlite::ffi::{SQLITE_READONLY_RECOVERY, SQLITE_READONLY_ROLLBACK};
    let first = db.pragma_query_value(None, "schema_version", |_| Ok(()));
    matches!(
        first,
        Err(rusqlite::Error::SqliteFailure(code, _))
            if [SQLITE_READONLY_ROLLBACK, SQLITE_READONLY_RECOVERY].contains(&code.extended_code)
    )
}

/// Does what whoever opens it next does: gives back what was committed.
fn roll_back(path: &Path, wait: Duration) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(wait)?;
    Ok(db.pragma_query_value(None, "schema_version", |_| Ok(()))?)
}

/// A database in WAL mode that nobody has open: its size and time of change.
fn at_rest(path: &Path) -> Option<(u64, SystemTime)> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if Path::new(&log).exists() || journal_mode(path) != "wal" {
        return None;
    }
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// The journal mode that a database keeps: only WAL is written into it (SQLite manual, "Database File Format", 1.3.3).
pub fn journal_mode(path: &Path) -> &'static str {
    let mut header = [0; 20];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_ok() && header[18] == 2 { "wal" } else { "delete" }
}

fn look(db: &Connection, path: &Path, exclude: &[String]) -> Result<DatabaseFacts> {
    check_exclusions(db, exclude)?;
    let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
    let mut schema = catalog::read(db, exclude)?;
    schema.settings.insert("journal_mode".to_owned(), journal_mode(path).to_owned());
    fill(db, path, &mut schema, COUNTED)?;
    let pages = if bytes <= COUNTED { pages(db).unwrap_or_default() } else { BTreeMap::new() };
    let fact = |table: &handover_engine::rows::TableSpec| TableFacts {
        name: table.name.clone(),
        rows: table.estimated_rows,
        bytes: pages.get(&table.name.name).copied().unwrap_or(table.estimated_bytes),
    };
    let mut tables: Vec<TableFacts> = schema.tables.iter().map(fact).collect();
    tables.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Ok(DatabaseFacts {
        engine: "sqlite".to_owned(),
        version: rusqlite::version().to_owned(),
        location: path.display().to_string(),
        structure: Some(schema.structure()),
        tables,
        bytes,
        index_entries: Some(index_entries(db, &schema)?),
        notes: notes(db, &schema, bytes <= COUNTED),
        needs: Vec::new(),
    })
}

/// Entries of the indexes that have statements of their own: the others fill with their tables.
fn index_entries(db: &Connection, schema: &Schema) -> Result<u64> {
    let sql =
        "SELECT tbl_name, count(*) FROM main.sqlite_schema WHERE type = 'index' AND sql NOT NULL GROUP BY 1";
    let mut statement = db.prepare(sql)?;
    let indexes: BTreeMap<String, u32> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let entries = |table: &handover_engine::rows::TableSpec| {
        indexes
            .get(&table.name.name)
            .map_or(0, |indexes| table.estimated_rows.saturating_mul(u64::from(*indexes)))
    };
    Ok(schema.tables.iter().map(entries).fold(0, u64::saturating_add))
}

/// Refuses exclusions of tables that are not there.
pub fn check_exclusions(db: &Connection, exclude: &[String]) -> Result<()> {
    let names = catalog::table_names(db)?;
    match exclude.iter().find(|table| !names.contains(*table)) {
        Some(missing) => Err(Error::Excluded(missing.clone())),
        None => Ok(()),
    }
}

/// Sets the estimates of the schema's tables; rows are counted in a database of up to `counted` bytes.
pub fn fill(db: &Connection, path: &Path, schema: &mut Schema, counted: u64) -> Result<()> {
    let is_small = std::fs::metadata(path).map_or(0, |meta| meta.len()) <= counted;
    let mut estimates = Vec::with_capacity(schema.tables.len());
    for table in &schema.tables {
        let rows = rows(db, &Shape::of(db, schema, &table.name)?, is_small)?;
        let sample = read::chunk(db, schema, &table.name, &KeyRange::default(), SAMPLE)?.header;
        let bytes = u128::from(sample.bytes) * u128::from(rows) / u128::from(sample.rows.max(1));
        estimates.push((rows, u64::try_from(bytes).unwrap_or(u64::MAX)));
    }
    for (table, estimate) in schema.tables.iter_mut().zip(estimates) {
        (table.estimated_rows, table.estimated_bytes) = estimate;
    }
    Ok(())
}

/// Rows of a table: counted in a small database, otherwise from the range of its keys or a count with an end.
fn rows(db: &Connection, shape: &Shape<'_>, is_small: bool) -> Result<u64> {
    let name = shape.name();
    let key = match &shape.table.key {
        TableKey::Hidden(alias) => Some(alias.clone()),
        TableKey::Columns(_) if !shape.is_indexed() => shape.columns().get(shape.key_values()[0]).cloned(),
        _ => None,
    };
    let sql = match key {
        _ if is_small => format!("SELECT count(*) FROM main.{name}"),
        // In one query, the two ends would not be looked up but searched.
        Some(key) => format!(
            "SELECT coalesce((SELECT max({key}) FROM main.{name}) - (SELECT min({key}) FROM main.{name}) + 1, 0)"
        ),
        None => format!("SELECT count(*) FROM (SELECT 1 FROM main.{name} LIMIT 1000000)"),
    };
    // Keys from one end of the integers to the other make a real of it.
    let rows = db.query_row(&sql, [], |row| row.get_ref(0)?.as_i64().or(Ok(i64::MAX)))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// Bytes of every table's pages, with those of its indexes.
fn pages(db: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let sql = "SELECT s.tbl_name, sum(d.pgsize) FROM dbstat AS d JOIN main.sqlite_schema AS s ON s.name = d.name \
               WHERE d.aggregate = TRUE GROUP BY s.tbl_name";
    let mut statement = db.prepare(sql)?;
    let pages = statement
        .query_map([], |row| Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0))))?;
    pages.collect()
}

fn notes(db: &Connection, schema: &Schema, is_small: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for table in schema.tables.iter().filter(|table| table.key == TableKey::Position) {
        notes.push(format!(
            "table {} hides its row numbers: it is read by counting rows, which is slow",
            table.name
        ));
    }
    if !is_small {
        notes.push("it is large: row counts are estimates, and foreign keys were not checked".to_owned());
        return notes;
    }
    match violations(db) {
        Ok(found) => notes.extend(
            found
                .into_iter()
                .filter(|(table, _)| schema.tables.iter().any(|known| known.name.name == *table))
                .map(|(table, count)| {
                    format!(
                        "table {table} breaks its foreign keys in {count} rows, which are copied as they are"
                    )
                }),
        ),
        Err(error) => notes.push(format!("its foreign keys cannot be checked: {error}")),
    }
    notes
}

fn violations(db: &Connection) -> rusqlite::Result<Vec<(String, i64)>> {
    let sql = "SELECT \"table\", count(*) FROM pragma_foreign_key_check GROUP BY 1 ORDER BY 1";
    let mut statement = db.prepare(sql)?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    found.collect()
}
