//! The staging area: making it, clearing it, and the names in it.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::tree::RelPath;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::super::assemble::Counted;
use super::super::before::{Before, inside};
use super::super::filter::Filter;
use super::super::root::Root;
use super::super::scan::names;
use super::super::{STAGING, meta, undo};
use super::{Shared, patch};

/// Held while a root and its staging area come or go. Migrations have that in common: while one prepares, somebody may remove what another has kept,
/// and the area and the root with it. One for all trees: it is held for a moment.
static COMING_AND_GOING: Mutex<()> = Mutex::new(());

/// The turn to make or remove a staging area.
pub(super) fn turn() -> MutexGuard<'static, ()> {
    COMING_AND_GOING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The staging area's own directory for what is staged, opened.
pub struct Staging(OwnedFd);

/// Name of what is staged of a file.
fn staged_name(path: &RelPath) -> String {
    format!("s-{}", &Digest::of(path.as_bytes()).to_string()[..32])
}

/// Name of the record of how much of a file is as it stands here.
fn counted_name(path: &RelPath) -> String {
    format!("{}.counted", staged_name(path))
}

/// Name of what differs from the file that stands here.
fn patch_name(path: &RelPath) -> String {
    format!("{}.patch", staged_name(path))
}

/// Name of a file that was set aside for another.
fn aside_name(path: &RelPath) -> String {
    format!("{}.aside", staged_name(path))
}

impl Staging {
    /// A name for a file that is set aside for `path`. What was set aside before goes.
    pub fn fresh_aside(&self, path: &RelPath) -> Result<String, Errno> {
        let name = aside_name(path);
        ignore_missing(unlinkat(&self.0, &name, AtFlags::empty()))?;
        Ok(name)
    }

    /// Opens what was set aside for `path`.
    pub fn aside(&self, path: &RelPath) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.0, aside_name(path), flags, Mode::empty()).ok().map(File::from)
    }

    /// Opens it.
    pub fn open(root: &Root) -> Result<Self> {
        let path = inside("staging", &RelPath::root());
        root.directory(&path).map(Self).map_err(root.failed(&path, "the staging area cannot be opened"))
    }

    /// True when there is one: an undo that was interrupted may have removed it.
    pub fn is_there(root: &Root) -> bool {
        !matches!(root.directory(&inside("staging", &RelPath::root())), Err(Errno::NOENT))
    }

    /// Makes an empty file to stage contents in.
    pub fn create(&self, path: &RelPath) -> Result<File, Errno> {
        self.open_new(&staged_name(path))
    }

    /// Makes an empty file for what differs from the file that stands here.
    pub fn create_patch(&self, path: &RelPath) -> Result<File, Errno> {
        self.open_new(&patch_name(path))
    }

    /// What differs from the file that stands here.
    pub fn patch(&self, path: &RelPath) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.0, patch_name(path), flags, Mode::empty()).map(File::from)
    }

    pub(super) fn open_new(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.0, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
    }

    /// Writes a record, durably; only a whole one gets the name.
    pub(super) fn record(&self, name: &str, record: &impl serde::Serialize) -> std::io::Result<()> {
        let new = format!("{name}.new");
        let mut out = std::io::BufWriter::new(self.open_new(&new)?);
        serde_json::to_writer(&mut out, record)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(renameat(&self.0, &new, &self.0, name)?)
    }

    /// Reads a record; `None` when there is none.
    pub(super) fn recorded<T: serde::de::DeserializeOwned>(&self, name: &str) -> std::io::Result<Option<T>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(serde_json::from_reader(std::io::BufReader::new(File::from(file)))?)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens what is staged of a file.
    pub fn staged(&self, path: &RelPath) -> Result<File, Errno> {
        // Its mode may be final already, and forbid to write.
        let open = |flags: OFlags| {
            openat(&self.0, staged_name(path), flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        };
        match open(OFlags::RDWR) {
            Err(Errno::ACCESS) => open(OFlags::RDONLY).or_else(|_| open(OFlags::PATH)),
            other => other,
        }
        .map(File::from)
    }

    /// Whether something is staged of a file.
    pub fn is_staged(&self, path: &RelPath) -> bool {
        statat(&self.0, staged_name(path), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Gives what is staged of a file its name.
    pub fn put(&self, path: &RelPath, parent: impl AsFd, name: &CStr) -> Result<(), Errno> {
        renameat(&self.0, staged_name(path), parent, name)?;
        self.forget_counted(path)
    }

    /// A name for something that is made here, to be renamed to where it belongs. What an earlier run left there goes.
    pub fn fresh(&self, path: &RelPath) -> Result<String, Errno> {
        let name = format!("n-{}", &staged_name(path)[2..]);
        ignore_missing(unlinkat(&self.0, &name, AtFlags::empty()))?;
        Ok(name)
    }

    /// Drops what is staged of a file.
    pub fn discard(&self, path: &RelPath) -> Result<(), Errno> {
        ignore_missing(unlinkat(&self.0, staged_name(path), AtFlags::empty()))?;
        self.forget_counted(path)
    }

    /// Drops what is staged of a file as a whole.
    pub fn discard_whole(&self, path: &RelPath) -> Result<(), Errno> {
        self.drop(&staged_name(path))
    }

    /// Remembers, durably, how much of a file is as it stands here.
    pub fn remember_counted(&self, path: &RelPath, counted: &Counted) -> std::io::Result<()> {
        self.record(&counted_name(path), counted)
    }

    /// How much of a file is as it stands here, if that is remembered.
    pub fn counted(&self, path: &RelPath) -> Option<Counted> {
        self.recorded(&counted_name(path)).ok().flatten()
    }

    /// Drops that record, and what differs.
    pub fn forget_counted(&self, path: &RelPath) -> Result<(), Errno> {
        self.drop(&counted_name(path))?;
        self.drop(&patch_name(path))
    }

    /// Drops a name. Most are not there: to look takes no turn from those who make names here, as removing does even in vain.
    pub(super) fn drop(&self, name: &str) -> Result<(), Errno> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            _ => ignore_missing(unlinkat(&self.0, name, AtFlags::empty())),
        }
    }

    /// All names in it.
    pub(super) fn names(&self) -> Result<Vec<std::ffi::CString>, Errno> {
        names(&self.0)
    }

    /// Drops all but what belongs to the files in `keep`.
    pub fn clear(&self, keep: &[RelPath]) -> Result<(), Errno> {
        let keep: std::collections::HashSet<String> =
            keep.iter().flat_map(|path| [staged_name(path), counted_name(path), patch_name(path)]).collect();
        for name in self.names()? {
            let is_kept = |name: &str| keep.contains(name) || patch::is_hidden(name);
            if !name.to_str().is_ok_and(is_kept) {
                ignore_missing(unlinkat(&self.0, &name, AtFlags::empty()))?;
            }
        }
        Ok(())
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.0)
    }
}

impl AsFd for Staging {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

impl Shared {
    pub(super) fn prepare(&self) -> Result<()> {
        let turn = turn();
        let made_root = self.make_root()?;
        let root = self.root()?;
        // Before anything is touched.
        let recorded = Before::owner(&root, self.migration.as_str())?;
        let here = inside("", &RelPath::root());
        let failed = root.failed(&here, "the staging area cannot be made");
        let mtime = fstat(root.fd()).map(|stat| meta::stamp(&stat).mtime).map_err(&failed)?;
        match mkdirat(root.fd(), STAGING, Mode::from_raw_mode(0o700)) {
            // The list below must show the root as it was.
            Ok(()) => meta::set_time(root.fd(), mtime).map_err(&failed)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let area = root.directory(&here).map_err(&failed)?;
        for name in ["staging", "undo"] {
            match mkdirat(&area, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        // It is not empty any more: nobody takes it away.
        drop(turn);
        if !recorded {
            Before::record(&root, &self.filter, self.migration.as_str(), made_root)?;
            rustix::fs::fsync(root.fd()).map_err(&failed)?;
        }
        patch::recover(&root, &Staging::open(&root)?)?;
        self.before(&root).map(drop)
    }

    /// Makes the root (with its parents) if it is not there; true when it was made.
    fn make_root(&self) -> Result<bool> {
        if std::fs::symlink_metadata(&self.path).is_ok() {
            return Ok(false);
        }
        std::fs::create_dir_all(&self.path).map(|()| true).map_err(|error| {
            Failure::operator(format!("{}, {}", self.dataset, self.path.display()), "the root cannot be made")
                .because(error)
                .hint("make it, or correct `root` in appliance.toml")
        })
    }

    pub(super) fn discard_staged(&self, keep: &[RelPath]) -> Result<()> {
        self.assemblies().clear();
        let root = self.root()?;
        let staging = Staging::open(&root)?;
        staging.clear(keep).map_err(root.failed(&RelPath::root(), "the staging area cannot be cleared"))
    }

    /// Removes the staging area; the list of what stood here goes last, so that an interrupted undo finds it.
    pub(super) fn clear(&self, root: &Root) -> Result<()> {
        self.assemblies().clear();
        let here = RelPath::root();
        let failed = root.failed(&here, "the staging area cannot be removed");
        let mtime = fstat(root.fd()).map(|stat| meta::stamp(&stat).mtime).map_err(&failed)?;
        let all = Filter::default();
        for below in ["staging", "undo", "before.new", "before"] {
            undo::remove(root, &all, None, &inside(below, &RelPath::root())).map_err(&failed)?;
        }
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _turn = turn();
        match unlinkat(root.fd(), STAGING, AtFlags::REMOVEDIR) {
            // What aborts have kept stays in it.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => ignore_missing(other).map_err(&failed)?,
        }
        meta::set_time(root.fd(), mtime).map_err(&failed)
    }
}
