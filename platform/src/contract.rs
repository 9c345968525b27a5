//! What every database adapter must keep, as checks that an adapter's tests run.
//!
//! The checks know nothing of the engine: a [`Subject`] fills a source, changes it, and tells what stands at the target's
//! final place. They panic where a promise is broken, naming it, and hand back failures that the ports report.

mod back;
mod kept;
pub mod live;
mod load;
mod place;
pub mod rehearsal;
pub mod settings_table;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget, Result};
use handover_engine::rows::{KeyRange, RowsChunk, TableName};

/// A source and a target of one engine, fresh for every check.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The source. It holds at least one table of more than a few kilobytes, one of one row and an empty one.
    fn source(&self) -> Arc<dyn Database>;

    /// The target. Asking again is a restart: nothing may be shared with what was handed out before.
    fn target(&self, migration: &MigrationId) -> Arc<dyn DatabaseTarget>;

    /// Deletes, changes and inserts rows at the source, at either end of its tables and in between. Every call changes
    /// something.
    async fn mutate(&self);

    /// Puts something else at the target's final place.
    async fn occupy(&self);

    /// The database that an abort has kept, at the place that [`Keeper::kept`](handover_engine::ports::Keeper::kept) tells.
    fn kept(&self, place: &str) -> Arc<dyn Database>;

    /// All that stands at the target's final place, as text that is equal when the contents are; `None` for nothing.
    async fn standing(&self) -> Option<String>;
}

/// Checks everything that is promised of databases, each on a fresh subject.
pub async fn database_contract<S: Subject>(make: impl Fn() -> S) -> Result<()> {
    view::facts_name_the_tables(&make()).await?;
    view::chunks_cover_every_table(&make()).await?;
    view::a_snapshot_stays_as_it_was(&make()).await?;
    load::any_order_and_again(&make()).await?;
    load::a_restart_keeps_what_was_applied(&make()).await?;
    load::replaced_chunks_end_equal(&make()).await?;
    load::discarding_starts_anew(&make()).await?;
    place::publishing_and_undoing(&make(), false).await?;
    place::publishing_and_undoing(&make(), true).await?;
    place::a_finished_database_can_be_mended(&make()).await?;
    place::undoing_what_was_never_published(&make()).await?;
    place::a_later_pass_starts_from_what_was_published(&make()).await?;
    place::discarding_a_later_pass_starts_anew(&make()).await?;
    place::forgetting_keeps_what_was_published(&make()).await?;
    for occupied in [false, true] {
        kept::an_abort_keeps_what_was_published(&make(), occupied).await?;
        kept::an_abort_that_is_cut_short_is_carried_on(&make(), occupied).await?;
    }
    kept::an_abort_keeps_nothing_that_was_not_published(&make()).await
}

/// Text bytes of a chunk, small so that tables have many.
const BUDGET: u64 = 700;

fn migration() -> MigrationId {
    named("contract")
}

/// The migration of a name that is valid.
fn named(name: &str) -> MigrationId {
    match name.parse() {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// A table's chunks, one after the other.
async fn chunks(view: &dyn DatabaseSnapshot, table: &TableName, budget: u64) -> Result<Vec<RowsChunk>> {
    let (mut out, mut range) = (Vec::new(), KeyRange::default());
    loop {
        let chunk = view.read(table, &range, budget).await?;
        range.after.clone_from(&chunk.header.range.until);
        let is_last = range.after.is_none();
        out.push(chunk);
        if is_last {
            return Ok(out);
        }
        assert!(out.len() < 1_000_000, "table {table}: reading comes to no end");
    }
}

/// Every table's chunks.
async fn all_chunks(view: &dyn DatabaseSnapshot) -> Result<Vec<RowsChunk>> {
    let mut out = Vec::new();
    for table in &view.schema().tables {
        out.extend(chunks(view, &table.name, BUDGET).await?);
    }
    Ok(out)
}

/// The target holds exactly the rows and the schema of the view.
async fn assert_equal(view: &dyn DatabaseSnapshot, target: &dyn DatabaseTarget, when: &str) -> Result<()> {
    for table in &view.schema().tables {
        let there = view.read(&table.name, &KeyRange::default(), u64::MAX).await?;
        let here = target.reread(&table.name, &KeyRange::default()).await?;
        assert_eq!(here.header, there.header, "{when}: table {}", table.name);
        assert!(here.block == there.block, "{when}: table {} has other rows", table.name);
    }
    Ok(())
}

/// As [`assert_equal`], and the schema too, which is whole only after `finish`.
async fn assert_finished(view: &dyn DatabaseSnapshot, target: &dyn DatabaseTarget, when: &str) -> Result<()> {
    assert_equal(view, target, when).await?;
    let here = target.reread_schema().await?;
    let there = view.schema();
    assert_eq!(here.settings, there.settings, "{when}: settings");
    assert_eq!(here.before_load, there.before_load, "{when}: tables");
    assert_eq!(here.after_load, there.after_load, "{when}: indexes, views, triggers");
    assert_eq!(here.structure(), there.structure(), "{when}: the schema's structure");
    Ok(())
}
