//! The staging area: making it, clearing it, and the names in it.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::tree::RelPath;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::super::assemble::Counted;
use super::super::before::{Before, inside};
use super::super::filter::Filter;
use super::super::root::Root;
use super::super::scan::names;
use super::super::{STAGING, meta, undo};
use super::Shared;

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

impl Staging {
    /// Opens it.
    pub fn open(root: &Root) -> Result<Self> {
        let path = inside("staging", &RelPath::root());
        root.directory(&path).map(Self).map_err(root.failed(&path, "the staging area cannot be opened"))
    }

    /// Makes an empty file to stage contents in.
    pub fn create(&self, path: &RelPath) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.0, staged_name(path), flags, Mode::from_raw_mode(0o600)).map(File::from)
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

    /// Remembers, durably, how much of a file is as it stands here.
    pub fn remember_counted(&self, path: &RelPath, counted: Counted) -> std::io::Result<()> {
        let (name, new) = (counted_name(path), format!("{}.new", counted_name(path)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(openat(&self.0, &new, flags, Mode::from_raw_mode(0o600))?);
        serde_json::to_writer(&mut file, &counted)?;
        file.sync_all()?;
        Ok(renameat(&self.0, &new, &self.0, &name)?)
    }

    /// How much of a file is as it stands here, if that is remembered.
    pub fn counted(&self, path: &RelPath) -> Option<Counted> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.0, counted_name(path), flags, Mode::empty()).ok()?;
        serde_json::from_reader(std::io::BufReader::new(File::from(file))).ok()
    }

    /// Drops that record.
    pub fn forget_counted(&self, path: &RelPath) -> Result<(), Errno> {
        ignore_missing(unlinkat(&self.0, counted_name(path), AtFlags::empty()))
    }

    /// Drops all but what belongs to the files in `keep`.
    pub fn clear(&self, keep: &[RelPath]) -> Result<(), Errno> {
        let keep: std::collections::HashSet<String> =
            keep.iter().flat_map(|path| [staged_name(path), counted_name(path)]).collect();
        for name in names(&self.0)? {
            if !name.to_str().is_ok_and(|name| keep.contains(name)) {
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
        if !recorded {
            Before::record(&root, &self.filter, self.migration.as_str(), made_root)?;
            rustix::fs::fsync(root.fd()).map_err(&failed)?;
        }
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
        ignore_missing(unlinkat(root.fd(), STAGING, AtFlags::REMOVEDIR)).map_err(&failed)?;
        meta::set_time(root.fd(), mtime).map_err(&failed)
    }
}
