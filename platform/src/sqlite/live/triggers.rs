//! The triggers that keep changes, and those that refuse them.

use handover_engine::rows::{Schema, TableKey, TableSpec};
use rusqlite::Connection;

use super::super::catalog::{OWN, quote};
use super::super::error::Result;
use super::Names;

/// What a writer is told.
const REFUSAL: &str = "handover: this database is being moved, and may not be written to here";

/// The columns of a table's key, as SQL names them.
fn key(table: &TableSpec) -> Vec<String> {
    match &table.key {
        TableKey::Hidden(alias) => vec![alias.clone()],
        TableKey::Columns(columns) => {
            let column = |at: &u32| table.columns.get(*at as usize).map(|column| quote(&column.name));
            columns.iter().filter_map(column).collect()
        }
        TableKey::Position => Vec::new(),
    }
}

/// The followed tables, each with its number, which its triggers have in their names.
fn followed(schema: &Schema) -> impl Iterator<Item = &TableSpec> {
    schema.tables.iter().filter(|table| table.followed)
}

fn name(names: &Names, table: &TableSpec, event: &str) -> String {
    format!("{}{event}_{}", names.triggers, table.name.name)
}

/// Makes the triggers of a capture.
pub fn capture(db: &Connection, schema: &Schema, names: &Names) -> Result<()> {
    for table in followed(schema) {
        let (key, on) = (key(table), quote(&table.name.name));
        let places: Vec<String> = (0..key.len()).map(|n| format!("k{n}")).collect();
        let into = format!("INSERT INTO {} (tbl, {})", quote(&names.changes), places.join(", "));
        let of = format!("'{}'", table.name.name.replace('\'', "''"));
        let row =
            |which: &str| key.iter().map(|column| format!("{which}.{column}")).collect::<Vec<_>>().join(", ");
        // By their bytes: a key's index may tell values apart that the column's collation does not.
        let moved: Vec<String> =
            key.iter().map(|column| format!("OLD.{column} IS NOT NEW.{column} COLLATE BINARY")).collect();
        let make = |event: &str, when: &str, body: String| {
            let name = quote(&name(names, table, event));
            db.execute_batch(&format!("CREATE TRIGGER {name} {when} ON {on} BEGIN {body} END"))
        };
        make("i", "AFTER INSERT", format!("{into} VALUES ({of}, {});", row("NEW")))?;
        make("d", "AFTER DELETE", format!("{into} VALUES ({of}, {});", row("OLD")))?;
        make(
            "u",
            "AFTER UPDATE",
            format!(
                "{into} VALUES ({of}, {}); {into} SELECT {of}, {} WHERE {};",
                row("NEW"),
                row("OLD"),
                moved.join(" OR ")
            ),
        )?;
        // Rows that INSERT OR REPLACE and UPDATE OR REPLACE remove fire no trigger of their own.
        let in_the_way = in_the_way(db, table)?;
        if !in_the_way.is_empty() {
            let body = |condition: &str| {
                let each = |other: &String| {
                    format!("{into} SELECT {of}, {} FROM {on} WHERE {other}{condition};", key.join(", "))
                };
                in_the_way.iter().map(each).collect::<String>()
            };
            make("r", "BEFORE INSERT", body(""))?;
            let other: Vec<String> = key
                .iter()
                .map(|column| format!("{on}.{column} IS NOT OLD.{column} COLLATE BINARY"))
                .collect();
            make("s", "BEFORE UPDATE", body(&format!(" AND ({})", other.join(" OR "))))?;
        }
    }
    Ok(())
}

/// Conditions that find the rows with which a new row has a unique value in common, other than its key.
fn in_the_way(db: &Connection, table: &TableSpec) -> Result<Vec<String>> {
    // A row that is replaced by its own key keeps the key. Another unique index of the same columns may compare them otherwise.
    let sql = "SELECT l.name, x.name, x.coll FROM pragma_index_list(?1) l, pragma_index_xinfo(l.name) x \
               WHERE l.\"unique\" AND x.key = 1 AND (?2 OR l.origin <> 'pk') ORDER BY l.seq, x.seqno";
    let by_number = matches!(table.key, TableKey::Hidden(_));
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query((&table.name.name, by_number))?;
    let mut indexes: Vec<(String, Vec<String>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (index, column, collation): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let column = quote(&column);
        let term = format!("{column} = NEW.{column} COLLATE {}", quote(&collation));
        match indexes.last_mut().filter(|(last, _)| *last == index) {
            Some((_, terms)) => terms.push(term),
            None => indexes.push((index, vec![term])),
        }
    }
    Ok(indexes.into_iter().map(|(_, terms)| terms.join(" AND ")).collect())
}

/// Drops all triggers whose names begin so.
pub fn drop_all(db: &Connection, beginning: &str) -> Result<()> {
    let sql =
        "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, length(?1)) = ?1";
    let mut statement = db.prepare(sql)?;
    let names = statement.query_map([beginning], |row| row.get::<_, String>(0))?;
    for name in names.collect::<rusqlite::Result<Vec<_>>>()? {
        db.execute_batch(&format!("DROP TRIGGER {}", quote(&name)))?;
    }
    Ok(())
}

/// Refuses writes to every table that has rows of its own.
pub fn fence(db: &Connection, schema: &Schema) -> Result<()> {
    let fence = format!("{OWN}fence");
    // Who carries changes back puts a row there, in its own transaction, where nobody else sees it.
    db.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {} (applying)", quote(&fence)))?;
    for table in &schema.tables {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let name = format!("{fence}_{}_{}", event.to_lowercase(), table.name.name);
            db.execute_batch(&format!(
                "CREATE TRIGGER IF NOT EXISTS {} BEFORE {event} ON {} WHEN NOT EXISTS (SELECT 1 FROM {}) \
                 BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
                quote(&name),
                quote(&table.name.name),
                quote(&fence)
            ))?;
        }
    }
    Ok(())
}

/// Takes the fence away.
pub fn unfence(db: &Connection) -> Result<()> {
    let fence = format!("{OWN}fence");
    drop_all(db, &format!("{fence}_"))?;
    Ok(db.execute_batch(&format!("DROP TABLE IF EXISTS {}", quote(&fence)))?)
}

/// Takes all of ours away: captures, and the fence.
pub fn strip(db: &Connection) -> Result<()> {
    let transaction = db.unchecked_transaction()?;
    drop_all(db, OWN)?;
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1";
    let mut statement = db.prepare(sql)?;
    let names = statement.query_map([OWN], |row| row.get::<_, String>(0))?;
    for name in names.collect::<rusqlite::Result<Vec<_>>>()? {
        db.execute_batch(&format!("DROP TABLE {}", quote(&name)))?;
    }
    drop(statement);
    Ok(transaction.commit()?)
}
