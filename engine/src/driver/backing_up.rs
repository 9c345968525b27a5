//! Backups that a plan has: each host makes its own, and is asked how far it is.

use std::time::Duration;

use tokio::time::timeout;

use super::Driver;
use super::task::Runner;
use crate::backup::{Host, Made, Occasion};
use crate::failure::Failure;
use crate::journal::{Event, Record};
use crate::name::MigrationId;
use crate::pass::{self, Message, Work};
use crate::plan::{Plan, StepKind};
use crate::ports::Result;
use crate::ports::backups::{Order, Standing};
use crate::progress::{Amount, StepProgress, StepState};

/// How often a host is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// A host that does not end its backup within this time is not waited for.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// The backup that a host makes for a migration.
fn order(migration: &MigrationId, plan: &Plan, occasion: Occasion) -> Order {
    Order::Make {
        id: occasion.id_of(migration),
        occasion,
        migration: Some(migration.clone()),
        datasets: plan.datasets().cloned().collect(),
    }
}

impl Runner {
    /// Before anything else is done, in the first pass.
    pub(super) async fn back_up_first(&self) -> Result<()> {
        if self.work.pass > 1 {
            return Ok(());
        }
        self.stage(|kind| matches!(kind, StepKind::BackUp(_))).await
    }

    /// When the target is accepted: it first, and the source once that is left for good. There is no way back then: a source that is gone,
    /// or cannot be backed up, is told.
    pub(super) async fn back_up_again(&self, host: Host) -> Result<()> {
        let done = self.stage(|kind| *kind == StepKind::BackUpAgain(host)).await;
        let Err(failure) = done else { return Ok(()) };
        self.work.desk.checkpoint()?;
        if host == Host::Target {
            return Err(failure);
        }
        let text = format!("the source was not backed up again: {failure}");
        self.note("backup", text).await
    }

    /// Has a host make its backup, and waits for it. One that is whole is not made again.
    pub(super) async fn back_up(
        &self,
        host: Host,
        occasion: Occasion,
        step: &str,
        work: &Work,
    ) -> Result<()> {
        let backups = match host {
            Host::Source => &self.work.source.backups,
            Host::Target => &self.here.backups,
        };
        let order = order(&self.work.migration, &self.plan, occasion);
        backups.begin(&order).await?;
        loop {
            match backups.standing(&order).await? {
                Standing::Made { backup } => {
                    work.desk.send(Message::BackedUp(Made::of(host, &backup))).await?;
                    return Ok(());
                }
                Standing::Running { bytes } => {
                    let amount = Amount { bytes, ..Amount::default() };
                    work.desk.send(Message::Reached { step: step.to_owned(), amount }).await?;
                }
                Standing::Failed { failure } => return Err(failure),
                Standing::Unknown | Standing::Verified { .. } | Standing::Restored { .. } => {
                    return Err(Failure::transient(host.as_str(), "its agent has forgotten the backup"));
                }
            }
            tokio::select! {
                biased;
                () = work.desk.stopping() => return Err(pass::stopped()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

impl Driver {
    /// Ends the backups that the task at hand was making, which whoever pauses or aborts has no use for. A host that does not answer is noted.
    pub(super) async fn end_backups(&mut self) -> Result<()> {
        let mut noted = Vec::new();
        for step in self.migration.plan.steps.clone() {
            let (host, occasion) = match step.step {
                StepKind::BackUp(host) => (host, Occasion::Start),
                StepKind::BackUpAgain(host) => (host, Occasion::Accept),
                _ => continue,
            };
            let is_running = |step: &mut StepProgress| step.state == StepState::Running;
            if !self.meter.step(&step.step.id()).is_some_and(is_running) {
                continue;
            }
            let backups = match host {
                Host::Source => &self.ports.source.backups,
                Host::Target => &self.ports.here.backups,
            };
            let order = order(&self.migration.id, &self.migration.plan, occasion);
            let ended = timeout(ENDS_WITHIN, backups.cancel(&order)).await;
            let late = |_| Err(Failure::transient(host.as_str(), "it has not ended it in time"));
            if let Err(failure) = ended.unwrap_or_else(late) {
                let text = format!("the {host} may still make its backup: {failure}");
                noted.push(Record::Event(Event::Note { item: "backup".to_owned(), text }));
            }
        }
        if noted.is_empty() { Ok(()) } else { self.commit(&noted).await }
    }
}
