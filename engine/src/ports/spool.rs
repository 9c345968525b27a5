//! Where changes wait between the source's log and the target's database: durable, in order.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::change::{Change, Changes, LogPosition};
use crate::name::{DatasetName, MigrationId};
use crate::reserve::Disk;
use crate::rows::TableName;
use crate::time::Timestamp;

/// The oldest changes of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The tables that are named in it.
    pub tables: Vec<TableName>,
    /// The changes in their order; of several that are equal, the first alone may be there.
    pub changes: Vec<Change>,
    /// What [`Spool::done`] takes.
    pub end: SpoolMark,
}

/// A place in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SpoolMark {
    /// The segment's number.
    pub segment: u64,
    /// Bytes into it.
    pub offset: u64,
}

/// What waits in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// Changes.
    pub changes: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Up to when, by the source's clock, changes are known.
    pub known_at: Timestamp,
    /// When, by the source's clock, the part was told that is the oldest of those waiting; `known_at` when none is.
    pub oldest_at: Timestamp,
}

/// Changes of one database on their way. One task appends, another takes.
#[async_trait]
pub trait Spool: Send + Sync {
    /// Where the source's log is to be read on; none before `begin`.
    async fn position(&self) -> Result<Option<LogPosition>>;

    /// Starts at a position of the log. Durable when it returns.
    async fn begin(&self, at: &LogPosition) -> Result<()>;

    /// Adds a part of the log. Durable when it returns: the source may forget it then.
    async fn append(&self, part: &Changes) -> Result<()>;

    /// The oldest changes, about `most` of them or fewer where they are large; none when nothing waits.
    async fn oldest(&self, most: usize) -> Result<Option<Window>>;

    /// The changes up to this mark have been carried out. Need not be durable: what is carried out twice is the same as once.
    async fn done(&self, mark: SpoolMark) -> Result<()>;

    /// What waits.
    fn backlog(&self) -> Backlog;

    /// How many bytes may wait.
    fn limit(&self) -> u64 {
        u64::MAX
    }

    /// The end of what was added last: everything before it has been carried out once [`Self::done`] was told of it, or of a later
    /// mark.
    fn end(&self) -> SpoolMark;

    /// Removes it with all it holds. Idempotent.
    async fn remove(&self) -> Result<()>;
}

/// Which way changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the source to the target.
    Forth,
    /// From the target, which has taken over, to the source.
    Back,
}

/// The spools of a target.
#[async_trait]
pub trait Spools: Send + Sync {
    /// The spool of one database of a migration. The same one as long as the target lives.
    async fn spool(
        &self,
        migration: &MigrationId,
        dataset: &DatasetName,
        direction: Direction,
    ) -> Result<Arc<dyn Spool>>;

    /// The disks of this host that fill while a migration runs.
    async fn disks(&self) -> Vec<Disk> {
        Vec::new()
    }
}
