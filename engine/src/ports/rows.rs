//! What a database adapter provides: a consistent view to read, and a place to load into.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Keeper, Result};
use crate::change::LogPosition;
use crate::inventory::DatabaseFacts;
use crate::name::CaptureId;
use crate::rows::{Key, KeyRange, KeyedRows, RowsChunk, Schema, SnapshotId, TableName};

/// A database on this host, to be read.
#[async_trait]
pub trait Database: Send + Sync {
    /// Engine, version, tables, sizes: what the inventory shows. Changes nothing.
    async fn facts(&self) -> Result<DatabaseFacts>;

    /// Opens a view that is consistent at one moment and stays so until dropped.
    async fn snapshot(&self) -> Result<Arc<dyn DatabaseSnapshot>>;
}

/// A view of a database at one moment. Dropping it releases whatever it holds at the server.
#[async_trait]
pub trait DatabaseSnapshot: Send + Sync {
    /// Names the view; a new snapshot has a new id unless it is known to show the same rows.
    fn id(&self) -> SnapshotId;

    /// The schema in this view.
    fn schema(&self) -> &Schema;

    /// The next chunk of `table` within `range`: rows in key order from just after `range.after` until about `budget`
    /// text bytes are together (at least one row, whatever its size) or `range.until` is reached.
    ///
    /// The chunk's own range starts at `range.after`; it ends at its last row's key, or at `range.until` when there
    /// are no further rows in the range. A range is therefore read whole when the chunk's `until` equals `range.until`.
    async fn read(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk>;

    /// Keys that cut a table into about `parts` ranges of similar size, in key order; none when it is not worth it. Estimates will
    /// do: any cuts are correct.
    async fn split(&self, table: &TableName, parts: usize) -> Result<Vec<Key>> {
        let _ = (table, parts);
        Ok(Vec::new())
    }
}

/// A database whose rows are written by key.
#[async_trait]
pub trait KeyedTarget: Send + Sync {
    /// Makes each of the keys hold exactly its row, or none where none was found, in one transaction. Fires no
    /// trigger and no foreign key's action. A row of another key that stands in the way of a unique value is stale: it goes, since its own
    /// change brings it back. Idempotent. After `index`, where it is being built. Durable once [`make_durable`](Self::make_durable) has
    /// returned.
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()>;

    /// What `apply_keys` had put in place before the call is durable when it returns. Of most engines every commit is.
    async fn make_durable(&self) -> Result<()> {
        Ok(())
    }

    /// Brings what was applied to where it stays (SQLite: from the log into the database), and puts off doing so again: little of it is
    /// left for [`finish`](DatabaseTarget::finish) and [`publish`](DatabaseTarget::publish), while writers wait. False where there is
    /// nothing of the kind. Idempotent.
    async fn flush(&self) -> Result<bool> {
        Ok(false)
    }

    /// No cut-over is near any more: what `flush` has put off is done as it comes. Idempotent.
    async fn resume_flushing(&self) -> Result<()> {
        Ok(())
    }

    /// Removes all rows of a table. Durable, idempotent.
    async fn clear(&self, table: &TableName) -> Result<()>;

    /// The keys of rows whose columns (places in `TableSpec::columns`) hold one of these values, as they are now.
    async fn children(&self, table: &TableName, columns: &[u32], values: &[Key]) -> Result<Vec<Key>>;
}

/// A database that has been replaced by another, and is written to behind its fence until it takes the other's place again.
#[async_trait]
pub trait FencedDatabase: KeyedTarget {
    /// Puts away what would act on rows that are written (triggers), until the fence goes; refuses where rows cannot be written.
    /// Idempotent.
    async fn make_ready(&self) -> Result<()>;

    /// Adds rows to a table that was cleared, durably.
    async fn fill(&self, chunk: &RowsChunk) -> Result<()>;

    /// Puts back what `make_ready` has put away, while the fence stays. Taking the fence away does it too. Idempotent.
    async fn stand_down(&self) -> Result<()>;

    /// Sets what goes on by itself (sequences, AUTO_INCREMENT) to where it stands in this schema. Idempotent.
    async fn set_positions(&self, schema: &Schema) -> Result<()>;
}

/// A database on this host, to be filled. It is built beside the final place and not visible there until `publish`.
#[async_trait]
pub trait DatabaseTarget: KeyedTarget + Keeper {
    /// What stands at the final place now, if anything (an inventory of it, for plan and preflight).
    async fn occupied(&self) -> Result<Option<DatabaseFacts>>;

    /// True when this migration has prepared the database here, and has not undone it since.
    async fn is_prepared(&self) -> Result<bool>;

    /// Makes the unfinished database and its tables (`schema.before_load`). Idempotent: what exists already, from an
    /// interrupted run of the same migration, is kept with its rows. After `publish` (a later pass) it starts from a copy
    /// of what was published, without what `finish` made that would get in the way of loading (triggers).
    async fn prepare(&self, schema: &Schema) -> Result<()>;

    /// Drops the unfinished database, if any; a published one stays until the next `publish`, but is no longer what
    /// `prepare` starts from. For a source whose schema has changed since the last pass. Idempotent.
    async fn discard(&self) -> Result<()>;

    /// Applies chunks, durably and in one transaction: each chunk's range holds exactly its rows afterwards.
    /// Idempotent. Chunks of several tables may come in any order.
    async fn apply(&self, chunks: &[RowsChunk]) -> Result<()>;

    /// Makes that part of the second half that loading by key needs or does not mind (indexes), and nothing that acts on
    /// rows by itself or refuses them: no triggers, events or foreign keys. `finish` makes the rest, in a time that does not
    /// grow with the data. Idempotent, resumable in the middle.
    async fn index(&self, schema: &Schema) -> Result<()>;

    /// Keeps changes from now on, for `capture`: [`LiveDatabase::changes`](super::LiveDatabase::changes) of the published
    /// database tells of them from the position on that this returns. After `finish`, before `publish`; asked again it may return a
    /// later position.
    async fn keep(&self, capture: &CaptureId) -> Result<LogPosition>;

    /// Takes `keep` back, as long as nothing is published. Idempotent.
    async fn keep_none(&self, capture: &CaptureId) -> Result<()>;

    /// Makes the second half (`schema.after_load`). Idempotent, resumable in the middle.
    async fn finish(&self, schema: &Schema) -> Result<()>;

    /// Reads the rows of a range of the unfinished or the published database again, for verification: same text form
    /// and order as the source's [`DatabaseSnapshot::read`], the whole range in one chunk.
    async fn reread(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk>;

    /// As [`Self::reread`], of a table that is found by a key, and no further than until about `budget` text bytes are together:
    /// the chunk's own range is as [`DatabaseSnapshot::read`] tells it. It may end earlier.
    async fn reread_part(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk>;

    /// The schema as the target's engine now tells it, to be compared with the source's.
    async fn reread_schema(&self) -> Result<Schema>;

    /// Puts the finished database in its final place in one step; what stood there is kept for `undo`. Durable when it
    /// returns. Idempotent.
    async fn publish(&self) -> Result<()>;

    /// Does what `finish` leaves for later, since it takes a time that grows with the data (PostgreSQL: has foreign keys
    /// validated). The published database is in use meanwhile. Idempotent.
    async fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Takes back everything since `prepare`: the unfinished or published database goes, what stood there before comes
    /// back. Idempotent.
    async fn undo(&self) -> Result<()>;

    /// Forgets what `undo` would need. Idempotent.
    async fn forget(&self) -> Result<()>;
}
