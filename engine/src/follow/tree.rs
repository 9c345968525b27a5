//! Following a file tree: passes over what the source says has changed, or over all of it where it cannot say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::name::DatasetName;
use crate::pass::tree::{self, Delta};
use crate::pass::{Message, Work};
use crate::ports::{Result, TreeTarget};
use crate::tree::{Cursor, Spots};

/// How long the source waits for something to change before it answers that nothing has.
const WAIT: Duration = Duration::from_secs(1);
/// Between two passes over what has changed, at least…
const PAUSE: Duration = Duration::from_millis(500);
/// …and between two over all of a tree whose changes are not told…
const SCAN_PAUSE: Duration = Duration::from_secs(5);
/// …and so many times as long as the last one took.
const SHARE: u32 = 4;
/// All of a tree is passed over so often, and not before this many times as long as that takes: changes through memory mappings are not told.
const COMPLETE_EVERY: Duration = Duration::from_secs(300);
const COMPLETE_SHARE: u32 = 20;
/// After a pass that has brought so much the next one begins at once.
const LARGE_FILES: u64 = 256;
const LARGE_BYTES: u64 = 4 << 20;
/// How often the figures are renewed.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// How following a tree gets on, for watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TreeFigures {
    /// Places that have changed and are being passed over.
    pub pending: u64,
    /// Files that the last pass has brought.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How far the copy is behind what is known of the source, in milliseconds.
    pub lag_ms: u64,
    /// For how long no pass has gone over all of the tree, in milliseconds; none has since the agent began to follow when absent.
    pub complete_ms: Option<u64>,
    /// The source tells what changes; otherwise each pass goes over all of the tree.
    pub told: bool,
}

/// What is known of a tree.
#[derive(Default)]
struct Known {
    figures: TreeFigures,
    /// What the source has told has been passed over up to here.
    cursor: Option<Cursor>,
    /// When the last pass over all of it began, and how long it took.
    complete: Option<(Instant, Duration)>,
    /// The copy was as the source at this moment.
    as_of: Option<Instant>,
    /// It was noted that nothing is told.
    noted: bool,
}

/// Follows one tree.
pub struct TreeFollower {
    work: Work,
    dataset: DatasetName,
    target: Arc<dyn TreeTarget>,
    began: Instant,
    known: Mutex<Known>,
}

impl TreeFollower {
    /// A follower of `dataset`.
    pub fn new(work: Work, dataset: DatasetName, target: Arc<dyn TreeTarget>) -> Self {
        Self { work, dataset, target, began: Instant::now(), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks what has changed, and passes over it; how long to wait before the next round. What a failed round was told is told again.
    pub async fn round(&self) -> Result<Duration> {
        let (since, is_due) = {
            let known = self.known();
            (known.cursor.clone(), known.is_due())
        };
        let is_first = since.is_none();
        let wait = if is_due { Duration::ZERO } else { WAIT };
        let changed = self.work.source.trees.changed(&self.dataset, since, wait).await?;
        let asked = Instant::now();
        self.note(&changed.untold).await?;
        let is_sure = changed.spots.is_some();
        let spots = changed.spots.filter(|_| !is_due).map(|spots| spots.with_parents());
        let pause = match spots.filter(|spots| !spots.are_too_many()) {
            Some(spots) if spots.is_empty() => Duration::ZERO,
            Some(spots) => self.pass_at(spots).await?,
            None => {
                let (delta, took) = self.complete().await?;
                match changed.untold.is_empty() {
                    _ if delta.is_large() => Duration::ZERO,
                    true if is_sure || is_first => PAUSE,
                    true => PAUSE.max(took * SHARE),
                    false => SCAN_PAUSE.max(took * SHARE),
                }
            }
        };
        let mut known = self.known();
        (known.cursor, known.as_of, known.figures.pending) = (Some(changed.cursor), Some(asked), 0);
        Ok(pause)
    }

    /// Passes over these places; over all of it when something there has other names.
    async fn pass_at(&self, spots: Spots) -> Result<Duration> {
        let began = Instant::now();
        self.known().figures.pending = spots.len() as u64;
        let (work, dataset) = (self.work.clone(), self.dataset.clone());
        let delta = tree::copy_at(work, dataset, self.target.clone(), spots).await?;
        if delta.is_tangled {
            let (delta, took) = self.complete().await?;
            return Ok(if delta.is_large() { Duration::ZERO } else { PAUSE.max(took * SHARE) });
        }
        let took = began.elapsed();
        self.known().passed(delta, took);
        Ok(if delta.is_large() { Duration::ZERO } else { PAUSE.max(took * SHARE) })
    }

    /// Passes over all of the tree; what it brought, and how long it took.
    pub async fn complete(&self) -> Result<(Delta, Duration)> {
        let began = Instant::now();
        self.work.desk.send(Message::CopyBegins(self.dataset.clone())).await?;
        let delta = tree::copy(self.work.clone(), self.dataset.clone(), self.target.clone()).await?;
        let took = began.elapsed();
        let mut known = self.known();
        known.passed(delta, took);
        (known.complete, known.as_of) = (Some((began, took)), Some(began));
        Ok((delta, took))
    }

    async fn note(&self, untold: &str) -> Result<()> {
        {
            let mut known = self.known();
            known.figures.told = untold.is_empty();
            if untold.is_empty() || std::mem::replace(&mut known.noted, true) {
                return Ok(());
            }
        }
        tracing::info!(dataset = %self.dataset, untold, "changes are not told: the tree is scanned for each pass");
        let text = format!("the tree is scanned for each pass: {untold}");
        self.work.desk.send(Message::Note { item: self.dataset.to_string(), text }).await
    }

    /// How it gets on.
    pub fn figures(&self) -> TreeFigures {
        let known = self.known();
        let lag_ms = known.as_of.unwrap_or(self.began).elapsed().as_millis() as u64;
        let complete_ms = known.complete.map(|(at, _)| at.elapsed().as_millis() as u64);
        TreeFigures { lag_ms, complete_ms, ..known.figures }
    }

    /// Shows the figures until the work is stopped.
    pub async fn show(&self) -> Result<()> {
        loop {
            self.work.desk.checkpoint()?;
            self.work.desk.send(Message::FollowingTree(self.dataset.clone(), self.figures())).await?;
            tokio::time::sleep(SHOW_EVERY).await;
        }
    }
}

impl Known {
    /// All of the tree should be passed over again.
    fn is_due(&self) -> bool {
        let is_old =
            |(at, took): (Instant, Duration)| at.elapsed() > COMPLETE_EVERY.max(took * COMPLETE_SHARE);
        self.complete.is_none_or(is_old)
    }

    fn passed(&mut self, delta: Delta, took: Duration) {
        let figures = &mut self.figures;
        (figures.files, figures.bytes) = (delta.files, delta.bytes);
        figures.took_ms = took.as_millis() as u64;
    }
}

impl Delta {
    /// More may have come together meanwhile: the next pass should begin at once.
    fn is_large(&self) -> bool {
        self.files >= LARGE_FILES || self.bytes >= LARGE_BYTES
    }
}
