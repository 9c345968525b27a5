//! Walking a tree in tree order.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::ports::{Answers, Result};
use handover_engine::tree::{Entry, EntryKind, RelPath, Spots};
use rustix::fs::Mode;
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::filter::Filter;
use super::meta;
use super::root::{DIRECTORY, Parents, Root, open_below};

/// Entries in one batch, and the most bytes of their extended attributes but for those of the last one.
const BATCH: usize = 512;
const BATCH_BYTES: u64 = 4 << 20;

/// A directory being walked: its names that are still to come, the last first.
struct Level {
    path: RelPath,
    fd: OwnedFd,
    names: Vec<CString>,
}

/// A depth-first walk.
pub struct Walk<'a> {
    root: &'a Root,
    filter: &'a Filter,
    levels: Vec<Level>,
    /// Regular files with several names, by device and inode: their first name.
    first_names: HashMap<(u64, u64), RelPath>,
    begun: bool,
    /// Files with several names are told as one by itself each.
    alone: bool,
    /// Sockets and mount points met.
    pub notes: Vec<String>,
}

impl<'a> Walk<'a> {
    pub fn new(root: &'a Root, filter: &'a Filter) -> Self {
        let (levels, first_names, notes) = (Vec::new(), HashMap::new(), Vec::new());
        Self { root, filter, levels, first_names, begun: false, alone: false, notes }
    }

    /// The next entry; `None` at the end. What vanishes during the walk is left out.
    #[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        if !self.begun {
            self.begun = true;
            return self.first().map(Some);
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            let Ok(path) = level.path.join(name.as_bytes()) else { continue };
            if self.filter.hides(&path) {
                continue;
            }
            let (mut entry, stat) = match meta::entry(level.fd.as_fd(), &name, path.clone()) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.notes.push(format!("{path} is a socket: it is left out"));
                    continue;
                }
                // Gone, or replaced between two calls by something that the next scan will see.
                Err(Errno::NOENT | Errno::INVAL) => continue,
                Err(errno) => return Err(self.root.failed(&path, "cannot be looked at")(errno)),
            };
            if entry.kind == EntryKind::Directory {
                let fd = open_below(level.fd.as_fd(), name.to_bytes(), DIRECTORY, Mode::empty());
                self.enter(&path, fd)?;
            } else if !self.filter.takes(&path) {
                continue;
            } else if let (EntryKind::File { linked: true, .. }, false) = (&entry.kind, self.alone) {
                self.link(&mut entry, (stat.st_dev as u64, stat.st_ino as u64));
            }
            return Ok(Some(entry));
        }
        Ok(None)
    }

    /// What lies at one path, before what `next` gives: with `deep`, all that a directory holds. To be called once `next` has ended.
    fn at(&mut self, parents: &mut Parents<'_>, path: &RelPath, deep: bool) -> Result<Option<Entry>> {
        (self.begun, self.alone) = (true, true);
        let found = parents.of(path).and_then(|(parent, name)| meta::entry(parent, &name, path.clone()));
        let entry = match found {
            Ok(found) => found.map(|(entry, _)| entry),
            Err(errno) if super::pack::is_gone(errno) || errno == Errno::INVAL => None,
            Err(errno) => return Err(self.root.failed(path, "cannot be looked at")(errno)),
        };
        let is_directory = |entry: &Entry| entry.kind == EntryKind::Directory;
        let Some(entry) = entry.filter(|e| path.is_root() || self.filter.admits(path, is_directory(e)))
        else {
            return Ok(None);
        };
        if deep && is_directory(&entry) {
            self.enter(path, self.root.directory(path))?;
        }
        Ok(Some(entry))
    }

    fn first(&mut self) -> Result<Entry> {
        let path = RelPath::root();
        let found = meta::entry(self.root.fd(), c".", path.clone());
        let found = found.and_then(|found| found.ok_or(Errno::NOTDIR));
        let (entry, _) = found.map_err(self.root.failed(&path, "cannot be looked at"))?;
        self.enter(&path, self.root.directory(&path))?;
        Ok(entry)
    }

    fn enter(&mut self, path: &RelPath, opened: Result<OwnedFd, Errno>) -> Result<()> {
        match opened.and_then(|fd| names(&fd).map(|names| (fd, names))) {
            Ok((fd, names)) => self.levels.push(Level { path: path.clone(), fd, names }),
            Err(Errno::XDEV) => self.notes.push(format!("{path} is a mount point: it is not entered")),
            // Gone, or replaced by something else.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_root() => {}
            Err(errno) => return Err(self.root.failed(path, "the directory cannot be read")(errno)),
        }
        Ok(())
    }

    fn link(&mut self, entry: &mut Entry, id: (u64, u64)) {
        match self.first_names.get(&id) {
            Some(first) => entry.kind = EntryKind::HardLink { to: first.clone() },
            None => drop(self.first_names.insert(id, entry.path.clone())),
        }
    }
}

/// A directory's names, in reverse order of their bytes.
pub fn names(fd: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Walks the tree that `open` gives, on a thread of its own.
pub fn stream(
    open: impl FnOnce() -> Result<Root> + Send + 'static,
    filter: Arc<Filter>,
) -> Answers<Vec<Entry>> {
    batches(open, filter, |walk| walk.next())
}

/// Walks over these places of the tree that `open` gives, on a thread of its own.
pub fn stream_at(
    open: impl FnOnce() -> Result<Root> + Send + 'static,
    filter: Arc<Filter>,
    spots: &Spots,
) -> Answers<Vec<Entry>> {
    let places: Vec<(RelPath, bool)> = spots.iter().map(|(path, deep)| (path.clone(), deep)).collect();
    let mut places = places.into_iter();
    batches(open, filter, move |walk| {
        let mut parents = Parents::new(walk.root);
        loop {
            // The rest of the place before.
            if walk.begun
                && let Some(entry) = walk.next()?
            {
                return Ok(Some(entry));
            }
            let Some((path, deep)) = places.next() else { return Ok(None) };
            if let Some(entry) = walk.at(&mut parents, &path, deep)? {
                return Ok(Some(entry));
            }
        }
    })
}

fn batches(
    open: impl FnOnce() -> Result<Root> + Send + 'static,
    filter: Arc<Filter>,
    mut next: impl FnMut(&mut Walk<'_>) -> Result<Option<Entry>> + Send + 'static,
) -> Answers<Vec<Entry>> {
    let (to, batches) = mpsc::channel(4);
    let broken = to.clone();
    let walking = tokio::task::spawn_blocking(move || {
        let walk = |to: &mpsc::Sender<_>| -> Result<()> {
            let root = open()?;
            let mut walk = Walk::new(&root, &filter);
            let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
            while let Some(entry) = next(&mut walk)? {
                bytes += entry.meta.xattr_bytes();
                batch.push(entry);
                if batch.len() == BATCH || bytes > BATCH_BYTES {
                    bytes = 0;
                    // Nobody listens any more: the walk is over.
                    if to.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                        return Ok(());
                    }
                }
            }
            if !batch.is_empty() {
                let _ = to.blocking_send(Ok(batch));
            }
            Ok(())
        };
        if let Err(failure) = walk(&to) {
            let _ = to.blocking_send(Err(failure));
        }
    });
    tokio::spawn(async move {
        // A walk that ends by a panic must not look like one that has met everything: what it has not met would be
        // removed at the target.
        if let Err(panic) = walking.await {
            let failure = Failure::transient("scan", "it ended unexpectedly").because(panic);
            let _ = broken.send(Err(failure)).await;
        }
    });
    ReceiverStream::new(batches).boxed()
}
