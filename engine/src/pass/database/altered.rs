//! A source whose schema is no longer the one that was copied.

use crate::failure::Failure;
use crate::name::DatasetName;
use crate::pass::Work;
use crate::pass::verify::some;
use crate::ports::Result;
use crate::rows::Schema;

/// The schema that was copied, as the journal holds it.
pub(crate) async fn held_schema(work: &Work, dataset: &DatasetName) -> Result<Schema> {
    let held = work.holdings.schema(&work.migration, dataset).await?;
    held.ok_or_else(|| {
        Failure::permanent(format!("dataset {dataset}"), "the journal has lost its schema")
            .begin_anew("abort, and plan again")
    })
}

/// The same; refused where the source has another one `now`.
pub(crate) async fn refuse_altered(work: &Work, dataset: &DatasetName, now: &Schema) -> Result<Schema> {
    let held = held_schema(work, dataset).await?;
    let changes = held.changes(now);
    if changes.is_empty() {
        return Ok(held);
    }
    let what = format!("its schema has changed since it was copied: {}", some(&changes));
    Err(Failure::operator(format!("dataset {dataset}"), what).begin_anew(
        "take that back at the source, or `handover abort` and start again; change no schema while a migration runs",
    ))
}
