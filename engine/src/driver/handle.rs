//! The way to a running driver: what is asked of it, what is seen of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::task;
use crate::failure::Failure;
use crate::follow::{Figures, TreeFigures};
use crate::journal::Migration;
use crate::kept::Kept;
use crate::name::{DatasetName, MigrationId};
use crate::phase::{Operation, Phase, State};
use crate::ports::Result;
use crate::progress::{Meter, Progress};
use crate::readiness::Readiness;
use crate::report::{Cutover, Planned, Terms};
use crate::reserve::Room;
use crate::throttle::Throttled;

/// What watchers see of a migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The migration.
    pub migration: MigrationId,
    /// Its state.
    pub state: State,
    /// What may be asked of it now. What a later release allows besides is left out where it is read.
    #[serde(deserialize_with = "known")]
    pub allowed: Vec<Operation>,
    /// Progress of the task at hand.
    pub progress: Progress,
    /// The last event.
    pub last_event: u64,
    /// How following gets on, by database.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub following: BTreeMap<DatasetName, Figures>,
    /// How following gets on, by tree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub following_trees: BTreeMap<DatasetName, TreeFigures>,
    /// The cut-over at hand, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// The cut-over that is planned for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Planned>,
    /// How fast the source may be read, and why; none once nobody drives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttled>,
    /// What may run out, as it was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    /// Differences that the last verification found.
    #[serde(default)]
    pub differences: u64,
    /// What an abort has kept of what was migrated, until somebody removes it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<DatasetName, Kept>,
    /// Whether it is ready for what comes next; none when it is over, or being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// Those that this release knows.
fn known<'de, D: Deserializer<'de>>(allowed: D) -> std::result::Result<Vec<Operation>, D::Error> {
    let words = Vec::<String>::deserialize(allowed)?;
    Ok(words.iter().filter_map(|word| Operation::named(word)).collect())
}

/// An operator's request.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub operation: Operation,
    /// What is asked of a cut-over.
    pub terms: Terms,
    /// What a verification finds to differ is put right.
    pub repair: bool,
    /// Who asks: the SPIFFE id.
    pub by: String,
    /// Answered when the new state is journaled, or refused.
    pub answer: oneshot::Sender<Result<State>>,
}

/// The way to a running driver.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) throttles: mpsc::Sender<super::throttling::Ask>,
    pub(super) status: watch::Receiver<Status>,
}

impl Handle {
    /// Asks for an operation; returns once it is journaled.
    pub async fn ask(&self, operation: Operation, terms: Terms, by: &str) -> Result<State> {
        let (answer, wait) = oneshot::channel();
        self.send(Command { operation, terms, repair: false, by: by.to_owned(), answer }, wait).await
    }

    /// Asks for a verification, as [`Self::ask`]; whether what differs is put right.
    pub async fn verify(&self, repair: bool, by: &str) -> Result<State> {
        let (answer, wait) = oneshot::channel();
        let (operation, terms) = (Operation::Verify, Terms::default());
        self.send(Command { operation, terms, repair, by: by.to_owned(), answer }, wait).await
    }

    async fn send(&self, command: Command, wait: oneshot::Receiver<Result<State>>) -> Result<State> {
        let gone = |()| Failure::transient("migration", "the agent is stopping");
        self.commands.send(command).await.map_err(|_| gone(()))?;
        wait.await.map_err(|_| gone(()))?
    }

    /// What watchers see; changes as the migration gets on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

/// What may be asked of a migration now. What an abort has kept can be removed once that is through.
pub(super) fn allowed(migration: &Migration) -> Vec<Operation> {
    let mut allowed = migration.state.allowed();
    if migration.state.phase == Phase::Aborted && !migration.outcome.kept.is_empty() {
        allowed.push(Operation::Terminate);
    }
    allowed
}

/// The status of a migration that nobody drives: one that has ended.
pub fn at_rest(migration: Migration, last_event: u64) -> Status {
    Status {
        migration: migration.id.clone(),
        allowed: allowed(&migration),
        following: BTreeMap::new(),
        following_trees: BTreeMap::new(),
        cutover: migration.outcome.cutover,
        planned: migration.outcome.planned,
        throttle: None,
        room: None,
        differences: migration.outcome.differences_found,
        kept: migration.outcome.kept.clone(),
        readiness: None,
        progress: Meter::new(task::steps(&migration), migration.shown).read(),
        state: migration.state,
        last_event,
    }
}
