//! A change of settings that a reboot belongs to, with a dead-man timer that undoes it.
//!
//! How far it is lies in a file, beside what is needed to undo it. Agent and watcher are two processes: whoever changes something holds the
//! lock meanwhile, and looks again first. Time is counted within one boot, by a clock that no one sets.

pub mod by_hand;
pub mod clock;
pub mod reboot;
pub(crate) mod record;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::changeover::SwapStanding;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::Swap;

use self::clock::Boot;
use self::reboot::Reboot;
use self::record::{Reboots, Record};
use crate::store::{Here, LocalSettings, failed, restore_locked};

/// How long a watcher may take to begin.
const WATCHER: Duration = Duration::from_secs(30);

/// A swap of this host's settings.
#[derive(Clone)]
pub struct LocalSwap {
    settings: LocalSettings,
    boot: Arc<dyn Boot>,
    reboot: Arc<dyn Reboot>,
}

impl std::fmt::Debug for LocalSwap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalSwap").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl LocalSwap {
    /// A swap of these settings; state and lock are in their state directory.
    pub fn new(settings: LocalSettings, boot: Arc<dyn Boot>, reboot: Arc<dyn Reboot>) -> Self {
        Self { settings, boot, reboot }
    }

    /// Does something with the lock held.
    async fn locked<T: Send + 'static>(
        &self,
        migration: &MigrationId,
        act: impl FnOnce(&Here, &MigrationId, &dyn Boot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (migration, boot) = (migration.clone(), self.boot.clone());
        self.settings
            .with(move |here| {
                let _lock = here.lock()?;
                record::seen_now(&here.kept, &migration, &*boot)?;
                act(here, &migration, &*boot)
            })
            .await
    }

    /// Waits until a watcher is there. It is started by what is written when a swap is armed.
    async fn watched(&self) -> Result<bool> {
        let end = tokio::time::Instant::now() + WATCHER;
        loop {
            if self.settings.with(|here| watch::is_watched(here.kept.state())).await? {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= end {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Undoes an arming that did not come to its end.
    async fn disarm(&self, migration: &MigrationId) -> Result<()> {
        self.locked(migration, |here, migration, _| {
            let record = record::read(&here.kept, migration)?;
            if record.is_some_and(|record| record.is_running() && !record.is_applied) {
                restore_locked(&here.kept, migration)?;
                record::forget(&here.kept, migration)?;
            }
            Ok(())
        })
        .await
    }
}

/// What a watcher looks for, in the agent's state directory.
pub fn armed_marker(state: &Path) -> PathBuf {
    state.join("dead-man/armed")
}

fn rolled_back() -> Failure {
    Failure::operator(
        "swap",
        "this host has restored its own settings already: nobody had confirmed in time, or it was asked to",
    )
    .hint("look at its journal for why; the swap is begun again by aborting and starting anew")
}

#[async_trait]
impl Swap for LocalSwap {
    async fn standing(&self, migration: &MigrationId) -> Result<SwapStanding> {
        self.locked(migration, |here, migration, _| {
            Ok(record::read(&here.kept, migration)?.map_or(SwapStanding::Own, |record| record.standing))
        })
        .await
    }

    async fn arm(&self, migration: &MigrationId, limit: Duration) -> Result<()> {
        let begin = move |here: &Here, migration: &MigrationId, boot: &dyn Boot| {
            match record::read(&here.kept, migration)? {
                Some(record) if record.standing == SwapStanding::RolledBack => return Err(rolled_back()),
                // Cut short by the host going down: the watch is about to restore them.
                Some(record) if record.standing == SwapStanding::Up && !record.is_applied => {
                    return Err(rolled_back());
                }
                Some(record) => return Ok(record.is_applied),
                None => {}
            }
            let staged =
                here.kept.staged(migration).map_err(failed("swap", "what is staged cannot be read"))?;
            if staged.is_none() {
                return Err(Failure::operator("swap", "nothing is staged for this migration")
                    .hint("resume: it is staged again"));
            }
            let record = Record::armed(boot, limit)?;
            record::mark(&here.kept)?;
            record::write(&here.kept, migration, &record)?;
            Ok(false)
        };
        if self.locked(migration, begin).await? {
            return Ok(());
        }
        if !self.watched().await? {
            self.disarm(migration).await?;
            return Err(Failure::operator(
                "swap",
                "nobody watches its dead-man timer, so that nothing was changed",
            )
            .hint("look at `systemctl status handover-source-deadman.path handover-target-deadman.path`"));
        }
        let apply = |here: &Here, migration: &MigrationId, _: &dyn Boot| {
            let Some(mut record) = record::read(&here.kept, migration)? else {
                return Err(Failure::transient("swap", "it was given up meanwhile"));
            };
            if record.standing == SwapStanding::RolledBack {
                return Err(rolled_back());
            }
            here.apply_locked(migration)?;
            record.is_applied = true;
            record::write(&here.kept, migration, &record)
        };
        let applied = self.locked(migration, apply).await;
        if let Err(failure) = &applied
            && let Err(undone) = self.disarm(migration).await
        {
            tracing::warn!(%migration, %failure, %undone, "a swap could not be undone; its dead-man timer runs on");
        }
        applied
    }

    async fn reboot(&self, migration: &MigrationId) -> Result<bool> {
        let (migration, boot) = (migration.clone(), self.boot.clone());
        let is_due = move |here: &Here| {
            // Kept until the reboot was asked for: a watcher might ask for it, too.
            let lock = here.lock()?;
            match record::seen_now(&here.kept, &migration, &*boot)? {
                Some(record) if !record.is_applied && record.standing == SwapStanding::Armed => {
                    Err(Failure::operator("swap", "its settings are not in place yet").hint("resume"))
                }
                Some(record) => Ok((lock, record.changed_in == clock::id(&*boot)?)),
                None => Ok((lock, false)),
            }
        };
        let (_lock, is_due) = self.settings.with(is_due).await?;
        if is_due {
            self.reboot.now().await?;
        }
        Ok(is_due)
    }

    async fn met(&self, migration: &MigrationId) -> Result<()> {
        self.locked(migration, |here, migration, boot| match record::read(&here.kept, migration)? {
            Some(mut record) if record.is_running() && !record.is_met => {
                record.is_met = true;
                record.limit_ms = record.limit_ms.saturating_mul(2);
                record.since_ms = clock::now_ms(boot);
                record::write(&here.kept, migration, &record)
            }
            Some(record) if record.standing == SwapStanding::RolledBack => Err(rolled_back()),
            _ => Ok(()),
        })
        .await
    }

    async fn confirm(&self, migration: &MigrationId) -> Result<()> {
        let confirm = |here: &Here, migration: &MigrationId, _: &dyn Boot| {
            let record = record::read(&here.kept, migration)?;
            let mut record = record.ok_or_else(|| {
                Failure::operator("swap", "nothing is swapped for this migration").hint("arm it first")
            })?;
            match record.standing {
                SwapStanding::Confirmed | SwapStanding::Own => {}
                SwapStanding::RolledBack => return Err(rolled_back()),
                SwapStanding::Armed if !record.is_applied => {
                    return Err(Failure::operator("swap", "its settings are not in place yet").hint("resume"));
                }
                SwapStanding::Armed | SwapStanding::Up => {
                    record.standing = SwapStanding::Confirmed;
                    record::write(&here.kept, migration, &record)?;
                }
            }
            record::unmark(&here.kept)?;
            Ok(record.standing == SwapStanding::Confirmed)
        };
        // Not before: a timer that ends asks no database.
        if self.locked(migration, confirm).await? {
            self.settings.apply_rows(migration).await
        } else {
            Ok(())
        }
    }

    async fn roll_back(&self, migration: &MigrationId) -> Result<()> {
        // No database is asked: one that is down would keep this host under the name of another.
        self.locked(migration, |here, migration, boot| {
            restore_locked(&here.kept, migration)?;
            // Cut short before anything was changed, and not booted since: nothing is to be booted away.
            if record::read(&here.kept, migration)?
                .is_some_and(|record| record.standing == SwapStanding::Armed && !record.is_applied)
            {
                return record::forget(&here.kept, migration);
            }
            record::restored(&here.kept, migration, boot, Reboots::Later)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
