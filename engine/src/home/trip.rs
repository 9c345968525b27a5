//! One attempt to carry home what has to go, in the order in which it can.

use std::collections::{BTreeMap, HashSet};

use futures::TryStreamExt;

use super::bring::Homecoming;
use super::decide::Decision;
use crate::chunk::Chunk;
use crate::failure::Failure;
use crate::ports::{Result, TreeOp};
use crate::tree::{
    Entry, EntryKind, FileRequest, PACK_BYTES, PACK_FILES, PackItem, PackRequest, PackedFile, RelPath,
    SegmentEnd, Spots,
};

/// Changes of one request.
const WINDOW: usize = 1024;
/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;
/// So many things that stay as they are at the source are named.
const NAMED: usize = 20;

/// What has gone home.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Brought {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was removed, made or given other properties.
    pub others: u64,
    /// How many things stay as they are at the source.
    pub left: u64,
    /// The first of them, and why.
    pub named: Vec<(RelPath, &'static str)>,
}

impl Brought {
    fn leave(&mut self, path: RelPath, why: &'static str) {
        self.left += 1;
        if self.named.len() < NAMED {
            self.named.push((path, why));
        }
    }
}

/// Another file system.
const MOUNTED: &str = "another file system is mounted there at the target";
/// It was changed at the source, too.
const CLASH: &str = "it was changed at the source, too: the source's stays";
/// The source's manifest.
const REFUSED: &str = "the source's manifest leaves it out";
/// It went.
const GONE: &str = "it vanished while it was read";
/// It is another name of such a file.
const NO_NAME: &str = "the file that it is another name of is not at the source";

/// A directory that goes, once all that is in it has.
struct Going {
    path: RelPath,
    /// Something in it stays.
    stays: bool,
}

/// One attempt.
pub(super) struct Trip<'a> {
    of: &'a Homecoming,
    brought: Brought,
    has_begun: bool,
    /// What goes, in tree order.
    going: Vec<Going>,
    /// Those of them that hold what the walk is at.
    around: Vec<usize>,
    links: Vec<Entry>,
    /// In whose place a directory stands, which goes first.
    after: Vec<Decision>,
    directories: BTreeMap<RelPath, Entry>,
    /// Files that could not go: they have no other names at the source.
    missing: HashSet<RelPath>,
}

impl<'a> Trip<'a> {
    pub fn new(of: &'a Homecoming) -> Self {
        Self {
            of,
            brought: Brought::default(),
            has_begun: false,
            going: Vec::new(),
            around: Vec::new(),
            links: Vec::new(),
            after: Vec::new(),
            directories: BTreeMap::new(),
            missing: HashSet::new(),
        }
    }

    async fn begin(&mut self) -> Result<()> {
        if !self.has_begun {
            self.of.home.begin(&self.of.tree).await?;
            self.has_begun = true;
        }
        Ok(())
    }

    /// Carries out what can be done at once, and puts off what must wait until all contents are home.
    pub async fn carry(&mut self, decisions: Vec<Decision>) -> Result<()> {
        let decisions = self.without_refused(decisions).await?;
        let (mut ops, mut files) = (Vec::new(), Vec::new());
        for decision in decisions {
            match decision {
                Decision::Fetch { clear: true, .. } | Decision::Make { clear: true, .. } => {
                    self.goes(path_of(&decision).clone());
                    self.after.push(decision);
                }
                Decision::Fetch { entry, .. } => files.push(entry),
                Decision::Make { entry, .. } => {
                    if entry.kind == EntryKind::Directory {
                        self.directories.insert(entry.path.clone(), entry.clone());
                    }
                    ops.push(TreeOp::Make(entry));
                }
                Decision::Link(entry) => self.links.push(entry),
                Decision::Settle(entry) if entry.kind == EntryKind::Directory => {
                    self.directories.insert(entry.path.clone(), entry);
                }
                Decision::Settle(entry) => ops.push(TreeOp::Settle(entry)),
                Decision::Remove(path) => self.goes(path),
                Decision::Clash(path) => {
                    self.stays(&path);
                    self.brought.leave(path, CLASH);
                }
                Decision::Mounted(path) => {
                    self.stays(&path);
                    self.brought.leave(path, MOUNTED);
                }
                Decision::Own(path) => self.stays(&path),
            }
        }
        self.change(ops).await?;
        self.fetch(files).await
    }

    /// Leaves out what the source's manifest does not let stand there.
    async fn without_refused(&mut self, mut decisions: Vec<Decision>) -> Result<Vec<Decision>> {
        let new = decisions.iter().filter_map(|decision| match decision {
            Decision::Fetch { entry, .. } | Decision::Make { entry, .. } | Decision::Link(entry) => {
                Some(entry.clone())
            }
            _ => None,
        });
        let new: Vec<Entry> = new.collect();
        if new.is_empty() {
            return Ok(decisions);
        }
        self.begin().await?;
        let refused = self.of.home.refused(&self.of.tree, new).await?;
        decisions.retain(|decision| !refused.contains(path_of(decision)));
        for path in refused {
            self.misses(path, REFUSED);
        }
        Ok(decisions)
    }

    fn misses(&mut self, path: RelPath, why: &'static str) {
        self.missing.insert(path.clone());
        self.brought.leave(path, why);
    }

    fn leave_around(&mut self, path: &RelPath) {
        while self.around.last().is_some_and(|last| !path.is_within(&self.going[*last].path)) {
            self.around.pop();
        }
    }

    fn goes(&mut self, path: RelPath) {
        self.leave_around(&path);
        self.around.push(self.going.len());
        self.going.push(Going { path, stays: false });
    }

    /// What it lies in cannot go.
    fn stays(&mut self, path: &RelPath) {
        self.leave_around(path);
        for around in &self.around {
            self.going[*around].stays = true;
        }
    }

    async fn change(&mut self, ops: Vec<TreeOp>) -> Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        self.begin().await?;
        // Most directories are settled because of what is in them.
        let is_counted =
            |op: &&TreeOp| !matches!(op, TreeOp::Settle(entry) if entry.kind == EntryKind::Directory);
        self.brought.others += ops.iter().filter(is_counted).count() as u64;
        self.of.get_on(ops.len() as u64);
        self.of.home.change(&self.of.tree, ops).await
    }

    async fn fetch(&mut self, files: Vec<Entry>) -> Result<()> {
        let (large, small): (Vec<Entry>, Vec<Entry>) = files.into_iter().partition(Entry::is_large);
        let mut items: Vec<PackItem> = Vec::new();
        let mut bytes = 0;
        for entry in small {
            let size = entry.size().unwrap_or(0) + entry.meta.xattr_bytes();
            if items.len() == PACK_FILES || bytes + size > PACK_BYTES && !items.is_empty() {
                self.pack(std::mem::take(&mut items)).await?;
                bytes = 0;
            }
            bytes += size;
            items.push(PackItem { path: entry.path, held: None, held_len: 0 });
        }
        if !items.is_empty() {
            self.pack(items).await?;
        }
        for entry in large {
            self.large(entry.path).await?;
        }
        Ok(())
    }

    async fn pack(&mut self, files: Vec<PackItem>) -> Result<()> {
        self.begin().await?;
        let request = PackRequest { dataset: self.of.tree.dataset.clone(), files };
        let pack = self.of.here.trees.pack(request).await?;
        let (mut landing, mut unfit) = (Vec::new(), Vec::new());
        for file in &pack.files {
            match file {
                PackedFile::Contents { entry, .. } => landing.push(entry.clone()),
                PackedFile::Gone { path } => self.misses(path.clone(), GONE),
                PackedFile::Unfit { path } => unfit.push(path.clone()),
                PackedFile::Same { .. } | PackedFile::Tail { .. } => {
                    let what = "a file came as one that is held, and none is";
                    return Err(Failure::permanent(self.of.tree.dataset.to_string(), what));
                }
            }
        }
        if !landing.is_empty() {
            self.of.home.stage(&self.of.tree, Chunk::Pack(pack)).await?;
            self.land(landing).await?;
        }
        for path in unfit {
            self.large(path).await?;
        }
        Ok(())
    }

    async fn land(&mut self, files: Vec<Entry>) -> Result<()> {
        let (count, bytes) = (files.len() as u64, files.iter().filter_map(Entry::size).sum::<u64>());
        self.of.landed.add(&files);
        self.of.home.land(&self.of.tree, files).await?;
        self.brought.files += count;
        self.brought.bytes += bytes;
        self.of.get_on(count);
        self.of.work.desk.checkpoint()
    }

    async fn large(&mut self, path: RelPath) -> Result<()> {
        self.begin().await?;
        for _ in 0..TRIES {
            match self.read(&path).await? {
                SegmentEnd::Whole(entry) => {
                    self.land(vec![entry.clone()]).await?;
                    // A source that was restarted in between has landed it with the properties of what is staged.
                    return self.of.home.change(&self.of.tree, vec![TreeOp::Settle(entry)]).await;
                }
                SegmentEnd::Gone => {
                    self.misses(path, GONE);
                    return Ok(());
                }
                SegmentEnd::Changed => {}
            }
        }
        let item = format!("{}, {path}", self.of.tree.dataset);
        let what = format!("it changed each of the {TRIES} times it was read");
        Err(Failure::operator(item, what).hint(
            "end what writes to it at the target, then `handover resume`; or `handover abort --discard`, which leaves it in what is kept aside",
        ))
    }

    /// Reads a large file, and writes it out of sight at the source.
    async fn read(&mut self, path: &RelPath) -> Result<SegmentEnd> {
        let request = FileRequest {
            dataset: self.of.tree.dataset.clone(),
            path: path.clone(),
            offset: 0,
            begun_as: None,
            basis: Vec::new(),
        };
        let mut segments = self.of.here.trees.file(request).await?;
        while let Some(segment) = segments.try_next().await? {
            let end = segment.end.clone();
            if !matches!(end, Some(SegmentEnd::Changed | SegmentEnd::Gone)) {
                self.of.home.stage(&self.of.tree, Chunk::Segment(segment)).await?;
                self.of.get_on(1);
                self.of.work.desk.checkpoint()?;
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
        let item = format!("{}, {path}", self.of.tree.dataset);
        Err(Failure::transient(item, "its stream ended before the file did"))
    }

    /// What had to wait: removals from the deepest up, what comes in the place of directories, further names, properties of directories.
    pub async fn finish(mut self) -> Result<Brought> {
        let going = std::mem::take(&mut self.going).into_iter().rev();
        let ops = going.filter(|one| !one.stays).map(|one| TreeOp::Remove(one.path));
        self.change_all(ops.collect()).await?;
        let after = self.without_standing().await?;
        let (mut ops, mut files) = (Vec::new(), Vec::new());
        for decision in after {
            match decision {
                Decision::Fetch { entry, .. } => files.push(entry),
                Decision::Make { entry, .. } => ops.push(TreeOp::Make(entry)),
                _ => {}
            }
        }
        self.change_all(ops).await?;
        self.fetch(files).await?;
        let mut ops = Vec::new();
        for link in std::mem::take(&mut self.links) {
            match link.kind {
                EntryKind::HardLink { to } if !self.missing.contains(&to) => {
                    ops.push(TreeOp::Link { path: link.path, to });
                }
                _ => self.misses(link.path, NO_NAME),
            }
        }
        self.change_all(ops).await?;
        let directories = std::mem::take(&mut self.directories);
        self.change_all(directories.into_values().rev().map(TreeOp::Settle).collect()).await?;
        Ok(self.brought)
    }

    /// What comes in the place of directories, where those are gone: what the source's globs hide stays, and so does what has come there.
    async fn without_standing(&mut self) -> Result<Vec<Decision>> {
        let after = std::mem::take(&mut self.after);
        if after.is_empty() {
            return Ok(after);
        }
        let mut spots = Spots::default();
        after.iter().for_each(|one| spots.add(path_of(one).clone(), false));
        let found = self.of.work.source.trees.scan_at(&self.of.tree.dataset, &spots.with_parents()).await?;
        let found: Vec<Vec<Entry>> = found.try_collect().await?;
        let standing: HashSet<RelPath> = found
            .into_iter()
            .flatten()
            .filter(|one| one.kind == EntryKind::Directory)
            .map(|one| one.path)
            .collect();
        let (stay, after): (Vec<Decision>, Vec<Decision>) =
            after.into_iter().partition(|one| standing.contains(path_of(one)));
        for one in stay {
            self.misses(path_of(&one).clone(), CLASH);
        }
        Ok(after)
    }

    async fn change_all(&mut self, ops: Vec<TreeOp>) -> Result<()> {
        for ops in ops.chunks(WINDOW) {
            self.change(ops.to_vec()).await?;
        }
        Ok(())
    }
}

fn path_of(decision: &Decision) -> &RelPath {
    match decision {
        Decision::Fetch { entry, .. }
        | Decision::Make { entry, .. }
        | Decision::Link(entry)
        | Decision::Settle(entry) => &entry.path,
        Decision::Remove(path) | Decision::Clash(path) | Decision::Mounted(path) | Decision::Own(path) => {
            path
        }
    }
}
