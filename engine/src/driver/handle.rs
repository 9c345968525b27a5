//! The way to a running driver: what is asked of it, what is seen of it.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::task;
use crate::failure::Failure;
use crate::journal::Migration;
use crate::name::MigrationId;
use crate::phase::{Operation, State};
use crate::ports::Result;
use crate::progress::{Meter, Progress};

/// What watchers see of a migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The migration.
    pub migration: MigrationId,
    /// Its state.
    pub state: State,
    /// What may be asked of it now.
    pub allowed: Vec<Operation>,
    /// Progress of the task at hand.
    pub progress: Progress,
    /// The last event.
    pub last_event: u64,
}

/// An operator's request.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub operation: Operation,
    /// Who asks: the SPIFFE id.
    pub by: String,
    /// Answered when the new state is journaled, or refused.
    pub answer: oneshot::Sender<Result<State>>,
}

/// The way to a running driver.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<Status>,
}

impl Handle {
    /// Asks for an operation; returns once it is journaled.
    pub async fn ask(&self, operation: Operation, by: &str) -> Result<State> {
        let (answer, wait) = oneshot::channel();
        let command = Command { operation, by: by.to_owned(), answer };
        let gone = |()| Failure::transient("migration", "the agent is stopping");
        self.commands.send(command).await.map_err(|_| gone(()))?;
        wait.await.map_err(|_| gone(()))?
    }

    /// What watchers see; changes as the migration gets on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

/// The status of a migration that nobody drives: one that has ended.
pub fn at_rest(migration: Migration, last_event: u64) -> Status {
    Status {
        migration: migration.id.clone(),
        allowed: migration.state.allowed(),
        progress: Meter::new(task::steps(&migration), migration.shown).read(),
        state: migration.state,
        last_event,
    }
}
