//! Making staged files visible, and changes without contents.

use std::os::fd::{AsFd, OwnedFd};

use handover_engine::failure::Failure;
use handover_engine::ports::{Result, TreeOp};
use handover_engine::tree::{Entry, EntryKind, RelPath, Stamp};
use rustix::fs::{
    AtFlags, FileType, Mode, fsync, linkat, makedev, mkdirat, mknodat, renameat, statat, symlinkat,
};
use rustix::io::Errno;

use super::super::before::Before;
use super::super::meta;
use super::super::root::{Parents, Root};
use super::super::undo::{self, keep};
use super::contents::sync_one;
use super::staging::Staging;
use super::{Shared, patch};

/// So few files are made durable one by one; more with one call for the file system.
const FEW: usize = 4;

impl Shared {
    /// Durable, then visible, then visible durably.
    pub(super) fn land(&self, files: &[Entry]) -> Result<Vec<Stamp>> {
        let root = self.root()?;
        let staging = Staging::open(&root)?;
        let before = self.before(&root)?;
        let mut landing = Landing {
            shared: self,
            root: &root,
            staging: &staging,
            before: &before,
            parents: Parents::new(&root),
            one_by_one: files.len() < FEW,
            directories: Vec::new(),
        };
        for entry in files {
            self.refuse_excluded(&entry.path, false)?;
            let assembly = self.assemblies().remove(&entry.path);
            let is_large = assembly.is_some();
            if let Some(mut assembly) = assembly {
                let is_counted = assembly.counted().is_some();
                let staged = if is_counted {
                    sync_one(&staging, &entry.path, &mut assembly)
                } else {
                    assembly.flushed()
                };
                staged.map_err(|t| {
                    t.into_failure(root.failed(&entry.path, "cannot be written"), entry.path.to_string())
                })?;
            }
            let settled = landing.settle(entry, is_large);
            settled.map_err(root.failed(&entry.path, "its properties cannot be set"))?;
        }
        landing.durable()?;
        let mut stamps = Vec::with_capacity(files.len());
        for entry in files {
            stamps.push(landing.put(entry)?);
        }
        landing.durable()?;
        for entry in files {
            patch::forget(&staging, &entry.path).map_err(root.failed(&entry.path, "cannot be settled"))?;
        }
        Ok(stamps)
    }

    pub(super) fn change(&self, ops: &[TreeOp]) -> Result<()> {
        let root = self.root()?;
        let before = self.before(&root)?;
        let staging = Staging::open(&root)?;
        let mut parents = Parents::new(&root);
        let mut change = Change { root: &root, before: &before, staging: &staging, shared: self };
        for op in ops {
            let (path, is_directory) = match op {
                TreeOp::Make(entry) | TreeOp::Settle(entry) => {
                    (&entry.path, entry.kind == EntryKind::Directory)
                }
                TreeOp::Link { path, .. } => (path, false),
                // What is removed was scanned here, or is in the journal.
                TreeOp::Remove(path) => (path, true),
            };
            self.refuse_excluded(path, is_directory)?;
            let (path, done) = match op {
                TreeOp::Make(entry) => (&entry.path, change.make(&mut parents, entry)),
                TreeOp::Link { path, to } => (path, change.link(&mut parents, path, to)),
                TreeOp::Settle(entry) => (&entry.path, settle(&mut parents, entry)),
                TreeOp::Remove(path) => (path, change.remove(&mut parents, path)),
            };
            done.map_err(root.failed(path, "cannot be changed"))?;
        }
        root.sync_all()
    }
}

struct Landing<'a> {
    shared: &'a Shared,
    root: &'a Root,
    staging: &'a Staging,
    before: &'a Before,
    parents: Parents<'a>,
    one_by_one: bool,
    /// Directories in which names have changed, when they are made durable one by one.
    directories: Vec<(RelPath, OwnedFd)>,
}

impl Landing<'_> {
    /// Gives a staged file its properties: small ones got theirs when they were staged.
    fn settle(&mut self, entry: &Entry, is_large: bool) -> Result<(), Errno> {
        if !is_large && !self.one_by_one {
            return Ok(());
        }
        let staged = match self.staging.staged(&entry.path) {
            Ok(staged) => staged,
            // Not staged: its contents are in place already.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        if is_large {
            meta::settle(staged.as_fd(), entry)?;
        }
        if self.one_by_one {
            match fsync(&staged) {
                // It may not even be read.
                Err(Errno::BADF) => self.one_by_one = false,
                other => other?,
            }
        }
        Ok(())
    }

    fn durable(&mut self) -> Result<()> {
        if !self.one_by_one {
            return self.root.sync_all();
        }
        self.directories.drain(..).try_for_each(|(path, directory)| {
            fsync(&directory).map_err(self.root.failed(&path, "cannot be made durable"))
        })
    }

    fn put(&mut self, entry: &Entry) -> Result<Stamp> {
        let failed = self.root.failed(&entry.path, "cannot be put in place");
        let stamp = self.put_one(entry).map_err(failed)?;
        if Some(stamp.size) == entry.size() {
            return Ok(stamp);
        }
        let item = format!("{}, {}", self.root.dataset, entry.path);
        Err(Failure::transient(item, "nothing is staged of it, and what stands here is something else")
            .hint("it is copied again"))
    }

    fn put_one(&mut self, entry: &Entry) -> Result<Stamp, Errno> {
        let path = &entry.path;
        if self.staging.is_staged(path) {
            if let Some(kept) = keep(self.root, self.before, &mut self.parents, path)?
                && self.one_by_one
            {
                fsync(kept)?;
            }
            let (parent, name) = self.parents.of(path)?;
            let naming = self.shared.naming();
            self.staging.put(path, parent, &name)?;
            drop(naming);
            self.touched(path)?;
        } else if let Some(counted) = self.staging.counted(path).filter(|counted| counted.patch.is_some()) {
            let (parent, name) = self.parents.of(path)?;
            patch::put(self.staging, parent, &name, entry, counted)?;
            self.touched(path)?;
        } else {
            if let Some(counted) = self.staging.counted(path) {
                let (parent, name) = self.parents.of(path)?;
                let here = meta::stamp(&statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW)?);
                let basis = counted.basis;
                // An interrupted landing may have set its time already.
                let is_its_time = here.mtime == basis.mtime || here.mtime == entry.meta.mtime;
                if (here.inode, here.size) != (basis.inode, basis.size) || !is_its_time {
                    // Not the file that it was compared with.
                    return Err(Errno::STALE);
                }
            }
            settle(&mut self.parents, entry)?;
            self.staging.forget_counted(path)?;
        }
        let (parent, name) = self.parents.of(path)?;
        Ok(meta::stamp(&statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// A name has changed in the directory that the path lies in.
    fn touched(&mut self, path: &RelPath) -> Result<(), Errno> {
        if self.one_by_one {
            let (parent, _) = path.split().ok_or(Errno::INVAL)?;
            let directory = self.root.directory(&parent)?;
            self.directories.push((parent, directory));
        }
        Ok(())
    }
}

struct Change<'a> {
    root: &'a Root,
    before: &'a Before,
    staging: &'a Staging,
    shared: &'a Shared,
}

impl Change<'_> {
    fn make(&mut self, parents: &mut Parents<'_>, entry: &Entry) -> Result<(), Errno> {
        let path = &entry.path;
        if entry.kind == EntryKind::Directory {
            // A mount point is a directory, too.
            if path.is_root() || matches!(self.root.directory(path), Ok(_) | Err(Errno::XDEV)) {
                return Ok(());
            }
            self.remove(parents, path)?;
            let (parent, name) = parents.of(path)?;
            return mkdirat(parent, &name, Mode::from_raw_mode(0o700));
        }
        let fresh = self.staging.fresh(path)?;
        match &entry.kind {
            EntryKind::Symlink { target } => symlinkat(&target[..], self.staging, &fresh)?,
            EntryKind::Fifo => mknodat(self.staging, &fresh, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?,
            EntryKind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                mknodat(self.staging, &fresh, kind, Mode::from_raw_mode(0o600), makedev(*major, *minor))?;
            }
            // Neither is made: contents land, further names are linked.
            EntryKind::File { .. } | EntryKind::HardLink { .. } | EntryKind::Directory => {
                return Err(Errno::INVAL);
            }
        }
        let name = std::ffi::CString::new(&*fresh).map_err(|_| Errno::INVAL)?;
        meta::settle_at(self.staging.as_fd(), &name, entry)?;
        self.put(parents, path, &fresh)
    }

    /// Gives something made in the staging area its name. A thing that is no directory is never missing meanwhile.
    fn put(&mut self, parents: &mut Parents<'_>, path: &RelPath, fresh: &str) -> Result<(), Errno> {
        if self.root.directory(path).is_ok() {
            self.remove(parents, path)?;
        }
        keep(self.root, self.before, parents, path)?;
        let (parent, name) = parents.of(path)?;
        renameat(self.staging, fresh, parent, &name)
    }

    fn link(&mut self, parents: &mut Parents<'_>, path: &RelPath, to: &RelPath) -> Result<(), Errno> {
        let (directory, name) = to.split().ok_or(Errno::INVAL)?;
        let existing = self.root.directory(&directory)?;
        let there = statat(&existing, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (parent, own) = parents.of(path)?;
        let here = statat(parent, &own, AtFlags::SYMLINK_NOFOLLOW).ok();
        if here.is_some_and(|here| (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)) {
            return Ok(());
        }
        let fresh = self.staging.fresh(path)?;
        linkat(&existing, name, self.staging, &fresh, AtFlags::empty())?;
        self.put(parents, path, &fresh)
    }

    /// Whatever stands at the path goes; what stood there before the migration is kept.
    fn remove(&mut self, parents: &mut Parents<'_>, path: &RelPath) -> Result<(), Errno> {
        parents.forget();
        undo::remove(self.root, &self.shared.filter, Some(self.before), path)
    }
}

fn settle(parents: &mut Parents<'_>, entry: &Entry) -> Result<(), Errno> {
    let (parent, name) = parents.of(&entry.path)?;
    meta::settle_at(parent, &name, entry)
}
