//! What is written down before records are changed: what goes and what comes. One durable file of a kind for each migration.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use handover_engine::dns::{RecordChange, TextRecord};
use handover_engine::name::MigrationId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Grows with its form.
const VERSION: u32 = 1;

/// The record of a migration.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// What was changed, or was about to be, in order. Of each only what made a difference.
    pub changes: Vec<RecordChange>,
}

/// The texts of a migration that an authority asks for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    version: u32,
    /// What was put in, or was about to be.
    pub texts: Vec<TextRecord>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { version: VERSION, texts: Vec::new() }
    }
}

impl Texts {
    /// Adds those that are not there yet.
    pub fn add(&mut self, texts: &[TextRecord]) {
        for text in texts {
            if !self.texts.contains(text) {
                self.texts.push(text.clone());
            }
        }
    }
}

/// What every version tells.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, changes: Vec::new() }
    }
}

impl Record {
    /// Adds a change. One that was added before and is made again, since nobody knows how far it came, has made the difference of both.
    pub fn add(&mut self, change: RecordChange) {
        let is_same = |known: &&mut RecordChange| {
            (known.at, &known.name, known.kind) == (change.at, &change.name, change.kind)
        };
        match self.changes.iter_mut().find(is_same) {
            Some(known) => {
                known.from.extend(change.from);
                known.to.extend(change.to);
            }
            None => self.changes.push(change),
        }
    }
}

/// Where records of a kind lie.
#[derive(Debug, Clone)]
pub struct Records<T>(PathBuf, PhantomData<fn() -> T>);

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Below an agent's state directory, in a directory for its kind alone.
    pub fn new(state: &Path, kind: &str) -> Self {
        Self(state.join(kind), PhantomData)
    }

    fn file(&self, migration: &MigrationId) -> PathBuf {
        self.0.join(format!("{migration}.json"))
    }

    /// None when nothing was ever to be changed for it.
    pub fn read(&self, migration: &MigrationId) -> Result<Option<T>> {
        let bytes = match std::fs::read(self.file(migration)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let damaged = |error| Error::other(format!("the undo record is damaged: {error}"));
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version != VERSION {
            return Err(Error::other(format!(
                "the undo record has version {version}, this agent reads {VERSION}"
            )));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Durable when it returns.
    pub fn write(&self, migration: &MigrationId, record: &T) -> Result<()> {
        if !self.0.is_dir() {
            std::fs::create_dir_all(&self.0)?;
            sync(self.0.parent().ok_or(ErrorKind::InvalidInput)?)?;
        }
        // Its name is no migration's: a leading dot is not allowed there.
        let partial = self.0.join(format!(".{migration}.new"));
        let mut new = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        new.write_all(&serde_json::to_vec_pretty(record)?)?;
        new.sync_all()?;
        std::fs::rename(&partial, self.file(migration))?;
        sync(&self.0)
    }

    /// Durable when it returns. Idempotent.
    pub fn forget(&self, migration: &MigrationId) -> Result<()> {
        match std::fs::remove_file(self.file(migration)) {
            Ok(()) => sync(&self.0),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::dns::{RecordKind, Stage};

    fn change(from: &str, to: &str) -> RecordChange {
        let values = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        RecordChange {
            at: Stage::Cutover,
            name: "www.example.net.".to_owned(),
            kind: RecordKind::A,
            from: values(from),
            to: values(to),
            was_ttl: 3600,
            ttl: 60,
        }
    }

    #[test]
    fn what_is_made_again_has_made_the_difference_of_both() {
        let mut record = Record::default();
        record.add(change("1", "2"));
        record.add(change("", "2"));
        assert_eq!(record.changes, [change("1", "2")]);
    }

    #[test]
    fn a_record_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (records, migration) = (Records::<Record>::new(dir.path(), "dns"), "m-1".parse().unwrap());
        assert_eq!(records.read(&migration).unwrap(), None);
        let mut record = Record::default();
        record.add(change("1", "2"));
        for _ in 0..2 {
            records.write(&migration, &record).unwrap();
            assert_eq!(records.read(&migration).unwrap().as_ref(), Some(&record));
        }
        for _ in 0..2 {
            records.forget(&migration).unwrap();
            assert_eq!(records.read(&migration).unwrap(), None);
        }
        for (text, part) in [("{", "damaged"), ("{\"version\":2,\"sets\":[]}", "has version 2")] {
            std::fs::write(dir.path().join("dns/m-1.json"), text).unwrap();
            assert!(records.read(&migration).unwrap_err().to_string().contains(part));
        }
    }

    /// The form of version 1, as it lies on disks.
    #[test]
    fn version_1_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version": 1, "changes": [{"at": "cutover", "name": "www.example.net.", "kind": "A",
            "from": ["1"], "to": ["2"], "was_ttl": 3600, "ttl": 60}]}"#;
        std::fs::create_dir(dir.path().join("dns")).unwrap();
        std::fs::write(dir.path().join("dns/m-1.json"), text).unwrap();
        let record =
            Records::<Record>::new(dir.path(), "dns").read(&"m-1".parse().unwrap()).unwrap().unwrap();
        assert_eq!(record.changes, [change("1", "2")]);
        let text = r#"{"version": 1, "texts": [{"name": "_acme-challenge.www.example.net.", "value": "v"}]}"#;
        std::fs::create_dir(dir.path().join("challenges")).unwrap();
        std::fs::write(dir.path().join("challenges/m-1.json"), text).unwrap();
        let texts = Records::<Texts>::new(dir.path(), "challenges").read(&"m-1".parse().unwrap());
        let text = TextRecord::challenge("WWW.example.net", "v".to_owned());
        assert_eq!(texts.unwrap().unwrap().texts, [text]);
    }
}
