//! The files around a database's final place, and their one-step changes.
//!
//! Every change is one rename or one link, after the record that explains it is durable: whatever step a crash falls
//! between, doing the same again ends the same.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::rows::Schema;

use super::super::error::{Error, failed, item};
use super::record::{self, Record, remove_file};

/// Mode of a database whose source tells none.
const MODE: u32 = 0o640;
/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A database's final place and the files beside it.
pub struct Place {
    dataset: DatasetName,
    path: PathBuf,
    partial: PathBuf,
    migration: MigrationId,
}

/// `path` with something after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the names in a file's directory durable.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Two names of one file.
fn is_one_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

impl Place {
    /// The place at `path` or, where that is a symbolic link, where it leads: the link stays.
    pub fn new(dataset: DatasetName, path: PathBuf, migration: MigrationId) -> Self {
        let path = if path.is_symlink() { std::fs::canonicalize(&path).unwrap_or(path) } else { path };
        let partial = with_suffix(&path, &format!(".handover-{migration}"));
        Self { dataset, path, partial, migration }
    }

    /// The dataset that the database is.
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// The final place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is being built.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// True between `prepare` and `publish`.
    pub fn is_building(&self) -> bool {
        self.partial.exists()
    }

    /// What is being built or, when nothing is, the final place.
    pub fn newest(&self) -> &Path {
        if self.is_building() { &self.partial } else { &self.path }
    }

    /// The migration's name.
    pub fn migration(&self) -> &str {
        self.migration.as_str()
    }

    /// How messages name a file.
    pub fn item(&self, path: &Path) -> String {
        item(&self.dataset, path)
    }

    fn kept(&self) -> PathBuf {
        with_suffix(&self.path, ".handover-undo")
    }

    /// A failure of the file system.
    pub fn io(&self, path: &Path, what: &str) -> impl Fn(std::io::Error) -> Failure {
        move |error| {
            let hint = match error.kind() {
                std::io::ErrorKind::StorageFull => "free space on its file system, then resume",
                std::io::ErrorKind::PermissionDenied => "give the agent's user the right to write there",
                std::io::ErrorKind::ReadOnlyFilesystem => {
                    "mount its file system so that the agent may write there, then resume"
                }
                std::io::ErrorKind::NotFound
                | std::io::ErrorKind::NotADirectory
                | std::io::ErrorKind::AlreadyExists => {
                    "make the directory it lies in, or correct `url` in appliance.toml"
                }
                _ => "put right what the operating system says of it, then resume",
            };
            Failure::operator(self.item(path), what).because(error).hint(hint)
        }
    }

    /// A failure of SQLite.
    pub fn failed(&self, path: &Path, what: &str) -> impl Fn(rusqlite::Error) -> Failure {
        move |error| failed(&self.dataset, path, what, Error::Sqlite(error))
    }

    fn record(&self) -> Result<Record> {
        let unprepared =
            || Failure::permanent(self.item(&self.path), "the database was not prepared for this migration");
        record::read(self)?.ok_or_else(unprepared)
    }

    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = self.record()?;
        change(&mut record);
        record::write(self, &record)
    }

    /// This migration has begun here.
    pub fn is_prepared(&self) -> Result<bool> {
        Ok(record::read(self)?.is_some())
    }

    /// Remembers what stands here, the first time; makes the directory.
    pub fn begin(&self) -> Result<()> {
        if record::read(self)?.is_some() {
            return Ok(());
        }
        let kept = self.kept();
        if kept.exists() {
            return Err(Failure::operator(
                self.item(&kept),
                "it was kept by a migration that is not known here",
            )
            .hint("put it back or remove it: see docs/recovery.md"));
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(self.io(parent, "cannot be made"))?;
        record::write(self, &Record::new(self.migration(), self.path.exists()))
    }

    /// Makes the write-ahead log of what is being built durable; there is none where all of it is in the database.
    pub fn sync_log(&self) -> Result<()> {
        let log = with_suffix(&self.partial, "-wal");
        let synced = match File::open(&log) {
            Ok(file) => file.sync_data().and_then(|()| sync_directory(&log)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        synced.map_err(self.io(&log, "cannot be made durable"))
    }

    /// Remembers how the source's file is kept, for publication.
    pub fn remember_settings(&self, schema: &Schema) -> Result<()> {
        self.change(|record| {
            let mode = schema.settings.get("journal_mode").cloned();
            record.journal_mode = mode.unwrap_or_else(|| "delete".to_owned());
            record.file = schema.state.get("file").cloned();
        })
    }

    /// Puts the settings that only come with publication into a schema that was read before it.
    pub fn recall_settings(&self, schema: &mut Schema) -> Result<()> {
        if let Some(record) = record::read(self)? {
            schema.settings.insert("journal_mode".to_owned(), record.journal_mode);
        }
        Ok(())
    }

    /// Remembers that what is being built was found sound.
    pub fn remember_check(&self) -> Result<()> {
        self.change(|record| record.checked = true)
    }

    /// Whether it was.
    pub fn is_checked(&self) -> Result<bool> {
        Ok(self.record()?.checked)
    }

    /// Removes what is being built; the next build starts empty.
    pub fn discard(&self) -> Result<()> {
        if record::read(self)?.is_some() {
            self.change(|record| (record.continues, record.checked) = (false, false))?;
        }
        self.remove_database(&self.partial)
    }

    /// Removes a database, whatever of it is there.
    pub fn remove_database(&self, path: &Path) -> Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal", ".new", ".new-journal"] {
            remove_file(self, &with_suffix(path, suffix))?;
        }
        Ok(())
    }

    /// Succeeds when publication is behind us.
    pub fn published(&self) -> Result<()> {
        if self.record()?.published {
            return Ok(());
        }
        Err(Failure::permanent(self.item(&self.partial), "there is no database to publish"))
    }

    /// Puts the finished database in its final place.
    pub fn publish(&self) -> Result<()> {
        let record = self.record()?;
        self.settle(&self.partial, Some(&record.journal_mode))?;
        // Left by the last connection in WAL mode, empty.
        for suffix in BESIDE {
            remove_file(self, &with_suffix(&self.partial, suffix))?;
        }
        self.dress(&record)?;
        let had_before = if record.published { record.had_before } else { self.path.exists() };
        if self.path.exists() {
            self.make_way()?;
            if !record.published {
                self.keep_before()?;
            }
        }
        File::open(&self.partial)
            .and_then(|file| file.sync_all())
            .map_err(self.io(&self.partial, "cannot be made durable"))?;
        self.change(|record| {
            (record.had_before, record.published, record.continues) = (had_before, true, true);
        })?;
        std::fs::rename(&self.partial, &self.path)
            .and_then(|()| sync_directory(&self.path))
            .map_err(self.io(&self.path, "cannot be put in place"))
    }

    /// Gives the new file mode and owner of the source's.
    fn dress(&self, record: &Record) -> Result<()> {
        let numbers: Vec<&str> = record.file.as_deref().unwrap_or_default().split(' ').collect();
        let (mode, owner) = match numbers[..] {
            [mode, uid, gid] => (
                u32::from_str_radix(mode, 8).map_or(MODE, |mode| mode & 0o777),
                uid.parse().ok().zip(gid.parse().ok()),
            ),
            _ => (MODE, None),
        };
        let meta = std::fs::metadata(&self.partial).map_err(self.io(&self.partial, "cannot be looked at"))?;
        if let Some((uid, gid)) = owner.filter(|owner| *owner != (meta.uid(), meta.gid())) {
            std::os::unix::fs::chown(&self.partial, Some(uid), Some(gid))
                .map_err(self.io(&self.partial, "cannot be given its owner"))?;
        }
        std::fs::set_permissions(&self.partial, Permissions::from_mode(mode))
            .map_err(self.io(&self.partial, "cannot be given its mode"))
    }

    /// Brings what stands at the final place into its one file: nothing of its log may be left for another.
    fn make_way(&self) -> Result<()> {
        let journal = with_suffix(&self.path, "-journal");
        if self.is_database() {
            self.settle(&self.path, None)?;
            // What was left in it is rolled back, or was never used: nobody holds a lock.
            remove_file(self, &journal)?;
        }
        for suffix in BESIDE {
            let file = with_suffix(&self.path, suffix);
            if file.exists() {
                let hint = "it belongs to what stands at the final place: stop its services; if that is damaged, \
                            move both away";
                return Err(Failure::operator(self.item(&file), "it is in the way").hint(hint));
            }
        }
        Ok(())
    }

    /// Keeps what stood here before, under another name too.
    fn keep_before(&self) -> Result<()> {
        let kept = self.kept();
        remove_file(self, &kept)?;
        std::fs::hard_link(&self.path, &kept)
            .and_then(|()| sync_directory(&kept))
            .map_err(self.io(&kept, "cannot be kept for undo"))
    }

    /// Brings back what stood here before. `leave` is called before what was published goes, once all of it is in its one file.
    pub fn undo(&self, leave: impl FnOnce() -> Result<()>) -> Result<()> {
        self.remove_database(&self.partial)?;
        let Some(record) = record::read(self)? else { return Ok(()) };
        let kept = self.kept();
        let is_ours = record.published && (kept.exists() || !record.had_before);
        if is_ours && self.path.exists() {
            self.make_way()?;
            // A publication that was cut short has left what stood here before under both names.
            if !is_one_file(&self.path, &kept) {
                leave()?;
            }
        }
        if kept.exists() {
            std::fs::rename(&kept, &self.path)
                .and_then(|()| sync_directory(&self.path))
                .map_err(self.io(&self.path, "cannot be put back"))?;
            // Two names of one file: rename(2) leaves both.
            remove_file(self, &kept)?;
        } else if is_ours {
            self.remove_database(&self.path)?;
        }
        record::remove(self)
    }

    /// Drops what undo would need.
    pub fn forget(&self) -> Result<()> {
        self.remove_database(&self.partial)?;
        if record::read(self)?.is_some() {
            remove_file(self, &self.kept())?;
        }
        record::remove(self)
    }
}
