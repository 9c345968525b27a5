//! Restores that have begun: each is written down before it changes anything. One that is cut short, whenever that is, is ended or taken back
//! by what is written here.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use handover_engine::failure::Failure;
use handover_engine::name::{BackupId, DatasetName};
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};

use crate::shelf::{entries, make, sync};
use crate::work::io_failed;
use crate::{mariadb, postgres, sqlite, tree};

/// The version of a note that this release writes.
const FORMAT: u32 = 1;
/// What a note's name ends with.
const ENDING: &str = ".json";

/// A dataset that is being put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Version of this document's form.
    pub format: u32,
    /// The dataset.
    pub dataset: DatasetName,
    /// The backup that it is put back from.
    pub backup: BackupId,
    /// How far it may be.
    pub begun: Begun,
}

/// How far it may be, by engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "snake_case")]
pub enum Begun {
    /// An SQLite database.
    Sqlite(sqlite::restore::Begun),
    /// A database of a MariaDB server.
    Mariadb(Box<mariadb::restore::Begun>),
    /// A database of a PostgreSQL server.
    Postgres(postgres::restore::Begun),
    /// A file tree.
    Files(tree::restore::Begun),
}

/// The notes of a host, one for each dataset at most.
#[derive(Debug, Clone)]
pub struct Notes(PathBuf);

impl Notes {
    /// In this directory. Nothing is made.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn file(&self, dataset: &DatasetName) -> PathBuf {
        self.0.join(format!("{dataset}{ENDING}"))
    }

    /// All of them.
    pub fn all(&self) -> Result<Vec<Note>> {
        let names = match entries(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.map_err(io_failed(&self.0, "cannot be read"))?,
        };
        names.into_iter().filter(|name| name.ends_with(ENDING)).map(|name| self.read(&name)).collect()
    }

    fn read(&self, name: &str) -> Result<Note> {
        let path = self.0.join(name);
        let text = std::fs::read(&path).map_err(io_failed(&path, "cannot be read"))?;
        let odd = |what: String| {
            Failure::operator(path.display().to_string(), what)
                .hint("a restore was cut short: install the release that wrote this, or see to the dataset by hand and remove the file")
        };
        let note: Note = serde_json::from_slice(&text)
            .map_err(|error| odd("cannot be understood".to_owned()).because(error))?;
        if note.format != FORMAT {
            return Err(odd(format!("is of form {}, and this release reads {FORMAT}", note.format)));
        }
        Ok(note)
    }

    /// The one of a dataset.
    pub fn of(&self, dataset: &DatasetName) -> Result<Option<Note>> {
        Ok(self.all()?.into_iter().find(|note| note.dataset == *dataset))
    }

    fn write(&self, note: &Note) -> Result<()> {
        let path = self.file(&note.dataset);
        let new = path.with_extension("new");
        let write = || {
            make(&self.0)?;
            let text = serde_json::to_vec_pretty(note).map_err(io::Error::other)?;
            let mut file: File =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            sync(&self.0)
        };
        write().map_err(io_failed(&path, "cannot be written"))
    }

    /// Nothing is begun any more. Idempotent.
    pub fn remove(&self, dataset: &DatasetName) -> Result<()> {
        let path = self.file(dataset);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync(&self.0)).map_err(io_failed(&path, "cannot be removed")),
        }
    }
}

/// Writes the note of one dataset.
pub struct Pen<'a> {
    /// Where notes are.
    pub notes: &'a Notes,
    /// The dataset.
    pub dataset: &'a DatasetName,
    /// The backup that it is put back from.
    pub backup: &'a BackupId,
}

impl Pen<'_> {
    /// Writes it, in place of what was written before. Durable when it returns.
    pub fn write(&self, begun: Begun) -> Result<()> {
        let (dataset, backup) = (self.dataset.clone(), self.backup.clone());
        self.notes.write(&Note { format: FORMAT, dataset, backup, begun })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first release wrote them.
    const FIRST: [(&str, &str); 4] = [
        (
            "app",
            r#"{"format":1,"dataset":"app","backup":"b-1","begun":{"engine":"sqlite","path":"/a.db","built":"/a.db.handover-restore","swaps":true,"before":"/a.db.before-b-1"}}"#,
        ),
        (
            "files",
            r#"{"format":1,"dataset":"files","backup":"b-1","begun":{"engine":"files","root":"/www","stage":"/www.handover-restore","built":7,"before":"/www.before-b-1"}}"#,
        ),
        (
            "ledger",
            r#"{"format":1,"dataset":"ledger","backup":"b-1","begun":{"engine":"postgres","place":"l","scratch":"l__handover_restore","swaps":true,"before":null}}"#,
        ),
        (
            "shop",
            r#"{"format":1,"dataset":"shop","backup":"b-1","begun":{"engine":"mariadb","place":"shop","scratch":"s","file":"/b/shop.sql.zst","charset":{"character_set":"latin1","collation":"latin1_bin"},"before":{"database":"k","aside":"/k.zst","charset":{"character_set":"latin1","collation":"latin1_bin"},"tables":["t"],"acts":["VIEW IF EXISTS `shop`.`v`"]},"built":["t","u"]}}"#,
        ),
    ];

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::new(dir.path().join("restores"));
        assert_eq!(notes.all().unwrap(), []);
        make(&dir.path().join("restores")).unwrap();
        for (name, text) in FIRST {
            std::fs::write(notes.0.join(format!("{name}.json")), text).unwrap();
        }
        let all = notes.all().unwrap();
        assert_eq!(all.len(), FIRST.len());
        for (note, (name, _)) in all.iter().zip(FIRST) {
            assert_eq!(note.dataset.as_str(), name);
            Pen { notes: &notes, dataset: &note.dataset, backup: &note.backup }
                .write(note.begun.clone())
                .unwrap();
        }
        assert_eq!(notes.all().unwrap(), all);
        for note in &all {
            notes.remove(&note.dataset).unwrap();
            notes.remove(&note.dataset).unwrap();
        }
        assert_eq!(entries(&notes.0).unwrap().len(), 0);
        std::fs::write(notes.0.join("x.json"), FIRST[0].1.replace("\"format\":1", "\"format\":9")).unwrap();
        let odd = notes.all().unwrap_err();
        assert!(odd.what.contains("form 9") && odd.hint.contains("cut short"), "{odd}");
    }
}
