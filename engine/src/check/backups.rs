//! Whether anything is backed up before a migration starts.

use super::{Finding, Severity};
use crate::backup::Occasion;
use crate::inventory::Inventory;

/// Nothing is, unless a manifest says so: somebody may have backups of another kind.
pub(super) fn backups(source: &Inventory, target: &Inventory, findings: &mut Vec<Finding>) {
    let is_backed_up = |host: &Inventory| host.appliance.backups.contains(&Occasion::Start);
    if is_backed_up(source) || is_backed_up(target) {
        return;
    }
    findings.push(Finding::new(
        Severity::Warning,
        "backups",
        "nothing is backed up before the start",
        "write `before = [\"start\"]` below [backups] in the appliance.toml of either host, or `handover backup` now; see to it that there are others where you do neither",
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_that_is_backed_up_is_enough() {
        let host = |backups: &[Occasion]| {
            let mut host = Inventory::default();
            host.appliance.backups = backups.to_vec();
            host
        };
        for (source, target, told) in [
            (&[][..], &[][..], 1),
            (&[Occasion::Accept], &[], 1),
            (&[Occasion::Start], &[], 0),
            (&[], &[Occasion::Start, Occasion::Accept], 0),
        ] {
            let mut findings = Vec::new();
            backups(&host(source), &host(target), &mut findings);
            assert_eq!(findings.len(), told, "{source:?} {target:?}");
            assert!(findings.iter().all(|finding| finding.severity == Severity::Warning));
        }
    }
}
