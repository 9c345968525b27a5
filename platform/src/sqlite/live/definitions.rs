//! What the schema was when a capture began. Whatever is not as it was then stops following: triggers tell of no such change, go with their
//! tables, and know nothing of a unique index that was made after them.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::rows::Schema;
use rusqlite::{Connection, OptionalExtension, Row};

use super::super::catalog::{OWN, quote};
use super::super::error::Result;
use super::Names;

/// What has become of something.
const WAS_DROPPED: &str = "it was dropped while its changes were followed";
const WAS_MADE: &str = "it was made while the database was followed";
const WAS_ALTERED: &str = "its definition was changed while its changes were followed";
const WAS_MADE_ANEW: &str =
    "it was dropped and made anew, or a trigger that keeps its changes was dropped, while it was followed";

/// An object's kind, as SQLite calls it, and its name.
type Object = (String, String);

/// The table that an object is of, and the statement that makes it.
#[derive(Debug, PartialEq, Eq)]
struct Definition {
    table: String,
    sql: String,
}

/// Something that is not as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Altered {
    /// What it is, with its name.
    pub object: String,
    /// What has become of it.
    pub what: String,
}

/// The name of the table that keeps a capture's definitions begins so.
pub fn beginning() -> String {
    format!("{OWN}definitions_")
}

/// Keeps what the schema is, with the capture's own triggers.
pub fn keep(db: &Connection, schema: &Schema, names: &Names) -> Result<()> {
    let table = quote(&names.definitions);
    db.execute_batch(&format!("CREATE TABLE {table} (kind, name, tbl, sql)"))?;
    let mut insert = db.prepare(&format!("INSERT INTO {table} VALUES (?, ?, ?, ?)"))?;
    for ((kind, name), of) in current(db, schema, names)? {
        insert.execute((kind, name, of.table, of.sql))?;
    }
    Ok(())
}

/// What is not as it was, and of several things the one that the others come from: a table that is gone, before those that name it.
pub fn altered(
    db: &Connection,
    schema: &Schema,
    names: &Names,
    exclude: &[String],
) -> Result<Option<Altered>> {
    let (mut then, now) = (kept(db, names)?, current(db, schema, names)?);
    // A table may be excluded where what was copied is followed, and not where it came from.
    then.retain(|(_, name), of| !exclude.contains(&of.table) || name.starts_with(OWN));
    let objects: BTreeSet<&Object> = then.keys().chain(now.keys()).collect();
    let differing = objects.into_iter().filter(|object| then.get(*object) != now.get(*object));
    let rank = |object: &Object| match (object.0.as_str(), object.1.starts_with(OWN)) {
        ("table", _) if !now.contains_key(object) => 0,
        ("table", _) if !then.contains_key(object) => 1,
        ("table", _) => 2,
        (_, true) => 3,
        (_, false) => 4,
    };
    let Some(object) = differing.min_by_key(|object| rank(object)) else { return Ok(None) };
    let (kind, name) = object;
    let is_own = name.starts_with(OWN);
    let what = match (then.get(object), now.get(object)) {
        (Some(_), _) if is_own => WAS_MADE_ANEW.to_owned(),
        (Some(_), None) => renamed(&then, &now, object).map_or_else(
            || WAS_DROPPED.to_owned(),
            |name| format!("it was renamed to {name} while its changes were followed"),
        ),
        (Some(_), Some(_)) => WAS_ALTERED.to_owned(),
        (None, _) => WAS_MADE.to_owned(),
    };
    let table = then.get(object).filter(|_| is_own).map(|of| &of.table);
    let object = table.map_or_else(|| format!("{kind} {name}"), |table| format!("table {table}"));
    Ok(Some(Altered { object, what }))
}

/// What has become of a table that some capture follows; nothing, where it is as it was.
pub fn became(db: &Connection, table: &str) -> Result<Option<&'static str>> {
    let now = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?";
    let now: Option<String> = db.query_row(now, [table], |row| row.get(0)).optional()?;
    let Some(now) = now else { return Ok(Some(WAS_DROPPED)) };
    let captures =
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1";
    let mut captures = db.prepare_cached(captures)?;
    let captures = captures.query_map([beginning()], |row| row.get(0))?;
    let captures: Vec<String> = captures.collect::<rusqlite::Result<_>>()?;
    for capture in &captures {
        let same = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE kind = 'table' AND name = ? AND sql = ?)",
            quote(capture)
        );
        if db.query_row(&same, [table, &now], |row| row.get(0))? {
            return Ok(None);
        }
    }
    Ok(if captures.is_empty() { None } else { Some(WAS_ALTERED) })
}

/// The name that a table has now: the capture's triggers have gone with it.
fn renamed(
    then: &BTreeMap<Object, Definition>,
    now: &BTreeMap<Object, Definition>,
    (kind, table): &Object,
) -> Option<String> {
    let triggers = then.iter().filter(|((_, name), of)| name.starts_with(OWN) && of.table == *table);
    let mut places = triggers.filter_map(|(object, _)| now.get(object));
    if kind == "table" { places.next().map(|of| of.table.clone()) } else { None }
}

fn kept(db: &Connection, names: &Names) -> Result<BTreeMap<Object, Definition>> {
    let sql = format!("SELECT kind, name, tbl, sql FROM {}", quote(&names.definitions));
    let mut statement = db.prepare(&sql)?;
    let found = statement.query_map([], definition)?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// What moves of the schema, as it is now, and the capture's own triggers.
fn current(db: &Connection, schema: &Schema, names: &Names) -> Result<BTreeMap<Object, Definition>> {
    let objects = schema.before_load.iter().chain(&schema.after_load);
    let moved: BTreeSet<(&str, &str)> = objects.map(|ddl| (ddl.kind.as_str(), ddl.name.as_str())).collect();
    let mut statement =
        db.prepare_cached("SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql NOT NULL")?;
    let found = statement.query_map([], definition)?;
    let mut found = found.collect::<rusqlite::Result<BTreeMap<_, _>>>()?;
    found.retain(|(kind, name), _| {
        let is_own = kind == "trigger" && name.starts_with(&names.triggers);
        is_own || moved.contains(&(kind.as_str(), name.as_str()))
    });
    Ok(found)
}

fn definition(row: &Row<'_>) -> rusqlite::Result<(Object, Definition)> {
    Ok(((row.get(0)?, row.get(1)?), Definition { table: row.get(2)?, sql: row.get(3)? }))
}
