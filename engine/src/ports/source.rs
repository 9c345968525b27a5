//! The source as the target sees it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Answers, ChangeSource, Result};
use crate::inventory::Inventory;
use crate::name::{DatasetName, LeaseId};
use crate::rows::{RowsChunk, RowsRequest, Schema, SnapshotId};
use crate::throttle::Reading;
use crate::tree::{Entry, FileRequest, PackChunk, PackRequest, Segment};

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

    /// The load of the host and its databases now, without what they do for us, as far as it can be told. Cheap: it is asked for
    /// once a second.
    async fn signals(&self) -> Result<Vec<Reading>> {
        Ok(Vec::new())
    }
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
