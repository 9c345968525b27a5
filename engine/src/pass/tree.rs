//! One pass over a file tree: what differs is fetched, staged out of sight, and lands when it is whole.
//!
//! Four parts run side by side: the walk decides, lanes fetch and stage, the lander makes batches durable and visible,
//! and the driver journals them. What must wait for all contents (further hard links, removals, the properties of
//! directories) comes last.

mod fetch;
mod moved;
mod sort;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use self::fetch::{Fetcher, Job, Ready};
use self::sort::{Late, Window, sort};
use super::merge::{Merge, nothing};
use super::{Message, Work};
use crate::failure::Failure;
use crate::journal::{Landing, Record};
use crate::name::DatasetName;
use crate::plan::StepKind;
use crate::ports::{Result, TreeOp, TreeTarget};
use crate::progress::Amount;
use crate::report::Difference;
use crate::tree::{Entry, EntryKind, IndexEntry, RelPath, Spots, Stamp};

/// Decisions that are carried out together.
const WINDOW: usize = 4096;
/// Files that land together at most.
const BATCH: usize = 4096;

/// What a pass has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta {
    /// Regular files that landed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// A file with other names differs: only a pass over the whole tree puts it right.
    pub is_tangled: bool,
}

/// Makes the target tree equal to the source's.
pub async fn copy(work: Work, dataset: DatasetName, target: Arc<dyn TreeTarget>) -> Result<Delta> {
    pass(work, dataset, target, None).await
}

/// As `copy`, at these places alone. `spots` holds the directories that lead to them.
pub async fn copy_at(
    work: Work,
    dataset: DatasetName,
    target: Arc<dyn TreeTarget>,
    spots: Spots,
) -> Result<Delta> {
    pass(work, dataset, target, Some(spots)).await
}

async fn pass(
    work: Work,
    dataset: DatasetName,
    target: Arc<dyn TreeTarget>,
    spots: Option<Spots>,
) -> Result<Delta> {
    // What an earlier pass has landed or found to be gone is in the index, too.
    work.desk.flush().await?;
    work.throttle.begin(&work.desk).await?;
    target.prepare().await?;
    let partials = work.holdings.partials(&work.migration, &dataset).await?;
    let paths: Vec<RelPath> = partials.iter().map(|p| p.entry.path.clone()).collect();
    target.discard_staged(&paths).await?;
    let step = StepKind::Copy(dataset.clone()).id();
    let partials = partials.into_iter().map(|p| (p.entry.path.clone(), p)).collect();
    let (partials, gone) = (Mutex::new(partials), Mutex::default());
    let (files, bytes, tangled) = (0.into(), 0.into(), false.into());
    let pass = Pass {
        work,
        dataset,
        target,
        step,
        spots,
        partials,
        gone,
        files,
        bytes,
        tangled,
        moved: Default::default(),
    };
    let (jobs, todo) = mpsc::channel(8);
    let (ready, landing) = mpsc::channel(32);
    let (late, (), ()) = tokio::try_join!(pass.walk(jobs), pass.fetch(todo, ready), pass.land(landing))?;
    pass.finish(late).await?;
    Ok(Delta {
        files: pass.files.into_inner(),
        bytes: pass.bytes.into_inner(),
        is_tangled: pass.tangled.into_inner(),
    })
}

struct Pass {
    work: Work,
    dataset: DatasetName,
    target: Arc<dyn TreeTarget>,
    step: String,
    /// Where alone to look.
    spots: Option<Spots>,
    partials: Mutex<HashMap<RelPath, crate::journal::PartialFile>>,
    /// Files that the walk has seen and that had vanished when they were asked for.
    gone: Mutex<BTreeSet<RelPath>>,
    /// What has landed.
    files: AtomicU64,
    bytes: AtomicU64,
    tangled: AtomicBool,
    /// Of logs: what was found under another name.
    moved: moved::Moved,
}

impl Pass {
    async fn walk(&self, jobs: mpsc::Sender<Job>) -> Result<Late> {
        let Work { source, holdings, migration, .. } = &self.work;
        let target = self.target.clone();
        // What this host's manifest excludes is none of this copy's business.
        let admitted = move |entry: &Entry| {
            entry.path.is_root() || target.admits(&entry.path, entry.kind == EntryKind::Directory)
        };
        let (scan, index, here) = match &self.spots {
            None => {
                let scan = source.trees.scan(&self.dataset).await?;
                (scan, holdings.index(migration, &self.dataset), self.target.scan())
            }
            Some(spots) => {
                let scan = source.trees.scan_at(&self.dataset, spots).await?;
                (scan, holdings.index_at(migration, &self.dataset, spots), self.target.scan_at(spots))
            }
        };
        let scan = scan
            .map_ok(move |batch: Vec<Entry>| batch.into_iter().filter(&admitted).collect::<Vec<_>>())
            .boxed();
        let mut merge = Merge::new(scan, index, here);
        let mut late = Late::default();
        let mut total = Amount::default();
        loop {
            let mut window = Window::default();
            let mut decided = 0;
            while decided < WINDOW {
                let Some(decision) = merge.next().await? else { break };
                sort(decision, &mut window, &mut late);
                decided += 1;
            }
            if decided < WINDOW && merge.is_source_empty() {
                // Every tree has a root. Taken for an empty tree, this would remove all that stands here.
                let what = "its scan at the source ended before it began";
                return Err(Failure::transient(self.dataset.to_string(), what));
            }
            if self.spots.is_some() && merge.is_tangled() {
                // What was to be done late is found again by the pass over the whole tree.
                self.tangled.store(true, Ordering::Relaxed);
                return Ok(Late::default());
            }
            total.files += window.found.files;
            total.bytes += window.found.bytes;
            self.find_moved(&mut window.jobs).await?;
            self.carry_out(window, &jobs).await?;
            self.work.desk.checkpoint()?;
            if decided < WINDOW {
                self.work.desk.send(Message::Total { step: self.step.clone(), amount: total }).await?;
                return Ok(late);
            }
        }
    }

    async fn carry_out(&self, window: Window, jobs: &mpsc::Sender<Job>) -> Result<()> {
        if !window.ops.is_empty() {
            self.target.change(&window.ops).await?;
        }
        if !window.made.is_empty() {
            self.work.desk.record(vec![self.landed(window.made)]).await?;
        }
        if !window.forgotten.is_empty() {
            self.record_gone(window.forgotten).await?;
        }
        self.got_on(window.kept).await?;
        for job in window.jobs {
            // The lanes are gone only when one of them failed, and then its failure is the one to report.
            jobs.send(job).await.map_err(|_| super::stopped())?;
        }
        Ok(())
    }

    async fn fetch(&self, todo: mpsc::Receiver<Job>, ready: mpsc::Sender<Vec<Ready>>) -> Result<()> {
        let todo =
            futures::stream::unfold(todo, |mut todo| async { todo.recv().await.map(|job| (job, todo)) });
        let todo = todo.boxed();
        let fetcher = Fetcher { pass: self };
        let fetcher = &fetcher;
        let mut done = todo
            .map(|job| async move {
                let _lane = self.work.lanes.acquire().await.map_err(|_| super::stopped())?;
                self.work.desk.checkpoint()?;
                fetcher.run(job).await
            })
            .buffer_unordered(self.work.lanes.available_permits().max(1));
        while let Some(files) = done.try_next().await? {
            if !files.is_empty() {
                ready.send(files).await.map_err(|_| super::stopped())?;
            }
        }
        Ok(())
    }

    /// Lands whatever is ready; while it does, more becomes ready, so batches grow with the cost of landing.
    async fn land(&self, mut landing: mpsc::Receiver<Vec<Ready>>) -> Result<()> {
        while let Some(mut batch) = landing.recv().await {
            while batch.len() < BATCH {
                let Ok(more) = landing.try_recv() else { break };
                batch.extend(more);
            }
            let entries: Vec<Entry> = batch.iter().map(|ready| ready.entry.clone()).collect();
            let stamps = self.target.land(&entries).await?;
            let amount = Amount {
                rows: 0,
                files: batch.len() as u64,
                bytes: entries.iter().filter_map(Entry::size).sum(),
            };
            let entries = batch.into_iter().zip(stamps).map(|(ready, landed)| {
                let entry =
                    IndexEntry { source: ready.entry, landed, digest: ready.digest, pass: self.work.pass };
                Landing { entry, blocks: ready.blocks, segments: ready.segments }
            });
            let record = Record::Landed { dataset: self.dataset.clone(), entries: entries.collect() };
            self.work.desk.record(vec![record]).await?;
            self.files.fetch_add(amount.files, Ordering::Relaxed);
            self.bytes.fetch_add(amount.bytes, Ordering::Relaxed);
            self.got_on(amount).await?;
        }
        Ok(())
    }

    async fn finish(&self, mut late: Late) -> Result<()> {
        self.leave_out_gone(&mut late).await?;
        let mut ops: Vec<TreeOp> = late.removals.iter().cloned().map(TreeOp::Remove).collect();
        for link in &late.links {
            if let EntryKind::HardLink { to } = &link.kind {
                ops.push(TreeOp::Link { path: link.path.clone(), to: to.clone() });
            }
        }
        ops.extend(late.directories.values().rev().cloned().map(TreeOp::Settle));
        for ops in ops.chunks(WINDOW) {
            self.target.change(ops).await?;
        }
        for removals in late.removals.chunks(WINDOW) {
            self.record_gone(removals.to_vec()).await?;
        }
        let mut landed = late.links.into_iter().chain(late.directories.into_values()).peekable();
        while landed.peek().is_some() {
            let some = landed.by_ref().take(WINDOW).collect();
            self.work.desk.record(vec![self.landed(some)]).await?;
        }
        Ok(())
    }

    /// What has vanished at the source since the walk goes here, too, if anything stands there: else it would be neither
    /// the source's nor what the index says. A further name of such a file has nothing to be linked to; the next walk
    /// finds it as a file.
    async fn leave_out_gone(&self, late: &mut Late) -> Result<()> {
        let gone = self.gone.lock().map(|mut gone| std::mem::take(&mut *gone)).unwrap_or_default();
        let links = std::mem::take(&mut late.links);
        let lost = |link: &Entry| matches!(&link.kind, EntryKind::HardLink { to } if gone.contains(to));
        let (lost, links): (Vec<Entry>, Vec<Entry>) = links.into_iter().partition(lost);
        for link in lost {
            let what = "the file vanished under its first name; sync again".to_owned();
            let item = link.path.to_string();
            self.leave_out(item, what).await?;
            late.removals.push(link.path);
        }
        late.links = links;
        late.removals.extend(gone);
        Ok(())
    }

    /// Tells what could not be copied; not in a pass over some places: what keeps changing is told of again.
    async fn leave_out(&self, item: String, what: String) -> Result<()> {
        if self.spots.is_some() {
            return Ok(());
        }
        let left_out = Difference { dataset: self.dataset.clone(), item, what };
        self.work.desk.send(Message::LeftOut(left_out)).await
    }

    /// The record of entries without contents of their own.
    fn landed(&self, entries: Vec<Entry>) -> Record {
        let entries = entries.into_iter().map(|source| {
            let entry =
                IndexEntry { source, landed: Stamp::default(), digest: nothing(), pass: self.work.pass };
            Landing { entry, blocks: Vec::new(), segments: Vec::new() }
        });
        Record::Landed { dataset: self.dataset.clone(), entries: entries.collect() }
    }

    async fn record_gone(&self, paths: Vec<RelPath>) -> Result<()> {
        self.work.desk.record(vec![Record::Gone { dataset: self.dataset.clone(), paths }]).await
    }

    async fn got_on(&self, amount: Amount) -> Result<()> {
        self.work.desk.send(Message::Progress { step: self.step.clone(), amount }).await
    }
}
