//! Applying chunks to a database, and what comes after the load.

use handover_engine::rows::{RowsChunk, Schema, TableKey, text};
use rusqlite::{Connection, Result, params_from_iter};

use super::catalog::quote;
use super::read::Shape;
use super::value::parse_row;

fn malformed(error: impl std::fmt::Display) -> rusqlite::Error {
    rusqlite::Error::InvalidParameterName(format!("a block is malformed: {error}"))
}

/// Makes a chunk's range hold exactly its rows. To be called inside a transaction.
pub fn apply(db: &Connection, schema: &Schema, chunk: &RowsChunk) -> Result<()> {
    let shape = Shape::of(db, schema, &chunk.header.table)?;
    let name = quote(&chunk.header.table.name);
    let (condition, values) = shape.condition(&chunk.header.range)?;
    db.prepare_cached(&format!("DELETE FROM main.{name}{condition}"))?
        .execute(params_from_iter(shape.bind(&values)))?;
    let columns = shape.columns();
    let marks: Vec<String> = (0..columns.len()).map(|n| shape.placeholder(n)).collect();
    // A row elsewhere with the same unique value is stale, and its own chunk will bring it up to date.
    let sql =
        format!("INSERT OR REPLACE INTO main.{name} ({}) VALUES ({})", columns.join(", "), marks.join(", "));
    let mut insert = db.prepare_cached(&sql)?;
    for row in text::rows(&chunk.block).map_err(malformed)? {
        let values = parse_row(row, columns.len()).map_err(malformed)?;
        if shape.utf16 {
            insert.execute(params_from_iter(shape.bind(&values)))?;
        } else {
            insert.execute(params_from_iter(&values))?;
        }
    }
    Ok(())
}

/// Makes the tables of the first half that are not there yet.
pub fn make_tables(db: &Connection, schema: &Schema) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    for ddl in &schema.before_load {
        if !exists(db, &ddl.kind, &ddl.name)? {
            create(db, &ddl.sql)?;
            if ddl.sql.to_ascii_uppercase().contains("VIRTUAL") {
                empty_shadows(db, schema, &ddl.name)?;
            }
        }
    }
    db.execute_batch("COMMIT")
}

/// A new virtual table has rows in its shadow tables: those of the source take their place.
fn empty_shadows(db: &Connection, schema: &Schema, table: &str) -> Result<()> {
    for shadow in schema.tables.iter().filter(|t| t.name.name.starts_with(&format!("{table}_"))) {
        if exists(db, "table", &shadow.name.name)? && !matches!(shadow.key, TableKey::Position) {
            db.execute_batch(&format!("DELETE FROM main.{}", quote(&shadow.name.name)))?;
        }
    }
    Ok(())
}

/// Runs one statement of the source's schema. Nothing but one CREATE: the source must not be able to attach or change
/// another file.
fn create(db: &Connection, sql: &str) -> Result<()> {
    let is_create = sql.trim_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("create "));
    if !is_create {
        return Err(rusqlite::Error::InvalidParameterName(
            "a schema statement that makes nothing".to_owned(),
        ));
    }
    // Refuses text with a second statement.
    db.execute(sql, []).map(drop)
}

fn exists(db: &Connection, kind: &str, name: &str) -> Result<bool> {
    let sql = "SELECT count(*) FROM main.sqlite_schema WHERE type = ? AND name = ?";
    Ok(db.prepare_cached(sql)?.query_row([kind, name], |row| row.get::<_, i64>(0))? > 0)
}

/// Makes indexes, views and triggers that are not there yet, one transaction each, then sequences and statistics.
pub fn finish(db: &Connection, schema: &Schema) -> Result<()> {
    for ddl in &schema.after_load {
        if !exists(db, &ddl.kind, &ddl.name)? {
            create(db, &ddl.sql)?;
        }
    }
    for name in ["user_version", "application_id"] {
        if let Some(value) = schema.settings.get(name) {
            db.pragma_update(None, name, value.parse::<i64>().unwrap_or(0))?;
        }
    }
    db.execute_batch("BEGIN IMMEDIATE")?;
    sequences(db, schema)?;
    statistics(db, schema)?;
    db.execute_batch("COMMIT")
}

fn sequences(db: &Connection, schema: &Schema) -> Result<()> {
    if !db.table_exists(None, "sqlite_sequence")? {
        return Ok(());
    }
    db.execute("DELETE FROM sqlite_sequence", [])?;
    for (key, position) in &schema.state {
        if let Some(table) = key.strip_prefix("sequence/") {
            let position = position.parse::<i64>().map_err(malformed)?;
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, position))?;
        }
    }
    Ok(())
}

fn statistics(db: &Connection, schema: &Schema) -> Result<()> {
    let Some(rows) = schema.state.get("statistics") else { return Ok(()) };
    // Makes the statistics table, and leaves it empty.
    db.execute_batch("ANALYZE main.sqlite_schema; DELETE FROM sqlite_stat1")?;
    let sql = "INSERT INTO sqlite_stat1 SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)";
    db.execute(sql, [rows])?;
    Ok(())
}

/// Drops the triggers, so that loading fires none.
pub fn drop_triggers(db: &Connection) -> Result<()> {
    let mut statement = db.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'trigger'")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>>>()?;
    names.iter().try_for_each(|name| db.execute_batch(&format!("DROP TRIGGER main.{}", quote(name))))
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
