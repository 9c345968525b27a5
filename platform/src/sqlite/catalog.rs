//! A database's schema, read from its catalog.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::rows::{ColumnSpec, Ddl, Schema, TableKey, TableName, TableSpec};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::error::{Error, Result};
use super::state;

/// Settings that are carried over.
const SETTINGS: [&str; 6] =
    ["page_size", "encoding", "auto_vacuum", "user_version", "application_id", "journal_mode"];
/// The names by which SQLite lets a row's hidden key be reached, unless a column has the name.
pub const ALIASES: [&str; 3] = ["rowid", "_rowid_", "oid"];
/// Tables and triggers whose names begin so keep a capture's changes and fence writers: they are not part of the schema.
pub const OWN: &str = "__handover_";
/// The column that numbers the rows of a scratch database's tables: it is not part of the schema.
pub const ROW: &str = "__handover_row";
/// A column that is out of the way while its table is loaded, so that its name means the hidden key again.
pub const ASIDE: &str = "handover column set aside";

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

/// The schema, without the excluded tables and what belongs to them, and without estimates.
pub fn read(db: &Connection, exclude: &[String]) -> Result<Schema> {
    let listed = tables(db)?;
    let excluded = excluded(&listed, exclude);
    let (before_load, after_load) = objects(db, &listed, &excluded)?;
    before_load.iter().try_for_each(|ddl| known_module(db, ddl))?;
    let mut specs = Vec::new();
    for table in listed.iter().filter(|t| matches!(t.kind.as_str(), "table" | "shadow")) {
        if !table.name.starts_with("sqlite_") && !excluded.contains(table.name.as_str()) {
            specs.push(spec(db, table)?);
        }
    }
    let setting = |name: &&str| Ok(((*name).to_owned(), pragma(db, name)?));
    Ok(Schema {
        engine: "sqlite".to_owned(),
        version: rusqlite::version().to_owned(),
        settings: SETTINGS.iter().map(setting).collect::<Result<_>>()?,
        before_load,
        after_load,
        state: state::read(db, &excluded)?,
        tables: specs,
    })
}

/// A setting's value as text.
pub fn pragma(db: &Connection, name: &str) -> Result<String> {
    let value = db.pragma_query_value(None, name, |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Integer(integer) => integer.to_string(),
            other => String::from_utf8_lossy(other.as_bytes().unwrap_or_default()).into_owned(),
        })
    })?;
    Ok(value)
}

fn tables(db: &Connection) -> Result<Vec<Listed>> {
    let sql = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' ORDER BY name";
    let mut statement = db.prepare(sql)?;
    let listed = statement.query_map([], |row| {
        Ok(Listed { name: row.get(0)?, kind: row.get(1)?, without_rowid: row.get(2)? })
    })?;
    let mut listed = listed.collect::<rusqlite::Result<Vec<_>>>()?;
    listed.retain(|table| !table.name.starts_with(OWN));
    Ok(listed)
}

/// Names of the tables that the database holds, to check a list of exclusions.
pub fn table_names(db: &Connection) -> Result<BTreeSet<String>> {
    Ok(tables(db)?.into_iter().filter(|t| t.kind != "view").map(|t| t.name).collect())
}

/// The excluded tables, with the shadow tables of those that are virtual.
fn excluded<'a>(listed: &'a [Listed], exclude: &'a [String]) -> BTreeSet<&'a str> {
    let mut out: BTreeSet<&str> = exclude.iter().map(String::as_str).collect();
    let virtuals: Vec<&str> =
        listed.iter().filter(|t| t.kind == "virtual").map(|t| t.name.as_str()).collect();
    for shadow in listed.iter().filter(|t| t.kind == "shadow") {
        let is_of =
            |owner: &&&str| shadow.name.strip_prefix(**owner).is_some_and(|rest| rest.starts_with('_'));
        let owner = virtuals.iter().filter(is_of).max_by_key(|owner| owner.len());
        if owner.is_some_and(|owner| out.contains(owner)) {
            out.insert(&shadow.name);
        }
    }
    out
}

/// The statements of the two halves. The second is ordered by kind, then as the objects were made: a target that makes its
/// triggers anew after a later load lists the same.
fn objects(db: &Connection, listed: &[Listed], excluded: &BTreeSet<&str>) -> Result<(Vec<Ddl>, Vec<Ddl>)> {
    let kinds: BTreeMap<&str, &str> = listed.iter().map(|t| (t.name.as_str(), t.kind.as_str())).collect();
    let sql = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql NOT NULL ORDER BY rowid";
    let mut statement = db.prepare(sql)?;
    let objects = statement.query_map([], |row| {
        Ok((Ddl { kind: row.get(0)?, name: row.get(1)?, sql: row.get(3)? }, row.get::<_, String>(2)?))
    })?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for object in objects {
        let (ddl, table) = object?;
        let is_own = ddl.name.starts_with(OWN) || table.starts_with(OWN);
        let is_internal =
            is_own || ddl.name.starts_with("sqlite_") || kinds.get(table.as_str()) == Some(&"shadow");
        if is_internal || excluded.contains(table.as_str()) {
            continue;
        }
        if ddl.kind == "table" { before.push(ddl) } else { after.push(ddl) }
    }
    after.sort_by_key(|ddl| ["index", "view", "trigger"].iter().position(|kind| ddl.kind == *kind));
    Ok((before, after))
}

/// The module of a virtual table's statement; `None` for ordinary tables.
fn module(sql: &str) -> Option<&str> {
    let rest = skip_word(skip_word(sql, "CREATE")?, "VIRTUAL")?;
    // What SQLite stores keeps the name as it was written, quoted or not; USING is the next word outside of quotes.
    let (mut quoted, mut at) = (None, 0);
    for (index, c) in rest.char_indices() {
        match (quoted, c) {
            (None, '"' | '\'' | '`') => quoted = Some(c),
            (None, '[') => quoted = Some(']'),
            (Some(end), c) if c == end => (quoted, at) = (None, index + 1),
            (None, c) if c.is_whitespace() => at = index + 1,
            (None, _) if is_using(rest, at, index + 1) => {
                let name = rest[index + 1..].trim_start();
                let end =
                    name.find(|c: char| c == '(' || c == ';' || c.is_whitespace()).unwrap_or(name.len());
                return Some(name[..end].trim_matches(['"', '`', '\'', '[', ']']));
            }
            _ => {}
        }
    }
    None
}

/// The word between two positions is USING, and ends there.
fn is_using(sql: &str, start: usize, end: usize) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
    sql.get(start..end).is_some_and(|word| word.eq_ignore_ascii_case("using")) && !goes_on(&sql[end..])
}

fn skip_word<'a>(sql: &'a str, word: &str) -> Option<&'a str> {
    let sql = sql.trim_start();
    let head = sql.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| &sql[word.len()..])
}

/// Refuses a virtual table that could be neither read nor made.
pub fn known_module(db: &Connection, ddl: &Ddl) -> Result<()> {
    let Some(module) = module(&ddl.sql) else { return Ok(()) };
    let sql = "SELECT count(*) FROM pragma_module_list WHERE name = ? COLLATE NOCASE";
    let known: i64 = db.prepare_cached(sql)?.query_row([module], |row| row.get(0))?;
    if known > 0 {
        return Ok(());
    }
    Err(Error::Module { table: ddl.name.clone(), module: module.to_owned() })
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
    let mut columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    columns.retain(|column| column.spec.name != ROW);
    let key = key(db, table, &columns)?;
    let columns = columns.into_iter().filter(|c| !c.generated).map(|c| c.spec).collect();
    // A virtual table writes to its own tables past their triggers.
    let followed = key != TableKey::Position && table.kind == "table" && !has_unique_expression(db, table)?;
    Ok(TableSpec {
        name: TableName::plain(&table.name),
        columns,
        key,
        estimated_rows: 0,
        estimated_bytes: 0,
        cuts: Vec::new(),
        followed,
    })
}

/// Whether a unique index of the table has an expression: what a replaced row had there cannot be asked for.
fn has_unique_expression(db: &Connection, table: &Listed) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_index_list(?) l, pragma_index_xinfo(l.name) x \
               WHERE l.\"unique\" AND x.key = 1 AND x.cid = -2)";
    Ok(db.prepare_cached(sql)?.query_row([&table.name], |row| row.get(0))?)
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
    let names = || columns.iter().map(|column| column.spec.name.as_str());
    if names().any(|name| name == ASIDE) {
        return Ok(TableKey::Position);
    }
    Ok(hidden_key(names).map_or(TableKey::Position, |alias| TableKey::Hidden(alias.to_owned())))
}

/// Names of all columns of a table, the generated ones too.
pub fn column_names(db: &Connection, table: &str) -> Result<Vec<String>> {
    let mut statement = db.prepare_cached("SELECT name FROM pragma_table_xinfo(?)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// The name that reaches the hidden key of a table with these columns.
pub fn hidden_key<'a, I: Iterator<Item = &'a str>>(columns: impl Fn() -> I) -> Option<&'static str> {
    ALIASES.into_iter().find(|alias| !columns().any(|name| name.eq_ignore_ascii_case(alias)))
}

#[cfg(test)]
mod tests {
    use super::module;

    #[test]
    fn finds_the_module_of_a_virtual_table() {
        let table = [
            ("CREATE VIRTUAL TABLE t USING fts5(a)", Some("fts5")),
            ("create virtual table \"a using b\" using\n  Rtree (id, a, b)", Some("Rtree")),
            ("CREATE VIRTUAL TABLE [t]USING fts4", Some("fts4")),
            ("CREATE VIRTUAL TABLE t USING \"x\"(a)", Some("x")),
            ("CREATE VIRTUAL TABLE using_it USING y", Some("y")),
            ("CREATE VIRTUAL TABLE größe USING y(ü)", Some("y")),
            ("CREATE VIRTUAL TABLE 'it''s' USING[y](a)", Some("y")),
            ("CREATE TABLE virtual (a)", None),
            ("CREATE TABLE \"using fts5\" (a)", None),
        ];
        for (sql, expected) in table {
            assert_eq!(module(sql), expected, "{sql}");
        }
    }
}
