//! What has to go home, path by path: the target's tree, the journal's index and the source's tree, side by side in tree order.

use std::collections::{HashMap, HashSet};

use super::Landed;
use crate::failure::Failure;
use crate::pass::merge::Sorted;
use crate::ports::{Answers, Result};
use crate::tree::{Entry, EntryKind, IndexEntry, Meta, RelPath, Stamp};

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
    /// It gets the properties that it has at the target; contents are the same. Of a directory: in the end.
    Settle(Entry),
    /// It goes: it was removed at the target.
    Remove(RelPath),
    /// It was changed at both: the source's stays.
    Clash(RelPath),
    /// Another file system is mounted there at the target: it is none of the tree's.
    Mounted(RelPath),
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
    mounts: Vec<RelPath>,
    has_begun: bool,
    judge: Judge,
}

impl Walk {
    /// A walk over the target's scan, the journal's index and the source's scan. Below `mounts` nothing of the target is part of its tree;
    /// what `landed` knows stands at the source since an earlier attempt.
    pub fn new(
        here: Answers<Vec<Entry>>,
        held: Answers<Vec<IndexEntry>>,
        there: Answers<Vec<Entry>>,
        mounts: Vec<RelPath>,
        landed: Landed,
    ) -> Self {
        Self {
            here: Sorted::new("the target's scan", here),
            held: Sorted::new("the journal's index", held),
            there: Sorted::new("the source's scan", there),
            mounts,
            has_begun: false,
            judge: Judge { landed, ..Judge::default() },
        }
    }

    /// The next path that can be decided about; `None` when all trees are walked.
    pub async fn next(&mut self) -> Result<Option<Place>> {
        loop {
            let heads = [self.here.path().await?, self.held.path().await?, self.there.path().await?];
            if self.has_begun && heads[1].is_some() && heads[2].is_none() && self.there.has_ended_at_root() {
                return Err(Failure::operator("the source's tree", "nothing is in it of all that was copied")
                    .hint("is its file system mounted? then `handover resume`; or `handover abort --discard`, which leaves the files in what is kept aside"));
            }
            self.has_begun = true;
            let Some(path) = heads.into_iter().flatten().min() else { return Ok(None) };
            let (here, held, there) = (self.here.take(&path), self.held.take(&path), self.there.take(&path));
            if !self.mounts.iter().any(|mount| path.is_within(mount) && path != *mount) {
                return Ok(Some(Place { path, here, held, there }));
            }
        }
    }

    /// How what stands at the target differs from what landed, as far as properties tell: of a file whose time differs, contents may be the same.
    pub fn touched(&self, here: &Entry, held: Option<&IndexEntry>) -> Touched {
        self.judge.touched(here, held)
    }

    /// What is done about a path, in order.
    pub fn decide(&mut self, place: Place, touched: Touched) -> Vec<Decision> {
        if self.mounts.contains(&place.path) && !place.path.is_root() {
            return vec![Decision::Mounted(place.path)];
        }
        self.judge.decide(place, touched)
    }
}

/// How a directory of the target's stands at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is there, or is being made.
    There,
    /// The source has removed it: it is made when something has to go into it.
    Missing,
    /// The source has something else in its place, which stays.
    Clash,
}

/// A directory of the target's that leads to where the walk is.
struct Above {
    entry: Entry,
    standing: Standing,
    is_settled: bool,
}

#[derive(Default)]
struct Judge {
    landed: Landed,
    above: Vec<Above>,
    /// First names of files that go home anew, with what the source had: their other names are made anew, too.
    renewed: HashMap<RelPath, Option<Stamp>>,
    /// First names of files that are at the source not what they are at the target.
    clashed: HashSet<RelPath>,
}

impl Judge {
    fn touched(&self, here: &Entry, held: Option<&IndexEntry>) -> Touched {
        let Some(held) = held else { return Touched::Contents };
        match (&here.kind, &held.source.kind) {
            (EntryKind::File { .. }, EntryKind::File { .. }) => {
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
            // What is made or removed in a directory changes its time.
            (EntryKind::Directory, EntryKind::Directory) if is_like_but_for_time(here, &held.source) => {
                Touched::Not
            }
            _ if here.is_like(&held.source) => Touched::Not,
            (now, was) if now == was => Touched::Properties,
            _ => Touched::Contents,
        }
    }

    fn decide(&mut self, place: Place, touched: Touched) -> Vec<Decision> {
        let Place { path, here, held, there } = place;
        while self.above.last().is_some_and(|above| !path.is_within(&above.entry.path)) {
            self.above.pop();
        }
        let Some(here) = here else {
            let Some(there) = there else { return Vec::new() };
            return match held {
                Some(held) if is_as_copied(&held, &there) => self.in_its_directory(Decision::Remove(path)),
                Some(_) => vec![self.clash(path)],
                None => vec![Decision::Own(path)],
            };
        };
        if here.kind == EntryKind::Directory {
            return self.decide_directory(here, held, there, touched);
        }
        if self.above.last().is_some_and(|above| above.standing == Standing::Clash) {
            return if touched == Touched::Not { Vec::new() } else { vec![self.clash(path)] };
        }
        let decision = match &here.kind {
            EntryKind::HardLink { to } if touched != Touched::Not => {
                let to = to.clone();
                self.decide_name(&to, here, held, there)
            }
            EntryKind::HardLink { .. } => return Vec::new(),
            _ if touched == Touched::Not => {
                let is_same = there.as_ref().is_some_and(|there| {
                    there.is_like(&here) || held.as_ref().is_some_and(|held| is_as_copied(held, there))
                });
                if is_linked(&here) && !is_same {
                    self.clashed.insert(path);
                }
                return Vec::new();
            }
            _ => self.decide_leaf(here, held, there, touched),
        };
        decision.map_or_else(Vec::new, |decision| self.in_its_directory(decision))
    }

    fn decide_directory(
        &mut self,
        here: Entry,
        held: Option<IndexEntry>,
        there: Option<Entry>,
        touched: Touched,
    ) -> Vec<Decision> {
        let is_below_clash = self.above.last().is_some_and(|above| above.standing == Standing::Clash);
        let (standing, decision) = match &there {
            _ if is_below_clash => (Standing::Clash, None),
            Some(there) if there.kind == EntryKind::Directory => {
                let settles = touched != Touched::Not && !is_like_but_for_time(there, &here);
                (Standing::There, settles.then(|| Decision::Settle(here.clone())))
            }
            None if touched == Touched::Not => (Standing::Missing, None),
            Some(there) if !held.as_ref().is_some_and(|held| is_as_copied(held, there)) => {
                // What the target has in it is told of by itself.
                let is_new = touched != Touched::Not;
                (Standing::Clash, is_new.then(|| self.clash(here.path.clone())))
            }
            _ => (Standing::There, Some(Decision::Make { entry: here.clone(), clear: false })),
        };
        let decisions = match decision {
            Some(made @ Decision::Make { .. }) => self.in_its_directory(made),
            other => other.into_iter().collect(),
        };
        self.above.push(Above { entry: here, standing, is_settled: false });
        decisions
    }

    /// A decision that changes what is in a directory: that is made first, where it is missing, and gets its time back in the end.
    fn in_its_directory(&mut self, decision: Decision) -> Vec<Decision> {
        let is_clash = matches!(decision, Decision::Clash(_) | Decision::Settle(_));
        let mut out = Vec::new();
        if !is_clash && !matches!(decision, Decision::Remove(_)) {
            for above in self.above.iter_mut().filter(|above| above.standing == Standing::Missing) {
                above.standing = Standing::There;
                above.is_settled = true;
                out.push(Decision::Make { entry: above.entry.clone(), clear: false });
            }
        }
        if let Some(above) = self.above.last_mut()
            && !is_clash
            && above.standing == Standing::There
            && !above.is_settled
        {
            above.is_settled = true;
            out.push(Decision::Settle(above.entry.clone()));
        }
        out.push(decision);
        out
    }

    /// Of another name of a file.
    fn decide_name(
        &mut self,
        to: &RelPath,
        here: Entry,
        held: Option<IndexEntry>,
        there: Option<Entry>,
    ) -> Option<Decision> {
        let is_free = match &there {
            None => true,
            Some(there) => {
                here.kind == there.kind
                    || held.as_ref().is_some_and(|held| is_as_copied(held, there))
                    || self.is_name_of_renewed(to, there)
            }
        };
        if is_free && !self.clashed.contains(to) {
            Some(Decision::Link(here))
        } else {
            Some(self.clash(here.path))
        }
    }

    /// Of a file, symbolic link, pipe or device that was changed.
    fn decide_leaf(
        &mut self,
        here: Entry,
        held: Option<IndexEntry>,
        there: Option<Entry>,
        touched: Touched,
    ) -> Option<Decision> {
        if let Some(there) = &there
            && !held.as_ref().is_some_and(|held| is_as_copied(held, there))
        {
            // Either it is home already, or something else has come there.
            if !there.is_like(&here) && !self.landed.has(there) {
                return Some(self.clash(here.path));
            }
            if there.is_like(&here) && !is_linked(&here) {
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
                self.renewed.insert(here.path.clone(), held.map(|held| held.source.stamp));
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
        self.renewed.get(to).is_some_and(|had| had.is_some_and(|had| known(&had) == known(&there.stamp)))
    }

    fn clash(&mut self, path: RelPath) -> Decision {
        self.clashed.insert(path.clone());
        Decision::Clash(path)
    }
}

/// What tells one state of a file from another. (Not its ctime: further names change that.)
fn known(stamp: &Stamp) -> (u64, u64, crate::time::Timestamp) {
    (stamp.inode, stamp.size, stamp.mtime)
}

fn is_linked(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File { linked: true, .. })
}

fn is_like_but_for_time(a: &Entry, b: &Entry) -> bool {
    a.is_like(&Entry { meta: Meta { mtime: a.meta.mtime, ..b.meta.clone() }, ..b.clone() })
}

/// The source has what it had when it was copied. (Of a directory: it is one. What is in it has places of its own.)
fn is_as_copied(held: &IndexEntry, there: &Entry) -> bool {
    let was = &held.source;
    match (&was.kind, &there.kind) {
        (EntryKind::File { .. }, EntryKind::File { .. }) => known(&was.stamp) == known(&there.stamp),
        (EntryKind::Directory, EntryKind::Directory) => true,
        _ => was.is_like(there),
    }
}

#[cfg(test)]
mod tests;
