//! Which boot this is, and for how long it has been up.

use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_services::{BootClock, HostBoot};

/// A boot of the host.
pub trait Boot: Send + Sync {
    /// Its name; another one after each boot.
    fn id(&self) -> std::io::Result<String>;
    /// Time in it, counted on while the host sleeps; never set.
    fn time(&self) -> Duration;
}

impl Boot for HostBoot {
    fn id(&self) -> std::io::Result<String> {
        Ok(self.now().boot)
    }

    fn time(&self) -> Duration {
        self.now().since
    }
}

/// Its name, for a port.
pub(super) fn id(boot: &dyn Boot) -> Result<String> {
    boot.id().map_err(|error| {
        Failure::operator("swap", "which boot of the host this is cannot be told")
            .because(error)
            .hint("is /proc mounted?")
    })
}

/// Milliseconds in it.
pub(super) fn now_ms(boot: &dyn Boot) -> u64 {
    u64::try_from(boot.time().as_millis()).unwrap_or(u64::MAX)
}
