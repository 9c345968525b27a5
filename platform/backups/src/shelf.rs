//! The directory of a host's backups: each a directory of its own, whole or not there.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use handover_engine::backup::{Backup, FORMAT, Shelf};
use handover_engine::failure::Failure;
use handover_engine::name::{BackupId, MigrationId};
use handover_engine::ports::Result;

use crate::note::Notes;
use crate::work::io_failed;

/// What a backup's directory is told by.
const RECORD: &str = "backup.json";
/// What a backup's directory ends with while it is made. No name of a backup does.
const PARTIAL: &str = ".partial";
/// For files that are needed meanwhile.
const SCRATCH: &str = ".work";
/// For what restores have replaced and cannot leave at its place.
const KEPT: &str = ".kept";
/// For notes of restores that have begun.
const RESTORES: &str = ".restores";

/// The directory.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    /// At this place. Nothing is made.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Refuses a name that what is half made has.
    pub fn admits(id: &BackupId) -> Result<()> {
        if id.as_str().ends_with(PARTIAL) {
            let what = format!("no backup's name ends with `{PARTIAL}`");
            return Err(Failure::operator(format!("backup {id}"), what).hint("give it another name"));
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a whole backup is.
    pub fn place(&self, id: &BackupId) -> PathBuf {
        self.0.join(id.as_str())
    }

    /// Where a file is that a restore keeps.
    pub fn kept(&self) -> Result<PathBuf> {
        let path = self.0.join(KEPT);
        make(&path).map_err(io_failed(&path, "cannot be made"))?;
        Ok(path)
    }

    /// The notes of restores that have begun.
    pub fn notes(&self) -> Notes {
        Notes::new(self.0.join(RESTORES))
    }

    /// Makes what is needed to work, and takes away what an earlier agent has left that was ended in the middle.
    pub fn clear(&self) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        for name in entries(&self.0).map_err(io_failed(&self.0, "cannot be read"))? {
            if name.ends_with(PARTIAL) || name == SCRATCH {
                let path = self.0.join(name);
                std::fs::remove_dir_all(&path).map_err(io_failed(&path, "cannot be removed"))?;
            }
        }
        Ok(())
    }

    /// The place for files that are needed meanwhile.
    pub fn scratch(&self) -> Result<PathBuf> {
        let path = self.0.join(SCRATCH);
        make(&self.0).and_then(|()| make(&path)).map_err(io_failed(&path, "cannot be made"))?;
        Ok(path)
    }

    /// An empty directory for a backup that is made.
    pub fn begin(&self, id: &BackupId) -> Result<PathBuf> {
        let path = self.partial(id);
        let begin = || {
            make(&self.0)?;
            remove(&path)?;
            make(&path)
        };
        begin().map_err(io_failed(&path, "cannot be made"))?;
        Ok(path)
    }

    fn partial(&self, id: &BackupId) -> PathBuf {
        self.0.join(format!("{id}{PARTIAL}"))
    }

    /// Takes away what was begun.
    pub fn give_up(&self, id: &BackupId) {
        let path = self.partial(id);
        if let Err(error) = remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a backup that was given up is not removed");
        }
    }

    /// Gives a backup its name. Its files are durable by then; it is, when this returns.
    pub fn finish(&self, backup: &Backup) -> Result<()> {
        let (from, to) = (self.partial(&backup.id), self.place(&backup.id));
        let finish = || {
            let text = serde_json::to_vec_pretty(backup).map_err(io::Error::other)?;
            let record = from.join(RECORD);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(record)?;
            file.write_all(&text)?;
            file.sync_all()?;
            sync(&from)?;
            std::fs::rename(&from, &to)?;
            sync(&self.0)
        };
        finish().map_err(io_failed(&to, "the backup cannot be finished"))
    }

    /// A backup that is whole; none where there is no such one.
    pub fn read(&self, id: &BackupId) -> Result<Option<Backup>> {
        let path = self.place(id);
        if !path.exists() {
            return Ok(None);
        }
        read(&path).map(Some).map_err(|problem| {
            Failure::operator(format!("backup {id}"), problem)
                .hint(format!("look at {}, or make another backup under another name", path.display()))
        })
    }

    /// As [`Self::read`], of one that must be there.
    pub fn get(&self, id: &BackupId) -> Result<Backup> {
        self.read(id)?.ok_or_else(|| {
            Failure::operator(format!("backup {id}"), format!("there is none in {}", self.0.display()))
                .hint("`handover backups` names those that there are")
        })
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Result<Shelf> {
        let mut shelf = Shelf { directory: self.0.display().to_string(), ..Shelf::default() };
        if !self.0.exists() {
            return Ok(shelf);
        }
        for name in entries(&self.0).map_err(io_failed(&self.0, "cannot be read"))? {
            if name.starts_with('.') || name.ends_with(PARTIAL) {
                continue;
            }
            match read(&self.0.join(&name)) {
                Ok(backup) => shelf.backups.push(backup),
                Err(problem) => shelf.unreadable.push((name, problem)),
            }
        }
        shelf.backups.sort_by(|a, b| (a.made_at, &a.id).cmp(&(b.made_at, &b.id)));
        Ok(shelf)
    }

    /// Removes the oldest ones until `keep` are left. Those of `newest`'s migration and of those that are `running` stay: they are what an
    /// operator has to go back to, however many others are made meanwhile.
    pub fn thin_out(&self, keep: usize, newest: &Backup, running: &[MigrationId]) -> Result<()> {
        let backups = self.list()?.backups;
        let mut too_many = backups.len().saturating_sub(keep.max(1));
        for old in backups {
            let is_held = old
                .migration
                .as_ref()
                .is_some_and(|of| newest.migration.as_ref() == Some(of) || running.contains(of));
            if too_many == 0 || is_held || old.id == newest.id {
                continue;
            }
            let path = self.place(&old.id);
            // Its name first: what is left of it is no backup any more.
            let gone = self.partial(&old.id);
            let removed = std::fs::rename(&path, &gone).and_then(|()| remove(&gone));
            removed.map_err(io_failed(&path, "an old backup cannot be removed"))?;
            tracing::info!(backup = %old.id, "an old backup is removed: newer ones are kept");
            too_many -= 1;
        }
        Ok(())
    }
}

/// The names in a directory, sorted.
pub fn entries(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut out = BTreeSet::new();
    for entry in std::fs::read_dir(path)? {
        // A name that is no text is none of ours.
        if let Ok(name) = entry?.file_name().into_string() {
            out.insert(name);
        }
    }
    Ok(out)
}

fn read(path: &Path) -> Result<Backup, String> {
    let text =
        std::fs::read(path.join(RECORD)).map_err(|error| format!("{RECORD} cannot be read: {error}"))?;
    let backup: Backup =
        serde_json::from_slice(&text).map_err(|error| format!("{RECORD} cannot be understood: {error}"))?;
    if backup.format != FORMAT {
        return Err(format!("{RECORD} is of form {}, and this release reads {FORMAT}", backup.format));
    }
    if path.file_name().and_then(|name| name.to_str()) != Some(backup.id.as_str()) {
        return Err(format!("{RECORD} is that of {}", backup.id));
    }
    // It may have been written by anybody: no way out of its directory.
    match backup.datasets.iter().find(|kept| kept.file.contains('/') || kept.file.starts_with('.')) {
        Some(kept) => Err(format!("{RECORD} names a file `{}`", kept.file)),
        None => Ok(backup),
    }
}

/// A directory for the agent alone, and those above it.
pub fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    sync(path.parent().unwrap_or(Path::new("/")))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
