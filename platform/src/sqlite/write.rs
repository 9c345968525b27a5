//! Making the tables of a database, applying chunks to them, and what comes after the load.

use handover_engine::rows::{Ddl, KeyedRows, RowsChunk, Schema, TableKey, TableName, text};
use rusqlite::Connection;

use super::catalog::{self, ALIASES, ASIDE, quote};
use super::error::{Error, Result};
use super::shape::{Shape, position};
use super::state;
use super::value::{BadValue, Value};

/// Makes a chunk's range hold exactly its rows. To be called inside a transaction.
pub fn apply(db: &Connection, schema: &Schema, chunk: &RowsChunk) -> Result<()> {
    let shape = Shape::of(db, schema, &chunk.header.table)?;
    let confined = shape.confine(&chunk.header.range)?;
    let mut delete = db.prepare_cached(&format!("DELETE FROM main.{}{}", shape.name(), confined.sql))?;
    for (n, value) in confined.values.iter().enumerate() {
        shape.bind(&mut delete, n, value)?;
    }
    delete.raw_execute()?;
    insert(db, &shape, &chunk.block, position_of_first(&shape, chunk)?)
}

/// Makes each key hold exactly its row, or none. To be called inside a transaction.
pub fn apply_keys(db: &Connection, schema: &Schema, rows: &KeyedRows) -> Result<()> {
    let shape = Shape::of(db, schema, &rows.chunk.header.table)?;
    let mut delete =
        db.prepare_cached(&format!("DELETE FROM main.{}{}", shape.name(), shape.confine_to_key()))?;
    for key in &rows.keys {
        for (n, value) in shape.parse_key(key)?.iter().enumerate() {
            shape.bind(&mut delete, n, value)?;
        }
        delete.raw_execute()?;
    }
    insert(db, &shape, &rows.chunk.block, 0)
}

/// Removes all rows of a table.
pub fn clear(db: &Connection, table: &TableName) -> Result<()> {
    Ok(db.execute_batch(&format!("DELETE FROM main.{}", quote(&table.name)))?)
}

/// Inserts a block's rows; `at` is the position before the first, where rows have no key.
fn insert(db: &Connection, shape: &Shape<'_>, block: &[u8], mut at: i64) -> Result<()> {
    let mut insert = db.prepare_cached(&shape.insert())?;
    let width = shape.columns().len();
    for row in text::rows(block).map_err(BadValue::from)? {
        let mut found = 0;
        for value in text::values(row) {
            if found < width {
                shape.bind(&mut insert, found, &Value::parse(value)?)?;
            }
            found += 1;
        }
        if found != width {
            return Err(BadValue::from(text::BadText::Width { found, expected: width }).into());
        }
        if shape.positions().is_some() {
            at += 1;
            shape.bind(&mut insert, width, &Value::Integer(at))?;
        }
        insert.raw_execute()?;
    }
    Ok(())
}

/// The position before a chunk's first row; 0 where rows have keys.
fn position_of_first(shape: &Shape<'_>, chunk: &RowsChunk) -> Result<i64> {
    let after = if shape.by_position() { position(chunk.header.range.after.as_ref())? } else { 0 };
    Ok(i64::try_from(after).unwrap_or(i64::MAX))
}

/// Makes the tables of the first half that are not there yet, all or none, and drops the triggers, so that loading fires
/// none.
pub fn make_tables(db: &Connection, schema: &Schema) -> Result<()> {
    let transaction = db.unchecked_transaction()?;
    drop_triggers(db)?;
    for ddl in &schema.before_load {
        if !exists(db, &ddl.kind, &ddl.name)? {
            catalog::known_module(db, ddl)?;
            create(db, &ddl.sql)?;
        }
    }
    set_columns_aside(db, schema)?;
    transaction.commit()?;
    Ok(())
}

/// Renames, where every name of the hidden key is a column's, such a column: the hidden key takes the rows' positions then.
fn set_columns_aside(db: &Connection, schema: &Schema) -> Result<()> {
    for table in schema.tables.iter().filter(|table| table.key == TableKey::Position) {
        if catalog::column_names(db, &table.name.name)?.iter().any(|name| name == ASIDE) {
            continue;
        }
        let is_alias = |name: &str| ALIASES.iter().any(|alias| name.eq_ignore_ascii_case(alias));
        let column = table.columns.iter().find(|column| is_alias(&column.name));
        let column = column.ok_or(Error::Unknown("generated columns take every name of the row number"))?;
        let (name, column) = (quote(&table.name.name), quote(&column.name));
        let rename = format!("ALTER TABLE main.{name} RENAME COLUMN {column} TO {}", quote(ASIDE));
        // With this setting SQLite leaves alone the views that it cannot understand, instead of refusing.
        db.execute_batch("PRAGMA writable_schema = ON")?;
        let renamed = db.execute_batch(&rename);
        db.execute_batch("PRAGMA writable_schema = OFF")?;
        renamed?;
    }
    Ok(())
}

/// Gives the columns that were set aside their names back, wherever statements name them.
fn put_columns_back(db: &Connection, schema: &Schema) -> Result<()> {
    if !schema.tables.iter().any(|table| table.key == TableKey::Position) {
        return Ok(());
    }
    db.execute_batch("PRAGMA writable_schema = ON")?;
    let transaction = db.unchecked_transaction()?;
    for ddl in schema.before_load.iter().chain(&schema.after_load) {
        must_create(&ddl.sql)?;
        let sql = "UPDATE main.sqlite_schema SET sql = ?1 WHERE type = ?2 AND name = ?3 AND sql <> ?1";
        db.execute(sql, (&ddl.sql, &ddl.kind, &ddl.name))?;
    }
    transaction.commit()?;
    db.execute_batch("PRAGMA writable_schema = RESET")?;
    Ok(())
}

/// Runs one statement of the source's schema. Nothing but one CREATE: the source must not be able to attach or change
/// another file.
pub fn create(db: &Connection, sql: &str) -> Result<()> {
    must_create(sql)?;
    // Refuses text with a second statement.
    db.execute(sql, [])?;
    Ok(())
}

fn must_create(sql: &str) -> Result<()> {
    let is_create = sql.trim_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("create "));
    if is_create { Ok(()) } else { Err(Error::Statement) }
}

fn exists(db: &Connection, kind: &str, name: &str) -> Result<bool> {
    let sql = "SELECT count(*) FROM main.sqlite_schema WHERE type = ? AND name = ?";
    Ok(db.prepare_cached(sql)?.query_row([kind, name], |row| row.get::<_, i64>(0))? > 0)
}

/// Makes indexes that are not there yet, one transaction each.
pub fn index(db: &Connection, schema: &Schema) -> Result<()> {
    schema.after_load.iter().filter(|ddl| ddl.kind == "index").try_for_each(|ddl| make(db, ddl))
}

fn make(db: &Connection, ddl: &Ddl) -> Result<()> {
    if exists(db, &ddl.kind, &ddl.name)? { Ok(()) } else { create(db, &ddl.sql) }
}

/// Makes indexes, views and triggers that are not there yet, one transaction each, then sequences and statistics.
pub fn finish(db: &Connection, schema: &Schema) -> Result<()> {
    put_columns_back(db, schema)?;
    schema.after_load.iter().try_for_each(|ddl| make(db, ddl))?;
    for name in ["user_version", "application_id"] {
        if let Some(value) = schema.settings.get(name) {
            db.pragma_update(None, name, value.parse::<i64>().unwrap_or(0))?;
        }
    }
    state::write(db, schema)
}

fn drop_triggers(db: &Connection) -> Result<()> {
    let mut statement = db.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'trigger'")?;
    let names =
        statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    for name in names {
        db.execute_batch(&format!("DROP TRIGGER main.{}", quote(&name)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_create_statement_is_run() {
        let db = Connection::open_in_memory().unwrap();
        create(&db, "CREATE TABLE t (a)").unwrap();
        for bad in [
            "ATTACH '/tmp/other.db' AS other",
            "CREATE TABLE u (a); ATTACH '/tmp/other.db' AS other",
            "DROP TABLE t",
            "",
            "PRAGMA writable_schema = ON",
        ] {
            assert!(create(&db, bad).is_err(), "{bad}");
        }
        assert!(exists(&db, "table", "t").unwrap());
    }
}
