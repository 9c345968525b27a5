//! Which boot this is, and for how long it has been up.

use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rustix::time::{ClockId, clock_gettime};

/// A boot of the host.
pub trait Boot: Send + Sync {
    /// Its name; another one after each boot.
    fn id(&self) -> std::io::Result<String>;
    /// Time in it, counted on while the host sleeps; never set.
    fn time(&self) -> Duration;
}

/// The boot that this process runs in.
#[derive(Debug, Clone, Copy)]
pub struct ThisBoot;

impl Boot for ThisBoot {
    fn id(&self) -> std::io::Result<String> {
        Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    fn time(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or_default());
        seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_boot_has_a_name_and_goes_on() {
        assert_eq!(ThisBoot.id().unwrap(), ThisBoot.id().unwrap());
        assert_eq!(ThisBoot.id().unwrap().len(), 36);
        let before = ThisBoot.time();
        assert!(before > Duration::ZERO && ThisBoot.time() >= before);
    }
}
