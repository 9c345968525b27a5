//! Making staged files visible, and changes without contents.

use std::ffi::CString;
use std::os::fd::AsFd;

use handover_engine::ports::{Result, TreeOp};
use handover_engine::tree::{Entry, EntryKind, RelPath, Stamp};
use rustix::fs::{
    AtFlags, FileType, Mode, linkat, makedev, mkdirat, mknodat, renameat, statat, symlinkat, syncfs,
};
use rustix::io::Errno;

use super::super::meta;
use super::super::root::{Parents, Root};
use super::super::undo::{self, Before, keep};
use super::{Shared, parents, staged_name};

impl Shared {
    /// Durable, then visible: one `syncfs` before the files get their names, one after.
    pub(super) fn land(&self, files: &[Entry]) -> Result<Vec<Stamp>> {
        let root = self.root()?;
        let staging = self.staging(&root)?;
        let before = self.before(&root)?;
        for entry in files {
            self.assemblies().remove(&entry.path);
        }
        let sync = || syncfs(root.fd()).map_err(root.failed(&RelPath::root(), "cannot be made durable"));
        self.settle_staged(&root, &staging, files)?;
        sync()?;
        let mut parents = parents(&root);
        let mut stamps = Vec::with_capacity(files.len());
        for entry in files {
            let landed = land_one(&root, &staging, before, &mut parents, entry);
            stamps.push(landed.map_err(root.failed(&entry.path, "cannot be put in place"))?);
        }
        sync()?;
        Ok(stamps)
    }

    /// Gives large files their properties: small ones got theirs when they were staged.
    fn settle_staged(&self, root: &Root, staging: &std::os::fd::OwnedFd, files: &[Entry]) -> Result<()> {
        for entry in files {
            let name = CString::new(staged_name(&entry.path)).unwrap_or_default();
            match meta::settle(staging.as_fd(), &name, entry) {
                // Not staged: its contents are in place already.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(root.failed(&entry.path, "its properties cannot be set")(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn change(&self, ops: &[TreeOp]) -> Result<()> {
        let root = self.root()?;
        let before = self.before(&root)?;
        let mut parents = parents(&root);
        for op in ops {
            let (path, done) = match op {
                TreeOp::Make(entry) => (&entry.path, self.make(&root, before, &mut parents, entry)),
                TreeOp::Link { path, to } => (path, self.link(&root, before, &mut parents, path, to)),
                TreeOp::Settle(entry) => (&entry.path, settle(&mut parents, entry)),
                TreeOp::Remove(path) => {
                    parents.forget();
                    (path, undo::remove(&root, &self.filter, Some(before), path))
                }
            };
            done.map_err(root.failed(path, "cannot be changed"))?;
        }
        syncfs(root.fd()).map_err(root.failed(&RelPath::root(), "cannot be made durable"))
    }

    fn make(
        &self,
        root: &Root,
        before: &Before,
        parents: &mut Parents<'_>,
        entry: &Entry,
    ) -> Result<(), Errno> {
        let path = &entry.path;
        if path.is_root() {
            return Ok(());
        }
        if entry.kind == EntryKind::Directory {
            if root.directory(path).is_ok() {
                return Ok(());
            }
            self.clear_way(root, before, parents, path)?;
            let (parent, name) = parents.of(path)?;
            return mkdirat(parent, &name, Mode::from_raw_mode(0o700));
        }
        self.clear_way(root, before, parents, path)?;
        let (parent, name) = parents.of(path)?;
        match &entry.kind {
            EntryKind::Symlink { target } => symlinkat(&target[..], parent, &name)?,
            EntryKind::Fifo => mknodat(parent, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?,
            EntryKind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                mknodat(parent, &name, kind, Mode::from_raw_mode(0o600), makedev(*major, *minor))?;
            }
            // Neither is made: contents land, further names are linked.
            EntryKind::File { .. } | EntryKind::HardLink { .. } | EntryKind::Directory => {
                return Err(Errno::INVAL);
            }
        }
        settle(parents, entry)
    }

    fn link(
        &self,
        root: &Root,
        before: &Before,
        parents: &mut Parents<'_>,
        path: &RelPath,
        to: &RelPath,
    ) -> Result<(), Errno> {
        let (directory, name) = to.split().ok_or(Errno::INVAL)?;
        let existing = root.directory(&directory)?;
        let is_same = {
            let (parent, own) = parents.of(path)?;
            let here = statat(parent, &own, AtFlags::SYMLINK_NOFOLLOW).ok();
            let there = statat(&existing, name, AtFlags::SYMLINK_NOFOLLOW)?;
            here.is_some_and(|here| (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
        };
        if is_same {
            return Ok(());
        }
        self.clear_way(root, before, parents, path)?;
        let (parent, own) = parents.of(path)?;
        linkat(&existing, name, parent, &own, AtFlags::empty())
    }

    /// Whatever stands at the path goes; what stood there before the migration is kept.
    fn clear_way(
        &self,
        root: &Root,
        before: &Before,
        parents: &mut Parents<'_>,
        path: &RelPath,
    ) -> Result<(), Errno> {
        parents.forget();
        undo::remove(root, &self.filter, Some(before), path)
    }
}

fn settle(parents: &mut Parents<'_>, entry: &Entry) -> Result<(), Errno> {
    let (parent, name) = parents.of(&entry.path)?;
    meta::settle(parent, &name, entry)
}

fn land_one(
    root: &Root,
    staging: &std::os::fd::OwnedFd,
    before: &Before,
    parents: &mut Parents<'_>,
    entry: &Entry,
) -> Result<Stamp, Errno> {
    let path = &entry.path;
    let staged = staged_name(path);
    if statat(staging, &staged, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        keep(root, before, parents, path)?;
        let (parent, name) = parents.of(path)?;
        renameat(staging, &staged, parent, &name)?;
    } else {
        settle(parents, entry)?;
    }
    let (parent, name) = parents.of(path)?;
    Ok(meta::stamp(&statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW)?))
}
