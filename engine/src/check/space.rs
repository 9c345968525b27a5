//! Whether there is room for the data at the target.

use std::collections::BTreeMap;

use super::{Finding, Severity};
use crate::inventory::{DatasetFacts, DiskFacts, Inventory};
use crate::plan::Options;

/// What the journal, the staging area and the engines' own files need over the data itself.
const HEADROOM: f64 = 1.10;

/// What does not fit on the disks of the target.
pub(super) fn space(source: &Inventory, target: &Inventory, options: &Options, findings: &mut Vec<Finding>) {
    let mut needed = BTreeMap::<&str, (u64, u64)>::new();
    for dataset in source.datasets.iter().filter(|dataset| options.chooses(&dataset.name)) {
        let Some(here) = target.datasets.iter().find(|d| d.name == dataset.name) else { continue };
        let place = match &here.facts {
            DatasetFacts::Database(database) => &database.location,
            DatasetFacts::Files(tree) => &tree.root,
            DatasetFacts::Unreadable { .. } => continue,
        };
        if let Some(disk) = nearest(place, target) {
            let entry = needed.entry(&disk.mount_point).or_insert((0, disk.available_bytes));
            // What is fitted lies there once more, where it is tried.
            let is_fitted = options.decisions.is_some() && dataset.is_database();
            entry.0 += bytes(&dataset.facts) * if is_fitted { 2 } else { 1 };
        }
    }
    for (mount_point, (bytes, available)) in needed {
        let wanted = (bytes as f64 * HEADROOM) as u64;
        if wanted > available {
            let what = format!("{wanted} bytes are needed on the target, {available} are free");
            let hint = "free space or mount a larger file system before starting";
            findings.push(Finding::new(Severity::Error, format!("disk {mount_point}"), what, hint));
        }
    }
}

/// Bytes of a dataset as it will lie on disk.
fn bytes(facts: &DatasetFacts) -> u64 {
    match facts {
        DatasetFacts::Database(database) => database.bytes,
        // A file takes up whole blocks.
        DatasetFacts::Files(tree) => tree.bytes + tree.files * 2048,
        DatasetFacts::Unreadable { .. } => 0,
    }
}

/// The file system that a place lies on; none of what is no path.
fn nearest<'a>(place: &str, host: &'a Inventory) -> Option<&'a DiskFacts> {
    let disks = host.host.disks.iter().filter(|disk| lies_on(place, &disk.mount_point));
    disks.max_by_key(|disk| disk.mount_point.len())
}

/// The mount point of the file system that a place lies on, by which findings name it.
pub fn disk_of<'a>(place: &str, host: &'a Inventory) -> Option<&'a str> {
    nearest(place, host).map(|disk| disk.mount_point.as_str())
}

fn lies_on(place: &str, mount_point: &str) -> bool {
    let below = place.strip_prefix(mount_point.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
