//! Making a scratch database, and finding out whether one that is there is ours.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{
    Batch, ForeignKey, Made, TriedRow, Wanted, WantedColumn, WantedTable, made_for,
};
use handover_engine::rows::{ColumnSpec, KeyRange, Schema, TableKey, TableName, TableSpec, text};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::{Open, ROW, Shared};
use crate::sqlite::catalog::{self, OWN, pragma, quote};
use crate::sqlite::error::{self, Error, item};
use crate::sqlite::value::BadValue;
use crate::sqlite::{estimate, read, write};

/// The table that says what the database was made for.
const MARK: &str = "__handover_rehearsal";
/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Text bytes of rows that are copied at once from the target's own database.
const BUDGET: u64 = 2 << 20;
/// Foreign keys are checked by queries; every other constraint is in force. Each commit is durable.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; \
    PRAGMA ignore_check_constraints = OFF; PRAGMA cache_size = -24576; PRAGMA temp_store = FILE; \
    PRAGMA journal_size_limit = 67108864";

/// `path` with something after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens a scratch database that is there.
pub fn open(path: &Path) -> error::Result<Open> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.set_prepared_statement_cache_capacity(64);
    db.execute_batch(PRAGMAS)?;
    let utf16 = pragma(&db, "encoding")? != "UTF-8";
    Ok(Open { db, utf16 })
}

/// What the mark says: the schemas it was made for, and its token.
fn mark(db: &Connection) -> error::Result<Option<(String, String)>> {
    if !db.table_exists(None, MARK)? {
        return Ok(None);
    }
    let sql = format!("SELECT made_for, token FROM main.{}", quote(MARK));
    Ok(db.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// Shadow tables of virtual ones have no statement of their own.
fn is_shadow(schema: &Schema, table: &TableSpec) -> bool {
    !schema.before_load.iter().any(|ddl| ddl.name == table.name.name)
}

fn is_virtual(sql: &str) -> bool {
    let mut words = sql.split_ascii_whitespace();
    words.next();
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("virtual"))
}

impl Shared {
    /// As the port's `make`.
    pub fn make(&self, source: &Schema, fresh: &str) -> Result<Made> {
        self.close();
        let own = self.own_schema()?;
        let schema = own.as_ref().unwrap_or(source);
        let made_for = made_for(source, schema);
        let there = self.there()?;
        let token = match there {
            Some((of, token)) if of == made_for => token,
            there => {
                if there.is_some() {
                    self.remove_files()?;
                }
                self.build(source, schema, own.is_some(), (&made_for, fresh))?;
                fresh.to_owned()
            }
        };
        let mut wanted = self.with("its scratch database cannot be looked at", |open| look(open, schema))?;
        wanted.own = own.is_some();
        wanted.environment = vec![
            ("HANDOVER_ENGINE".to_owned(), "sqlite".to_owned()),
            ("HANDOVER_DATABASE".to_owned(), self.path.display().to_string()),
        ];
        Ok(Made { wanted, token })
    }

    /// The schema of the target's own database; none where it has no table.
    fn own_schema(&self) -> Result<Option<Schema>> {
        if !self.target.is_file() {
            return Ok(None);
        }
        let read = estimate::open(&self.target, "", estimate::BUSY).and_then(|db| catalog::read(&db, &[]));
        let schema = read.map_err(self.failed(&self.target, "its schema cannot be read"))?;
        Ok(Some(schema).filter(|schema| !schema.tables.is_empty()))
    }

    /// The mark of the scratch database that is there. A file that is not ours is refused.
    fn there(&self) -> Result<Option<(String, String)>> {
        if !self.path.exists() {
            return Ok(None);
        }
        let looked = open(&self.path).and_then(|open| mark(&open.db));
        match looked.map_err(self.failed(&self.path, "cannot be looked at"))? {
            Some(mark) => Ok(Some(mark)),
            None => {
                Err(Failure::operator(item(&self.dataset, &self.path), "it is no scratch database of ours")
                    .hint("move that file away, then rehearse again"))
            }
        }
    }

    /// Builds under another name first: under its own it is whole, and never replaces anything.
    fn build(&self, source: &Schema, schema: &Schema, own: bool, mark: (&str, &str)) -> Result<()> {
        let new = with_suffix(&self.path, ".new");
        let what = "its scratch database cannot be made";
        let io = |error: std::io::Error| {
            Failure::operator(item(&self.dataset, &self.path), what)
                .because(error)
                .hint("is there room, and may the agent write there?")
        };
        remove_file(&new).map_err(io)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io)?;
        let built = open(&new).and_then(|open| {
            make_tables(&open, source, schema, mark)?;
            Ok(open)
        });
        let built = built.map_err(self.failed(&new, what))?;
        if own {
            self.seed(&built, source, schema)?;
        }
        built.db.close().map_err(|(_, error)| self.failed(&new, what)(error))?;
        std::fs::hard_link(&new, &self.path).map_err(io)?;
        std::fs::remove_file(&new).map_err(io)?;
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(io)
    }

    /// Rows of tables that production does not have: the new system has filled them itself.
    fn seed(&self, into: &Open, source: &Schema, schema: &Schema) -> Result<()> {
        let what = "what the new system has filled itself cannot be copied";
        let is_new = |table: &&TableSpec| {
            !is_shadow(schema, table)
                && !source.tables.iter().any(|other| other.name.name.eq_ignore_ascii_case(&table.name.name))
        };
        let new: Vec<&TableSpec> = schema.tables.iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        if source.settings.get("encoding") != schema.settings.get("encoding") {
            return Err(Failure::operator(
                item(&self.dataset, &self.target),
                "it has another encoding than the source's",
            )
            .hint("make it anew with the source's encoding (PRAGMA encoding)"));
        }
        let from =
            estimate::open(&self.target, "", estimate::BUSY).map_err(self.failed(&self.target, what))?;
        new.into_iter()
            .try_for_each(|table| copy(&from, into, schema, table))
            .map_err(self.failed(&self.target, what))
    }

    /// As the port's `drop_scratch`.
    pub fn drop_scratch(&self) -> Result<()> {
        self.close();
        let is_ours =
            |path: &Path| open(path).and_then(|open| mark(&open.db)).is_ok_and(|mark| mark.is_some());
        if self.path.exists() && is_ours(&self.path) { self.remove_files() } else { Ok(()) }
    }

    fn remove_files(&self) -> Result<()> {
        let failed =
            |error| Failure::operator(item(&self.dataset, &self.path), "cannot be removed").because(error);
        for suffix in BESIDE {
            remove_file(&with_suffix(&self.path, suffix)).map_err(failed)?;
        }
        remove_file(&self.path).map_err(failed)
    }
}

fn remove_file(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Tables with the column of numbers, indexes and views; no triggers, since these would act on what is tried.
fn make_tables(
    open: &Open,
    source: &Schema,
    schema: &Schema,
    (made_for, token): (&str, &str),
) -> error::Result<()> {
    let db = &open.db;
    // Rows come in the source's encoding.
    let setting =
        |name: &str, of: &Schema| of.settings.get(name).cloned().unwrap_or_default().replace('\'', "");
    db.execute_batch(&format!("PRAGMA page_size = '{}'", setting("page_size", schema)))?;
    db.execute_batch(&format!("PRAGMA encoding = '{}'", setting("encoding", source)))?;
    let transaction = db.unchecked_transaction()?;
    db.execute_batch(&format!("CREATE TABLE main.{} (made_for TEXT, token TEXT)", quote(MARK)))?;
    db.execute(&format!("INSERT INTO main.{} VALUES (?, ?)", quote(MARK)), [made_for, token])?;
    for ddl in schema.before_load.iter().filter(|ddl| !is_virtual(&ddl.sql)) {
        write::create(db, &ddl.sql)?;
    }
    for table in schema.tables.iter().filter(|table| !is_shadow(schema, table)) {
        let name = quote(&table.name.name);
        db.execute_batch(&format!("ALTER TABLE main.{name} ADD COLUMN {} INTEGER", quote(ROW)))?;
        let index = quote(&format!("{OWN}row {}", table.name.name));
        db.execute_batch(&format!("CREATE INDEX main.{index} ON {name} ({})", quote(ROW)))?;
    }
    for ddl in schema.after_load.iter().filter(|ddl| ddl.kind != "trigger") {
        write::create(db, &ddl.sql)?;
    }
    for name in ["user_version", "application_id"] {
        db.pragma_update(None, name, setting(name, schema).parse::<i64>().unwrap_or(0))?;
    }
    Ok(transaction.commit()?)
}

/// Copies a table of the target's own database. Its rows have no numbers: nobody tries them.
fn copy(from: &Connection, into: &Open, schema: &Schema, table: &TableSpec) -> error::Result<()> {
    let hidden = matches!(table.key, TableKey::Hidden(_));
    let skipped = usize::from(hidden);
    let transaction = into.db.unchecked_transaction()?;
    let mut range = KeyRange::default();
    loop {
        let chunk = read::chunk(from, schema, &table.name, &range, BUDGET)?;
        for row in text::rows(&chunk.block).map_err(BadValue::from)? {
            let values: Vec<&[u8]> = text::values(row).skip(skipped).collect();
            let row = TriedRow { number: 0, values: values.join(&b'\t').into() };
            let batch =
                Batch { table: table.name.clone(), columns: table.columns.clone().into(), rows: vec![row] };
            if let Some((_, refused)) = super::load(into, &batch)?.into_iter().next() {
                return Err(Error::Check(format!("a row of {} breaks {}", table.name, refused.constraint)));
            }
        }
        range.after = chunk.header.range.until;
        if range.after.is_none() {
            break;
        }
    }
    let clear = format!("UPDATE main.{} SET {} = NULL", quote(&table.name.name), quote(ROW));
    into.db.execute(&clear, [])?;
    Ok(transaction.commit()?)
}

/// What rows are tried against, from the scratch database itself.
fn look(open: &Open, schema: &Schema) -> error::Result<Wanted> {
    let mut wanted = Wanted::default();
    for table in &schema.tables {
        if is_shadow(schema, table) {
            wanted.untried.push(table.name.clone());
            continue;
        }
        let hidden = if let TableKey::Hidden(alias) = &table.key { Some(alias.clone()) } else { None };
        let columns = columns(open, &table.name.name)?;
        wanted.tables.push(WantedTable { name: table.name.clone(), columns, hidden });
        wanted.foreign_keys.extend(foreign_keys(open, schema, &table.name)?);
    }
    Ok(wanted)
}

fn columns(open: &Open, table: &str) -> error::Result<Vec<WantedColumn>> {
    let sql = "SELECT name, type, \"notnull\" AND dflt_value IS NULL AND NOT (pk = 1 AND upper(type) = 'INTEGER') \
               FROM pragma_table_xinfo(?) WHERE hidden = 0";
    let mut statement = open.db.prepare_cached(sql)?;
    let columns = statement.query_map([table], |row| {
        let spec = ColumnSpec { name: row.get(0)?, declared: row.get(1)? };
        Ok(WantedColumn { spec, needed: row.get(2)? })
    })?;
    let columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(columns.into_iter().filter(|column| column.spec.name != ROW).collect())
}

/// The foreign keys of a table to tables that are there.
fn foreign_keys(open: &Open, schema: &Schema, table: &TableName) -> error::Result<Vec<ForeignKey>> {
    let sql = "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?) ORDER BY id, seq";
    let mut statement = open.db.prepare_cached(sql)?;
    let parts = statement.query_map([&table.name], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, Option<String>>(3)?,
        ))
    })?;
    let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
    for part in parts {
        let (id, parent, from, to) = part?;
        let named = schema.tables.iter().find(|other| other.name.name.eq_ignore_ascii_case(&parent));
        let Some(parent) = named.filter(|parent| !is_shadow(schema, parent)) else { continue };
        if keys.last().is_none_or(|(last, _)| *last != id) {
            let (table, parent) = (table.clone(), parent.name.clone());
            let (columns, parent_columns) = (Vec::new(), Vec::new());
            keys.push((id, ForeignKey { name: String::new(), table, columns, parent, parent_columns }));
        }
        if let Some((_, key)) = keys.last_mut() {
            key.columns.push(from);
            key.parent_columns.extend(to);
        }
    }
    let mut out = Vec::new();
    for (_, mut key) in keys {
        if key.parent_columns.is_empty() {
            key.parent_columns = primary_key(open, &key.parent.name)?;
        }
        key.name = format!("{}.{} to {}", key.table, key.columns.join(","), key.parent);
        if key.parent_columns.len() == key.columns.len() {
            out.push(key);
        }
    }
    Ok(out)
}

fn primary_key(open: &Open, table: &str) -> error::Result<Vec<String>> {
    let mut statement =
        open.db.prepare_cached("SELECT name FROM pragma_table_xinfo(?) WHERE pk > 0 ORDER BY pk")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}
