//! Two SQLite databases: schema, every table row by row, full-text indexes term by term, integrity.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, Rows};

use super::Comparison;

/// What keeps a source's changes and refuses its writers is not part of it.
const NOT_OURS: &str = "substr(name, 1, 11) <> '__handover_'";

/// Compares two databases.
pub fn databases(left: &Path, right: &Path) -> Result<Comparison> {
    let mut out = Comparison::default();
    if !right.exists() {
        out.differs(format!("database {} is missing", right.display()));
        return Ok(out);
    }
    let (l, r) = (open(left)?, open(right)?);
    compare_settings(&l, &r, &mut out)?;
    compare_schema(&l, &r, &mut out)?;
    let tables = tables(&l)?;
    let there = self::tables(&r)?;
    for table in &tables {
        if there.iter().any(|t| t.name == table.name) {
            compare_table(&l, &r, table, &mut out)
                .with_context(|| format!("comparing table {}", table.name))?;
        }
    }
    for problem in column(&r, "PRAGMA integrity_check")?.into_iter().filter(|line| line != "ok") {
        out.differs(format!("integrity of {}: {problem}", right.display()));
    }
    out.bytes = std::fs::metadata(left)?.len();
    Ok(out)
}

fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db =
        Connection::open_with_flags(path, flags).with_context(|| format!("opening {}", path.display()))?;
    db.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 1073741824;")?;
    Ok(db)
}

fn column(db: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = db.prepare(sql)?;
    let values = statement.query_map([], |row| row.get(0))?;
    Ok(values.collect::<Result<_, _>>()?)
}

fn compare_settings(l: &Connection, r: &Connection, out: &mut Comparison) -> Result<()> {
    for pragma in ["encoding", "user_version", "application_id", "auto_vacuum"] {
        let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
        let (a, b) = (column(l, &sql)?, column(r, &sql)?);
        if a != b {
            out.differs(format!("PRAGMA {pragma}: {a:?} became {b:?}"));
        }
    }
    Ok(())
}

fn compare_schema(l: &Connection, r: &Connection, out: &mut Comparison) -> Result<()> {
    let read = |db: &Connection| -> Result<BTreeMap<(String, String), Option<String>>> {
        let mut statement =
            db.prepare(&format!("SELECT type, name, sql FROM sqlite_schema WHERE {NOT_OURS}"))?;
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let (a, mut b) = (read(l)?, read(r)?);
    for ((kind, name), sql) in a {
        match b.remove(&(kind.clone(), name.clone())) {
            None => out.differs(format!("{kind} {name} is missing")),
            Some(there) if there != sql => {
                out.differs(format!("{kind} {name} is declared otherwise: {there:?}"));
            }
            Some(_) => {}
        }
    }
    for (kind, name) in b.keys() {
        out.differs(format!("{kind} {name} is there for no reason"));
    }
    Ok(())
}

/// A table whose rows are compared.
struct Table {
    name: String,
    /// Read for the rows, in an order both sides share.
    select: String,
    /// The first value of a row is its rowid.
    has_rowid: bool,
    /// Not counted: an index read through a vocabulary, or the engine's own.
    auxiliary: bool,
}

/// Every table but the shadows of virtual ones: those are the engine's own business, and are seen through the
/// virtual tables themselves.
fn tables(db: &Connection) -> Result<Vec<Table>> {
    let mut statement = db.prepare(&format!(
        "SELECT name, type, wr FROM pragma_table_list
         WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT IN ('sqlite_schema') AND {NOT_OURS} ORDER BY name",
    ))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut tables = Vec::new();
    for row in rows {
        let (name, kind, without_rowid): (String, String, bool) = row?;
        if kind == "virtual" && is_fts5(db, &name)? {
            tables.push(vocabulary(db, &name)?);
        }
        tables.push(plain(db, name, without_rowid)?);
    }
    Ok(tables)
}

fn plain(db: &Connection, name: String, without_rowid: bool) -> Result<Table> {
    let table = quote(&name);
    let auxiliary = name.starts_with("sqlite_");
    let (select, has_rowid) = if auxiliary {
        (format!("SELECT * FROM {table} ORDER BY 1, 2"), false)
    } else if without_rowid {
        (format!("SELECT * FROM {table} ORDER BY {}", key(db, &name)?), false)
    } else {
        let rowid = rowid(db, &name)?;
        (format!("SELECT {rowid}, * FROM {table} ORDER BY {rowid}"), true)
    };
    Ok(Table { name, select, has_rowid, auxiliary })
}

/// A name of the rowid that no column bears.
fn rowid(db: &Connection, table: &str) -> Result<&'static str> {
    let columns = column(db, &format!("SELECT lower(name) FROM pragma_table_xinfo({})", text(table)))?;
    let free = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !columns.iter().any(|c| c == name));
    free.with_context(|| format!("{table} hides its rowid"))
}

/// The primary key's columns, compared as bytes whatever their collation.
fn key(db: &Connection, table: &str) -> Result<String> {
    let columns =
        column(db, &format!("SELECT name FROM pragma_table_info({}) WHERE pk > 0 ORDER BY pk", text(table)))?;
    Ok(columns.iter().map(|c| format!("{} COLLATE BINARY", quote(c))).collect::<Vec<_>>().join(", "))
}

fn is_fts5(db: &Connection, table: &str) -> Result<bool> {
    let sql = column(db, &format!("SELECT lower(sql) FROM sqlite_schema WHERE name = {}", text(table)))?;
    Ok(sql.iter().any(|sql| sql.contains("using fts5")))
}

/// Every term of a full-text index with where it occurs, in place of the index's bytes, which depend on its history.
fn vocabulary(db: &Connection, table: &str) -> Result<Table> {
    let name = format!("{table} (its index)");
    let vocabulary = quote(&name);
    db.execute_batch(&format!(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.{vocabulary} USING fts5vocab(main, {}, 'instance')",
        text(table)
    ))?;
    let select = format!("SELECT * FROM temp.{vocabulary} ORDER BY 1, 2, 3, 4");
    Ok(Table { name, select, has_rowid: false, auxiliary: true })
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn compare_table(l: &Connection, r: &Connection, table: &Table, out: &mut Comparison) -> Result<()> {
    let (mut left, mut right) = (l.prepare(&table.select)?, r.prepare(&table.select)?);
    let width = left.column_count();
    if width != right.column_count() {
        out.differs(format!("table {} has {} columns instead of {width}", table.name, right.column_count()));
        return Ok(());
    }
    let rows = walk(&mut left.query([])?, &mut right.query([])?, table, width, out)?;
    if !table.auxiliary {
        out.tables += 1;
        out.rows += rows;
    }
    Ok(())
}

/// Walks both sides in the same order; by rowid where there is one, so that a missing row is one difference.
fn walk(
    left: &mut Rows<'_>,
    right: &mut Rows<'_>,
    table: &Table,
    width: usize,
    out: &mut Comparison,
) -> Result<u64> {
    let mut rows = 0;
    let (mut a, mut b) = (left.next()?, right.next()?);
    loop {
        let order = match (a, b) {
            (None, None) => return Ok(rows),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) if table.has_rowid => x.get::<_, i64>(0)?.cmp(&y.get::<_, i64>(0)?),
            (Some(_), Some(_)) => Ordering::Equal,
        };
        match (order, a, b) {
            (Ordering::Less, Some(x), _) => {
                out.differs(format!("table {}: {} is missing", table.name, place(x)?));
            }
            (Ordering::Greater, _, Some(y)) => {
                out.differs(format!("table {}: {} is there for no reason", table.name, place(y)?));
            }
            (_, Some(x), Some(y)) => compare_row(x, y, table, width, out)?,
            _ => {}
        }
        if order != Ordering::Greater {
            rows += 1;
            a = left.next()?;
        }
        if order != Ordering::Less {
            b = right.next()?;
        }
    }
}

fn compare_row(x: &Row<'_>, y: &Row<'_>, table: &Table, width: usize, out: &mut Comparison) -> Result<()> {
    for column in 0..width {
        let (v, w) = (x.get_ref(column)?, y.get_ref(column)?);
        if !same(v, w) {
            let name = x.as_ref().column_name(column)?;
            let (v, w) = (show(v), show(w));
            out.differs(format!("table {}: {}, column {name}: {v} became {w}", table.name, place(x)?));
        }
    }
    Ok(())
}

/// Equal in storage class and to the last bit.
fn same(v: ValueRef<'_>, w: ValueRef<'_>) -> bool {
    match (v, w) {
        (ValueRef::Real(v), ValueRef::Real(w)) => v.to_bits() == w.to_bits(),
        (v, w) => v == w,
    }
}

fn place(row: &Row<'_>) -> Result<String> {
    Ok(format!("row {}", show(row.get_ref(0)?)))
}

fn show(value: ValueRef<'_>) -> String {
    let short = |bytes: &[u8]| bytes[..bytes.len().min(40)].escape_ascii().to_string();
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(i) => format!("integer {i}"),
        ValueRef::Real(r) => format!("real {r:e} ({:016x})", r.to_bits()),
        ValueRef::Text(t) => format!("text '{}' ({} bytes)", short(t), t.len()),
        ValueRef::Blob(b) => format!("blob '{}' ({} bytes)", short(b), b.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "CREATE TABLE t (a, b); CREATE TABLE k (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
        CREATE VIRTUAL TABLE f USING fts5 (x);
        INSERT INTO t VALUES (1, 'x'), (2.0, NULL), ('3', x'00'); INSERT INTO k VALUES ('a', 1), ('b', 2);
        INSERT INTO f VALUES ('some words');";

    fn check(change: &str, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["l", "r"].map(|name| dir.path().join(name));
        for (path, extra) in paths.iter().zip(["", change]) {
            Connection::open(path).unwrap().execute_batch(&format!("{BASE}{extra}")).unwrap();
        }
        let out = databases(&paths[0], &paths[1]).unwrap();
        match expected {
            "" => assert_eq!((out.named, out.tables, out.rows), (Vec::new(), 3, 6)),
            expected => assert!(out.describe().contains(expected), "{change}: {}", out.describe()),
        }
    }

    #[test]
    fn names_what_differs() {
        check("", "");
        check("UPDATE t SET a = 1.0 WHERE a = 1", "table t: row integer 1, column a: integer 1 became real");
        check("UPDATE t SET b = CAST(b AS BLOB) WHERE a = 1", "text 'x' (1 bytes) became blob 'x' (1 bytes)");
        check("DELETE FROM t WHERE a = 2", "1 differences\ntable t: row integer 2 is missing");
        check("INSERT INTO t VALUES (9, 9)", "table t: row integer 4 is there for no reason");
        check("UPDATE t SET rowid = 9 WHERE rowid = 3", "row integer 3 is missing");
        check("UPDATE k SET v = 3 WHERE k = 'b'", "table k: row text 'b' (1 bytes), column v");
        check("UPDATE f SET x = 'other words'", "f (its index)");
        check("CREATE INDEX i ON t (a)", "index i is there for no reason");
        check(
            "DROP TABLE t; CREATE TABLE t (a, b, c); INSERT INTO t VALUES (1, 2, 3)",
            "table t is declared otherwise",
        );
        check("PRAGMA user_version = 3", "PRAGMA user_version");
    }

    #[test]
    fn a_missing_database_is_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        Connection::open(&path).unwrap().execute_batch(BASE).unwrap();
        assert_eq!(databases(&path, &dir.path().join("r")).unwrap().found, 1);
    }
}
