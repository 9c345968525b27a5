//! The source as the target sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::changeover::Changeover;
use super::hooks::{Hooks, NoHooks};
use super::licences::Undeclared;
use super::{Answers, Backups, ChangeSource, FencedSource, HomeTrees, Licences, NoBackups, NoHome, Result};
use crate::change::LogPosition;
use crate::inventory::Inventory;
use crate::name::{CaptureId, DatasetName, LeaseId};
use crate::reserve::{Disk, LogKept};
use crate::rows::{RowsChunk, RowsRequest, Schema, SnapshotId};
use crate::throttle::Reading;
use crate::time::Timestamp;
use crate::tree::{Changed, Cursor, Entry, FileRequest, PackChunk, PackRequest, Segment, Spots};

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

/// A database that is followed, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The database.
    pub dataset: DatasetName,
    /// For whom its changes are kept.
    pub capture: CaptureId,
    /// What was taken ends here.
    pub after: LogPosition,
    /// Up to when changes are known, by the source's clock.
    pub known_at: Timestamp,
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

    /// The load of the host and its databases now, without what they do for us, as far as it can be told. Cheap: it is asked for
    /// once a second. From now on it need not read ahead of `rate`, in bytes per second, for those who copy.
    async fn signals(&self, rate: Option<u64>) -> Result<Vec<Reading>> {
        let _ = rate;
        Ok(Vec::new())
    }

    /// The disks that fill while it is followed, and what its servers keep of their logs for these, as far as that is known.
    async fn room(&self, followed: Vec<Followed>) -> Result<(Vec<Disk>, BTreeMap<DatasetName, LogKept>)> {
        let _ = followed;
        Ok((Vec::new(), BTreeMap::new()))
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
    /// What is written to it once it has been replaced.
    pub fenced: Arc<dyn FencedSource>,
    /// Files that are written to it then.
    pub home: Arc<dyn HomeTrees>,
    /// What its host runs at certain moments.
    pub hooks: Arc<dyn Hooks>,
    /// Its licence.
    pub licences: Arc<dyn Licences>,
    /// What its host does to itself when it is changed over.
    pub changeover: Changeover,
    /// Its backups.
    pub backups: Arc<dyn Backups>,
}

impl Source {
    /// A source whose one type plays every part, on a host without hooks and licence, which takes no files.
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
            home: Arc::new(NoHome),
            hooks: Arc::new(NoHooks),
            licences: Arc::new(Undeclared),
            changeover: Changeover::default(),
            backups: Arc::new(NoBackups),
        }
    }

    /// The same source, which takes files once it has been replaced.
    #[must_use]
    pub fn with_home(self, home: Arc<dyn HomeTrees>) -> Self {
        Self { home, ..self }
    }

    /// The same source on a host with hooks.
    #[must_use]
    pub fn with_hooks(self, hooks: Arc<dyn Hooks>) -> Self {
        Self { hooks, ..self }
    }

    /// The same source on a host with a licence.
    #[must_use]
    pub fn with_licences(self, licences: Arc<dyn Licences>) -> Self {
        Self { licences, ..self }
    }

    /// The same source on a host that can be changed over.
    #[must_use]
    pub fn with_changeover(self, changeover: Changeover) -> Self {
        Self { changeover, ..self }
    }

    /// The same source on a host that keeps backups.
    #[must_use]
    pub fn with_backups(self, backups: Arc<dyn Backups>) -> Self {
        Self { backups, ..self }
    }
}
