//! What replicas were before a migration touched them, and how far their setting up is: a durable file for each.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_mariadb::Before;
use serde::{Deserialize, Serialize};

/// The version of the files.
const VERSION: u32 = 1;

/// What is recorded of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// What it was when it was first touched.
    pub before: Before,
    /// How far it is, at a target.
    pub stage: Stage,
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// As it was found, or with a part of a copy.
    Found,
    /// It holds a copy, of this position of its primary's log, and has not applied anything since.
    Copied(String),
    /// It follows its primary, or is about to.
    Linked,
}

impl Record {
    /// One that was found so.
    pub fn new(before: Before) -> Self {
        Self { version: VERSION, before, stage: Stage::Found }
    }
}

/// The records of a host.
pub struct Records(PathBuf);

impl Records {
    /// Those in a directory; it is made when the first is written.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn file(&self, migration: &MigrationId, name: &str) -> PathBuf {
        self.0.join(migration.as_str()).join(format!("{name}.json"))
    }

    /// What is recorded of a replica.
    pub async fn read(&self, migration: &MigrationId, name: &str) -> Result<Option<Record>> {
        let file = self.file(migration, name);
        blocking(move || read(&file)).await
    }

    /// Records it, durably.
    pub async fn write(&self, migration: &MigrationId, name: &str, record: &Record) -> Result<()> {
        let (file, record) = (self.file(migration, name), record.clone());
        let failed = move |path: &Path, error| {
            Failure::operator("replica", format!("{} cannot be written", path.display()))
                .because(error)
                .hint("is the disk full? Make room, then resume")
        };
        blocking(move || write(&file, &record).map_err(|error| failed(&file, error))).await
    }

    /// Removes all that is recorded for a migration.
    pub async fn remove(&self, migration: &MigrationId) -> Result<()> {
        let directory = self.0.join(migration.as_str());
        let remove = move || match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let what = format!("{} cannot be removed", directory.display());
                Err(Failure::operator("replica", what)
                    .because(error)
                    .hint("is the state directory writable?"))
            }
            _ => Ok(()),
        };
        blocking(remove).await
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|error| Failure::transient("replica", "its record was not looked at").because(error))?
}

fn read(file: &Path) -> Result<Option<Record>> {
    let refuse = |what: String| Failure::operator("replica", format!("{} {what}", file.display()));
    let bytes = match std::fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| {
            refuse("cannot be read".to_owned()).because(error).hint("let the agent read its state directory")
        })?,
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| {
        refuse("is no record of a replica".to_owned())
            .because(error)
            .hint("put it back as it was, or put the replica right by hand and remove it")
    })?;
    if record.version != VERSION {
        let what = format!("has version {}, and this agent knows {VERSION}", record.version);
        return Err(refuse(what).hint("run the version of the agent that wrote it"));
    }
    Ok(Some(record))
}

/// There as a whole, or not at all.
fn write(file: &Path, record: &Record) -> io::Result<()> {
    let directory = file.parent().ok_or(ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(directory)?;
    let partial = file.with_extension("new");
    let mut new = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    new.write_all(&serde_json::to_vec_pretty(record)?)?;
    new.sync_all()?;
    std::fs::rename(&partial, file)?;
    for directory in directory.ancestors().take(3) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(text: &str) -> Before {
        serde_json::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn a_record_is_there_as_a_whole_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("replicas"));
        let migration: MigrationId = "m-1".parse().unwrap();
        assert_eq!(records.read(&migration, "shop").await.unwrap(), None);
        let mut record = Record::new(before(r#"{"followed": null, "position": "0-1-7"}"#));
        for stage in [Stage::Found, Stage::Copied("0-1-9".to_owned()), Stage::Linked] {
            record.stage = stage;
            records.write(&migration, "shop", &record).await.unwrap();
            assert_eq!(records.read(&migration, "shop").await.unwrap(), Some(record.clone()));
        }
        assert_eq!(records.read(&migration, "other").await.unwrap(), None);
        for _ in 0..2 {
            records.remove(&migration).await.unwrap();
            assert_eq!(records.read(&migration, "shop").await.unwrap(), None);
        }
    }

    /// The form of version 1, as it lies on disks.
    #[tokio::test]
    async fn version_1_is_understood_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().to_owned());
        let migration: MigrationId = "m-1".parse().unwrap();
        std::fs::create_dir(dir.path().join("m-1")).unwrap();
        let text = r#"{"version": 1, "before": {"followed": {"connection": "", "host": "db1", "port": 3306, "running": true,
            "gtid": "Slave_Pos"}, "position": "0-1-7"}, "stage": {"copied": "0-1-9"}}"#;
        std::fs::write(dir.path().join("m-1/shop.json"), text).unwrap();
        let record = records.read(&migration, "shop").await.unwrap().unwrap();
        assert!(record.before.is_replica() && record.stage == Stage::Copied("0-1-9".to_owned()));
        std::fs::write(dir.path().join("m-1/shop.json"), text.replace("\"version\": 1", "\"version\": 2"))
            .unwrap();
        let refused = records.read(&migration, "shop").await.unwrap_err().to_string();
        assert!(refused.contains("has version 2"), "{refused}");
    }
}
