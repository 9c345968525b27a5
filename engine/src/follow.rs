//! Following: a copy is kept up to date with a database that is in use.
//!
//! The source tells which keys change; they go into the target's spool, durable and in order, and only then does the source let
//! go of its log. From there they are taken a window at a time: each key of it once, its row read again from the source as it is
//! by then, and put in place. Then the window is forgotten. So, at any moment and after any crash, for every key of a
//! followed table, either the target's row is the source's as it was read after the last change that was told of it, or
//! the key waits in the spool or in the source's log. (docs/following.md has the argument.)

mod back;
mod carry;
mod course;
mod tree;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::back::BehindFence;
use self::course::Course;
use crate::change::{Change, Changes, LogPosition};
use crate::failure::Failure;
use crate::name::{CaptureId, DatasetName, MigrationId};
use crate::pass::database::refuse_altered;
use crate::pass::{Message, Work};
use crate::ports::{ChangesRequest, Direction, Fence, KeyedTarget, Parts, Result, Spool};
use crate::rows::{Key, TableName};

pub use tree::{TreeFigures, TreeFollower};

/// How long the source waits for changes before it answers that there are none.
const WAIT: Duration = Duration::from_millis(250);
/// Changes that are taken from the spool at once. Of a row that changes again and again, all of a window's cost one reading.
const WINDOW: usize = 250_000;
/// The source is told at most so often what it may forget: each time may be a write to its database.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// How often an empty spool is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often the figures are renewed.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// How following gets on, for watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Changes that wait in the spool.
    pub waiting: u64,
    /// The spool's bytes on disk.
    pub spool_bytes: u64,
    /// Rows that were read again and put in place, since the agent was started.
    pub applied: u64,
    /// How far the copy is behind what is known of the source, in milliseconds.
    pub lag_ms: u64,
    /// All that was committed at the source when following began is known: before that the copy may be further behind. Earlier releases did
    /// not tell.
    #[serde(default = "yes")]
    pub known: bool,
}

fn yes() -> bool {
    true
}

/// Names what is kept of a database's changes for a migration. Stable, so that a restarted target finds it again.
pub fn capture_id(migration: &MigrationId, dataset: &DatasetName, direction: Direction) -> Result<CaptureId> {
    let back = if direction == Direction::Back { "/back" } else { "" };
    let digest = crate::digest::Digest::of(format!("{migration}/{dataset}{back}").as_bytes());
    format!("c{}", digest.short())
        .parse()
        .map_err(|e| Failure::permanent("capture", "cannot be named").because(e))
}

/// Follows one database.
pub struct Follower {
    work: Work,
    dataset: DatasetName,
    direction: Direction,
    capture: CaptureId,
    target: Arc<dyn KeyedTarget>,
    spool: Arc<dyn Spool>,
    applied: AtomicU64,
    got_on: AtomicU64,
    course: Course,
}

impl Follower {
    /// A follower of `dataset`, as the source of `work` has it, whose changes wait in `spool` until they are carried to `target`.
    pub fn new(
        work: Work,
        dataset: DatasetName,
        direction: Direction,
        target: Arc<dyn KeyedTarget>,
        spool: Arc<dyn Spool>,
    ) -> Result<Self> {
        let capture = capture_id(&work.migration, &dataset, direction)?;
        Ok(Self {
            work,
            dataset,
            direction,
            capture,
            target,
            spool,
            applied: 0.into(),
            got_on: 0.into(),
            course: Course::default(),
        })
    }

    /// Has the source keep its changes from now on. Idempotent.
    pub async fn begin(&self) -> Result<()> {
        if self.spool.position().await?.is_none() {
            let position = self.work.source.changes.begin(&self.dataset, &self.capture).await?;
            self.spool.begin(&position).await?;
        }
        Ok(())
    }

    /// Starts where changes are kept from, as long as it has not started yet. Idempotent.
    pub async fn begin_at(&self, position: &LogPosition) -> Result<()> {
        match self.spool.position().await? {
            None => self.spool.begin(position).await,
            Some(_) => Ok(()),
        }
    }

    /// The database.
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// What is kept of its changes.
    pub fn capture(&self) -> &CaptureId {
        &self.capture
    }

    /// The fence that this follower puts up.
    pub fn own_fence(&self) -> Fence {
        Fence { dataset: self.dataset.clone(), capture: self.capture.clone() }
    }

    /// Takes the source's changes into the spool until the work is stopped. While a copy is made nothing more is done with them.
    pub async fn gather(&self) -> Result<()> {
        let mut confirmed = Instant::now();
        loop {
            self.work.desk.checkpoint()?;
            self.part(WAIT, &mut confirmed).await?;
        }
    }

    async fn part(&self, wait: Duration, confirmed: &mut Instant) -> Result<Changes> {
        let after = self.spool.position().await?.ok_or_else(|| self.not_kept())?;
        let changes = &self.work.source.changes;
        let request = ChangesRequest {
            dataset: self.dataset.clone(),
            capture: self.capture.clone(),
            after: after.clone(),
            wait,
        };
        let number = self.course.asks();
        let part = changes.changes(request).await?;
        {
            let _one = self.course.appending.lock().await;
            self.spool.append(&part).await?;
        }
        if part.is_end {
            self.course.is_told(number);
        }
        self.got_on.fetch_add(1, Ordering::Relaxed);
        if part.until != after && confirmed.elapsed() > CONFIRM_EVERY {
            changes.confirm(&self.dataset, &self.capture, &part.until).await?;
            *confirmed = Instant::now();
        }
        Ok(part)
    }

    /// Keeps the copy up to date until the work is stopped.
    pub async fn follow(&self) -> Result<()> {
        self.target.resume_flushing().await?;
        tokio::try_join!(self.gather(), self.carry_on(), self.show()).map(drop)
    }

    async fn carry_on(&self) -> Result<()> {
        loop {
            self.work.desk.checkpoint()?;
            if !self.carry_window().await? {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Carries out everything that was committed at the source before the call.
    pub async fn catch_up(&self) -> Result<()> {
        let mut confirmed = Instant::now();
        while !self.part(Duration::ZERO, &mut confirmed).await?.is_end {
            self.carry_window().await?;
        }
        while self.carry_window().await? {}
        Ok(())
    }

    /// Leaves the target little to do at its end, behind the fence; false where it never has.
    pub async fn flush(&self) -> Result<bool> {
        self.target.flush().await
    }

    /// A failure where rows have changed since everything was carried over behind the fence: triggers do not stop everybody. What came waits
    /// in the spool, also when this is asked again, and is carried out when following goes on.
    pub async fn at_rest(&self) -> Result<()> {
        let (mut confirmed, mut table) = (Instant::now(), None);
        loop {
            let part = self.part(Duration::ZERO, &mut confirmed).await?;
            let changed = part.changes.first().and_then(|change| part.tables.get(change.table() as usize));
            table = table.or_else(|| changed.cloned());
            if part.is_end {
                break;
            }
        }
        if self.spool.backlog().changes == 0 {
            return Ok(());
        }
        let table = table.map(|table| format!(", table {table}")).unwrap_or_default();
        let item = format!("dataset {}{table}", self.dataset);
        Err(Failure::operator(item, "its rows have changed behind the fence").hint(
            "stop what passes it, then try again: a server that applies what a primary or a subscription sends, or an administrator's TRUNCATE",
        ))
    }

    /// Waits until everything that was committed at the source before the call is carried out, by whoever follows meanwhile.
    async fn caught_up(&self) {
        self.course.caught_up(&*self.spool).await;
    }

    /// Has the rows of these keys read and put in place again, as if they had changed. Durable when it returns.
    async fn again(&self, table: &TableName, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let _one = self.course.appending.lock().await;
        let until = self.spool.position().await?.ok_or_else(|| self.not_kept())?;
        let changes = keys.into_iter().map(|key| Change::Row { table: 0, key }).collect();
        let (tables, at) = (vec![table.clone()], self.spool.backlog().known_at);
        self.spool.append(&Changes { tables, changes, until, at, is_end: false }).await
    }

    fn not_kept(&self) -> Failure {
        Failure::permanent(self.dataset.to_string(), "its changes are not kept")
            .begin_anew("abort, and plan again")
    }

    /// Opens a snapshot of the source and lets it go, to learn how long that takes. Refused where its schema has changed since it was
    /// copied: following does not notice each such change.
    pub async fn try_open(&self) -> Result<()> {
        let digest = crate::digest::Digest::of(format!("{} tried", self.capture).as_bytes());
        let lease = format!("l-{}", digest.short())
            .parse()
            .map_err(|e| Failure::permanent("lease", "cannot be named").because(e))?;
        let opened = self.work.source.host.open(&lease, &self.dataset, Parts::Whole).await?;
        self.work.source.host.close(&lease).await?;
        refuse_altered(&self.work, &self.dataset, &opened.schema).await.map(drop)
    }

    /// Carries out the oldest changes; false when none wait.
    async fn carry_window(&self) -> Result<bool> {
        let Some(window) = self.spool.oldest(WINDOW).await? else { return Ok(false) };
        let end = window.end;
        let rows = carry::carry(&self.work, &self.dataset, &*self.target, window, &self.course).await?;
        self.spool.done(end).await?;
        self.course.is_done(end);
        self.applied.fetch_add(rows, Ordering::Relaxed);
        self.got_on.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Rises with everything that is put in place: what is taken meanwhile only waits.
    pub fn carried(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// Rises with everything that is taken or carried out.
    pub fn got_on(&self) -> u64 {
        self.got_on.load(Ordering::Relaxed)
    }

    /// How it gets on.
    pub fn figures(&self) -> Figures {
        let backlog = self.spool.backlog();
        let lag = backlog.known_at.millis() - backlog.oldest_at.millis();
        Figures {
            waiting: backlog.changes,
            spool_bytes: backlog.bytes,
            applied: self.applied.load(Ordering::Relaxed),
            lag_ms: u64::try_from(lag).unwrap_or(0),
            known: self.course.is_known(),
        }
    }

    async fn show(&self) -> Result<()> {
        loop {
            self.work.desk.checkpoint()?;
            let message = Message::Following(self.dataset.clone(), self.figures());
            self.work.desk.send(message).await?;
            tokio::time::sleep(SHOW_EVERY).await;
        }
    }

    /// Fails where the source's writers could not be fenced off now.
    pub async fn may_fence(&self) -> Result<()> {
        self.work.source.changes.may_fence(&self.dataset).await
    }

    /// Fences the source's writers off; waits for those that are at work up to `wait`. Idempotent.
    pub async fn fence(&self, wait: Duration) -> Result<()> {
        self.work.source.changes.fence(&self.dataset, &self.capture, wait).await
    }

    /// Lets the source's writers back in. Idempotent.
    pub async fn unfence(&self) -> Result<()> {
        self.work.source.changes.unfence(&self.dataset, &self.capture).await
    }

    /// Forgets what waits here. Idempotent.
    pub async fn forget(&self) -> Result<()> {
        self.spool.remove().await
    }

    /// Ends following: nothing is kept at the source any more, nothing waits here. Idempotent.
    pub async fn end(&self, keep_fence: bool) -> Result<()> {
        self.work.source.changes.end(&self.dataset, &self.capture, keep_fence).await?;
        self.spool.remove().await
    }
}
