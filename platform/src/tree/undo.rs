//! Keeping what a migration replaces or removes, and bringing it back.
//!
//! What stood in the tree before ([`Before`]) is kept under `.handover/undo/` at the same path when it goes. Undo makes the
//! tree what the list says. Every step may be repeated, so an interrupted undo is simply begun again.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use handover_engine::ports::Result;
use handover_engine::tree::{Entry, EntryKind, RelPath};
use rustix::fs::{AtFlags, FileType, Mode, linkat, mkdirat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::before::{Before, inside};
use super::filter::Filter;
use super::meta;
use super::root::{Parents, Root};
use super::scan::{Walk, names};

/// Where something that stood at `path` is kept.
fn kept(path: &RelPath) -> RelPath {
    inside("undo", path)
}

/// Keeps what stands at `path` (a thing that is no directory) under `undo/`, if it stood there before; its name stays until
/// it is replaced or removed. Returns the directory it is kept in.
pub fn keep(
    root: &Root,
    before: &Before,
    parents: &mut Parents<'_>,
    path: &RelPath,
) -> Result<Option<OwnedFd>, Errno> {
    if !before.had_other_than_directory(path) {
        return Ok(None);
    }
    let to = kept(path);
    let Some((parent, name)) = to.split() else { return Ok(None) };
    let target = make_directories(root, &parent)?;
    let (from, from_name) = parents.of(path)?;
    match linkat(from, &from_name, &target, name, AtFlags::empty()) {
        // Kept already: what stands there now is ours. Or there is nothing to keep.
        Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
        // A file system without hard links, or a thing that cannot have one: the name is gone for a moment.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => {
            if statat(&target, name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                renameat(from, &from_name, &target, name)?;
            }
        }
        Err(errno) => return Err(errno),
    }
    Ok(Some(target))
}

fn make_directories(root: &Root, path: &RelPath) -> Result<OwnedFd, Errno> {
    match (root.directory(path), path.split()) {
        (Err(Errno::NOENT), Some((parent, name))) => {
            match mkdirat(make_directories(root, &parent)?, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => root.directory(path),
                Err(errno) => Err(errno),
            }
        }
        (other, _) => other,
    }
}

/// Removes what stands at `path`, a directory with all it holds; what stood there before is kept. What the filter hides
/// stays, and so do mount points, sockets, and the directories in which such things lie.
pub fn remove(root: &Root, filter: &Filter, before: Option<&Before>, path: &RelPath) -> Result<(), Errno> {
    let mut parents = Parents::new(root);
    match parents.of(path) {
        Ok((parent, name)) => match statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => remove_known(root, filter, before, &mut parents, path, stat.st_mode),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        },
        // Nothing of this tree lies there: its directory has gone or become something else, or a file system is mounted.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn remove_known(
    root: &Root,
    filter: &Filter,
    before: Option<&Before>,
    parents: &mut Parents<'_>,
    path: &RelPath,
    mode: u32,
) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(mode);
    let is_directory = kind == FileType::Directory;
    if !filter.lets_through(path, is_directory) || kind == FileType::Socket {
        return Ok(());
    }
    let flags = if is_directory {
        let directory = match root.directory(path) {
            Ok(directory) => directory,
            Err(Errno::XDEV | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        for name in names(&directory)? {
            let child = path.join(name.as_bytes()).map_err(|_| Errno::INVAL)?;
            remove(root, filter, before, &child)?;
        }
        AtFlags::REMOVEDIR
    } else {
        if let Some(before) = before {
            keep(root, before, parents, path)?;
        }
        AtFlags::empty()
    };
    let (parent, name) = parents.of(path)?;
    match unlinkat(parent, &name, flags) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::BUSY) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Makes the tree what the list says; `None` when there is no list. What the list is about is told by the list: the manifest may have been
/// changed since.
pub fn restore(root: &Root, migration: &str) -> Result<Option<Before>> {
    let Some(globs) = Before::globs(root, migration)? else { return Ok(None) };
    let filter = &Filter::of(&globs)?;
    let all = Filter::default();
    let put_back = |entry: Entry| {
        put_back(root, filter, &all, &entry).map_err(root.failed(&entry.path, "cannot be put back"))
    };
    let Some(before) = Before::read(root, migration, put_back)? else { return Ok(None) };
    let mut extra: Vec<RelPath> = Vec::new();
    let mut walk = Walk::new(root, filter);
    while let Some(entry) = walk.next()? {
        if !before.has(&entry.path) && !extra.last().is_some_and(|last| entry.path.is_within(last)) {
            extra.push(entry.path);
        }
    }
    for path in extra {
        remove(root, filter, None, &path).map_err(root.failed(&path, "cannot be removed"))?;
    }
    settle_all(root, migration)?;
    Ok(Some(before))
}

/// Gives everything the properties it had; directories last, from the deepest up.
fn settle_all(root: &Root, migration: &str) -> Result<()> {
    let mut directories = Vec::new();
    let mut parents = Parents::new(root);
    Before::read(root, migration, |entry| {
        match entry.kind {
            EntryKind::Directory => directories.push(entry),
            EntryKind::HardLink { .. } => {}
            _ => settle(root, &mut parents, &entry)?,
        }
        Ok(())
    })?;
    directories.iter().rev().try_for_each(|entry| settle(root, &mut parents, entry))
}

fn settle(root: &Root, parents: &mut Parents<'_>, entry: &Entry) -> Result<()> {
    match parents.of(&entry.path).and_then(|(parent, name)| meta::settle_at(parent, &name, entry)) {
        Err(Errno::NOENT | Errno::STALE) => {
            let (dataset, path) = (&root.dataset, &entry.path);
            tracing::warn!(%dataset, %path, "somebody else removed or replaced it: it cannot be put back");
            Ok(())
        }
        other => other.map_err(root.failed(&entry.path, "its properties cannot be put back")),
    }
}

/// Brings one thing back. `all` lets everything through: at a path that the list names, nothing is hidden by the filter
/// but what has come since, below a directory that must make way.
fn put_back(root: &Root, filter: &Filter, all: &Filter, entry: &Entry) -> Result<(), Errno> {
    let path = &entry.path;
    let Some((parent, name)) = path.split() else { return Ok(()) };
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    if entry.kind == EntryKind::Directory {
        if matches!(root.directory(path), Ok(_) | Err(Errno::XDEV)) {
            return Ok(());
        }
        remove(root, all, None, path)?;
        return mkdirat(root.directory(&parent)?, &name, Mode::from_raw_mode(0o700));
    }
    let from = kept(path);
    let Some((kept_parent, kept_name)) = from.split() else { return Ok(()) };
    let directory = match root.directory(&kept_parent) {
        Ok(directory) => directory,
        // Nothing of this directory was ever touched.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if statat(&directory, kept_name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
        return Ok(());
    }
    if root.directory(path).is_ok() {
        remove(root, filter, None, path)?;
    }
    // rename(2) of two names of one file does nothing and leaves both.
    renameat(&directory, kept_name, root.directory(&parent)?, &name)?;
    match unlinkat(&directory, kept_name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
