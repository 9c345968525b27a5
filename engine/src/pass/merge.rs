//! What a pass has to do, path by path: the source's tree, the journal's index and the target's tree, all in tree
//! order, walked side by side with bounded memory.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use crate::digest::Digest;
use crate::failure::Failure;
use crate::ports::{Answers, Result};
use crate::tree::{Entry, EntryKind, IndexEntry, RelPath};

/// Something that lies at a path.
pub trait AtPath {
    /// The path.
    fn path(&self) -> &RelPath;
}

impl AtPath for Entry {
    fn path(&self) -> &RelPath {
        &self.path
    }
}

impl AtPath for IndexEntry {
    fn path(&self) -> &RelPath {
        &self.source.path
    }
}

/// A stream in tree order, with a look at its head.
pub struct Sorted<T> {
    what: &'static str,
    /// Fused, since the head is looked at again after the end.
    stream: futures::stream::Fuse<Answers<Vec<T>>>,
    batch: std::iter::Peekable<std::vec::IntoIter<T>>,
    last: Option<RelPath>,
}

impl<T: AtPath> Sorted<T> {
    /// Reads `stream`; `what` names it when its order is wrong.
    pub fn new(what: &'static str, stream: Answers<Vec<T>>) -> Self {
        Self { what, stream: stream.fuse(), batch: Vec::new().into_iter().peekable(), last: None }
    }

    /// The path at the head; `None` at the end.
    pub async fn path(&mut self) -> Result<Option<RelPath>> {
        while self.batch.peek().is_none() {
            match self.stream.try_next().await? {
                Some(batch) => self.batch = batch.into_iter().peekable(),
                None => return Ok(None),
            }
        }
        let path = self.batch.peek().map(|item| item.path().clone());
        if self.last.is_some() && path <= self.last {
            let place = path.map(|p| p.to_string()).unwrap_or_default();
            return Err(Failure::permanent(place, format!("{} is not in tree order", self.what)));
        }
        Ok(path)
    }

    /// True when nothing has come but the root.
    pub fn has_ended_at_root(&self) -> bool {
        self.last.as_ref().is_none_or(RelPath::is_root)
    }

    /// Takes the head if it lies at `path`.
    pub fn take(&mut self, path: &RelPath) -> Option<T> {
        let item = self.batch.next_if(|item| item.path() == path)?;
        self.last = Some(path.clone());
        Some(item)
    }
}

/// What a pass does about one path.
#[expect(clippy::large_enum_variant, reason = "a few thousand live at a time: not worth an allocation each")]
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Nothing: it is as it should be.
    Keep(Entry),
    /// Get its contents from the source.
    Fetch {
        /// The file as the scan saw it.
        entry: Entry,
        /// What the target has under this path, untouched since it landed.
        held: Option<IndexEntry>,
        /// A directory stands in its place and goes first.
        clear: bool,
    },
    /// Make a directory, symbolic link, pipe or device.
    Make(Entry),
    /// Make another name of an earlier file.
    Link(Entry),
    /// Set its properties; contents are right.
    Settle(Entry),
    /// It is not at the source: it goes.
    Remove(RelPath),
    /// It is neither here nor there: only the index still knows it.
    Forget(RelPath),
}

/// Walks the three trees.
pub struct Merge {
    source: Sorted<Entry>,
    index: Sorted<IndexEntry>,
    here: Sorted<Entry>,
    /// A directory that goes with all it holds.
    going: Option<RelPath>,
    /// First names of hard links whose file is made anew: their other names must be made anew too.
    renewed: HashSet<RelPath>,
    /// Something that has other names differs.
    tangled: bool,
}

impl Merge {
    /// A walk over the source's scan, the journal's index and the target's scan.
    pub fn new(
        source: Answers<Vec<Entry>>,
        index: Answers<Vec<IndexEntry>>,
        here: Answers<Vec<Entry>>,
    ) -> Self {
        Self {
            source: Sorted::new("the source's scan", source),
            index: Sorted::new("the journal's index", index),
            here: Sorted::new("the target's scan", here),
            going: None,
            renewed: HashSet::new(),
            tangled: false,
        }
    }

    /// True when a file with other names differs so far. A walk over some places alone cannot tell what becomes of those.
    pub fn is_tangled(&self) -> bool {
        self.tangled
    }

    /// True when the source's scan has brought nothing yet.
    pub fn is_source_empty(&self) -> bool {
        self.source.last.is_none()
    }

    /// The next decision; `None` when all trees are walked.
    pub async fn next(&mut self) -> Result<Option<Decision>> {
        loop {
            let heads = [self.source.path().await?, self.index.path().await?, self.here.path().await?];
            let Some(path) = heads.into_iter().flatten().min() else { return Ok(None) };
            let (source, held, here) =
                (self.source.take(&path), self.index.take(&path), self.here.take(&path));
            // What lies in a directory that has just been decided to go needs no decision of its own.
            let here = here.filter(|_| !self.going.as_ref().is_some_and(|going| path.is_within(going)));
            let is_linked = source.as_ref().is_some_and(has_other_names)
                || held.as_ref().is_some_and(|held| has_other_names(&held.source));
            if let Some(decision) = self.decide(source, held, here, path) {
                self.tangled |= is_linked && !matches!(decision, Decision::Keep(_));
                return Ok(Some(decision));
            }
        }
    }

    fn decide(
        &mut self,
        source: Option<Entry>,
        held: Option<IndexEntry>,
        here: Option<Entry>,
        path: RelPath,
    ) -> Option<Decision> {
        let Some(source) = source else {
            if here.as_ref().is_some_and(is_directory) {
                self.going = Some(path.clone());
            }
            return match (here, held) {
                (Some(_), _) => Some(Decision::Remove(path)),
                (None, Some(_)) => Some(Decision::Forget(path)),
                (None, None) => None,
            };
        };
        let clear = here.as_ref().is_some_and(is_directory) && !is_directory(&source);
        if clear {
            self.going = Some(path);
        }
        let decision = match &source.kind {
            EntryKind::File { .. } => file(source, held, here, clear),
            EntryKind::HardLink { to } => {
                let same = here.as_ref().is_some_and(|h| h.kind == source.kind)
                    && held.as_ref().is_some_and(|h| h.source.kind == source.kind);
                if same && !self.renewed.contains(to) {
                    Decision::Keep(source)
                } else {
                    Decision::Link(source)
                }
            }
            _ => other(source, held, here),
        };
        if let Decision::Fetch {
            entry: Entry { path, kind: EntryKind::File { linked: true, .. }, .. }, ..
        } = &decision
        {
            self.renewed.insert(path.clone());
        }
        Some(decision)
    }
}

fn is_directory(entry: &Entry) -> bool {
    entry.kind == EntryKind::Directory
}

fn has_other_names(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File { linked: true, .. } | EntryKind::HardLink { .. })
}

fn file(source: Entry, held: Option<IndexEntry>, here: Option<Entry>, clear: bool) -> Decision {
    // Untouched here: what landed still stands. (Not its ctime: further names made of it change that.)
    let held = held.filter(|held| {
        let landed = |stamp: &crate::tree::Stamp| (stamp.inode, stamp.size, stamp.mtime);
        here.as_ref().is_some_and(|here| here.size().is_some() && landed(&here.stamp) == landed(&held.landed))
    });
    match (&held, &here) {
        (Some(h), Some(here)) if h.source.stamp == source.stamp => {
            if here.is_like(&source) {
                Decision::Keep(source)
            } else {
                Decision::Settle(source)
            }
        }
        _ => Decision::Fetch { entry: source, held, clear },
    }
}

fn other(source: Entry, held: Option<IndexEntry>, here: Option<Entry>) -> Decision {
    // What stands here may have been made by a run that ended before it was journaled: then the index is out of date.
    let indexed = held.is_some_and(|held| held.source.is_like(&source));
    match here {
        Some(here) if here.is_like(&source) && indexed => Decision::Keep(source),
        Some(here) if here.kind == source.kind => Decision::Settle(source),
        _ => Decision::Make(source),
    }
}

/// The digest of what has no contents.
pub fn nothing() -> Digest {
    Digest::of(b"")
}

#[cfg(test)]
mod tests;
