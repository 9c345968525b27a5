//! The way to a running driver.

use tokio::sync::{mpsc, oneshot, watch};

use super::command::Command;
use super::status::Status;
use super::throttling;
use crate::failure::Failure;
use crate::phase::{Operation, State};
use crate::ports::Result;
use crate::report::Terms;

/// The way to a running driver.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) throttles: mpsc::Sender<throttling::Ask>,
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
