//! A database's schema, read from its catalog.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::rows::{ColumnSpec, Ddl, Schema, TableKey, TableName, TableSpec};
use rusqlite::{Connection, OptionalExtension, Result};

/// Settings that are carried over.
const SETTINGS: [&str; 6] =
    ["page_size", "encoding", "auto_vacuum", "user_version", "application_id", "journal_mode"];

/// What the catalog says of one table.
struct Listed {
    name: String,
    kind: String,
    without_rowid: bool,
}

/// A name in SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The schema, without the excluded tables and what belongs to them.
pub fn read(db: &Connection, exclude: &[String]) -> Result<Schema> {
    let excluded: BTreeSet<&str> = exclude.iter().map(String::as_str).collect();
    let listed = tables(db)?;
    let kinds: BTreeMap<&str, &str> = listed.iter().map(|t| (t.name.as_str(), t.kind.as_str())).collect();
    let (mut before_load, mut after_load) = (Vec::new(), Vec::new());
    let mut statement = db.prepare(
        "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql NOT NULL ORDER BY rowid",
    )?;
    let objects = statement.query_map([], |row| {
        Ok((Ddl { kind: row.get(0)?, name: row.get(1)?, sql: row.get(3)? }, row.get::<_, String>(2)?))
    })?;
    for object in objects {
        let (ddl, table) = object?;
        let is_internal = ddl.name.starts_with("sqlite_") || kinds.get(table.as_str()) == Some(&"shadow");
        if is_internal || excluded.contains(table.as_str()) {
            continue;
        }
        if ddl.kind == "table" { before_load.push(ddl) } else { after_load.push(ddl) }
    }
    let mut specs = Vec::new();
    for table in listed.iter().filter(|t| matches!(t.kind.as_str(), "table" | "shadow")) {
        if !table.name.starts_with("sqlite_") && !excluded.contains(table.name.as_str()) {
            specs.push(spec(db, table)?);
        }
    }
    let settings =
        SETTINGS.iter().map(|name| Ok(((*name).to_owned(), pragma(db, name)?))).collect::<Result<_>>()?;
    let state = state(db, &excluded)?;
    let version = rusqlite::version().to_owned();
    Ok(Schema {
        engine: "sqlite".to_owned(),
        version,
        settings,
        before_load,
        after_load,
        state,
        tables: specs,
    })
}

/// A setting's value as text.
pub fn pragma(db: &Connection, name: &str) -> Result<String> {
    db.pragma_query_value(None, name, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(integer) => integer.to_string(),
            other => String::from_utf8_lossy(other.as_bytes().unwrap_or_default()).into_owned(),
        })
    })
}

fn tables(db: &Connection) -> Result<Vec<Listed>> {
    let sql = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' ORDER BY name";
    let mut statement = db.prepare(sql)?;
    let listed = statement.query_map([], |row| {
        Ok(Listed { name: row.get(0)?, kind: row.get(1)?, without_rowid: row.get(2)? })
    })?;
    listed.collect()
}

/// Names of the tables that the schema knows, to check a list of exclusions.
pub fn table_names(db: &Connection) -> Result<BTreeSet<String>> {
    Ok(tables(db)?.into_iter().filter(|t| t.kind != "view").map(|t| t.name).collect())
}

/// A column as the catalog shows it.
struct Column {
    spec: ColumnSpec,
    /// Position in the primary key, from 1; 0 when it is not part of it.
    key: u32,
    generated: bool,
}

fn spec(db: &Connection, table: &Listed) -> Result<TableSpec> {
    let mut statement = db.prepare_cached("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)")?;
    let columns = statement.query_map([&table.name], |row| {
        let spec = ColumnSpec { name: row.get(0)?, declared: row.get(1)? };
        Ok(Column { spec, key: row.get(2)?, generated: row.get::<_, i64>(3)? != 0 })
    })?;
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let key = key(db, table, &columns)?;
    let columns = columns.into_iter().filter(|c| !c.generated).map(|c| c.spec).collect();
    Ok(TableSpec { name: TableName::plain(&table.name), columns, key, estimated_rows: 0, estimated_bytes: 0 })
}

fn key(db: &Connection, table: &Listed, columns: &[Column]) -> Result<TableKey> {
    let stored = columns.iter().filter(|c| !c.generated).enumerate();
    let mut parts: Vec<(u32, u32)> = stored
        .filter(|(_, c)| c.key > 0)
        .map(|(at, c)| (c.key, u32::try_from(at).unwrap_or(u32::MAX)))
        .collect();
    parts.sort_unstable();
    let parts: Vec<u32> = parts.into_iter().map(|(_, at)| at).collect();
    if table.without_rowid {
        return Ok(TableKey::Columns(parts));
    }
    // An INTEGER PRIMARY KEY is the rowid itself: it is the only primary key without an index of its own (SQLite manual,
    // "ROWIDs and the INTEGER PRIMARY KEY").
    let indexed: i64 = db
        .prepare_cached("SELECT count(*) FROM pragma_index_list(?) WHERE origin = 'pk'")?
        .query_row([&table.name], |row| row.get(0))?;
    if parts.len() == 1 && indexed == 0 {
        return Ok(TableKey::Columns(parts));
    }
    let shadowed = |alias: &&str| columns.iter().any(|c| c.spec.name.eq_ignore_ascii_case(alias));
    let alias = ["rowid", "_rowid_", "oid"].into_iter().find(|alias| !shadowed(alias));
    Ok(alias.map_or(TableKey::Position, |alias| TableKey::Hidden(alias.to_owned())))
}

/// Collations of a WITHOUT ROWID table's primary key, in key order.
pub fn key_collations(db: &Connection, table: &str) -> Result<Vec<String>> {
    let index: Option<String> = db
        .prepare_cached("SELECT name FROM pragma_index_list(?) WHERE origin = 'pk'")?
        .query_row([table], |row| row.get(0))
        .optional()?;
    let Some(index) = index else { return Ok(Vec::new()) };
    let mut statement =
        db.prepare_cached("SELECT coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno")?;
    statement.query_map([index], |row| row.get(0))?.collect()
}

/// Sequence positions and statistics.
fn state(db: &Connection, excluded: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    if db.table_exists(None, "sqlite_sequence")? {
        let mut statement = db.prepare("SELECT name, seq FROM sqlite_sequence")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        for row in rows {
            let (table, position) = row?;
            if !excluded.contains(table.as_str()) {
                out.insert(format!("sequence/{table}"), position.to_string());
            }
        }
    }
    if db.table_exists(None, "sqlite_stat1")? {
        let mut statement = db.prepare("SELECT json_array(tbl, idx, stat) FROM sqlite_stat1")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let rows = rows.collect::<Result<Vec<_>>>()?;
        out.insert("statistics".to_owned(), format!("[{}]", rows.join(",")));
    }
    Ok(out)
}
