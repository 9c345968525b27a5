//! What an abort keeps of the migrated data, aside, until somebody removes it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::{Finding, Severity, disk_of};
use crate::inventory::Inventory;
use crate::name::{DatasetName, MigrationId};

/// What is kept of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where: a file, a directory, or a database with its server.
    pub place: String,
    /// Bytes that are free once it is removed, about.
    pub bytes: u64,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.place, self.bytes)
    }
}

/// Adds to a preflight's findings what migrations have kept; where a file system is short of room, how much a terminate would free there.
pub fn tell(
    findings: &mut Vec<Finding>,
    target: &Inventory,
    kept: &[(MigrationId, BTreeMap<DatasetName, Kept>)],
) {
    for (migration, datasets) in kept {
        let frees = format!("`handover terminate {migration} --yes` removes it");
        for finding in findings.iter_mut() {
            let on_it = |kept: &&Kept| {
                disk_of(&kept.place, target).is_some_and(|mount| finding.item == format!("disk {mount}"))
            };
            let bytes: u64 = datasets.values().filter(on_it).map(|kept| kept.bytes).sum();
            if bytes > 0 {
                finding.hint +=
                    &format!("; {bytes} bytes there are kept of the aborted migration {migration}: {frees}");
            }
        }
        for (dataset, kept) in datasets {
            let what = format!("what the aborted migration {migration} had brought is kept at {kept}");
            findings.push(Finding::new(Severity::Info, format!("dataset {dataset}"), what, &frees));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::DiskFacts;

    #[test]
    fn where_room_is_short_it_is_told_what_a_terminate_frees() {
        let disk =
            |mount_point: &str| DiskFacts { mount_point: mount_point.to_owned(), ..Default::default() };
        let mut target = Inventory::default();
        target.host.disks = vec![disk("/"), disk("/srv")];
        let short = |item: &str| Finding::new(Severity::Error, item, "100 bytes are needed", "free space");
        let mut findings = vec![short("disk /"), short("disk /srv")];
        let kept = |place: &str, bytes| Kept { place: place.to_owned(), bytes };
        let datasets = [
            ("app".parse().unwrap(), kept("/srv/app.db.handover-kept-m-1", 40)),
            ("shop".parse().unwrap(), kept("shop__handover_0_kept at db:3306", 7)),
            ("www".parse().unwrap(), kept("/srv/www/.handover/kept-m-1", 2)),
        ];
        tell(&mut findings, &target, &[("m-1".parse().unwrap(), datasets.into())]);
        assert_eq!(findings[0].hint, "free space");
        let hint = "free space; 42 bytes there are kept of the aborted migration m-1: `handover terminate m-1 --yes` removes it";
        assert_eq!(findings[1].hint, hint);
        let told: Vec<&str> = findings[2..].iter().map(|finding| finding.item.as_str()).collect();
        assert_eq!(told, ["dataset app", "dataset shop", "dataset www"]);
    }
}
