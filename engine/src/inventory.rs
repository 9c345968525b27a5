//! What an agent found on its host: facts, never secrets.

#[cfg(test)]
pub(crate) mod sample;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::backup::Occasion;
use crate::changeover;
use crate::check::Finding;
use crate::digest::Digest;
use crate::licence::Standing;
use crate::name::DatasetName;
use crate::rows::TableName;
use crate::time::Timestamp;

/// What an agent found on its host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Version of the agent that looked.
    pub agent_version: String,
    /// When it looked, by its own clock.
    pub taken_at: Timestamp,
    /// The appliance, from the manifest.
    pub appliance: ApplianceFacts,
    /// The host, as its kernel tells.
    pub host: HostFacts,
    /// The datasets, in the manifest's order.
    pub datasets: Vec<Dataset>,
    /// How it stands with its licence.
    #[serde(default, skip_serializing_if = "Standing::is_undeclared")]
    pub licence: Standing,
    /// What it does to itself when it is changed over.
    #[serde(default, skip_serializing_if = "changeover::Facts::is_unknown")]
    pub changeover: changeover::Facts,
    /// What keeps its hooks from running when their moments come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Finding>,
}

/// The appliance as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ApplianceFacts {
    /// Its name.
    pub name: String,
    /// The release it runs.
    pub release: String,
    /// Its role: `standalone`, `ha-master` or `ha-replica`.
    pub role: String,
    /// Host name users know it by.
    pub host_name: String,
    /// Domain.
    pub domain: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// The licence's identifier (GUID), where the appliance has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What its host is backed up before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<Occasion>,
}

/// The host as its kernel tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostFacts {
    /// Host name.
    pub host_name: String,
    /// Operating system and version.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// File systems.
    pub disks: Vec<DiskFacts>,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Where it is mounted.
    pub mount_point: String,
    /// Its type.
    pub file_system: String,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes that can still be written.
    pub available_bytes: u64,
}

/// One dataset and what was found of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name.
    pub name: DatasetName,
    /// What was found.
    pub facts: DatasetFacts,
    /// What the agent that looked lacks to read it (at the source) or to make it (at the target): privileges, space of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What stands in the way of following it, at a source: told where that is planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub following: Vec<Finding>,
    /// What keeps the source from following the target once that has taken over: told where that is planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returning: Vec<Finding>,
    /// What a target's server has, of all that a database may need of it; none where it could not be asked, and at a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offers: Option<BTreeSet<String>>,
    /// What its manifest leaves out of it, at a source: tables, or globs of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// Its files are logs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_log: bool,
}

impl Dataset {
    /// Whether it is a database that could be looked at.
    pub fn is_database(&self) -> bool {
        matches!(self.facts, DatasetFacts::Database(_))
    }
}

/// What was found of a dataset, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DatasetFacts {
    /// A database.
    Database(DatabaseFacts),
    /// A file tree.
    Files(TreeFacts),
    /// Something that should be there and is not, or could not be read.
    Unreadable {
        /// What the manifest declares it to be: `database` or `files`.
        declared: String,
        /// Why.
        problem: String,
        /// What to do.
        hint: String,
    },
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Engine: `sqlite`, `mariadb`, `postgres`.
    pub engine: String,
    /// Version.
    pub version: String,
    /// Where it lives (path or address; never credentials).
    pub location: String,
    /// Digest of the schema's structure; all zeros where unknown.
    pub structure: Option<Digest>,
    /// Tables, largest first.
    pub tables: Vec<TableFacts>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Entries of the indexes that a copy builds once its rows are there, about; none where the adapter does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_entries: Option<u64>,
    /// What the operator should know before a copy (a journal mode that makes writers wait, a table without a key).
    #[serde(default)]
    pub notes: Vec<String>,
    /// What the server that is to hold a copy must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
}

/// Something that a database needs of the server that is to hold a copy of it. Adapters name things; the engine only compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The thing, as the target's adapter names it when it offers it: `extension hstore`, `collation utf8mb4_bin`.
    pub thing: String,
    /// What is told when the target does not offer it; `item` is the dataset's.
    #[serde(flatten)]
    pub finding: Finding,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// Its name.
    pub name: TableName,
    /// Rows (exact where the engine can tell cheaply, otherwise its estimate).
    pub rows: u64,
    /// Bytes (an estimate).
    pub bytes: u64,
}

/// A file tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TreeFacts {
    /// Its root.
    pub root: String,
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links, pipes, devices, further hard links.
    pub others: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// What the operator should know (sockets left out, mount points not entered).
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Inventory {
    /// Whether a dataset of this name is declared as a log.
    pub(crate) fn is_log(&self, name: &DatasetName) -> bool {
        self.datasets.iter().any(|dataset| dataset.is_log && dataset.name == *name)
    }

    /// What must not change between approval and start, by item, so that a difference can be named: which datasets there
    /// are, of which kind, where, and the databases' structure. Sizes and counts are not in it: the source is alive.
    pub fn structure(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::from([
            ("appliance".to_owned(), self.appliance.name.clone()),
            ("release".to_owned(), self.appliance.release.clone()),
        ]);
        for dataset in &self.datasets {
            let shape = match &dataset.facts {
                DatasetFacts::Database(d) => {
                    let structure = d.structure.map(|s| s.to_string()).unwrap_or_default();
                    format!("{} {} {} {structure}", d.engine, d.version, d.location)
                }
                DatasetFacts::Files(t) => format!("files {}", t.root),
                DatasetFacts::Unreadable { declared, .. } => format!("unreadable {declared}"),
            };
            out.insert(format!("dataset {}", dataset.name), shape);
        }
        if let Some(guid) = self.licence.guid() {
            out.insert("licence".to_owned(), guid.to_owned());
        }
        if !self.appliance.backups.is_empty() {
            let before: Vec<&str> = self.appliance.backups.iter().map(|one| one.as_str()).collect();
            out.insert("backups".to_owned(), before.join(" "));
        }
        out.extend(self.changeover.structure());
        out
    }
}
