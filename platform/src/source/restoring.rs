//! While this host is put back from a backup nothing is read for a copy, and no changes are kept: it would be neither the old nor the new.

use handover_engine::ports::Result;

use super::LocalSource;
use crate::backups::Guard;

impl LocalSource {
    /// Has `guard` asked before a snapshot, a tree or a capture is opened.
    pub fn guarded_by(&self, guard: Guard) {
        // Set once, before anything is served.
        let _ = self.guard.set(guard);
    }

    /// Refuses where the guard does.
    pub(super) fn may_be_read(&self) -> Result<()> {
        self.guard.get().map_or(Ok(()), |guard| guard())
    }
}
