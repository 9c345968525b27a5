//! Following a database that is in use: which keys change, the rows behind them, and a fence against further writes.

use std::time::Duration;

use async_trait::async_trait;

use super::{Answers, Result};
use crate::change::{Changes, LogPosition};
use crate::name::{CaptureId, DatasetName};
use crate::rows::{Key, KeyedRows, RowsChunk, Schema, TableName};

/// A database on this host whose changes are followed.
#[async_trait]
pub trait LiveDatabase: Send + Sync {
    /// Keeps changes from now on, for `capture`: whatever is committed after it returns is told by `changes` from the position it
    /// returns. Idempotent; asked again it may return a later position.
    async fn begin(&self, capture: &CaptureId) -> Result<LogPosition>;

    /// The changes after a position. Waits up to `wait` for some. Bounded: a long log comes in parts.
    ///
    /// A change is told only once every later read of its row, by whatever connection, sees it: whoever reads a row after it was
    /// told of a change sees that change or a later one.
    ///
    /// A change of a table's definition, and a log that does not reach back to `after`, are failures for the operator.
    async fn changes(&self, capture: &CaptureId, after: &LogPosition, wait: Duration) -> Result<Changes>;

    /// What is before this position will not be asked for again: the log may be let go. Idempotent.
    async fn confirm(&self, capture: &CaptureId, until: &LogPosition) -> Result<()>;

    /// Removes what `begin` put in place, and the fence, unless that is kept: the source stays as it was left once the target has taken
    /// over, and its fence can still be taken away later, by asking again. Idempotent; an unknown capture is no error.
    async fn end(&self, capture: &CaptureId, keep_fence: bool) -> Result<()>;

    /// About how many bytes are kept for a capture, by it or because of it; none where nothing is.
    async fn kept(&self, capture: &CaptureId) -> Result<Option<u64>>;

    /// The rows of these keys as they are now, until about `budget` text bytes are together: `header.range.until` is the last
    /// key that was looked up, and at least one was. A key that has no row brings none. In the form of
    /// [`DatabaseSnapshot::read`](super::DatabaseSnapshot::read).
    async fn rows(&self, table: &TableName, keys: &[Key], budget: u64) -> Result<RowsChunk>;

    /// Fails where it is known what would keep a [`fence`](Self::fence) from being put up. Changes nothing, and waits for nobody.
    async fn may_fence(&self) -> Result<()> {
        Ok(())
    }

    /// Lets nobody write to the tables any more, until `unfence` or `end`, also after a crash or restart of the agent, server
    /// or host. Waits for transactions that have written, up to `wait`; fails with nothing changed after that. Idempotent.
    async fn fence(&self, capture: &CaptureId, wait: Duration) -> Result<()>;

    /// Takes the fence away. Idempotent.
    async fn unfence(&self, capture: &CaptureId) -> Result<()>;
}

/// A request for rows by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysRequest {
    /// The database.
    pub dataset: DatasetName,
    /// The table.
    pub table: TableName,
    /// The keys.
    pub keys: Vec<Key>,
    /// Text bytes after which a chunk ends.
    pub budget: u64,
}

/// A request for changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesRequest {
    /// The database.
    pub dataset: DatasetName,
    /// The capture.
    pub capture: CaptureId,
    /// Where the last part ended.
    pub after: LogPosition,
    /// How long to wait for changes.
    pub wait: Duration,
}

/// The databases of a source, followed: [`LiveDatabase`] by dataset.
#[async_trait]
pub trait ChangeSource: Send + Sync {
    /// As [`LiveDatabase::begin`].
    async fn begin(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<LogPosition>;

    /// As [`LiveDatabase::changes`].
    async fn changes(&self, request: ChangesRequest) -> Result<Changes>;

    /// As [`LiveDatabase::confirm`].
    async fn confirm(&self, dataset: &DatasetName, capture: &CaptureId, until: &LogPosition) -> Result<()>;

    /// As [`LiveDatabase::end`].
    async fn end(&self, dataset: &DatasetName, capture: &CaptureId, keep_fence: bool) -> Result<()>;

    /// As [`LiveDatabase::rows`], all keys, chunk after chunk.
    async fn keys(&self, request: KeysRequest) -> Result<Answers<RowsChunk>>;

    /// As [`LiveDatabase::fence`].
    async fn fence(&self, dataset: &DatasetName, capture: &CaptureId, wait: Duration) -> Result<()>;

    /// As [`LiveDatabase::may_fence`].
    async fn may_fence(&self, dataset: &DatasetName) -> Result<()>;

    /// As [`LiveDatabase::unfence`].
    async fn unfence(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()>;
}

/// The databases of a source that has been replaced, written to behind their fences: [`FencedDatabase`] by dataset. Refused where no
/// fence of the capture stands.
///
/// [`FencedDatabase`]: super::FencedDatabase
#[async_trait]
pub trait FencedSource: Send + Sync {
    /// As [`FencedDatabase::make_ready`](super::FencedDatabase::make_ready).
    async fn make_ready(&self, behind: &Fence) -> Result<()>;

    /// As [`KeyedTarget::apply_keys`](super::KeyedTarget::apply_keys), and durable.
    async fn apply_keys(&self, behind: &Fence, rows: KeyedRows) -> Result<()>;

    /// As [`KeyedTarget::clear`](super::KeyedTarget::clear).
    async fn clear(&self, behind: &Fence, table: &TableName) -> Result<()>;

    /// As [`KeyedTarget::children`](super::KeyedTarget::children).
    async fn children(
        &self,
        behind: &Fence,
        table: &TableName,
        columns: &[u32],
        values: &[Key],
    ) -> Result<Vec<Key>>;

    /// As [`FencedDatabase::fill`](super::FencedDatabase::fill).
    async fn fill(&self, behind: &Fence, chunk: RowsChunk) -> Result<()>;

    /// As [`FencedDatabase::stand_down`](super::FencedDatabase::stand_down).
    async fn stand_down(&self, behind: &Fence) -> Result<()>;

    /// As [`FencedDatabase::set_positions`](super::FencedDatabase::set_positions).
    async fn set_positions(&self, behind: &Fence, schema: &Schema) -> Result<()>;
}

/// A fence: on which database, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The database.
    pub dataset: DatasetName,
    /// The capture that wants it.
    pub capture: CaptureId,
}
