//! What is decided, sorted by what carries it out.

use std::collections::BTreeMap;

use super::fetch::Job;
use crate::pass::merge::Decision;
use crate::ports::TreeOp;
use crate::progress::Amount;
use crate::tree::{Entry, EntryKind, IndexEntry, PACK_BYTES, PACK_FILES, PackItem, RelPath};

/// What must wait until all contents have landed.
#[derive(Default)]
pub struct Late {
    pub links: Vec<Entry>,
    pub removals: Vec<RelPath>,
    /// Directories that were made, that differ, or in which something is made or removed: that changes their times.
    /// Settled from the deepest up.
    pub directories: BTreeMap<RelPath, Entry>,
    /// The directories of the source that lead to where the walk is.
    above: Vec<Entry>,
}

impl Late {
    /// The walk is at a directory of the source.
    fn enter(&mut self, directory: &Entry) {
        self.leave(&directory.path);
        self.above.push(directory.clone());
    }

    fn leave(&mut self, path: &RelPath) {
        while self.above.last().is_some_and(|above| !path.is_within(&above.path)) {
            self.above.pop();
        }
    }

    /// Something is made or removed at the path: the directory it lies in is settled in the end.
    fn touch(&mut self, path: &RelPath) {
        self.leave(path);
        if let Some(parent) = self.above.iter().rev().find(|above| above.path != *path) {
            self.directories.entry(parent.path.clone()).or_insert_with(|| parent.clone());
        }
    }
}

/// Decisions of one window, sorted by what carries them out.
#[derive(Default)]
pub struct Window {
    pub ops: Vec<TreeOp>,
    pub made: Vec<Entry>,
    pub forgotten: Vec<RelPath>,
    pub jobs: Vec<Job>,
    pub kept: Amount,
    pub found: Amount,
}

/// Sorts a decision by what carries it out, and when.
pub fn sort(decision: Decision, window: &mut Window, late: &mut Late) {
    if let Decision::Keep(entry) | Decision::Settle(entry) | Decision::Fetch { entry, .. } = &decision
        && let Some(size) = entry.size()
    {
        window.found.files += 1;
        window.found.bytes += size;
        if !matches!(decision, Decision::Fetch { .. }) {
            window.kept.files += 1;
            window.kept.bytes += size;
        }
    }
    if let Decision::Keep(entry) | Decision::Settle(entry) | Decision::Make(entry) = &decision
        && entry.kind == EntryKind::Directory
    {
        late.enter(entry);
    }
    if let Decision::Fetch { entry: Entry { path, .. }, .. }
    | Decision::Make(Entry { path, .. })
    | Decision::Link(Entry { path, .. })
    | Decision::Remove(path) = &decision
    {
        late.touch(path);
    }
    match decision {
        Decision::Keep(_) => {}
        Decision::Settle(entry) if entry.kind == EntryKind::Directory => {
            late.directories.insert(entry.path.clone(), entry);
        }
        Decision::Settle(entry) => {
            window.ops.push(TreeOp::Settle(entry.clone()));
            if entry.size().is_none() {
                window.made.push(entry);
            }
        }
        Decision::Make(entry) => {
            window.ops.push(TreeOp::Make(entry.clone()));
            if entry.kind == EntryKind::Directory {
                late.directories.insert(entry.path.clone(), entry);
            } else {
                window.made.push(entry);
            }
        }
        Decision::Link(entry) => late.links.push(entry),
        Decision::Remove(path) => late.removals.push(path),
        Decision::Forget(path) => window.forgotten.push(path),
        Decision::Fetch { entry, held, clear } => {
            if clear {
                window.ops.push(TreeOp::Remove(entry.path.clone()));
            }
            add_job(&mut window.jobs, entry, held);
        }
    }
}

fn add_job(jobs: &mut Vec<Job>, entry: Entry, held: Option<IndexEntry>) {
    if entry.is_large() {
        jobs.push(Job::Large { entry, held, moved: None });
        return;
    }
    // Attributes travel beside the contents, and may be larger than they are.
    let size = entry.size().unwrap_or(0) + entry.meta.xattr_bytes();
    let held_len = held.as_ref().and_then(|held| held.source.size()).unwrap_or(0);
    let item = PackItem { path: entry.path, held: held.map(|held| held.digest), held_len };
    // Packs stay open over large files in between: those are jobs of their own.
    if let Some(Job::Pack { items, inodes, bytes }) =
        jobs.iter_mut().rev().find(|job| matches!(job, Job::Pack { .. }))
        && items.len() < PACK_FILES
        && *bytes + size <= PACK_BYTES
    {
        inodes.push(entry.stamp.inode);
        items.push(item);
        *bytes += size;
        return;
    }
    jobs.push(Job::Pack { items: vec![item], inodes: vec![entry.stamp.inode], bytes: size });
}
