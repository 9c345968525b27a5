//! The work of a migration: passes over its datasets, and what carries their results to the driver.

pub mod database;
pub mod merge;
pub mod tree;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::backup::{Host, Made};
use crate::failure::Failure;
use crate::follow::{Figures, TreeFigures};
use crate::journal::{Holdings, Record};
use crate::kept::Kept;
use crate::name::{DatasetName, MigrationId};
use crate::ports::{DatabaseTarget, Keeper, Result, Source, TreeTarget};
use crate::progress::Amount;
use crate::rehearsal::fitted::Fitted;
use crate::report::{Change, Checked, Cutover, Difference, Verified};
use crate::reserve::Room;
use crate::throttle::gate::Gate;
use crate::time::Timestamp;

/// What workers tell the driver. The driver journals, counts and shows it, in the order in which it comes.
#[derive(Debug)]
pub enum Message {
    /// To be journaled.
    Records(Vec<Record>),
    /// A chunk was applied: how many bytes it carried, and whether the journal held its contents before.
    Applied {
        /// Bytes that arrived.
        bytes: u64,
        /// The journal held them.
        resent: bool,
    },
    /// A step got on.
    Progress {
        /// Its id.
        step: String,
        /// By how much.
        amount: Amount,
    },
    /// A step is so far at least. One that is begun anew goes back by nothing.
    Reached {
        /// Its id.
        step: String,
        /// How far.
        amount: Amount,
    },
    /// A step turned out larger than planned, or its real size became known.
    Total {
        /// Its id.
        step: String,
        /// Rows, files and bytes to do in all.
        amount: Amount,
    },
    /// Something the operator should know.
    Note {
        /// The item it is about.
        item: String,
        /// What.
        text: String,
    },
    /// A dataset is copied from its beginning, perhaps not for the first time in this pass.
    CopyBegins(DatasetName),
    /// An item could not be copied in this pass.
    LeftOut(Difference),
    /// A dataset was verified in a pass, with the first of the differences that were found.
    Verified(DatasetName, u32, Verified, Vec<Difference>),
    /// How following a database gets on.
    Following(DatasetName, Figures),
    /// What may run out.
    Room(Room),
    /// How far the verification of a database that is followed has got.
    Checked(DatasetName, Checked),
    /// What was just found to differ in a tree is put right.
    RepairBegins(DatasetName),
    /// The verification of what is followed ends before its end, and why.
    VerifyingEnds(String),
    /// How following a tree gets on.
    FollowingTree(DatasetName, TreeFigures),
    /// A host has made a backup.
    BackedUp(Made),
    /// What an abort has kept of a dataset's migrated data.
    Kept {
        /// The dataset.
        dataset: DatasetName,
        /// What, and where.
        kept: Kept,
        /// What the operator is told.
        text: String,
    },
    /// A database was brought into the target's schema.
    Fitted(DatasetName, Box<Fitted>),
    /// How the cut-over gets on.
    Cutover(Cutover),
    /// A step has changed something beside the data.
    Changed(Vec<Change>),
    /// That was taken back.
    Undone {
        /// The steps' ids.
        steps: Vec<String>,
        /// At which host; at both where none is named.
        host: Option<Host>,
        /// When.
        at: Timestamp,
    },
    /// Answers once everything sent before it is journaled.
    Flush(oneshot::Sender<()>),
}

/// The workers' way to the driver.
#[derive(Clone)]
pub struct Desk {
    to: mpsc::Sender<Message>,
    stop: CancellationToken,
    recorded: Arc<AtomicU64>,
}

impl Desk {
    /// A desk whose messages go to `to`; `stop` asks the workers to finish the chunk at hand and end.
    pub fn new(to: mpsc::Sender<Message>, stop: CancellationToken) -> Self {
        Self { to, stop, recorded: Arc::default() }
    }

    /// The same desk, with a count of its own of what is recorded over it.
    pub fn counting(&self) -> Self {
        Self { recorded: Arc::default(), ..self.clone() }
    }

    /// The same desk, for workers that can also be asked to end by themselves.
    pub fn child(&self) -> (Self, CancellationToken) {
        let stop = self.stop.child_token();
        (Self { stop: stop.clone(), ..self.counting() }, stop)
    }

    /// How many times something was recorded over this desk.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Sends a message. The driver outlives its workers; if it is gone all the same, the work ends.
    pub async fn send(&self, message: Message) -> Result<()> {
        self.to.send(message).await.map_err(|_| stopped())
    }

    /// Sends records to be journaled.
    pub async fn record(&self, records: Vec<Record>) -> Result<()> {
        self.recorded.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Records(records)).await
    }

    /// Waits until everything sent before is journaled.
    pub async fn flush(&self) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(Message::Flush(done)).await?;
        wait.await.map_err(|_| stopped())
    }

    /// Ends the work between two chunks when that was asked for.
    pub fn checkpoint(&self) -> Result<()> {
        if self.stop.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    /// Asks the workers to finish the chunk at hand and end.
    pub fn end(&self) {
        self.stop.cancel();
    }

    /// Completes when the workers are asked to end.
    pub fn stopping(&self) -> impl Future<Output = ()> + '_ {
        self.stop.cancelled()
    }
}

/// How a worker ends when it was asked to: no failure of anything.
pub fn stopped() -> Failure {
    Failure::transient("migration", "stopped on request")
}

/// Where a dataset lands.
#[derive(Clone)]
pub enum TargetDataset {
    /// A database.
    Database(Arc<dyn DatabaseTarget>),
    /// A file tree.
    Tree(Arc<dyn TreeTarget>),
}

impl TargetDataset {
    /// What keeps its migrated data when the migration is aborted.
    pub fn keeper(&self) -> &dyn Keeper {
        match self {
            TargetDataset::Database(database) => &**database,
            TargetDataset::Tree(tree) => &**tree,
        }
    }
}

/// What every worker needs.
#[derive(Clone)]
pub struct Work {
    /// The migration.
    pub migration: MigrationId,
    /// Number of the pass.
    pub pass: u32,
    /// The source.
    pub source: Source,
    /// What the journal holds.
    pub holdings: Arc<dyn Holdings>,
    /// The way to the driver.
    pub desk: Desk,
    /// How many streams may run side by side, over all datasets.
    pub lanes: Arc<Semaphore>,
    /// The wall clock.
    pub clock: Arc<dyn crate::time::Clock>,
    /// Every read of the source passes it.
    pub throttle: Gate,
}
