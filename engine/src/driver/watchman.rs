//! Looks, while a task is worked on, at what may run out, and stops it before that does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::task::Runner;
use crate::failure::Failure;
use crate::follow::capture_id;
use crate::name::DatasetName;
use crate::pass::{Message, TargetDataset, Work};
use crate::ports::{Direction, Followed, Result, Spool, Spools};
use crate::reserve::{Reserve, Room, Waiting};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);
/// An answer of the source that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who looks.
pub(super) struct Watchman {
    work: Work,
    spools: Arc<dyn Spools>,
    followed: Vec<(DatasetName, Arc<dyn Spool>)>,
    reserve: Reserve,
}

impl Watchman {
    /// One for a runner's task.
    pub async fn of(runner: &Runner) -> Result<Self> {
        let mut followed = Vec::new();
        if runner.plan.options.follow && !runner.fits() {
            for (dataset, target) in runner.chosen() {
                if let TargetDataset::Database(_) = target {
                    let spool =
                        runner.spools.spool(&runner.work.migration, &dataset, Direction::Forth).await?;
                    followed.push((dataset, spool));
                }
            }
        }
        let (work, spools) = (runner.work.clone(), runner.spools.clone());
        Ok(Self { work, spools, followed, reserve: runner.reserve })
    }

    /// Looks until something is about to run out; what.
    pub async fn look(&self) -> Failure {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let room = match self.room().await {
                Ok(room) => room,
                Err(failure) => return failure,
            };
            let short = room.short(self.reserve, !self.followed.is_empty());
            if let Err(stopped) = self.work.desk.send(Message::Room(room)).await {
                return stopped;
            }
            if let Some(failure) = short {
                return failure;
            }
        }
    }

    async fn room(&self) -> Result<Room> {
        let mut room = Room { target: self.spools.disks().await, ..Room::default() };
        let mut asked = Vec::new();
        for (dataset, spool) in &self.followed {
            let backlog = spool.backlog();
            let waiting = Waiting { changes: backlog.changes, bytes: backlog.bytes, limit: spool.limit() };
            room.waiting.insert(dataset.clone(), waiting);
            if let Some(after) = spool.position().await? {
                let capture = capture_id(&self.work.migration, dataset, Direction::Forth)?;
                asked.push(Followed { dataset: dataset.clone(), capture, after, known_at: backlog.known_at });
            }
        }
        // A source that cannot be reached is the work's to wait for.
        match timeout(PATIENCE, self.work.source.host.room(asked)).await {
            Ok(Ok((disks, logs))) => (room.source, room.logs) = (disks, logs),
            Ok(Err(failure)) => tracing::debug!(%failure, "what the source keeps is not known"),
            Err(_) => tracing::debug!("what the source keeps was not told in time"),
        }
        Ok(room)
    }
}
