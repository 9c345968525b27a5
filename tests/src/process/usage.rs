//! What a process has used, as the kernel tells.

use std::fs;

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Most memory that was resident at one time (`VmHWM`), in KiB.
    pub peak_kib: u64,
    /// Processor time in seconds, user and system.
    pub cpu_seconds: f64,
}

impl Usage {
    /// What a running process has used; nothing for one that is gone.
    pub fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        Self { peak_kib: peak(&read("status")), cpu_seconds: ticks_used(&read("stat")) as f64 / ticks as f64 }
    }

    /// This and what a later life of the same program used.
    pub fn then(&self, later: &Usage) -> Self {
        Self {
            peak_kib: self.peak_kib.max(later.peak_kib),
            cpu_seconds: self.cpu_seconds + later.cpu_seconds,
        }
    }

    /// Peak memory in MiB, rounded up.
    pub fn peak_mib(&self) -> u64 {
        self.peak_kib.div_ceil(1024)
    }
}

fn peak(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

/// `utime + stime`: the 14th and 15th field of proc_pid_stat(5), counted after the name, which may hold anything.
fn ticks_used(stat: &str) -> u64 {
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(peak("VmPeak:\t  99 kB\nVmHWM:\t    5120 kB\nVmRSS:\t 1 kB\n"), 5120);
        assert_eq!(ticks_used("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1"), 42);
        let own = Usage::of(std::process::id());
        assert!(own.peak_mib() >= 1, "{own:?}");
        assert_eq!(Usage::of(u32::MAX), Usage::default());
    }
}
