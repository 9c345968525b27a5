//! How far a swap is, on disk. Whoever writes it holds the lock.

use std::path::PathBuf;
use std::time::Duration;

use handover_engine::changeover::SwapStanding;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};

use super::armed_marker;
use super::clock::{self, Boot};
use crate::apply::Kept;
use crate::disk;
use crate::store::failed;

/// The version of what is written here.
const VERSION: u32 = 1;

/// A host that is booted this often without a word does not get on with its new settings.
const MOST_BOOTS: u32 = 3;

/// How far a swap is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// As it is told.
    pub standing: SwapStanding,
    /// Whether all of the new settings are in place.
    pub is_applied: bool,
    /// The boot in which the settings were changed: put in place, or restored.
    pub changed_in: String,
    /// The boot in which the timer runs.
    boot: String,
    /// When it began to, in milliseconds of that boot.
    pub since_ms: u64,
    /// How long it runs, in milliseconds.
    pub limit_ms: u64,
    /// Whether the other host was found, and the time doubled.
    pub is_met: bool,
    /// How often the host was booted since it was armed.
    boots: u32,
    /// Whether a reboot belongs to what was restored, and has not come yet.
    pub is_reboot_due: bool,
}

/// What is to be done about a swap now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing, ever.
    Nothing,
    /// To look again after that time.
    Wait(Duration),
    /// The host's own settings are to be restored.
    Restore,
    /// The host is to be rebooted.
    Reboot,
}

impl Record {
    /// One whose timer begins now.
    pub fn armed(boot: &dyn Boot, limit: Duration) -> Result<Self> {
        let id = clock::id(boot)?;
        Ok(Self {
            version: VERSION,
            standing: SwapStanding::Armed,
            is_applied: false,
            changed_in: id.clone(),
            boot: id,
            since_ms: clock::now_ms(boot),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            is_met: false,
            boots: 0,
            is_reboot_due: false,
        })
    }

    /// Whether its timer runs.
    pub fn is_running(&self) -> bool {
        matches!(self.standing, SwapStanding::Armed | SwapStanding::Up)
    }

    /// As it is in this boot: in another one than before, the timer begins anew, and what waited for a reboot has had it.
    fn seen_in(self, id: &str, now_ms: u64) -> Self {
        if self.boot == id {
            return self;
        }
        let standing = if self.is_running() { SwapStanding::Up } else { self.standing };
        let boots = self.boots.saturating_add(1);
        Self { standing, boot: id.to_owned(), since_ms: now_ms, boots, is_reboot_due: false, ..self }
    }

    /// What is to be done, at this time of its boot.
    pub fn due(&self, now_ms: u64) -> Due {
        let left = self.since_ms.saturating_add(self.limit_ms).saturating_sub(now_ms);
        match self.standing {
            SwapStanding::Own | SwapStanding::Confirmed => Due::Nothing,
            SwapStanding::RolledBack if !self.is_reboot_due => Due::Nothing,
            SwapStanding::RolledBack if left == 0 => Due::Reboot,
            SwapStanding::Armed | SwapStanding::Up if left == 0 || self.boots > MOST_BOOTS => Due::Restore,
            // Cut short by the host going down: half of them may be in place.
            SwapStanding::Up if !self.is_applied => Due::Restore,
            SwapStanding::RolledBack | SwapStanding::Armed | SwapStanding::Up => {
                Due::Wait(Duration::from_millis(left))
            }
        }
    }
}

fn place(kept: &Kept, migration: &MigrationId) -> PathBuf {
    kept.of(migration).join("swap.json")
}

/// How far it is; none when nothing of the kind goes on.
pub fn read(kept: &Kept, migration: &MigrationId) -> Result<Option<Record>> {
    let record: Option<Record> =
        disk::read_record(&place(kept, migration)).map_err(failed("swap", "how far it is cannot be read"))?;
    match record {
        Some(record) if record.version != VERSION => {
            Err(Failure::operator("swap", "another release has written how far it is")
                .hint("put that release back until the swap is confirmed or rolled back"))
        }
        record => Ok(record),
    }
}

/// Says how far it is.
pub fn write(kept: &Kept, migration: &MigrationId, record: &Record) -> Result<()> {
    let written = kept.disk.record(&place(kept, migration), record);
    written.map_err(failed("swap", "how far it is cannot be written down"))
}

/// Takes it as it is in this boot.
pub fn seen_now(kept: &Kept, migration: &MigrationId, boot: &dyn Boot) -> Result<Option<Record>> {
    let Some(record) = read(kept, migration)? else { return Ok(None) };
    let seen = record.clone().seen_in(&clock::id(boot)?, clock::now_ms(boot));
    if seen != record {
        write(kept, migration, &seen)?;
    }
    Ok(Some(seen))
}

/// When the reboot comes by itself that belongs to a restoration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reboots {
    /// When the time is over that was left for the swap, unless it is asked for before.
    Later,
    /// Now.
    Now,
}

/// This host's own settings are in place again.
pub fn restored(kept: &Kept, migration: &MigrationId, boot: &dyn Boot, reboots: Reboots) -> Result<()> {
    let Some(record) = seen_now(kept, migration, boot)? else { return Ok(()) };
    if record.standing == SwapStanding::RolledBack {
        return Ok(());
    }
    let now = clock::now_ms(boot);
    let since_ms = if record.is_running() { record.since_ms } else { now };
    let changed_in = clock::id(boot)?;
    let standing = SwapStanding::RolledBack;
    let limit_ms = if reboots == Reboots::Now { 0 } else { record.limit_ms };
    mark(kept)?;
    write(
        kept,
        migration,
        &Record { standing, changed_in, since_ms, limit_ms, is_reboot_due: true, ..record },
    )
}

/// Refuses while a timer runs.
pub fn refuse_running(kept: &Kept, migration: &MigrationId) -> Result<()> {
    match read(kept, migration)? {
        Some(record) if record.is_running() => {
            Err(Failure::operator("swap", "its dead-man timer runs: what it needs is not forgotten")
                .hint("confirm it, or roll it back"))
        }
        _ => Ok(()),
    }
}

/// Nothing of the kind went on.
pub fn forget(kept: &Kept, migration: &MigrationId) -> Result<()> {
    kept.disk.remove(&place(kept, migration)).map_err(failed("swap", "it cannot be given up"))?;
    unmark(kept)
}

/// Has a watcher started.
pub fn mark(kept: &Kept) -> Result<()> {
    let marked = kept.disk.record(&armed_marker(kept.state()), &VERSION);
    marked.map_err(failed("swap", "its dead-man timer cannot be started"))
}

/// Has no watcher started any more, when nobody needs one.
pub fn unmark(kept: &Kept) -> Result<()> {
    for migration in migrations(kept)? {
        if read(kept, &migration)?.is_some_and(|record| record.due(0) != Due::Nothing) {
            return Ok(());
        }
    }
    let marker = armed_marker(kept.state());
    kept.disk.remove(&marker).map_err(failed("swap", "its dead-man timer cannot be stopped"))
}

/// All that something is kept for.
pub fn migrations(kept: &Kept) -> Result<Vec<MigrationId>> {
    let unread = || failed("swap", "what is kept for it cannot be listed");
    let entries = match std::fs::read_dir(kept.all()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread()(error)),
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unread())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            out.extend(MigrationId::try_from(name));
        }
    }
    out.sort();
    Ok(out)
}
