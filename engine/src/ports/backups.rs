//! Backups of a host's own datasets. Each host keeps its own, in a directory that its own manifest names; nothing of them crosses the wire
//! but what is told of them.
//!
//! The work takes as long as the data is large, and outlives the call that began it: it is begun, and then asked after.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::backup::{Backup, Occasion, Restored, Shelf};
use crate::failure::Failure;
use crate::name::{BackupId, DatasetName, MigrationId};

/// Work on backups.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Make one, and verify it. One that is whole is not made again.
    Make {
        /// Its name.
        id: BackupId,
        /// What it is made before.
        occasion: Occasion,
        /// For which migration.
        migration: Option<MigrationId>,
        /// Of these datasets; of all when there are none.
        datasets: Vec<DatasetName>,
    },
    /// Read one again: its files have their digests, and the tools can read them.
    Verify {
        /// Its name.
        id: BackupId,
    },
    /// Put back what is in one. What stands there now is kept.
    Restore {
        /// Its name.
        id: BackupId,
        /// This dataset; all of them when there is none.
        dataset: Option<DatasetName>,
    },
}

impl Order {
    /// The backup that it is about.
    pub fn id(&self) -> &BackupId {
        match self {
            Order::Make { id, .. } | Order::Verify { id } | Order::Restore { id, .. } => id,
        }
    }

    /// In words, for the audit log.
    pub fn words(&self) -> String {
        match self {
            Order::Make { id, .. } => format!("back up as {id}"),
            Order::Verify { id } => format!("verify backup {id}"),
            Order::Restore { id, dataset: None } => format!("restore backup {id}"),
            Order::Restore { id, dataset: Some(dataset) } => format!("restore {dataset} from backup {id}"),
        }
    }
}

/// How work on backups stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// It was not begun, or the agent has been restarted since.
    Unknown,
    /// It goes on, or waits for other work to end.
    Running {
        /// Bytes that were read or written so far.
        bytes: u64,
    },
    /// The backup is whole, and was found good.
    Made {
        /// It.
        backup: Box<Backup>,
    },
    /// The backup was found good.
    Verified {
        /// It.
        backup: Box<Backup>,
    },
    /// Everything is put back.
    Restored {
        /// What, and where what stood there is now.
        datasets: Vec<Restored>,
    },
    /// It was given up.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// A host's backups.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Begins work, and answers at once. Idempotent: work that goes on already goes on; what has failed is tried again.
    async fn begin(&self, order: &Order) -> Result<()> {
        let _ = order;
        Err(Failure::operator("backups", "this host keeps none"))
    }

    /// How work stands that was begun.
    async fn standing(&self, order: &Order) -> Result<Standing> {
        let _ = order;
        Ok(Standing::Unknown)
    }

    /// Ends the making or reading of a backup, and returns when it has ended: nothing half made is left, one that is whole by then stays. Refuses
    /// (operator) a restore, which goes on to its end. Idempotent: what was not begun, or has ended, is no error.
    async fn cancel(&self, order: &Order) -> Result<()> {
        let _ = order;
        Ok(())
    }

    /// What there is. A backup is whole, or not there.
    async fn list(&self) -> Result<Shelf> {
        Ok(Shelf::default())
    }
}

/// A host without backups.
#[derive(Debug, Clone, Copy)]
pub struct NoBackups;

impl Backups for NoBackups {}

/// Work on backups, as an operator asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Wanted {
    /// Make one.
    Make {
        /// Its name; one is made up where there is none.
        id: Option<BackupId>,
        /// Of these datasets; of all when there are none.
        datasets: Vec<DatasetName>,
    },
    /// Read one again.
    Verify {
        /// Its name.
        id: BackupId,
    },
    /// Put back what is in one.
    Restore {
        /// Its name.
        id: BackupId,
        /// This dataset; all of them when there is none.
        dataset: Option<DatasetName>,
    },
}

impl Wanted {
    /// The work, with `fresh` for the name that nobody has given.
    pub fn order(self, fresh: BackupId) -> Order {
        match self {
            Wanted::Make { id, datasets } => {
                Order::Make { id: id.unwrap_or(fresh), occasion: Occasion::Manual, migration: None, datasets }
            }
            Wanted::Verify { id } => Order::Verify { id },
            Wanted::Restore { id, dataset } => Order::Restore { id, dataset },
        }
    }

    /// In words, for the audit log.
    pub fn words(&self) -> String {
        match self {
            Wanted::Make { id, datasets } => {
                let mut out = "back up".to_owned();
                if !datasets.is_empty() {
                    let names: Vec<&str> = datasets.iter().map(DatasetName::as_str).collect();
                    out += &format!(" {}", names.join(", "));
                }
                out + &id.as_ref().map_or_else(String::new, |id| format!(" as {id}"))
            }
            Wanted::Verify { id } => format!("verify backup {id}"),
            Wanted::Restore { id, dataset: None } => format!("restore backup {id}"),
            Wanted::Restore { id, dataset: Some(dataset) } => format!("restore {dataset} from backup {id}"),
        }
    }
}
