//! What may run out while a migration runs: disks at both ends, what the source keeps of its log, the room for changes that wait.
//! A migration stops before one of them does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::name::DatasetName;

/// What is kept free, unless told otherwise: so many bytes, or one part in so many of a small disk.
const USUAL_BYTES: u64 = 512 << 20;
const USUAL_PART: u64 = 50;
/// A log that is let go by time is in danger once less than one part in so many of that time is left.
const LAST_PART: u64 = 10;

/// A file system that fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What lies there.
    pub place: String,
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What the source's server keeps of its log because the target has not taken it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogKept {
    /// About how many bytes.
    pub bytes: Option<u64>,
    /// How many more it keeps before it lets go of what was not taken.
    pub room: Option<u64>,
    /// For how long it keeps a log at all, in milliseconds.
    pub keeps_ms: Option<u64>,
    /// How old the end of what was taken is, in milliseconds of its clock.
    pub age_ms: Option<u64>,
    /// It says that it may let go at any time.
    pub endangered: bool,
}

impl LogKept {
    /// How long it is until what was not taken is let go, as far as time decides.
    pub fn left_ms(&self) -> Option<u64> {
        Some(self.keeps_ms?.saturating_sub(self.age_ms?))
    }

    /// Whether what was not taken may be gone soon.
    pub fn is_short(&self) -> bool {
        let by_time = self.left_ms().zip(self.keeps_ms).is_some_and(|(left, keeps)| left < keeps / LAST_PART);
        self.endangered || by_time
    }
}

/// Changes that wait at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// How many.
    pub changes: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// How many bytes may be.
    pub limit: u64,
}

/// All that may run out, as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Room {
    /// The source's disks.
    pub source: Vec<Disk>,
    /// The target's.
    pub target: Vec<Disk>,
    /// What the source keeps, by database that is followed.
    pub logs: BTreeMap<DatasetName, LogKept>,
    /// What waits, by database that is followed.
    pub waiting: BTreeMap<DatasetName, Waiting>,
}

/// What is kept free of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserve {
    /// So many bytes, where somebody has said it.
    pub bytes: Option<u64>,
}

impl Reserve {
    fn of(self, disk: &Disk) -> u64 {
        self.bytes.unwrap_or_else(|| USUAL_BYTES.min(disk.total / USUAL_PART))
    }
}

impl Room {
    /// What is about to run out, as the failure that stops a migration before it does. The source's disks count where it is
    /// followed: only then does it keep what grows.
    pub fn short(&self, reserve: Reserve, is_followed: bool) -> Option<Failure> {
        let sides = [("target", &self.target), ("source", &self.source)];
        let full = sides.into_iter().filter(|(side, _)| is_followed || *side == "target").find_map(
            |(side, disks)| {
                let disk = disks.iter().find(|disk| disk.free < reserve.of(disk))?;
                Some(full(side, disk, reserve.of(disk)))
            },
        );
        full.or_else(|| {
            let (dataset, log) = self.logs.iter().find(|(_, log)| log.is_short())?;
            Some(purged(dataset, log))
        })
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn full(side: &str, disk: &Disk, reserve: u64) -> Failure {
    let what = format!("only {} MiB are free, and {} MiB are to be kept free", mib(disk.free), mib(reserve));
    let meanwhile = if side == "source" {
        " (what the source keeps grows meanwhile: `handover abort` lets it go)"
    } else {
        ""
    };
    Failure::operator(format!("disk of {} at the {side}", disk.place), what).hint(format!(
        "free space there, or lower [limits] reserve_bytes in the target's configuration, then `handover resume`{meanwhile}"
    ))
}

fn purged(dataset: &DatasetName, log: &LogKept) -> Failure {
    let (what, fix) = match log.left_ms() {
        Some(left) if !log.endangered => (
            format!("the server purges the log that is still needed in {} s", left / 1000),
            "let it keep its log for longer (binlog_expire_logs_seconds)",
        ),
        _ => (
            "the server may remove the log that is still needed at any time".to_owned(),
            "let it keep more (max_slot_wal_keep_size)",
        ),
    };
    Failure::operator(format!("dataset {dataset}, log at the source"), what)
        .hint(format!("{fix}, then `handover resume`; should it be gone by then, abort and start again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(free_mib: u64, total_mib: u64) -> Disk {
        Disk { place: "/data".to_owned(), free: free_mib << 20, total: total_mib << 20 }
    }

    #[test]
    fn a_disk_keeps_its_reserve() {
        // free, total, configured, whether it stops
        for (free, total, configured, stops) in [
            (600, 1 << 20, None, false),
            (511, 1 << 20, None, true),
            (2, 100, None, false),
            (1, 100, None, true),
            (0, 100, Some(0), false),
            (99, 100, Some(u64::MAX), true),
            (10, 100, Some(11 << 20), true),
        ] {
            let reserve = Reserve { bytes: configured };
            let at_target = Room { target: vec![disk(free, total)], ..Room::default() };
            assert_eq!(
                at_target.short(reserve, false).is_some(),
                stops,
                "{free} of {total} MiB, {configured:?}"
            );
            let at_source = Room { source: vec![disk(free, total)], ..Room::default() };
            assert_eq!(
                at_source.short(reserve, true).is_some(),
                stops,
                "{free} of {total} MiB, {configured:?}"
            );
            assert_eq!(at_source.short(reserve, false), None);
        }
        let told = Room { source: vec![disk(3, 1000)], ..Room::default() };
        let told = told.short(Reserve::default(), true).unwrap();
        assert_eq!(told.class, crate::failure::Class::NeedsOperator);
        let text = told.to_string();
        for part in ["disk of /data at the source", "3 MiB", "20 MiB", "reserve_bytes", "resume", "abort"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn a_log_is_told_of_before_it_is_gone() {
        let by_time = |keeps, age| LogKept { keeps_ms: Some(keeps), age_ms: Some(age), ..LogKept::default() };
        for (log, part) in [
            (LogKept::default(), None),
            (by_time(100_000, 5_000), None),
            (by_time(100_000, 95_000), Some("in 5 s")),
            (by_time(100_000, 500_000), Some("in 0 s")),
            (LogKept { endangered: true, ..LogKept::default() }, Some("at any time")),
            (LogKept { bytes: Some(1 << 40), room: Some(1), ..LogKept::default() }, None),
        ] {
            let room = Room { logs: [("shop".parse().unwrap(), log)].into(), ..Room::default() };
            let told = room.short(Reserve::default(), true).map(|failure| failure.to_string());
            assert_eq!(told.is_some(), part.is_some(), "{log:?}: {told:?}");
            assert!(told.unwrap_or_default().contains(part.unwrap_or_default()), "{log:?}");
        }
    }
}
