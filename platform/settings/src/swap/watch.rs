//! The dead-man watch. It needs neither the agent nor its manifest: what it does is in the records.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::clock::{Boot, now_ms};
use super::reboot::Reboot;
use super::record::{self, Due, Reboots};
use crate::apply::Kept;
use crate::disk::{self, Disk};
use crate::store::{failed, restore_locked};

/// It looks at least this often: others change the records too.
const LOOK: Duration = Duration::from_secs(1);

/// After this time a reboot that was asked for and did not come is asked for again.
const REBOOT: Duration = Duration::from_secs(60);

/// Watches the swaps of a state directory, restores and reboots when a timer is over, and returns when none runs any more. Needs no
/// lock on the directory; any number of watchers may run, and all of them together do each thing once. Cut short at any
/// point, it does the remaining thing when it is started again.
pub async fn watch(state: &Path, boot: Arc<dyn Boot>, reboot: Arc<dyn Reboot>) -> Result<()> {
    watch_on(Disk::default(), state, boot, reboot).await
}

/// The same, on a disk whose steps are asked for.
pub(crate) async fn watch_on(
    disk: Disk,
    state: &Path,
    boot: Arc<dyn Boot>,
    reboot: Arc<dyn Reboot>,
) -> Result<()> {
    let watching = state.to_owned();
    let _watching = blocking(move || watching_lock(&watching)).await?;
    let kept = Kept::new(state, disk);
    loop {
        let (looked, seen) = (kept.clone(), boot.clone());
        match blocking(move || look(&looked, &*seen)).await {
            Ok((_, Due::Nothing)) => return Ok(()),
            Ok((lock, Due::Wait(left))) => {
                drop(lock);
                tokio::time::sleep(left.min(LOOK)).await;
            }
            Ok((_, Due::Restore)) => {}
            Ok((lock, Due::Reboot)) => {
                tracing::warn!("this host has its own settings again; rebooting");
                let id = boot.id().ok();
                let asked = reboot.now().await;
                drop(lock);
                match asked {
                    Ok(()) => booted(&*boot, id).await,
                    Err(failure) => {
                        tracing::error!(%failure, "the reboot is asked for again");
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
            Err(failure) => {
                tracing::error!(%failure, "the dead-man watch goes on trying");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Waits for the host to go down, which ends this process; not for ever.
async fn booted(boot: &dyn Boot, id: Option<String>) {
    let end = tokio::time::Instant::now() + REBOOT;
    while tokio::time::Instant::now() < end && boot.id().ok() == id {
        tokio::time::sleep(LOOK / 10).await;
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|e| Failure::transient("swap", "it was not looked at").because(e))?
}

/// Looks at every swap once, with the lock held, and restores what is to be restored. What is to be done next of all of them,
/// and the lock: a reboot is asked for by one at a time.
fn look(kept: &Kept, boot: &dyn Boot) -> Result<(File, Due)> {
    let lock = kept.lock().map_err(failed("swap", "its lock cannot be had"))?;
    let mut next = Due::Nothing;
    for migration in record::migrations(kept)? {
        let Some(record) = record::seen_now(kept, &migration, boot)? else { continue };
        let due = match record.due(now_ms(boot)) {
            Due::Restore => {
                tracing::warn!(%migration, "nobody has confirmed the swap in time: restoring this host's own settings");
                restore_locked(kept, &migration)?;
                record::restored(kept, &migration, boot, Reboots::Now)?;
                Due::Reboot
            }
            due => due,
        };
        next = sooner(next, due);
    }
    if next == Due::Nothing {
        record::unmark(kept)?;
    }
    Ok((lock, next))
}

fn sooner(a: Due, b: Due) -> Due {
    match (a, b) {
        (Due::Reboot, _) | (_, Due::Reboot) => Due::Reboot,
        (Due::Restore, _) | (_, Due::Restore) => Due::Restore,
        (Due::Wait(a), Due::Wait(b)) => Due::Wait(a.min(b)),
        (Due::Nothing, other) | (other, Due::Nothing) => other,
    }
}

fn lock_place(state: &Path) -> PathBuf {
    state.join("dead-man/watching")
}

fn open(state: &Path) -> std::io::Result<File> {
    let place = lock_place(state);
    disk::make_directory(disk::directory(&place))?;
    File::options().create(true).truncate(false).write(true).mode(0o600).open(place)
}

/// Says that somebody watches, until dropped.
fn watching_lock(state: &Path) -> Result<File> {
    let locked = open(state).and_then(|file| {
        rustix::fs::flock(&file, FlockOperation::LockShared)?;
        Ok(file)
    });
    locked.map_err(failed("swap", "that somebody watches it cannot be told"))
}

/// Whether somebody watches.
pub(super) fn is_watched(state: &Path) -> Result<bool> {
    let asked = open(state).and_then(|file| {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    });
    asked.map_err(failed("swap", "whether somebody watches it cannot be told"))
}
