//! Why SQLite refused a row, and which row is in its way.

use handover_engine::ports::scratch::{Batch, Refusal, TriedRow};
use handover_engine::rehearsal::ConflictKind;
use handover_engine::rows::text;
use rusqlite::OptionalExtension;
use rusqlite::ffi::{self, ErrorCode};

use super::{Open, ROW, bind, error, placeholder};
use crate::sqlite::catalog::quote;
use crate::sqlite::value::Value;

/// The reason, by SQLite's extended result code; none where it is no matter of the row.
pub fn of(table: &str, error: &rusqlite::Error) -> Option<Refusal> {
    let rusqlite::Error::SqliteFailure(code, message) = error else { return None };
    let message = message.as_deref().unwrap_or_default();
    let named = || message.split_once(": ").map_or(table, |(_, name)| name).to_owned();
    let (kind, constraint) = match (code.code, code.extended_code) {
        (
            _,
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID,
        ) => (ConflictKind::Unique, index(&named()).to_owned()),
        (_, ffi::SQLITE_CONSTRAINT_NOTNULL) => (ConflictKind::NotNull, named()),
        (_, ffi::SQLITE_CONSTRAINT_CHECK) => (ConflictKind::Check, named()),
        (_, ffi::SQLITE_CONSTRAINT_DATATYPE) => {
            (ConflictKind::Type, message.rsplit_once(" column ").map_or(table, |(_, name)| name).to_owned())
        }
        (ErrorCode::TypeMismatch, _) => (ConflictKind::Type, format!("{table}.rowid")),
        (ErrorCode::TooBig, _) => (ConflictKind::Length, table.to_owned()),
        _ => return None,
    };
    Some(Refusal { kind, constraint, in_the_way: None })
}

/// The index in `index 'name'`; otherwise the columns, as they are told.
fn index(told: &str) -> &str {
    told.strip_prefix("index '").and_then(|name| name.strip_suffix('\'')).unwrap_or(told)
}

/// The number of the row that has the same unique value. None where the index is one of expressions, or has a condition.
pub fn in_the_way(open: &Open, batch: &Batch, row: &TriedRow, why: &Refusal) -> error::Result<Option<u64>> {
    if why.kind != ConflictKind::Unique {
        return Ok(None);
    }
    let Some(parts) = parts(open, &batch.table.name, &why.constraint)? else { return Ok(None) };
    let values: Vec<&[u8]> = text::values(&row.values).collect();
    let mut terms = Vec::new();
    let mut bound = Vec::new();
    for (column, collation) in &parts {
        let place = batch.columns.iter().position(|spec| spec.name.eq_ignore_ascii_case(column));
        // A column that takes its default: which one that is only the database knows.
        let Some(text) = place.and_then(|place| values.get(place)) else { return Ok(None) };
        let mark = placeholder(open.utf16, bound.len());
        terms.push(format!("{} COLLATE {} = {mark}", quote(column), quote(collation)));
        bound.push(Value::parse(text)?);
    }
    let sql =
        format!("SELECT {} FROM main.{} WHERE {}", quote(ROW), quote(&batch.table.name), terms.join(" AND "));
    let mut select = open.db.prepare_cached(&sql)?;
    for (n, value) in bound.iter().enumerate() {
        bind(&mut select, open.utf16, n, value)?;
    }
    let mut rows = select.raw_query();
    let number: Option<i64> = match rows.next()? {
        Some(row) => row.get(0)?,
        None => None,
    };
    Ok(number.map(i64::unsigned_abs))
}

/// The columns of the unique index that a refusal names, with their collations.
fn parts(open: &Open, table: &str, constraint: &str) -> error::Result<Option<Vec<(String, String)>>> {
    let sql = "SELECT name FROM pragma_index_list(?) WHERE \"unique\" AND NOT partial";
    let mut statement = open.db.prepare_cached(sql)?;
    let names = statement.query_map([table], |row| row.get::<_, String>(0))?;
    for name in names.collect::<rusqlite::Result<Vec<_>>>()? {
        let sql = "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno";
        let mut statement = open.db.prepare_cached(sql)?;
        let parts = statement
            .query_map([&name], |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, String>(1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let parts: Option<Vec<(String, String)>> =
            parts.into_iter().map(|(column, collation)| Some((column?, collation))).collect();
        let Some(parts) = parts else { continue };
        let told: Vec<String> = parts.iter().map(|(column, _)| format!("{table}.{column}")).collect();
        if told.join(", ") == constraint {
            return Ok(Some(parts));
        }
    }
    // The row number itself, under the name of the column that it is.
    let sql = "SELECT name FROM pragma_table_xinfo(?) WHERE pk = 1";
    let key: Option<String> = open.db.prepare_cached(sql)?.query_row([table], |row| row.get(0)).optional()?;
    let key = key.into_iter().chain(["rowid".to_owned()]);
    let found = key.into_iter().find(|column| format!("{table}.{column}") == constraint);
    Ok(found.map(|column| vec![(column, "BINARY".to_owned())]))
}

#[cfg(test)]
mod tests {
    use handover_engine::rehearsal::ConflictKind::{Check, NotNull, Type, Unique};
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b TEXT, c INTEGER CONSTRAINT small CHECK (c < 9), UNIQUE (a, b));
             CREATE TABLE u (b TEXT); CREATE UNIQUE INDEX lowered ON u (lower(b)); INSERT INTO u VALUES ('b');
             CREATE TABLE s (n INTEGER) STRICT;
             INSERT INTO t VALUES (1, 'a', 'b', 1)",
        )
        .unwrap();
        for (sql, kind, constraint) in [
            ("INSERT INTO t VALUES (1, 'x', 'y', 1)", Unique, "t.id"),
            ("INSERT INTO t VALUES (2, 'a', 'b', 1)", Unique, "t.a, t.b"),
            ("INSERT INTO u VALUES ('B')", Unique, "lowered"),
            ("INSERT INTO t VALUES (2, NULL, 'y', 1)", NotNull, "t.a"),
            ("INSERT INTO t VALUES (2, 'x', 'y', 9)", Check, "small"),
            ("INSERT INTO t VALUES ('x', 'x', 'y', 1)", Type, "t.rowid"),
            ("INSERT INTO s VALUES ('x')", Type, "s.n"),
        ] {
            let error = db.execute(sql, []).unwrap_err();
            let why = of("t", &error).unwrap();
            assert_eq!((why.kind, why.constraint.as_str()), (kind, constraint), "{sql}");
        }
        assert_eq!(of("t", &db.execute("INSERT INTO nowhere VALUES (1)", []).unwrap_err()), None);
    }
}
