//! A source whose schema is no longer the one that was copied.

use crate::failure::Failure;
use crate::name::DatasetName;
use crate::pass::Work;
use crate::pass::verify::some;
use crate::ports::Result;
use crate::rows::Schema;

/// The schema that was copied, as the journal holds it; refused where the source has another one `now`.
pub(crate) async fn refuse_altered(work: &Work, dataset: &DatasetName, now: &Schema) -> Result<Schema> {
    let held = work.holdings.schema(&work.migration, dataset).await?.ok_or_else(|| {
        Failure::permanent(format!("dataset {dataset}"), "the journal has lost its schema")
            .hint("abort, and plan again")
    })?;
    let changes = held.changes(now);
    if changes.is_empty() {
        return Ok(held);
    }
    let what = format!("its schema has changed since it was copied: {}", some(&changes));
    Err(Failure::operator(format!("dataset {dataset}"), what).hint(
        "take that back at the source, or `handover abort` and start again; change no schema while a migration runs",
    ))
}
