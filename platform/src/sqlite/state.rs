//! What changes with the data and is set at the end: sequence positions and the planner's statistics.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::rows::Schema;
use rusqlite::Connection;

use super::error::Result;

/// A table of statistics: its name, how its rows are written as JSON, and how they are read back.
struct Statistics {
    table: &'static str,
    print: &'static str,
    parse: &'static str,
}

const STATISTICS: [Statistics; 2] = [
    Statistics {
        table: "sqlite_stat1",
        print: "json_array(tbl, idx, stat)",
        parse: "value ->> 0, value ->> 1, value ->> 2",
    },
    Statistics {
        table: "sqlite_stat4",
        print: "json_array(tbl, idx, neq, nlt, ndlt, hex(sample))",
        parse: "value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5)",
    },
];

/// Reads it, without what belongs to the excluded tables.
pub fn read(db: &Connection, excluded: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    if db.table_exists(None, "sqlite_sequence")? {
        let mut statement = db.prepare("SELECT name, CAST(seq AS INTEGER) FROM sqlite_sequence")?;
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?)))?;
        for row in rows {
            let (table, position) = row?;
            if !excluded.contains(table.as_str()) {
                out.insert(format!("sequence/{table}"), position.unwrap_or(0).to_string());
            }
        }
    }
    for &Statistics { table, print, .. } in &STATISTICS {
        if !db.table_exists(None, table)? {
            continue;
        }
        let mut statement = db.prepare(&format!("SELECT {print}, tbl FROM {table} ORDER BY rowid"))?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))?;
        let mut kept = Vec::new();
        for row in rows {
            let (row, of) = row?;
            if !of.is_some_and(|of| excluded.contains(of.as_str())) {
                kept.push(row);
            }
        }
        out.insert(format!("statistics/{table}"), format!("[{}]", kept.join(",")));
    }
    Ok(out)
}

/// Sets it, in one transaction. Idempotent.
pub fn write(db: &Connection, schema: &Schema) -> Result<()> {
    let transaction = db.unchecked_transaction()?;
    if db.table_exists(None, "sqlite_sequence")? {
        db.execute("DELETE FROM sqlite_sequence", [])?;
        for (key, position) in &schema.state {
            if let Some(table) = key.strip_prefix("sequence/") {
                let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES (?, CAST(? AS INTEGER))";
                db.execute(sql, (table, position))?;
            }
        }
    }
    let found = |statistics: &Statistics| schema.state.get(&format!("statistics/{}", statistics.table));
    if STATISTICS.iter().any(|statistics| found(statistics).is_some()) {
        // Makes the tables; its own rows go again.
        db.execute_batch("ANALYZE main.sqlite_schema")?;
    }
    for statistics in &STATISTICS {
        let &Statistics { table, parse, .. } = statistics;
        if !db.table_exists(None, table)? {
            continue;
        }
        if let Some(rows) = found(statistics) {
            db.execute(&format!("DELETE FROM {table}"), [])?;
            db.execute(
                &format!("INSERT INTO {table} SELECT {parse} FROM json_each(?) ORDER BY key"),
                [rows],
            )?;
        } else {
            db.execute_batch(&format!("DROP TABLE {table}"))?;
        }
    }
    transaction.commit()?;
    Ok(())
}
