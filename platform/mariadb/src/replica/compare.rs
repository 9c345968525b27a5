//! Views of a primary and of its replica that are of one position, compared row by row.

use std::sync::atomic::{AtomicU64, Ordering};

use handover_engine::ports::{DatabaseSnapshot, Result};
use handover_engine::rows::{KeyRange, Schema, TableName};

use super::Shared;
use crate::database::{Snapshot, take_together};
use crate::settings::Settings;
use crate::target::late;

/// Text bytes that are compared at once.
const BUDGET: u64 = 4 << 20;

/// Views of all databases of one server, of one moment.
pub async fn views(shared: &[Shared], of: impl Fn(&Shared) -> &Settings) -> Result<Vec<Snapshot>> {
    let all: Vec<_> = shared.iter().map(|one| (&one.dataset, of(one))).collect();
    take_together(&all).await
}

/// Where they differ: objects by their names, rows by their tables and how many parts of these differ. Counts the rows that were compared.
pub async fn differences(
    shared: &[Shared],
    here: &[Snapshot],
    there: &[Snapshot],
    compared: &AtomicU64,
) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for ((one, here), there) in shared.iter().zip(here).zip(there) {
        let unlike = of_primary(here.schema()).differences(&of_primary(there.schema()));
        let known = |table: &TableName| there.schema().table(table).is_some();
        out.extend(unlike.into_iter().map(|(object, how)| format!("{}: {object}: {how}", one.dataset)));
        for table in here.schema().tables.iter().filter(|table| known(&table.name)) {
            let (parts, rows) = unlike_parts(here, there, &table.name, compared).await?;
            if parts > 0 {
                out.push(format!(
                    "{}: table {}: {parts} parts, {} rows instead of {}",
                    one.dataset, table.name, rows.1, rows.0
                ));
            }
        }
    }
    Ok(out)
}

/// As it is on a primary: events rest on replicas.
fn of_primary(schema: &Schema) -> Schema {
    let mut schema = schema.clone();
    for event in schema.after_load.iter_mut().filter(|ddl| ddl.kind == "event") {
        event.sql = late::of_primary(&event.sql);
    }
    schema
}

/// How many parts of a table differ, and how many rows these have here and there.
async fn unlike_parts(
    here: &Snapshot,
    there: &Snapshot,
    table: &TableName,
    compared: &AtomicU64,
) -> Result<(u64, (u64, u64))> {
    let (mut parts, mut rows) = (0, (0, 0));
    let mut range = KeyRange::default();
    loop {
        let part = here.read(table, &range, BUDGET).await?;
        // More than that is not the same in any case.
        let other = there.read(table, &part.header.range, 2 * BUDGET).await?;
        compared.fetch_add(part.header.rows, Ordering::Relaxed);
        if part.header.digest != other.header.digest {
            parts += 1;
            rows = (rows.0 + part.header.rows, rows.1 + other.header.rows);
        }
        let Some(until) = part.header.range.until else { return Ok((parts, rows)) };
        range.after = Some(until);
    }
}
