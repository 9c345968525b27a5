//! Backups of both hosts, as operators ask for them.

use handover_engine::backup::Host;
use handover_engine::failure::Failure;
use handover_engine::journal::Journal;
use handover_engine::name::BackupId;
use handover_engine::ports::backups::{Order, Standing, Wanted};
use handover_engine::ports::{Backups, Result};
use handover_engine::time::Clock;
use handover_platform::SystemClock;
use tokio::sync::MutexGuard;

use super::Supervisor;

impl Supervisor {
    /// The backups of a host.
    pub(super) fn backups_of(&self, host: Host) -> &dyn Backups {
        match host {
            Host::Source => &*self.source,
            Host::Target => &self.backups,
        }
    }

    /// Begins work, and tells by which name to ask after it.
    pub(super) async fn begin_backup_work(&self, host: Host, wanted: Wanted, by: &str) -> Result<Order> {
        let order = wanted.order(fresh_name()?);
        if let Order::Restore { .. } = order {
            // Held to the end: nothing may start in between.
            let mut begun = self.restores.lock().await;
            self.refuse_restore().await?;
            self.backups_of(host).begin(&order).await?;
            begun.push((host, order.clone()));
        } else {
            self.backups_of(host).begin(&order).await?;
        }
        tracing::info!(%host, backup = %order.id(), by, "work on a backup was asked for");
        Ok(order)
    }

    /// While a migration goes on, its hosts are read, written to and followed: what is put back beneath it would be taken for what users
    /// have written, or be lost.
    async fn refuse_restore(&self) -> Result<()> {
        let migrations = self.store.migrations().await?;
        match migrations.into_iter().find(|migration| !migration.state.phase.is_final()) {
            None => Ok(()),
            Some(migration) => {
                let what = format!(
                    "migration {} is {}: it reads and follows both hosts",
                    migration.id, migration.state
                );
                Err(Failure::operator("restore", what).hint(
                    "abort it, which brings back what stood at the target, or finalize it, and restore then",
                ))
            }
        }
    }

    /// Nothing starts while a host is being put back, nor is one put back while something starts: for as long as what is returned is held.
    pub(super) async fn refuse_while_restoring(&self) -> Result<MutexGuard<'_, Vec<(Host, Order)>>> {
        let mut begun = self.restores.lock().await;
        while let Some((host, order)) = begun.last() {
            // One that cannot be asked is not known to be done.
            if let Standing::Running { .. } = self.backups_of(*host).standing(order).await? {
                let what = format!("backup {} is being restored at the {host}", order.id());
                return Err(Failure::operator("migration", what).hint("start it when that is done"));
            }
            begun.pop();
        }
        // One that an earlier agent has begun, too.
        if let Some(id) = self.backups.unsettled()? {
            let what = format!("the restore of backup {id} that was cut short at the target is not settled");
            return Err(Failure::operator("migration", what)
                .hint("the agent does that by itself as soon as it can: its log tells what is in the way"));
        }
        Ok(begun)
    }
}

/// A name for a backup that nobody has named.
fn fresh_name() -> Result<BackupId> {
    let now = SystemClock.now().to_string();
    let stamp: String = now.chars().filter(char::is_ascii_digit).take(17).collect();
    format!("b-{stamp}")
        .parse()
        .map_err(|error| Failure::permanent("backup", "cannot be named").because(error))
}
