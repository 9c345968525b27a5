//! The source as the target sees it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Answers, ChangeSource, FencedSource, Result};
use crate::inventory::Inventory;
use crate::name::{DatasetName, LeaseId};
use crate::rows::{RowsChunk, RowsRequest, Schema, SnapshotId};
use crate::tree::{Entry, FileRequest, PackChunk, PackRequest, Segment};

/// An open snapshot of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Which view it is: after a restart of the source it may be another.
    pub snapshot: SnapshotId,
    /// The schema in that view.
    pub schema: Schema,
}

/// Whether large tables are cut into parts when a snapshot is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// They are.
    Cut,
    /// They are not.
    Whole,
}

/// The source host: what it has, and what is held open at it.
#[async_trait]
pub trait SourceHost: Send + Sync {
    /// What the source consists of now. Changes nothing.
    async fn inspect(&self) -> Result<Inventory>;

    /// Opens a snapshot of a database under `lease`, or renews the lease. Idempotent: the same lease keeps the same
    /// snapshot as long as the source lives. A lease that is not renewed ends by itself.
    ///
    /// Cutting large tables into parts that are copied side by side (`TableSpec::cuts`) takes a time that grows with the data: it is
    /// left out where all of a database is not to be read.
    async fn open(&self, lease: &LeaseId, dataset: &DatasetName, parts: Parts) -> Result<Opened>;

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
    /// What is written to it once it has been replaced.
    pub fenced: Arc<dyn FencedSource>,
}

impl Source {
    /// A source whose one type plays every part.
    pub fn of<T>(source: Arc<T>) -> Self
    where
        T: SourceHost + RowSource + TreeSource + ChangeSource + FencedSource + 'static,
    {
        Self {
            host: source.clone(),
            rows: source.clone(),
            trees: source.clone(),
            changes: source.clone(),
            fenced: source,
        }
    }
}
