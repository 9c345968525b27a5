//! This host's load without our own: processors through sysinfo and /proc, disks through /proc/diskstats.
//!
//! What this process does is left out, and what the threads of local database servers do that work for it. A disk's busy time is
//! shared out by bytes. Where the kernel does not tell, nothing is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use handover_engine::throttle::{Reading, Signal};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::time::Instant;

/// Between two looks that are compared: shorter ones tell nothing new, longer ones nothing of now.
const APART: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(10);
/// Bytes of a sector in /proc/diskstats, whatever the disk's are.
const SECTOR: u64 = 512;
/// Programs whose threads a server may name as ours.
const SERVERS: [&str; 3] = ["mariadbd", "mysqld", "postgres"];

/// Looks at this host.
pub struct HostLoad {
    last: Mutex<Look>,
}

/// A look, to be compared with the next.
struct Look {
    /// None where the kernel tells nothing.
    system: Option<System>,
    at: Instant,
    ours: BTreeMap<u32, Task>,
    io: Option<u64>,
    disks: BTreeMap<(u32, u32), Disk>,
    readings: Vec<Reading>,
}

/// What a thread or process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Task {
    /// Clock ticks of processors.
    ticks: u64,
    /// Bytes read from and written to disks; 0 where that is not for us to know.
    io: u64,
}

/// What a disk has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Disk {
    busy_ms: u64,
    bytes: u64,
}

impl Default for HostLoad {
    fn default() -> Self {
        let mut system = System::new().ok();
        system.iter_mut().for_each(refresh);
        let look = Look {
            system,
            at: Instant::now(),
            ours: BTreeMap::new(),
            io: own_io(),
            disks: BTreeMap::new(),
            readings: Vec::new(),
        };
        Self { last: Mutex::new(look) }
    }
}

impl HostLoad {
    /// The load since it was looked at last; none if that is too long ago. `ours` are threads of local servers that work for us, `places`
    /// where the data lie. Blocks for a moment.
    pub fn look(&self, ours: &[u32], places: &BTreeSet<PathBuf>) -> Vec<Reading> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = last.at.elapsed();
        if passed < APART.start && !last.readings.is_empty() {
            return last.readings.clone();
        }
        last.system.iter_mut().for_each(refresh);
        let ours: BTreeMap<u32, Task> = ours.iter().filter_map(|id| Some((*id, task(*id)?))).collect();
        let known = |(id, now): (&u32, &Task)| Some((*now, *last.ours.get(id)?));
        let used: Vec<(Task, Task)> = ours.iter().filter_map(known).collect();
        let ticks: u64 = used.iter().map(|(now, then)| now.ticks.saturating_sub(then.ticks)).sum();
        let io = own_io();
        let read = io.zip(last.io).map_or(0, |(now, then)| now.saturating_sub(then))
            + used.iter().map(|(now, then)| now.io.saturating_sub(then.io)).sum::<u64>();
        let disks = disks(places);
        let mut readings = Vec::new();
        if APART.contains(&passed) {
            let mut tell = |signal, value| readings.push(Reading { signal, dataset: None, value });
            if let Some(system) = &last.system {
                tell(Signal::CpuPercent, cpu(system, ticks, passed));
            }
            let busy =
                disks.iter().filter_map(|(id, now)| Some(busy(now, last.disks.get(id)?, read, passed)));
            if let Some(busiest) = busy.reduce(f64::max) {
                tell(Signal::DiskPercent, busiest);
            }
        }
        (last.at, last.ours, last.io, last.disks) = (Instant::now(), ours, io, disks);
        last.readings.clone_from(&readings);
        readings
    }
}

fn refresh(system: &mut System) {
    system.refresh_cpu_usage();
    let me = [Pid::from_u32(std::process::id())];
    let kind = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&me), false, kind);
}

/// How busy all processors are, in percent, without this process and so many clock ticks.
fn cpu(system: &System, ticks: u64, passed: Duration) -> f64 {
    let processors = system.cpus().len().max(1) as f64;
    // Of one processor, as programs like top tell it.
    let own = system.process(Pid::from_u32(std::process::id())).map_or(0.0, |me| f64::from(me.cpu_usage()));
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let ours = (own + seconds / passed.as_secs_f64() * 100.0) / processors;
    (f64::from(system.global_cpu_usage()) - ours).clamp(0.0, 100.0)
}

/// How busy a disk was, in percent, without the share that these bytes of ours have of its own.
fn busy(now: &Disk, then: &Disk, ours: u64, passed: Duration) -> f64 {
    let busy = now.busy_ms.saturating_sub(then.busy_ms) as f64 / (passed.as_secs_f64() * 1000.0);
    let bytes = now.bytes.saturating_sub(then.bytes);
    let others = if bytes == 0 { 1.0 } else { 1.0 - (ours as f64 / bytes as f64).min(1.0) };
    (busy * others * 100.0).clamp(0.0, 100.0)
}

fn own_io() -> Option<u64> {
    parse_io(&std::fs::read_to_string("/proc/self/io").ok()?)
}

/// What a thread of a local server has used; none of anything else: another host's, or another container's, may have the same number.
fn task(id: u32) -> Option<Task> {
    let read = |path: String| std::fs::read_to_string(path).ok();
    let status = read(format!("/proc/{id}/status"))?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().to_owned();
    let program = read(format!("/proc/{process}/comm"))?;
    if !SERVERS.contains(&program.trim()) {
        return None;
    }
    let ticks = parse_ticks(&read(format!("/proc/{id}/task/{id}/stat"))?)?;
    let io = read(format!("/proc/{id}/task/{id}/io")).and_then(|text| parse_io(&text)).unwrap_or(0);
    Some(Task { ticks, io })
}

/// User and system time of a `stat` file (proc(5): fields 14 and 15). The name in parentheses may hold anything.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some(fields.next()?? + fields.next()??)
}

/// Bytes that an `io` file says were read from and written to disks.
fn parse_io(io: &str) -> Option<u64> {
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok();
    Some(field("read_bytes:")? + field("write_bytes:")?)
}

/// The disks that hold these places; those of file systems without a disk of their own are left out.
fn disks(places: &BTreeSet<PathBuf>) -> BTreeMap<(u32, u32), Disk> {
    let Ok(text) = std::fs::read_to_string("/proc/diskstats") else { return BTreeMap::new() };
    let all: BTreeMap<(u32, u32), Disk> = text.lines().filter_map(parse_disk).collect();
    places.iter().filter_map(|place| device(place)).filter_map(|id| Some((id, *all.get(&id)?))).collect()
}

/// The device of what is at a place, or will be.
fn device(place: &Path) -> Option<(u32, u32)> {
    let stat = place.ancestors().find_map(|place| rustix::fs::stat(place).ok())?;
    Some((rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)))
}

/// A line of /proc/diskstats (Documentation/admin-guide/iostats.rst).
fn parse_disk(line: &str) -> Option<((u32, u32), Disk)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let id = (u32::try_from(number(0)?).ok()?, u32::try_from(number(1)?).ok()?);
    Some((id, Disk { busy_ms: number(12)?, bytes: (number(5)? + number(9)?) * SECTOR }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "71 (mariadbd :) 1) S 1 71 71 0 -1 4194560 1 0 0 0 250 30 0 0 20 0 9 0 5 1 2 3";
        assert_eq!(parse_ticks(stat), Some(280));
        assert_eq!(parse_ticks("71 (x) S 1"), None);
        let io = "rchar: 9\nwchar: 9\nsyscr: 9\nsyscw: 9\nread_bytes: 4096\nwrite_bytes: 512\ncancelled_write_bytes: 0\n";
        assert_eq!(parse_io(io), Some(4608));
        assert_eq!(parse_io(""), None);
        let line = " 259       1 nvme0n1p1 100 5 2048 77 200 6 1024 88 0 4321 165 0 0 0 0 0 0";
        assert_eq!(parse_disk(line), Some(((259, 1), Disk { busy_ms: 4321, bytes: 3072 * 512 })));
        assert_eq!(parse_disk("nonsense"), None);
    }

    #[test]
    fn a_disks_time_is_shared_out_by_bytes() {
        let then = Disk { busy_ms: 1000, bytes: 1000 };
        // busy for, bytes, ours, percent of others
        for (ms, bytes, ours, expected) in [
            (0, 0, 0, 0.0),
            (500, 0, 0, 50.0),
            (500, 1000, 0, 50.0),
            (500, 1000, 500, 25.0),
            (500, 1000, 5000, 0.0),
            (5000, 1000, 0, 100.0),
        ] {
            let now = Disk { busy_ms: 1000 + ms, bytes: 1000 + bytes };
            assert_eq!(busy(&now, &then, ours, Duration::from_secs(1)), expected, "{ms} {bytes} {ours}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_compared_with_the_one_before() {
        let load = HostLoad::default();
        let here: BTreeSet<PathBuf> = [std::env::temp_dir()].into();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(load.look(&[], &here).is_empty(), "what is long past is told");
        tokio::time::advance(Duration::from_secs(1)).await;
        let readings = load.look(&[std::process::id()], &here);
        let cpu = readings.iter().find(|reading| reading.signal == Signal::CpuPercent).unwrap();
        assert!((0.0..=100.0).contains(&cpu.value), "{cpu:?}");
        // Asked again at once: the same.
        assert_eq!(load.look(&[], &here), readings);
        // None of a server's threads.
        assert_eq!(task(std::process::id()), None);
    }
}
