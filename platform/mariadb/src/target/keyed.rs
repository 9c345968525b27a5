//! Rows that arrive by key, into tables that have their indexes.

use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyedRows, TableName};

use super::rows::Rows;
use crate::load;
use crate::shape::SEVERAL;

const WHAT: &str = "rows cannot be looked up";

/// One attempt at applying all of them, in one transaction.
pub async fn apply(place: &Rows, rows: &[KeyedRows]) -> Result<()> {
    let mut session = place.session().await?;
    let current = place.current(&mut session).await?;
    // Otherwise a unique value that another row has would not be noticed in every case.
    session.run("cannot be set up", "SET unique_checks = 1").await?;
    session.run("no transaction can begin", "START TRANSACTION").await?;
    for rows in rows {
        let shape = current.catalog.shape(&rows.chunk.header.table)?;
        let done = load::apply_keys(&mut session, &current.database, &shape, current.way, rows).await;
        if let Err(failure) = done {
            let _ = session.run("rows cannot be taken back", "ROLLBACK").await;
            return Err(failure);
        }
    }
    session.run("rows cannot be committed", "COMMIT").await?;
    session.run("cannot be set up", "SET unique_checks = 0").await?;
    place.keep(session).await;
    Ok(())
}

/// Empties a table.
pub async fn clear(place: &Rows, table: &TableName) -> Result<()> {
    let mut session = place.session().await?;
    let current = place.current(&mut session).await?;
    let shape = current.catalog.shape(table)?;
    session.run_on(&table.name, "cannot be emptied", &shape.truncate(&current.database)).await?;
    place.keep(session).await;
    Ok(())
}

/// The keys of rows that have one of these lists of values.
pub async fn children(place: &Rows, table: &TableName, columns: &[u32], values: &[Key]) -> Result<Vec<Key>> {
    let mut session = place.session().await?;
    let current = place.current(&mut session).await?;
    let shape = current.catalog.shape(table)?;
    let mut out = Vec::new();
    for values in values.chunks(SEVERAL) {
        let Some(condition) = shape.has_values(columns, values)? else { continue };
        let rows = session.records(WHAT, &shape.keys_where(&current.database, &condition)).await?;
        out.extend(rows.iter().map(|row| shape.found(row).key));
    }
    place.keep(session).await;
    Ok(out)
}
