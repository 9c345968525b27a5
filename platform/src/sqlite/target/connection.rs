//! Connections to what is being built and to what stands at the final place.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::place::{Place, with_suffix};
use super::record;
use crate::sqlite::error::failed;
use crate::sqlite::{estimate, held};

/// The log of what is being built goes into the database every so many pages.
pub const CHECKPOINT_PAGES: u32 = 4_000;
/// Keeps every transaction durable (a commit syncs the write-ahead log), memory below 32 MiB, and the log from growing: its file is cut back
/// once it was brought into the database.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; \
    PRAGMA ignore_check_constraints = ON; PRAGMA cache_size = -24576; PRAGMA temp_store = FILE; \
    PRAGMA journal_size_limit = 67108864";
/// Settings that hold only when they are set before the first table.
const AT_BIRTH: [&str; 3] = ["page_size", "encoding", "auto_vacuum"];

impl Place {
    /// Opens what is being built; makes it, empty or from what was published.
    pub fn open_partial(&self, settings: &BTreeMap<String, String>) -> Result<Connection> {
        let partial = self.partial();
        let continues = record::read(self)?.is_some_and(|record| record.published && record.continues);
        if !partial.exists() && continues && self.path().exists() {
            self.copy_published()?;
        }
        self.make_private(partial)?;
        let db = self.open(partial)?;
        let failed = self.failed(partial, "cannot be made");
        let objects: i64 =
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(&failed)?;
        if objects == 0 {
            for name in AT_BIRTH {
                if let Some(value) = settings.get(name) {
                    db.execute_batch(&format!("PRAGMA {name} = '{}'", value.replace('\'', "")))
                        .map_err(&failed)?;
                }
            }
        }
        db.execute_batch("PRAGMA journal_mode = WAL").map_err(&failed)?;
        Ok(db)
    }

    /// Makes an empty file that only this user may read, unless it is there.
    fn make_private(&self, path: &Path) -> Result<()> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(self.io(path, "cannot be made")(error))
            }
            _ => Ok(()),
        }
    }

    /// Copies the published database, page by page: whole or not there.
    fn copy_published(&self) -> Result<()> {
        let new = with_suffix(self.partial(), ".new");
        record::remove_file(self, &new)?;
        self.make_private(&new)?;
        let from = self.open_published()?;
        let failed = self.failed(&new, "cannot be copied from what was published");
        let mut to = Connection::open(&new).map_err(&failed)?;
        to.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").map_err(&failed)?;
        let backup = Backup::new(&from, &mut to).map_err(&failed)?;
        if backup.step(-1).map_err(&failed)? != StepResult::Done {
            return Err(Failure::transient(self.item(self.path()), "it is locked by another process"));
        }
        drop(backup);
        drop(to);
        let sync = || File::open(&new)?.sync_all().and_then(|()| std::fs::rename(&new, self.partial()));
        sync().map_err(self.io(&new, "cannot be made durable"))
    }

    /// Opens a database that is there, to be written.
    pub fn open(&self, path: &Path) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(self.failed(path, "cannot be opened"))?;
        db.set_prepared_statement_cache_capacity(64);
        let set = db
            .execute_batch(PRAGMAS)
            .and_then(|()| db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES));
        set.map_err(self.failed(path, "cannot be opened"))?;
        Ok(db)
    }

    /// Opens what stands at the final place, to be read.
    pub fn open_published(&self) -> Result<Connection> {
        estimate::open(self.path(), "", estimate::BUSY)
            .map_err(|e| failed(self.dataset(), self.path(), "cannot be opened", e))
    }

    /// Opens what is being built or, when nothing is, what was published.
    pub fn open_newest(&self) -> Result<Connection> {
        if self.is_building() { self.open(self.partial()) } else { self.open_published() }
    }

    /// True when the file at the final place is a database that SQLite can open.
    pub fn is_database(&self) -> bool {
        let looked = self
            .open_published()
            .map(|db| db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)));
        matches!(looked, Ok(Ok(_)))
    }

    /// Brings everything of a database into its one file, so that the file can be moved, and leaves it in journal mode
    /// `mode` (its own, where `None`). Fails when another process uses it.
    pub fn settle(&self, path: &Path, mode: Option<&str>) -> Result<()> {
        if let Some(pid) = user_of(path) {
            return Err(self
                .in_use(path)
                .because(std::io::Error::other(format!("process {pid} has it open"))));
        }
        held::let_go(path);
        let db = self.open(path)?;
        let failed = self.failed(path, "cannot be brought into one file");
        let in_use = |error| self.in_use(path).because(error);
        db.execute_batch("PRAGMA busy_timeout = 2000").map_err(&failed)?;
        let ask = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0));
        let before = ask("PRAGMA journal_mode").map_err(&failed)?;
        let now = ask("PRAGMA journal_mode = DELETE").map_err(in_use)?;
        if now != "delete" {
            return Err(Failure::operator(self.item(path), format!("its journal mode stays {now}")));
        }
        db.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").map_err(in_use)?;
        if mode.unwrap_or(&before) == "wal" {
            ask("PRAGMA journal_mode = WAL").map_err(&failed)?;
        }
        db.close().map_err(|(_, error)| failed(error))
    }

    /// A failure: somebody else has the database.
    pub fn in_use(&self, path: &Path) -> Failure {
        Failure::operator(self.item(path), "it is in use")
            .hint("another process uses it: stop its services, then resume")
    }
}

/// Another process that has the file open, as far as this one may see. Needed since in the modes other than WAL an idle
/// connection holds no lock: it would go on writing to the file that has been replaced.
fn user_of(path: &Path) -> Option<u32> {
    let wanted = std::fs::metadata(path).ok()?;
    let mine = std::process::id();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let is_it = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == (wanted.dev(), wanted.ino());
        *pid != mine && open.flatten().any(|fd| std::fs::metadata(fd.path()).is_ok_and(is_it))
    })
}
