//! Backups that a plan has: each host makes its own, and is asked how far it is.

use std::time::Duration;

use super::task::Runner;
use crate::backup::{Host, Made, Occasion};
use crate::failure::Failure;
use crate::pass::{self, Message, Work};
use crate::plan::StepKind;
use crate::ports::Result;
use crate::ports::backups::{Order, Standing};
use crate::progress::Amount;

/// How often a host is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

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
        self.work.desk.send(Message::Note { item: "backup".to_owned(), text }).await
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
        let id = occasion.id_of(&self.work.migration);
        let migration = Some(self.work.migration.clone());
        let datasets = self.plan.datasets().cloned().collect();
        let order = Order::Make { id, occasion, migration, datasets };
        backups.begin(&order).await?;
        let mut seen = 0;
        loop {
            match backups.standing(&order).await? {
                Standing::Made { backup } => {
                    work.desk.send(Message::BackedUp(Made::of(host, &backup))).await?;
                    return Ok(());
                }
                Standing::Running { bytes } => {
                    let amount = Amount { bytes: bytes.saturating_sub(seen), ..Amount::default() };
                    seen = seen.max(bytes);
                    work.desk.send(Message::Progress { step: step.to_owned(), amount }).await?;
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
