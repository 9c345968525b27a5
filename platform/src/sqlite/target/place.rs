//! The files around a database's final place, and their one-step changes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::rows::Schema;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::super::error::failed;

/// Version of the state file.
const FORMAT: u32 = 1;
/// Pages of 4 KiB that the write-ahead log may hold before they go into the database.
const CHECKPOINT_PAGES: u32 = 4000;
/// Mode of a database whose source tells none.
const MODE: u32 = 0o640;

/// What undo needs to know, and what the source's file was like.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    migration: String,
    /// Something stood at the final place before this migration.
    had_before: bool,
    /// What stands at the final place is (about to be) ours.
    published: bool,
    /// The next build starts from what was published, if that is ours.
    continues: bool,
    /// The source's journal mode.
    journal_mode: String,
    /// Mode, owner and group of the source's file.
    file: Option<String>,
}

/// A database's final place and the files beside it.
pub struct Place {
    dataset: DatasetName,
    path: PathBuf,
    partial: PathBuf,
    migration: MigrationId,
}

/// `path` with something after its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

impl Place {
    pub fn new(dataset: DatasetName, path: PathBuf, migration: MigrationId) -> Self {
        let partial = with_suffix(&path, &format!(".handover-{migration}"));
        Self { dataset, path, partial, migration }
    }

    /// The final place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is being built.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    fn kept(&self) -> PathBuf {
        with_suffix(&self.path, ".handover-undo")
    }

    fn io<'a>(&'a self, path: &'a Path, what: &'a str) -> impl Fn(std::io::Error) -> Failure + 'a {
        move |error| {
            let hint = match error.kind() {
                std::io::ErrorKind::StorageFull => "free space on its file system, then resume",
                std::io::ErrorKind::PermissionDenied => "give the agent's user the right to write there",
                std::io::ErrorKind::NotFound => {
                    "make the directory it lies in, or correct `url` in appliance.toml"
                }
                _ => "",
            };
            Failure::operator(format!("{}, {}", self.dataset, path.display()), what).because(error).hint(hint)
        }
    }

    fn failed<'a>(&'a self, path: &'a Path, what: &'a str) -> impl Fn(rusqlite::Error) -> Failure + 'a {
        move |error| failed(&self.dataset, path, what, error)
    }

    fn state(&self) -> Result<Option<State>> {
        let path = with_suffix(&self.path, ".handover-state");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(&path, "cannot be read")(error)),
        };
        let state: State = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::permanent(format!("{}, {}", self.dataset, path.display()), "is damaged")
                .because(error)
                .hint("docs/recovery.md tells how to go on without it")
        })?;
        if state.migration != self.migration.as_str() {
            return Err(Failure::operator(
                format!("{}, {}", self.dataset, path.display()),
                format!("belongs to migration {}", state.migration),
            )
            .hint("abort or finalize that migration; if its agent is gone for good, see docs/recovery.md"));
        }
        Ok(Some(state))
    }

    fn write_state(&self, state: &State) -> Result<()> {
        let path = with_suffix(&self.path, ".handover-state");
        let new = with_suffix(&path, ".new");
        let write = || {
            let mut file = File::create(&new)?;
            std::io::Write::write_all(&mut file, &serde_json::to_vec(state)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            self.sync_directory()
        };
        write().map_err(self.io(&path, "cannot be written"))
    }

    fn sync_directory(&self) -> std::io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state()?.ok_or_else(|| {
            Failure::permanent(self.dataset.to_string(), "the database was not prepared for this migration")
        })?;
        change(&mut state);
        self.write_state(&state)
    }

    /// Remembers what stands here, the first time; makes the directory.
    pub fn begin(&self) -> Result<()> {
        if self.state()?.is_some() {
            return Ok(());
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(self.io(parent, "cannot be made"))?;
        self.write_state(&State {
            format: FORMAT,
            migration: self.migration.to_string(),
            had_before: self.path.exists(),
            published: false,
            continues: true,
            journal_mode: "delete".to_owned(),
            file: None,
        })
    }

    /// Remembers how the source's file is kept, for publication.
    pub fn remember_settings(&self, schema: &Schema) -> Result<()> {
        self.change(|state| {
            state.journal_mode =
                schema.settings.get("journal_mode").cloned().unwrap_or_else(|| "delete".to_owned());
            state.file = schema.state.get("file").cloned();
        })
    }

    /// Puts the settings that only come with publication into a schema that was read before it.
    pub fn recall_settings(&self, schema: &mut Schema) -> Result<()> {
        if let Some(state) = self.state()? {
            schema.settings.insert("journal_mode".to_owned(), state.journal_mode);
        }
        Ok(())
    }

    /// Opens what is being built; makes it, empty or from what was published.
    pub fn open_partial(&self, settings: &BTreeMap<String, String>) -> Result<Connection> {
        let state = self.state()?;
        let is_new = !self.partial.exists();
        if is_new && state.is_some_and(|s| s.published && s.continues) && self.path.exists() {
            self.copy_published()?;
        }
        let db = self.open(&self.partial)?;
        let empty = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        let failed = self.failed(&self.partial, "cannot be made");
        if empty.map_err(&failed)? == 0 {
            // These hold only when they are set before the first table.
            for name in ["page_size", "encoding", "auto_vacuum"] {
                if let Some(value) = settings.get(name) {
                    db.execute_batch(&format!("PRAGMA {name} = '{}'", value.replace('\'', "")))
                        .map_err(&failed)?;
                }
            }
        }
        let pragmas = format!("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}");
        db.execute_batch(&pragmas).map_err(&failed)?;
        std::fs::set_permissions(&self.partial, std::fs::Permissions::from_mode(0o600))
            .map_err(self.io(&self.partial, "cannot be made"))?;
        Ok(db)
    }

    /// Copies the published database: whole or not there.
    fn copy_published(&self) -> Result<()> {
        let new = with_suffix(&self.partial, ".new");
        let _ = std::fs::remove_file(&new);
        let from = self.open_published()?;
        let failed = self.failed(&new, "cannot be copied from what was published");
        from.execute("VACUUM INTO ?", [new.to_string_lossy()]).map_err(&failed)?;
        let sync = || File::open(&new)?.sync_all().and_then(|()| std::fs::rename(&new, &self.partial));
        sync().map_err(self.io(&new, "cannot be made durable"))
    }

    fn open(&self, path: &Path) -> Result<Connection> {
        let db = Connection::open(path).map_err(self.failed(path, "cannot be opened"))?;
        db.set_prepared_statement_cache_capacity(64);
        db.execute_batch(
            "PRAGMA busy_timeout = 10000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; \
             PRAGMA ignore_check_constraints = ON; PRAGMA cache_size = -24576; PRAGMA temp_store = FILE",
        )
        .map_err(self.failed(path, "cannot be opened"))?;
        Ok(db)
    }

    /// Opens what stands at the final place, to be read.
    pub fn open_published(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.path, flags).map_err(self.failed(&self.path, "cannot be opened"))
    }

    /// Opens what is being built or, when nothing is, what was published.
    pub fn open_newest(&self) -> Result<Connection> {
        if self.partial.exists() { self.open(&self.partial) } else { self.open_published() }
    }

    /// Removes what is being built; the next build starts empty.
    pub fn discard(&self) -> Result<()> {
        self.remove_database(&self.partial)?;
        if self.state()?.is_some() { self.change(|state| state.continues = false) } else { Ok(()) }
    }

    fn remove_database(&self, path: &Path) -> Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal", ".new", ".new-wal", ".new-shm", ".new-journal"] {
            let file = with_suffix(path, suffix);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(self.io(&file, "cannot be removed")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Brings everything of a database into its one file, so that the file can be moved; `mode` is its journal mode then.
    /// Fails when another process uses it.
    fn settle(&self, path: &Path, mode: &str) -> Result<()> {
        let db = self.open(path)?;
        let failed = self.failed(path, "cannot be brought into one file");
        db.execute_batch("PRAGMA busy_timeout = 2000").map_err(&failed)?;
        let done: String =
            db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).map_err(|error| {
                let hint = "another process uses it: stop its services, then resume";
                Failure::operator(format!("{}, {}", self.dataset, path.display()), "it is in use")
                    .because(error)
                    .hint(hint)
            })?;
        if done != "delete" && done != "memory" {
            let what = format!("its journal mode stays {done}");
            return Err(Failure::operator(format!("{}, {}", self.dataset, path.display()), what));
        }
        if mode == "wal" {
            db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(&failed)?;
        }
        Ok(())
    }

    /// Puts the finished database in its final place.
    pub fn publish(&self) -> Result<()> {
        let state = self
            .state()?
            .ok_or_else(|| Failure::permanent(self.dataset.to_string(), "it was not prepared"))?;
        self.settle(&self.partial, &state.journal_mode)?;
        // Left by the last connection in WAL mode, empty: they would be taken for the new database's.
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(with_suffix(&self.partial, suffix));
        }
        self.dress(&state)?;
        if self.path.exists() {
            self.keep_before(&state)?;
        }
        self.change(|state| (state.published, state.continues) = (true, true))?;
        let swap = || {
            File::open(&self.partial)?.sync_all()?;
            std::fs::rename(&self.partial, &self.path)?;
            self.sync_directory()
        };
        swap().map_err(self.io(&self.path, "cannot be put in place"))
    }

    /// Gives the new file mode and owner of the source's.
    fn dress(&self, state: &State) -> Result<()> {
        let numbers: Vec<&str> = state.file.as_deref().unwrap_or_default().split(' ').collect();
        let (mode, owner) = match numbers[..] {
            [mode, uid, gid] => {
                (u32::from_str_radix(mode, 8).unwrap_or(MODE), uid.parse().ok().zip(gid.parse().ok()))
            }
            _ => (MODE, None),
        };
        let meta = std::fs::metadata(&self.partial).map_err(self.io(&self.partial, "cannot be looked at"))?;
        if let Some((uid, gid)) = owner.filter(|owner| *owner != (meta.uid(), meta.gid())) {
            std::os::unix::fs::chown(&self.partial, Some(uid), Some(gid))
                .map_err(self.io(&self.partial, "cannot be given its owner"))?;
        }
        std::fs::set_permissions(&self.partial, std::fs::Permissions::from_mode(mode))
            .map_err(self.io(&self.partial, "cannot be given its mode"))
    }

    /// Keeps what stood here before, under another name too; nothing of its write-ahead log may be left for the new one.
    fn keep_before(&self, state: &State) -> Result<()> {
        let is_database = self.open_published().and_then(|db| {
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
                .map_err(self.failed(&self.path, "cannot be read"))
        });
        if is_database.is_ok() {
            self.settle(&self.path, "delete")?;
        }
        for suffix in ["-wal", "-shm", "-journal"] {
            let file = with_suffix(&self.path, suffix);
            if file.exists() {
                return Err(Failure::operator(
                    format!("{}, {}", self.dataset, file.display()),
                    "it is in the way",
                )
                .hint("another process uses the database: stop its services, then resume"));
            }
        }
        let kept = self.kept();
        if state.had_before && !kept.exists() {
            std::fs::hard_link(&self.path, &kept).map_err(self.io(&kept, "cannot be kept for undo"))?;
            self.sync_directory().map_err(self.io(&kept, "cannot be kept for undo"))?;
        }
        Ok(())
    }

    /// Brings back what stood here before.
    pub fn undo(&self) -> Result<()> {
        self.remove_database(&self.partial)?;
        let Some(state) = self.state()? else { return Ok(()) };
        let kept = self.kept();
        if kept.exists() {
            if self.path.exists() {
                self.settle(&self.path, "delete")?;
            }
            std::fs::rename(&kept, &self.path).map_err(self.io(&self.path, "cannot be put back"))?;
            // Two names of one file: rename(2) leaves both.
            let _ = std::fs::remove_file(&kept);
        } else if state.published && !state.had_before {
            self.remove_database(&self.path)?;
        }
        self.forget_state()
    }

    /// Drops what undo would need.
    pub fn forget(&self) -> Result<()> {
        self.remove_database(&self.partial)?;
        let kept = self.kept();
        match std::fs::remove_file(&kept) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(self.io(&kept, "cannot be removed")(error));
            }
            _ => {}
        }
        self.forget_state()
    }

    fn forget_state(&self) -> Result<()> {
        let path = with_suffix(&self.path, ".handover-state");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(self.io(&path, "cannot be removed")(error));
            }
            _ => {}
        }
        // The directory itself is there: something was just in it, or never was.
        let _ = self.sync_directory();
        Ok(())
    }
}
