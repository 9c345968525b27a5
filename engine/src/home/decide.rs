//! What has to go home, path by path: the target's tree, the journal's index and the source's tree, side by side in tree order.

use std::collections::{HashMap, HashSet};

use crate::pass::merge::Sorted;
use crate::ports::{Answers, Result};
use crate::tree::{Entry, EntryKind, IndexEntry, RelPath, Stamp};

/// What is done at the source about one path.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The file goes home with its contents.
    Fetch {
        /// As it is at the target.
        entry: Entry,
        /// A directory stands in its place at the source, and goes first.
        clear: bool,
    },
    /// A directory, symbolic link, pipe or device is made.
    Make {
        /// As it is at the target.
        entry: Entry,
        /// A directory stands in its place at the source, and goes first.
        clear: bool,
    },
    /// Another name of an earlier file is made.
    Link(Entry),
    /// It gets the properties that it has at the target; contents are the same.
    Settle(Entry),
    /// It goes: it was removed at the target.
    Remove(RelPath),
    /// It was changed at both: the source's stays.
    Clash(RelPath),
    /// Only the source has it: what it lies in stays, too.
    Own(RelPath),
}

/// How what stands at the target differs from what landed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// Not at all.
    Not,
    /// Its properties were changed.
    Properties,
    /// It is something else, or has other contents.
    Contents,
}

/// One path in the three trees.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The path.
    pub path: RelPath,
    /// What stands there at the target.
    pub here: Option<Entry>,
    /// What landed there.
    pub held: Option<IndexEntry>,
    /// What stands there at the source.
    pub there: Option<Entry>,
}

/// Walks the three trees.
pub struct Walk {
    here: Sorted<Entry>,
    held: Sorted<IndexEntry>,
    there: Sorted<Entry>,
    names: Names,
}

/// What has become of files that have several names.
#[derive(Default)]
struct Names {
    /// First names of files that go home anew, with what the source had: their other names are made anew, too.
    renewed: HashMap<RelPath, Option<Stamp>>,
    /// First names of files that stay as they are at the source.
    clashed: HashSet<RelPath>,
}

impl Walk {
    /// A walk over the target's scan, the journal's index and the source's scan.
    pub fn new(
        here: Answers<Vec<Entry>>,
        held: Answers<Vec<IndexEntry>>,
        there: Answers<Vec<Entry>>,
    ) -> Self {
        Self {
            here: Sorted::new("the target's scan", here),
            held: Sorted::new("the journal's index", held),
            there: Sorted::new("the source's scan", there),
            names: Names::default(),
        }
    }

    /// The next path; `None` when all trees are walked.
    pub async fn next(&mut self) -> Result<Option<Place>> {
        let heads = [self.here.path().await?, self.held.path().await?, self.there.path().await?];
        let Some(path) = heads.into_iter().flatten().min() else { return Ok(None) };
        let (here, held, there) = (self.here.take(&path), self.held.take(&path), self.there.take(&path));
        Ok(Some(Place { path, here, held, there }))
    }

    /// How what stands at the target differs from what landed, as far as properties tell: of a file whose time differs, contents may be the same.
    pub fn touched(&self, here: &Entry, held: Option<&IndexEntry>) -> Touched {
        self.names.touched(here, held)
    }

    /// What is done about a path; `None` for nothing.
    pub fn decide(&mut self, place: Place, touched: Touched) -> Option<Decision> {
        self.names.decide(place, touched)
    }
}

impl Names {
    fn touched(&self, here: &Entry, held: Option<&IndexEntry>) -> Touched {
        let Some(held) = held else { return Touched::Contents };
        match (&here.kind, &held.source.kind) {
            (EntryKind::File { .. }, EntryKind::File { .. }) => {
                let known = |stamp: &Stamp| (stamp.inode, stamp.size, stamp.mtime);
                if known(&here.stamp) != known(&held.landed) {
                    Touched::Contents
                } else if here.is_like(&held.source) {
                    Touched::Not
                } else {
                    Touched::Properties
                }
            }
            (EntryKind::HardLink { to }, was) => {
                if here.kind == *was && !self.renewed.contains_key(to) {
                    Touched::Not
                } else {
                    Touched::Contents
                }
            }
            _ if here.is_like(&held.source) => Touched::Not,
            (now, was) if now == was => Touched::Properties,
            _ => Touched::Contents,
        }
    }

    fn decide(&mut self, place: Place, touched: Touched) -> Option<Decision> {
        let Place { path, here, held, there } = place;
        let Some(here) = here else {
            let there = there?;
            return Some(match held {
                Some(held) if is_as_copied(&held, &there) => Decision::Remove(path),
                Some(_) => self.clash(path),
                None => Decision::Own(path),
            });
        };
        if touched == Touched::Not {
            return None;
        }
        match &here.kind {
            EntryKind::HardLink { to } => {
                if self.clashed.contains(to) {
                    return Some(self.clash(path));
                }
                let is_other_name = |there: &Entry| self.is_name_of_renewed(to, there);
                let free = match (&held, &there) {
                    (_, None) => true,
                    (held, Some(there)) => {
                        here.kind == there.kind
                            || held.as_ref().is_some_and(|held| is_as_copied(held, there))
                            || is_other_name(there)
                    }
                };
                if free { Some(Decision::Link(here)) } else { Some(self.clash(path)) }
            }
            EntryKind::Directory => match &there {
                Some(there) if there.is_like(&here) => None,
                Some(there) if there.kind == EntryKind::Directory => Some(Decision::Settle(here)),
                Some(there) if !held.as_ref().is_some_and(|held| is_as_copied(held, there)) => {
                    Some(self.clash(path))
                }
                _ => Some(Decision::Make { entry: here, clear: false }),
            },
            _ => self.decide_leaf(path, here, held, there, touched),
        }
    }

    /// Of a file, symbolic link, pipe or device.
    fn decide_leaf(
        &mut self,
        path: RelPath,
        here: Entry,
        held: Option<IndexEntry>,
        there: Option<Entry>,
        touched: Touched,
    ) -> Option<Decision> {
        if let Some(there) = &there
            && !held.as_ref().is_some_and(|held| is_as_copied(held, there))
        {
            // Either it is home already, or something else has come there.
            if !there.is_like(&here) {
                return Some(self.clash(path));
            }
            if !is_linked(&here) {
                return None;
            }
        }
        let clear = there.as_ref().is_some_and(|there| there.kind == EntryKind::Directory);
        if let EntryKind::File { .. } = here.kind {
            let settles =
                touched == Touched::Properties && there.as_ref().is_some_and(|t| t.size().is_some());
            if settles {
                return Some(Decision::Settle(here));
            }
            if is_linked(&here) {
                self.renewed.insert(path, held.map(|held| held.source.stamp));
            }
            return Some(Decision::Fetch { entry: here, clear });
        }
        match there {
            Some(there) if there.kind == here.kind => Some(Decision::Settle(here)),
            _ => Some(Decision::Make { entry: here, clear }),
        }
    }

    /// A name at the source of the file that another name of has gone home anew, by a run that was interrupted: it has what the source had.
    fn is_name_of_renewed(&self, to: &RelPath, there: &Entry) -> bool {
        let known = |stamp: &Stamp| (stamp.inode, stamp.size, stamp.mtime);
        self.renewed.get(to).is_some_and(|had| had.is_some_and(|had| known(&had) == known(&there.stamp)))
    }

    fn clash(&mut self, path: RelPath) -> Decision {
        self.clashed.insert(path.clone());
        Decision::Clash(path)
    }
}

fn is_linked(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File { linked: true, .. })
}

/// The source has what it had when it was copied. (Of a directory: it is one. What is in it has places of its own.)
fn is_as_copied(held: &IndexEntry, there: &Entry) -> bool {
    let was = &held.source;
    match (&was.kind, &there.kind) {
        (EntryKind::File { .. }, EntryKind::File { .. }) => {
            let known = |stamp: &Stamp| (stamp.inode, stamp.size, stamp.mtime);
            known(&was.stamp) == known(&there.stamp)
        }
        (EntryKind::Directory, EntryKind::Directory) => true,
        _ => was.is_like(there),
    }
}

#[cfg(test)]
mod tests;
