//! One tree: what has to go, window by window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};

use super::Landed;
use super::decide::{Decision, Place, Touched, Walk};
use super::trip::{Brought, Trip};
use crate::failure::Failure;
use crate::name::DatasetName;
use crate::pass::Work;
use crate::ports::home::{HomeTree, HomeTrees};
use crate::ports::{Result, Source, TreeTarget};
use crate::tree::{Block, Entry, EntryKind, IndexEntry, Meta};

/// Decisions that are carried out together, about.
const WINDOW: usize = 1024;

/// One tree's way home.
pub struct Homecoming {
    pub(super) work: Work,
    pub(super) here: Source,
    target: Arc<dyn TreeTarget>,
    pub(super) home: Arc<dyn HomeTrees>,
    pub(super) tree: HomeTree,
    pub(super) landed: Landed,
    got_on: AtomicU64,
}

impl Homecoming {
    /// Of a tree that stands at `target` and is read from `here`.
    pub fn new(work: Work, here: Source, dataset: DatasetName, target: Arc<dyn TreeTarget>) -> Self {
        let tree = HomeTree { dataset, migration: work.migration.clone() };
        let home = work.source.home.clone();
        Self { work, here, target, home, tree, landed: Landed::default(), got_on: AtomicU64::new(0) }
    }

    /// The dataset.
    pub fn dataset(&self) -> &DatasetName {
        &self.tree.dataset
    }

    /// Rises with what goes home.
    pub fn got_on(&self) -> u64 {
        self.got_on.load(Ordering::Relaxed)
    }

    pub(super) fn get_on(&self, by: u64) {
        self.got_on.fetch_add(by, Ordering::Relaxed);
    }

    /// Brings home what was written at the target since it took over. Nobody writes to the tree at either host. Idempotent: what is home is not
    /// brought again.
    pub async fn bring(&self) -> Result<Brought> {
        let mut trip = Trip::new(self);
        let mut walk = self.walk().await?;
        loop {
            let (mut window, mut is_last) = (Vec::new(), false);
            while window.len() < WINDOW {
                let Some(decisions) = self.next(&mut walk).await? else {
                    is_last = true;
                    break;
                };
                window.extend(decisions);
            }
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

    async fn walk(&self) -> Result<Walk> {
        self.look_for_the_tree().await?;
        let Work { source, holdings, migration, .. } = &self.work;
        let target = self.target.clone();
        // What this host's manifest leaves out by now is not looked at, and was not removed.
        let admitted = move |held: &IndexEntry| {
            let path = &held.source.path;
            path.is_root() || target.admits(path, held.source.kind == EntryKind::Directory)
        };
        let held = holdings.index(migration, &self.tree.dataset);
        let held = held.map_ok(move |batch: Vec<IndexEntry>| batch.into_iter().filter(&admitted).collect());
        let there = source.trees.scan(&self.tree.dataset).await?;
        let mounts = self.target.mounts().await?;
        Ok(Walk::new(self.target.scan(), held.boxed(), there, mounts, self.landed.clone()))
    }

    /// A tree that is not found where it was would pass for one that users have emptied; one that is seen through other globs, for one in which
    /// something has come.
    async fn look_for_the_tree(&self) -> Result<()> {
        const HINT: &str = "make it as it was (is it mounted? were `root`, `include` or `exclude` changed?), restart the agent, then `handover resume`; or \
                            `handover abort --discard`, which brings no files home";
        if !self.target.is_prepared().await? {
            let what = "nothing of this migration is found at its place: what was written there cannot be brought home";
            return Err(Failure::operator(format!("dataset {}", self.tree.dataset), what).hint(HINT));
        }
        let is_as_it_was = self.target.prepare().await;
        is_as_it_was.map_err(|failure| if failure.is_transient() { failure } else { failure.hint(HINT) })
    }

    async fn next(&self, walk: &mut Walk) -> Result<Option<Vec<Decision>>> {
        let Some(place) = walk.next().await? else { return Ok(None) };
        let touched = place.here.as_ref().map(|here| walk.touched(here, place.held.as_ref()));
        let touched = self.look_closer(touched.unwrap_or(Touched::Contents), &place).await?;
        Ok(Some(walk.decide(place, touched)))
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
