//! The source as the target sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Answers, ChangeSource, Result};
use crate::inventory::Inventory;
use crate::name::{DatasetName, LeaseId};
use crate::rows::{RowsChunk, RowsRequest, Schema, SnapshotId};
use crate::tree::{Changed, Cursor, Entry, FileRequest, PackChunk, PackRequest, Segment, Spots};

/// An open snapshot of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Which view it is: after a restart of the source it may be another.
    pub snapshot: SnapshotId,
    /// The schema in that view.
    pub schema: Schema,
}

/// The source host: what it has, and what is held open at it.
#[async_trait]
pub trait SourceHost: Send + Sync {
    /// What the source consists of now. Changes nothing.
    async fn inspect(&self) -> Result<Inventory>;

    /// Opens a snapshot of a database under `lease`, or renews the lease. Idempotent: the same lease keeps the same
    /// snapshot as long as the source lives. A lease that is not renewed ends by itself.
    async fn open(&self, lease: &LeaseId, dataset: &DatasetName) -> Result<Opened>;

    /// Ends a lease. Idempotent: an unknown lease is no error, since it may have ended by itself.
    async fn close(&self, lease: &LeaseId) -> Result<()>;
}

/// Rows of open snapshots.
#[async_trait]
pub trait RowSource: Send + Sync {
    /// The chunks wanted, in key order. Reading renews the lease.
    async fn rows(&self, request: RowsRequest) -> Result<Answers<RowsChunk>>;
}

/// Files of declared trees.
#[async_trait]
pub trait TreeSource: Send + Sync {
    /// Everything in a tree, in tree order, root first, in batches.
    async fn scan(&self, dataset: &DatasetName) -> Result<Answers<Vec<Entry>>>;

    /// As `scan`, of these places alone. Every file with other names is told as one by itself.
    async fn scan_at(&self, dataset: &DatasetName, spots: &Spots) -> Result<Answers<Vec<Entry>>>;

    /// Where something has changed since an answer, up to this call; waits up to `wait` for something. Without a cursor, with one that is not
    /// known any more, and whenever it cannot be sure: anywhere. What was told is told again until its cursor comes back.
    ///
    /// Told is what this host's processes do through the file system's calls. What they write through mappings, and what
    /// other hosts do to a shared file system, only a scan finds.
    async fn changed(&self, dataset: &DatasetName, since: Option<Cursor>, wait: Duration) -> Result<Changed>;

    /// Several small files at once.
    async fn pack(&self, request: PackRequest) -> Result<PackChunk>;

    /// One large file, from an offset to its end. The last segment has its `end` set.
    async fn file(&self, request: FileRequest) -> Result<Answers<Segment>>;
}

/// All of a source.
#[derive(Clone)]
pub struct Source {
    /// Inventory and leases.
    pub host: Arc<dyn SourceHost>,
    /// Rows.
    pub rows: Arc<dyn RowSource>,
    /// Files.
    pub trees: Arc<dyn TreeSource>,
    /// Changes.
    pub changes: Arc<dyn ChangeSource>,
}

impl Source {
    /// A source whose one type plays every part.
    pub fn of<T: SourceHost + RowSource + TreeSource + ChangeSource + 'static>(source: Arc<T>) -> Self {
        Self { host: source.clone(), rows: source.clone(), trees: source.clone(), changes: source }
    }
}
