//! Which backups a plan has, by what both manifests say.

use super::expected::backup_step;
use super::{PlannedStep, Rates, StepKind};
use crate::backup::{Host, Occasion};
use crate::inventory::{Dataset, Inventory};

/// Which backups a plan has.
#[derive(Debug, Clone, Default)]
pub(super) struct BackupsWanted {
    /// The hosts, with what they are to be made before.
    of: Vec<(Host, Occasion)>,
    /// What the target has now, which the plan may replace: the datasets that are chosen.
    at_target: Vec<Dataset>,
}

impl BackupsWanted {
    /// The target first, where both are asked for: when it is accepted, the source is left for good before it is backed up.
    pub fn between(source: &Inventory, target: &Inventory, chosen: &[&Dataset]) -> Self {
        let of_host = |host, inventory: &Inventory| -> Vec<_> {
            inventory.appliance.backups.iter().map(|before| (host, *before)).collect()
        };
        let is_chosen = |dataset: &&Dataset| chosen.iter().any(|one| one.name == dataset.name);
        Self {
            of: [of_host(Host::Target, target), of_host(Host::Source, source)].concat(),
            at_target: target.datasets.iter().filter(is_chosen).cloned().collect(),
        }
    }

    /// Those that are made before something.
    pub fn steps(&self, wanted: Occasion, chosen: &[&Dataset], rates: &Rates) -> Vec<PlannedStep> {
        let hosts = self.of.iter().filter(|(_, before)| *before == wanted).map(|(host, _)| *host);
        let step = |host| {
            let datasets: Vec<&Dataset> = match (host, wanted) {
                (Host::Target, Occasion::Start) => self.at_target.iter().collect(),
                _ => chosen.to_vec(),
            };
            let step = match wanted {
                Occasion::Accept => StepKind::BackUpAgain(host),
                Occasion::Start | Occasion::Manual => StepKind::BackUp(host),
            };
            backup_step(step, &datasets, rates)
        };
        hosts.map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::sample::{database, inventory};
    use crate::plan::Options;
    use crate::plan::sample::{ids, make};

    #[test]
    fn hosts_are_backed_up_before_all_else_and_when_the_target_is_accepted() {
        use crate::backup::Occasion::{Accept, Start};
        let hosts = |source: &[_], target: &[_]| {
            let of = |bytes, before: &[_]| {
                let mut host = inventory(&[("db", database(bytes)), ("left", database(7))]);
                host.appliance.backups = before.to_vec();
                host
            };
            (of(5, source), of(9, target))
        };
        let plan = |(source, target): (Inventory, Inventory), follow| {
            let datasets = vec!["db".parse().unwrap()];
            make(&source, &target, Options { follow, datasets, ..Options::default() }).unwrap()
        };
        let both = plan(hosts(&[Start, Accept], &[Start, Accept]), true);
        let steps: Vec<_> = both.steps.iter().map(|step| (step.step.id(), step.bytes)).collect();
        assert_eq!(steps[..2], [("backup:target".to_owned(), 9), ("backup:source".to_owned(), 5)]);
        let last = ["backup-again:target", "backup-again:source"].map(|id| (id.to_owned(), 5));
        assert_eq!(steps[steps.len() - 2..], last);
        // Nobody accepts a copy of one moment.
        let once = plan(hosts(&[Start, Accept], &[]), false);
        assert_eq!(ids(&once.steps), "backup:source prepare copy:db finish:db verify:db publish");
        let (source, target) = hosts(&[], &[]);
        let changed = once.still_holds(&source, &target).unwrap_err();
        assert!(changed.what.contains("the source has changed"), "{changed}");
    }
}
