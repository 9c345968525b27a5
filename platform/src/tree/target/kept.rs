//! What an abort keeps of a tree that was in use: all of it as it was then, in `.handover/kept-<migration>`.
//!
//! It is gathered in `.handover/keeping`, file by file, by renames. That gets its final name once it is whole, and only then what stood here
//! before is put back: the names tell an abort that was interrupted which of the two it was at.

use std::collections::HashMap;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::kept::Kept;
use handover_engine::ports::{Keeper, Result};
use handover_engine::tree::{Entry, EntryKind, RelPath};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstat, fsync, linkat, mkdirat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::super::before::{Before, inside};
use super::super::filter::Filter;
use super::super::root::{Parents, Root};
use super::super::scan::{Walk, names};
use super::super::{STAGING, meta, undo};
use super::staging::turn;
use super::{Shared, Target};

/// Where a tree is gathered.
const GATHERING: &str = "keeping";

/// The staging area itself.
fn area() -> RelPath {
    inside("", &RelPath::root())
}

/// Something stands at a place in the staging area.
fn is_there(root: &Root, place: &RelPath) -> Result<bool> {
    let found = Parents::new(root)
        .of(place)
        .and_then(|(parent, name)| statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW));
    match found {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(root.failed(place, "cannot be looked at")(errno)),
    }
}

/// Moves what stands in a tree out of the way.
struct Gatherer<'a> {
    before: &'a Before,
    from: Parents<'a>,
    to: Parents<'a>,
    replaced: Parents<'a>,
}

impl Gatherer<'_> {
    fn take(&mut self, entry: &Entry) -> Result<(), Errno> {
        let to = inside(GATHERING, &entry.path);
        if entry.kind == EntryKind::Directory {
            let (parent, name) = self.to.of(&to)?;
            return match mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            };
        }
        let is_from_before =
            self.before.had_other_than_directory(&entry.path) && !self.is_replaced(&entry.path)?;
        let (from, name) = self.from.of(&entry.path)?;
        let (parent, _) = self.to.of(&to)?;
        let done = if is_from_before {
            linkat(from, &name, parent, &name, AtFlags::empty())
        } else {
            renameat(from, &name, parent, &name)
        };
        match done {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::EXIST | Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) if is_from_before => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Something else stood at the path before, and is kept for undo.
    fn is_replaced(&mut self, path: &RelPath) -> Result<bool, Errno> {
        let found = self
            .replaced
            .of(&inside("undo", path))
            .and_then(|(parent, name)| statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Gives a directory the properties that it had; those of others, which this agent may not give, are left out.
    fn settle(&mut self, entry: &Entry) {
        let done = self
            .to
            .of(&inside(GATHERING, &entry.path))
            .and_then(|(parent, name)| meta::settle_at(parent, &name, entry));
        if let Err(errno) = done {
            tracing::warn!(path = %entry.path, %errno, "a directory that is kept has other properties than it had");
        }
    }
}

impl Shared {
    /// Where the tree is kept, in the staging area.
    fn aside(&self) -> RelPath {
        inside(&format!("kept-{}", self.migration), &RelPath::root())
    }

    /// There when the root goes with what is kept: it was made by the migration.
    fn mark(&self) -> RelPath {
        inside(&format!("kept-{}.root", self.migration), &RelPath::root())
    }

    fn undo_and_keep(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        // A file that was being changed is part of it.
        self.recover()?;
        let root = self.root()?;
        if Before::owner(&root, self.migration.as_str())? && !is_there(&root, &self.aside())? {
            self.gather(&root)?;
        }
        self.undo()
    }

    fn gather(&self, root: &Root) -> Result<()> {
        let Some(before) = Before::read(root, self.migration.as_str(), |_| Ok(()))? else { return Ok(()) };
        // What the globs hid when the migration began is none of its.
        let filter = Filter::of(&before.globs)?;
        let [from, to, replaced] = [root; 3].map(Parents::new);
        let mut gatherer = Gatherer { before: &before, from, to, replaced };
        let mut directories = Vec::new();
        let mut walk = Walk::new(root, &filter);
        while let Some(entry) = walk.next()? {
            gatherer.take(&entry).map_err(root.failed(&entry.path, "cannot be kept"))?;
            if entry.kind == EntryKind::Directory {
                directories.push(entry);
            }
        }
        directories.iter().rev().for_each(|entry| gatherer.settle(entry));
        root.sync_all()?;
        let aside = self.aside();
        let finish = || -> Result<(), Errno> {
            if before.made_root {
                drop(root.open_at(
                    &self.mark(),
                    OFlags::WRONLY | OFlags::CREATE,
                    Mode::from_raw_mode(0o600),
                )?);
            }
            let area = root.directory(&area())?;
            let name = aside.split().map(|(_, name)| name.to_vec()).unwrap_or_default();
            renameat(&area, GATHERING, &area, &name[..])?;
            fsync(&area)
        };
        finish().map_err(root.failed(&aside, "cannot be made"))
    }

    fn kept(&self) -> Result<Option<Kept>> {
        if !self.path.exists() {
            return Ok(None);
        }
        let (root, aside) = (self.root()?, self.aside());
        if !is_there(&root, &aside)? {
            return Ok(None);
        }
        let bytes = size(&root, &aside).map_err(root.failed(&aside, "cannot be looked at"))?;
        let place = self.path.join(STAGING).join(format!("kept-{}", self.migration));
        Ok(Some(Kept { place: place.display().to_string(), bytes }))
    }

    fn remove_kept(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let (root, aside, mark) = (self.root()?, self.aside(), self.mark());
        let all = Filter::default();
        undo::remove(&root, &all, None, &aside).map_err(root.failed(&aside, "cannot be removed"))?;
        if is_there(&root, &aside)? {
            let item = format!("{}, {aside}", self.dataset);
            return Err(Failure::operator(item, "not all of it can be removed")
                .hint("something else has been put there: move it away, then terminate again"));
        }
        let _turn = turn();
        let made_root = is_there(&root, &mark)?;
        let clear = || -> Result<(), Errno> {
            undo::remove(&root, &all, None, &mark)?;
            let mtime = meta::stamp(&fstat(root.fd())?).mtime;
            match unlinkat(root.fd(), STAGING, AtFlags::REMOVEDIR) {
                Ok(()) => meta::set_time(root.fd(), mtime),
                // Another migration is at work here, or has kept something, too.
                Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            }
        };
        clear().map_err(root.failed(&area(), "cannot be removed"))?;
        if made_root {
            // Not when something has been put into it meanwhile.
            let _ = std::fs::remove_dir(&self.path);
        }
        Ok(())
    }
}

/// Bytes on disk that go with a directory: of a file that has other names elsewhere, none.
#[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
fn size(root: &Root, path: &RelPath) -> Result<u64, Errno> {
    let (mut bytes, mut seen, mut left) = (0, HashMap::<u64, u64>::new(), vec![path.clone()]);
    while let Some(path) = left.pop() {
        let directory = root.directory(&path)?;
        for name in names(&directory)? {
            let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                left.push(path.join(name.as_bytes()).map_err(|_| Errno::INVAL)?);
            } else if stat.st_nlink as u64 > 1 {
                let met = seen.entry(stat.st_ino as u64).or_default();
                *met += 1;
                if *met < stat.st_nlink as u64 {
                    continue;
                }
            }
            bytes += stat.st_blocks as u64 * 512;
        }
    }
    Ok(bytes)
}

#[async_trait]
impl Keeper for Target {
    async fn undo_and_keep(&self) -> Result<()> {
        self.run_alone(Shared::undo_and_keep).await
    }

    async fn kept(&self) -> Result<Option<Kept>> {
        self.run(Shared::kept).await
    }

    async fn remove_kept(&self) -> Result<()> {
        self.run_alone(Shared::remove_kept).await
    }
}
