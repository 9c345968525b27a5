//! What the kernel tells of a tree's directories (inotify(7)), as places in the tree.
//!
//! An event is queued before the call that caused it returns. A directory is marked before it is listed, and told of with all it
//! holds when it is new: what happens in it before it is marked is found by the scan that follows.

use std::collections::{BTreeMap, HashMap};
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use handover_engine::name::DatasetName;
use handover_engine::tree::{RelPath, Spots};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Dir, FileType, fstat, fstatfs, stat};
use rustix::io::Errno;

use super::super::filter::Filter;
use super::super::pack::is_gone;
use super::super::root::Root;

/// Events that are taken at once: many times what the kernel's queue holds.
const MOST_EVENTS: usize = 1 << 20;
/// Room for events that are read at once.
const BUFFER: usize = 64 << 10;

const WATCHED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR);
/// A name has come or gone.
const NAMES: ReadFlags =
    ReadFlags::CREATE.union(ReadFlags::DELETE).union(ReadFlags::MOVED_FROM).union(ReadFlags::MOVED_TO);

/// File systems that others may change as well, by their magic numbers (statfs(2)).
const SHARED: [(u64, &str); 10] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// Why nothing can be told of what has happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// Not of what has happened up to now: marked anew, it can be told again.
    UpToNow,
    /// Not of this tree.
    Always(String),
}

/// The marked directories of a tree.
pub struct Marks {
    root: Root,
    inotify: Arc<OwnedFd>,
    paths: HashMap<i32, RelPath>,
    marks: BTreeMap<RelPath, i32>,
}

impl Marks {
    /// Marks every directory of the tree that is not hidden.
    pub fn new(dataset: &DatasetName, path: &Path, filter: &Filter) -> Result<Self, Lost> {
        let unusable = |what: &str| Lost::Always(what.to_owned());
        let root = Root::open(dataset, path).map_err(|_| unusable("its root cannot be opened"))?;
        if let Some(name) = shared(&root) {
            return Err(Lost::Always(format!("its file system ({name}) does not tell what others do to it")));
        }
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|errno| Lost::Always(format!("inotify: {errno} (fs.inotify.max_user_instances)")))?;
        let (paths, marks) = (HashMap::new(), BTreeMap::new());
        let mut new = Self { root, inotify: Arc::new(inotify), paths, marks };
        new.mark_below(&RelPath::root(), filter)?;
        if new.marks.is_empty() { Err(unusable("its root cannot be watched")) } else { Ok(new) }
    }

    /// Readable when something has happened.
    pub fn inotify(&self) -> Arc<OwnedFd> {
        self.inotify.clone()
    }

    /// True when the tree is still the one at `path`.
    #[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
    pub fn is_at(&self, path: &Path) -> bool {
        match (stat(path), fstat(self.root.fd())) {
            (Ok(there), Ok(own)) => (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino),
            _ => false,
        }
    }

    /// Adds the places where something has happened up to now.
    pub fn drain(&mut self, filter: &Filter, spots: &mut Spots) -> Result<(), Lost> {
        let inotify = self.inotify.clone();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&*inotify, &mut buffer);
        for _ in 0..MOST_EVENTS {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes());
                    self.happened(event.wd(), event.events(), name, filter, spots)?;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Lost::UpToNow),
            }
        }
        // It comes faster than it can be taken.
        Err(Lost::UpToNow)
    }

    fn happened(
        &mut self,
        mark: i32,
        what: ReadFlags,
        name: Option<&[u8]>,
        filter: &Filter,
        spots: &mut Spots,
    ) -> Result<(), Lost> {
        if what.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
            return Err(Lost::UpToNow);
        }
        // A directory that was moved away or removed: its parent's events tell.
        let Some(directory) = self.paths.get(&mark).cloned() else { return Ok(()) };
        if what.contains(ReadFlags::IGNORED) {
            self.paths.remove(&mark);
            if self.marks.get(&directory) == Some(&mark) {
                self.marks.remove(&directory);
            }
            return if directory.is_root() { Err(Lost::UpToNow) } else { Ok(()) };
        }
        let Some(name) = name else {
            if directory.is_root() && what.intersects(ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF) {
                return Err(Lost::UpToNow);
            }
            if what.contains(ReadFlags::ATTRIB) {
                spots.add(directory, false);
            }
            return Ok(());
        };
        let Ok(path) = directory.join(name) else { return Ok(()) };
        if what.intersects(NAMES) {
            // Its time has changed.
            spots.add(directory, false);
        }
        if filter.hides(&path) {
            return Ok(());
        }
        if !what.contains(ReadFlags::ISDIR) {
            if filter.takes(&path) {
                spots.add(path, false);
            }
            return Ok(());
        }
        if what.intersects(NAMES) {
            self.forget_below(&path);
        }
        if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.mark_below(&path, filter)?;
        }
        spots.add(path, what.intersects(NAMES));
        Ok(())
    }

    /// Marks a directory and all below it. What is not there, or no directory of this file system, is left out.
    fn mark_below(&mut self, path: &RelPath, filter: &Filter) -> Result<(), Lost> {
        let mut todo = vec![path.clone()];
        while let Some(path) = todo.pop() {
            let fd = match self.root.directory(&path) {
                Ok(fd) => fd,
                Err(errno) if is_gone(errno) => continue,
                Err(errno) => return Err(Lost::Always(format!("{path}: {errno}"))),
            };
            // By its descriptor: a path could lead elsewhere by now.
            let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let mark = match inotify::add_watch(&*self.inotify, own, WATCHED) {
                Ok(mark) => mark,
                Err(Errno::NOSPC) => {
                    let most = "more directories than fs.inotify.max_user_watches lets be watched";
                    return Err(Lost::Always(most.to_owned()));
                }
                Err(errno) => return Err(Lost::Always(format!("{path}: inotify: {errno}"))),
            };
            self.paths.insert(mark, path.clone());
            self.marks.insert(path.clone(), mark);
            let listed = Dir::read_from(&fd).and_then(|entries| {
                for entry in entries {
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    let may_be = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
                    if may_be
                        && let Ok(child) = path.join(name)
                        && !filter.hides(&child)
                    {
                        todo.push(child);
                    }
                }
                Ok(())
            });
            match listed {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(Lost::Always(format!("{path}: {errno}"))),
            }
        }
        Ok(())
    }

    /// Forgets the marks of a directory and of all below it.
    fn forget_below(&mut self, path: &RelPath) {
        let below = self.marks.range((Bound::Included(path.clone()), Bound::Unbounded));
        let below: Vec<_> = below
            .map(|(other, mark)| (other.clone(), *mark))
            .take_while(|(other, _)| other.is_within(path))
            .collect();
        for (other, mark) in below {
            self.marks.remove(&other);
            // It may be known at its new place already.
            if self.paths.get(&mark) == Some(&other) {
                self.paths.remove(&mark);
                // Gone with the directory, if that is gone.
                let _ = inotify::remove_watch(&*self.inotify, mark);
            }
        }
    }
}

/// The name of the root's file system, if others may change it.
#[allow(clippy::unnecessary_cast, reason = "the width of this field differs between architectures")]
fn shared(root: &Root) -> Option<&'static str> {
    let kind = fstatfs(root.fd()).ok()?.f_type as u64 & 0xffff_ffff;
    SHARED.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}
