//! Time as a lease is counted by: since the host was booted, whatever is done to its wall clock meanwhile.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where it tells when the first process began. A container boots with a kernel that did not, and knows of it by this alone.
const FIRST_PROCESS: &str = "/proc/1/stat";
/// The field of that time, of those after the process's name.
const BEGAN: usize = 19;

/// A moment of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Which boot: another one after every reboot.
    pub boot: String,
    /// How long after it, the time that the host slept counted in.
    pub since: Duration,
}

/// Tells it. A port, so that tests can set it.
pub trait BootClock: Send + Sync {
    /// Now.
    fn now(&self) -> Moment;
}

/// The host's own.
#[derive(Debug, Clone)]
pub struct HostBoot {
    boot: String,
}

impl HostBoot {
    /// Reads once which boot this is. A kernel that does not tell is taken for one that was never rebooted: its leases end all the same.
    pub fn new() -> Self {
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        let (boot, first) = (read(BOOT_ID), read(FIRST_PROCESS));
        Self { boot: format!("{}/{}", boot.trim(), began(&first).unwrap_or_default()) }
    }
}

/// When a process began, in ticks after the kernel did.
fn began(stat: &str) -> Option<&str> {
    // Its name may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(BEGAN)
}

impl Default for HostBoot {
    fn default() -> Self {
        Self::new()
    }
}

impl BootClock for HostBoot {
    fn now(&self) -> Moment {
        let now = clock_gettime(ClockId::Boottime);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        let since = Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos);
        Moment { boot: self.boot.clone(), since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_when_it_began() {
        let stat = "1 (a ) b) S 0 1 1 0 -1 4194560 2 3 4 5 6 7 8 9 20 0 1 0 57 1234 5 6";
        assert_eq!(began(stat), Some("57"));
        assert_eq!(began(""), None);
    }

    #[test]
    fn a_boot_has_a_name_and_gets_older() {
        let clock = HostBoot::new();
        let (one, other) = (clock.now(), clock.now());
        let (kernel, first) = one.boot.split_once('/').unwrap();
        assert_eq!(kernel.len(), 36, "{one:?}");
        first.parse::<u64>().unwrap();
        assert_eq!(one.boot, other.boot);
        assert!(one.since > Duration::ZERO && other.since >= one.since);
    }
}
