//! Which acts of a changeover a plan has, by what both manifests name.

use crate::changeover::{CertificateAction, Facts, Scope, SettingsFacts};
use crate::dns::{self, Advice};
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::name::DatasetName;

use super::Options;

/// What is done beside moving data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Acts {
    /// The source goes into maintenance.
    pub maintenance: bool,
    /// Services of the source that stop.
    pub stopping: usize,
    /// Services of the target that start.
    pub starting: usize,
    /// Sections of settings that both hosts have, but for rows that come with their database.
    pub settings: usize,
    /// Sections of the target's whose rows stay, in databases that are moved.
    pub retained: usize,
    /// Settings are exchanged, and both hosts reboot.
    pub swap: bool,
    /// Certificates that are put in place at the target.
    pub certificates: usize,
    /// Servers of the source whose replicas are deactivated.
    pub replicas_there: usize,
    /// Servers of the target that get replicas.
    pub replicas_here: usize,
    /// The target shows a label while it is on trial.
    pub label: bool,
}

impl Acts {
    /// What both manifests lead to.
    pub fn between(
        source: &Facts,
        target: &Facts,
        options: &Options,
        moved: &[&DatasetName],
    ) -> Result<Self, Failure> {
        if options.data_only {
            return match options.swap {
                true => Err(Failure::operator("settings", "they are to be swapped, and to be left alone")
                    .hint("plan with --swap or with --data-only")),
                false => Ok(Self::default()),
            };
        }
        refuse_problems(source, target)?;
        let scope = if options.swap { Scope::All } else { Scope::Basic };
        let comes_along =
            |one: &SettingsFacts| one.dataset.as_ref().is_some_and(|dataset| moved.contains(&dataset));
        let travels = |one: &SettingsFacts| scope.holds(&one.group) && !comes_along(one);
        let here = |name: &str| target.settings.iter().any(|one| one.name == name && travels(one));
        let settings = source.settings.iter().filter(|one| travels(one) && here(&one.name)).count();
        let stays = |one: &&SettingsFacts| !scope.holds(&one.group) && comes_along(one);
        if options.swap && settings == 0 {
            return Err(Failure::operator(
                "settings",
                "there is nothing to swap: no [[settings]] is in both manifests",
            )
            .hint("name sections alike in both appliance.toml, or plan without --swap"));
        }
        let certificates = target.certificates.iter();
        let replicated = |facts: &Facts| {
            facts.replication.iter().filter(|one| one.is_replicated_of(&options.datasets)).count()
        };
        Ok(Self {
            maintenance: source.maintains,
            stopping: source.services.len(),
            starting: target.services.len(),
            settings,
            retained: target.settings.iter().filter(stays).count(),
            swap: options.swap,
            certificates: certificates.filter(|one| one.action != CertificateAction::Keep).count(),
            replicas_there: replicated(source),
            replicas_here: replicated(target),
            label: target.label.is_some(),
        })
    }
}

/// Refuses what keeps either host from being changed over.
fn refuse_problems(source: &Facts, target: &Facts) -> Result<(), Failure> {
    let sides = [("source", source), ("target", target)];
    let first = sides.into_iter().find_map(|(side, facts)| Some((side, facts.problems().next()?)));
    let Some((side, (item, problem))) = first else { return Ok(()) };
    Err(Failure::operator(item, format!("at the {side}: {problem}")).hint(
        "mend that, or plan with --data-only to leave services, settings, certificates and replicas alone",
    ))
}

/// The DNS records that change; none where the target's manifest names none, or where they are changed already.
pub(super) fn records(
    source: &Inventory,
    target: &Inventory,
    options: &Options,
) -> Result<Option<Advice>, Failure> {
    let Some(facts) = target.changeover.dns.as_ref().filter(|_| !options.data_only) else { return Ok(None) };
    let advice = dns::advise(&source.appliance, &target.appliance, facts, options.swap)?;
    Ok(Some(advice).filter(|advice| !advice.changes.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeover::Group;
    use crate::replication::{ReplicaFacts, ReplicationFacts};

    fn settings(sections: &[(&str, &str)]) -> Facts {
        let section = |(name, group): &(&str, &str)| SettingsFacts {
            name: (*name).to_owned(),
            group: Group((*group).to_owned()),
            file: "/etc/x".to_owned(),
            dataset: None,
            problem: None,
        };
        Facts { settings: sections.iter().map(section).collect(), ..Facts::default() }
    }

    #[test]
    fn what_both_have_is_swapped_and_what_makes_a_host_is_not_copied() {
        let (source, target) = (
            settings(&[("mail", "mail"), ("ip", "network"), ("old", "x")]),
            settings(&[("mail", "mail"), ("ip", "network")]),
        );
        let count = |swap| {
            Acts::between(&source, &target, &Options { swap, ..Options::default() }, &[]).unwrap().settings
        };
        assert_eq!((count(false), count(true)), (1, 2));
        let alone = Options { data_only: true, ..Options::default() };
        assert_eq!(Acts::between(&source, &target, &alone, &[]), Ok(Acts::default()));
    }

    #[test]
    fn replicas_are_of_the_plan_that_moves_their_databases() {
        let facts = |replica: bool| Facts {
            replication: vec![ReplicationFacts {
                datasets: vec!["shop".parse().unwrap()],
                server: "db1:3306".into(),
                role: None,
                replica: replica.then(|| ReplicaFacts { server: "db2:3306".into(), role: None }),
                problem: None,
            }],
            ..Facts::default()
        };
        let of = |datasets: &[&str], source, target| {
            let datasets = datasets.iter().map(|name| name.parse().unwrap()).collect();
            let options = Options { datasets, ..Options::default() };
            let acts = Acts::between(&facts(source), &facts(target), &options, &[]).unwrap();
            (acts.replicas_there, acts.replicas_here)
        };
        assert_eq!(of(&[], true, true), (1, 1));
        assert_eq!(of(&["shop"], true, false), (1, 0));
        assert_eq!(of(&["www"], true, true), (0, 0));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let swap = Options { swap: true, ..Options::default() };
        let refused = |source: &Facts, options: &Options| {
            Acts::between(source, &settings(&[("ip", "network")]), options, &[]).unwrap_err().to_string()
        };
        assert!(refused(&Facts::default(), &swap).contains("nothing to swap"));
        assert!(refused(&Facts::default(), &Options { data_only: true, ..swap }).contains("left alone"));
        let mut broken = settings(&[("ip", "network")]);
        broken.settings[0].problem = Some("it cannot be read".to_owned());
        let told = refused(&broken, &Options::default());
        assert!(told.starts_with("settings ip: at the source: it cannot be read"), "{told}");
    }

    #[test]
    fn rows_of_a_database_that_moves_come_with_it_or_stay() {
        let mut facts = settings(&[("mail", "mail"), ("names", "dns"), ("file", "mail")]);
        let (shop, other): (DatasetName, DatasetName) = ("shop".parse().unwrap(), "other".parse().unwrap());
        facts.settings[..2].iter_mut().for_each(|one| one.dataset = Some(shop.clone()));
        let acts = |swap, moved: &[&DatasetName]| {
            let options = Options { swap, ..Options::default() };
            let acts = Acts::between(&facts, &facts, &options, moved).unwrap();
            (acts.settings, acts.retained)
        };
        assert_eq!((acts(false, &[&other]), acts(true, &[&other])), ((2, 0), (3, 0)));
        assert_eq!((acts(false, &[&other, &shop]), acts(true, &[&shop])), ((1, 1), (1, 0)));
    }
}
