//! Backups: what a host keeps of its own datasets, apart from any migration, and what is told of that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{BackupId, DatasetName, MigrationId};
use crate::time::Timestamp;

/// The version of `backup.json` that this release writes.
pub const FORMAT: u32 = 1;

/// One of the two hosts of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// The one that is replaced.
    Source,
    /// The one that takes over.
    Target,
}

impl Host {
    /// Both.
    pub const BOTH: [Host; 2] = [Host::Source, Host::Target];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Host::Source => "source",
            Host::Target => "target",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host of a migration: write source or target")]
pub struct BadHost(String);

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        Self::BOTH.into_iter().find(|host| host.as_str() == text).ok_or_else(|| BadHost(text.to_owned()))
    }
}

/// What a backup is made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A migration begins.
    Start,
    /// The target is accepted.
    Accept,
    /// Somebody asked for it.
    Manual,
}

impl Occasion {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Occasion::Start => "start",
            Occasion::Accept => "accept",
            Occasion::Manual => "manual",
        }
    }

    /// The name of the backup that a migration has made. Always the same, so that one that is whole is not made again.
    pub fn id_of(self, migration: &MigrationId) -> BackupId {
        BackupId::of(migration, self.as_str())
    }
}

impl fmt::Display for Occasion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A backup of a host's datasets: `backup.json` beside their files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Version of this document's form.
    pub format: u32,
    /// Its name.
    pub id: BackupId,
    /// When it was begun, by the host's clock.
    pub made_at: Timestamp,
    /// What it was made before.
    pub occasion: Occasion,
    /// The migration that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationId>,
    /// The host's name.
    pub host: String,
    /// The datasets, in the manifest's order.
    pub datasets: Vec<Kept>,
    /// Datasets that were not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<DatasetName>,
}

impl Backup {
    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.datasets.iter().map(|kept| kept.bytes).sum()
    }
}

/// A dataset in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The dataset.
    pub dataset: DatasetName,
    /// `sqlite`, `mariadb`, `postgres` or `files`.
    pub engine: String,
    /// What made it, with its version.
    pub tool: String,
    /// The file's name, in the backup's directory.
    pub file: String,
    /// The file's size.
    pub bytes: u64,
    /// How many bytes the tool wrote, before they were compressed.
    pub contents_bytes: u64,
    /// The file's BLAKE3 digest.
    pub digest: Digest,
    /// Entries of a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// What is not in the file and needed to put it back: a database's character set, a file's mode and owner.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub settings: std::collections::BTreeMap<String, String>,
    /// What whoever restores it should know: files that changed while they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A dataset that was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The dataset.
    pub dataset: DatasetName,
    /// Where what stood there before is now; none where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// What lies in a host's directory of backups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shelf {
    /// The directory.
    pub directory: String,
    /// The backups, oldest first.
    pub backups: Vec<Backup>,
    /// What cannot be read there, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<(String, String)>,
}

/// A backup that a migration has made, as its report names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The host that it was made on, and lies on.
    pub host: Host,
    /// Its name.
    pub id: BackupId,
    /// When it was begun, by that host's clock.
    pub made_at: Timestamp,
    /// Bytes of its files.
    pub bytes: u64,
    /// The datasets in it.
    pub datasets: Vec<DatasetName>,
}

impl Made {
    /// As a report names it.
    pub fn of(host: Host, backup: &Backup) -> Self {
        Self {
            host,
            id: backup.id.clone(),
            made_at: backup.made_at,
            bytes: backup.bytes(),
            datasets: backup.datasets.iter().map(|kept| kept.dataset.clone()).collect(),
        }
    }
}
