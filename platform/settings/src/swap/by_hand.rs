//! A swap taken back by hand, on a host whose operator has its console: where the two hosts cannot tell each other any more.

use std::path::Path;
use std::sync::Arc;

use handover_engine::changeover::SwapStanding;
use handover_engine::ports::Result;

use super::clock::Boot;
use super::reboot::Reboot;
use super::record::{self, Reboots};
use super::watch::blocking;
use crate::apply::Kept;
use crate::disk::Disk;
use crate::store::{failed, restore_locked};

/// Restores this host's own settings wherever those of a swap are in place, and reboots with them. Whether it does: not where nothing is swapped.
/// Needs neither the agent nor its manifest. Files alone: rows of databases are put back by the migration, once the hosts find each other. Idempotent;
/// where the reboot cannot be asked for, the dead-man watch does so.
pub async fn take_back(state: &Path, boot: Arc<dyn Boot>, reboot: Arc<dyn Reboot>) -> Result<bool> {
    take_back_on(Disk::default(), state, boot, reboot).await
}

/// The same, on a disk whose steps are asked for.
pub(super) async fn take_back_on(
    disk: Disk,
    state: &Path,
    boot: Arc<dyn Boot>,
    reboot: Arc<dyn Reboot>,
) -> Result<bool> {
    let kept = Kept::new(state, disk);
    let restore = move || {
        // Kept until the reboot was asked for: the watch might ask for it, too.
        let lock = kept.lock().map_err(failed("swap", "its lock cannot be had"))?;
        let mut is_due = false;
        for migration in record::migrations(&kept)? {
            let Some(record) = record::seen_now(&kept, &migration, &*boot)? else { continue };
            match record.standing {
                SwapStanding::Armed | SwapStanding::Up | SwapStanding::Confirmed => {
                    tracing::warn!(%migration, "restoring this host's own settings");
                    restore_locked(&kept, &migration)?;
                    record::restored(&kept, &migration, &*boot, Reboots::Now)?;
                    is_due = true;
                }
                SwapStanding::RolledBack => is_due |= record.is_reboot_due,
                SwapStanding::Own => {}
            }
        }
        Ok((lock, is_due))
    };
    let (_lock, is_due) = blocking(restore).await?;
    if is_due {
        reboot.now().await?;
    }
    Ok(is_due)
}
