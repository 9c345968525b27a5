//! Carrying it home.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt;

use super::decide::{Decision, Place, Touched, Walk};
use crate::failure::Failure;
use crate::name::DatasetName;
use crate::pass::Work;
use crate::ports::home::{HomeTree, HomeTrees};
use crate::ports::{Result, Source, TreeOp, TreeTarget};
use crate::tree::{
    Block, Entry, EntryKind, FileRequest, IndexEntry, Meta, PACK_BYTES, PACK_FILES, PackItem, PackRequest,
    PackedFile, RelPath, SegmentEnd,
};

/// Decisions that are carried out together.
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

/// It was changed at the source, too.
const CLASH: &str = "it was changed at the source, too: the source's stays";
/// The source's manifest.
const REFUSED: &str = "the source's manifest leaves it out";
/// It is not quiet.
const GONE: &str = "it vanished while it was read";
/// It is another name of such a file.
const NO_NAME: &str = "the file that it is another name of is not at the source";

/// One tree's way home.
pub struct Homecoming {
    work: Work,
    here: Source,
    target: Arc<dyn TreeTarget>,
    home: Arc<dyn HomeTrees>,
    tree: HomeTree,
    got_on: AtomicU64,
}

impl Homecoming {
    /// Of a tree that stands at `target` and is read from `here`.
    pub fn new(work: Work, here: Source, dataset: DatasetName, target: Arc<dyn TreeTarget>) -> Self {
        let tree = HomeTree { dataset, migration: work.migration.clone() };
        let home = work.source.home.clone();
        Self { work, here, target, home, tree, got_on: AtomicU64::new(0) }
    }

    /// The dataset.
    pub fn dataset(&self) -> &DatasetName {
        &self.tree.dataset
    }

    /// Rises with what goes home.
    pub fn got_on(&self) -> u64 {
        self.got_on.load(Ordering::Relaxed)
    }

    /// Makes the source ready, if anything has to go home: what keeps it from taking files is found before anything is taken back.
    pub async fn begin(&self) -> Result<()> {
        let mut walk = self.walk().await?;
        while let Some(decision) = self.next(&mut walk).await? {
            if !matches!(decision, Decision::Clash(_) | Decision::Own(_)) {
                return self.home.begin(&self.tree).await;
            }
        }
        Ok(())
    }

    /// Brings home what was written at the target since it took over. Nobody writes to the tree at either host. Idempotent: what is home is not
    /// brought again.
    pub async fn bring(&self) -> Result<Brought> {
        let mut trip = Trip::new(self);
        let mut walk = self.walk().await?;
        loop {
            let mut window = Vec::new();
            while window.len() < WINDOW {
                let Some(decision) = self.next(&mut walk).await? else { break };
                window.push(decision);
            }
            let is_last = window.len() < WINDOW;
            trip.carry(window).await?;
            self.work.desk.checkpoint()?;
            if is_last {
                return trip.finish().await;
            }
        }
    }

    /// What was brought stays.
    pub async fn keep(&self) -> Result<()> {
        self.home.keep(&self.tree).await
    }

    /// What was brought is given up: the source's tree is what it was.
    pub async fn undo(&self) -> Result<()> {
        self.home.undo(&self.tree).await
    }

    async fn walk(&self) -> Result<Walk> {
        let held = self.work.holdings.index(&self.work.migration, &self.tree.dataset);
        let there = self.work.source.trees.scan(&self.tree.dataset).await?;
        Ok(Walk::new(self.target.scan(), held, there))
    }

    async fn next(&self, walk: &mut Walk) -> Result<Option<Decision>> {
        while let Some(place) = walk.next().await? {
            let touched = place.here.as_ref().map(|here| walk.touched(here, place.held.as_ref()));
            let touched = self.look_closer(touched.unwrap_or(Touched::Contents), &place).await?;
            if let Some(decision) = walk.decide(place, touched) {
                return Ok(Some(decision));
            }
        }
        Ok(None)
    }

    /// Where only times and the like tell that contents differ, they are looked at: whoever puts a file back as it was has changed nothing.
    async fn look_closer(&self, touched: Touched, place: &Place) -> Result<Touched> {
        let (Touched::Contents, Some(here), Some(held)) = (touched, &place.here, &place.held) else {
            return Ok(touched);
        };
        if here.size().is_none() || here.size() != held.source.size() {
            return Ok(touched);
        }
        if !self.target.reread(held, &self.blocks(held).await?).await? {
            return Ok(Touched::Contents);
        }
        let meta = Meta { mtime: held.source.meta.mtime, ..here.meta.clone() };
        let at_that_time = Entry { meta, ..here.clone() };
        Ok(if at_that_time.is_like(&held.source) { Touched::Not } else { Touched::Properties })
    }

    async fn blocks(&self, held: &IndexEntry) -> Result<Vec<Block>> {
        self.work.holdings.blocks(&self.work.migration, &self.tree.dataset, &held.source.path).await
    }
}

/// A directory that goes, once all that is in it has.
struct Going {
    path: RelPath,
    /// Something in it stays.
    stays: bool,
}

/// One attempt.
struct Trip<'a> {
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
    fn new(of: &'a Homecoming) -> Self {
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
    async fn carry(&mut self, decisions: Vec<Decision>) -> Result<()> {
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
        self.count_others(ops.len());
        self.of.home.change(&self.of.tree, ops).await
    }

    fn count_others(&mut self, others: usize) {
        self.brought.others += others as u64;
        self.of.got_on.fetch_add(others as u64, Ordering::Relaxed);
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
            self.of.home.stage(&self.of.tree, pack).await?;
            self.land(landing).await?;
        }
        for path in unfit {
            self.large(path).await?;
        }
        Ok(())
    }

    async fn land(&mut self, files: Vec<Entry>) -> Result<()> {
        let (count, bytes) = (files.len() as u64, files.iter().filter_map(Entry::size).sum::<u64>());
        self.of.home.land(&self.of.tree, files).await?;
        self.brought.files += count;
        self.brought.bytes += bytes;
        self.of.got_on.fetch_add(count, Ordering::Relaxed);
        self.of.work.desk.checkpoint()
    }

    async fn large(&mut self, path: RelPath) -> Result<()> {
        self.begin().await?;
        for _ in 0..TRIES {
            match self.read(&path).await? {
                SegmentEnd::Whole(entry) => return self.land(vec![entry]).await,
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
                self.of.home.write(&self.of.tree, segment).await?;
                self.of.got_on.fetch_add(1, Ordering::Relaxed);
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
    async fn finish(mut self) -> Result<Brought> {
        let (mut ops, mut kept) = (Vec::new(), Vec::new());
        for Going { path, stays } in std::mem::take(&mut self.going).into_iter().rev() {
            if stays {
                kept.push(path);
            } else {
                ops.push(TreeOp::Remove(path));
            }
        }
        self.change_all(ops).await?;
        let (stay, after): (Vec<Decision>, Vec<Decision>) =
            std::mem::take(&mut self.after).into_iter().partition(|one| kept.contains(path_of(one)));
        for path in stay.into_iter().map(|one| path_of(&one).clone()) {
            self.brought.leave(path, CLASH);
        }
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
        Decision::Remove(path) | Decision::Clash(path) | Decision::Own(path) => path,
    }
}
