//! The plan: what a migration will do, as a value. It is made from two inventories and the options by a pure
//! function, shown, and approved by its digest; [`Plan::approve`] is the only way to something that can run.

mod acts;
mod behind;
mod fitting;
mod lasted;
mod steps;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::Host;
use crate::digest::Digest;
use crate::dns::Advice;
use crate::failure::Failure;
use crate::inventory::{Dataset, DatasetFacts, Inventory};
use crate::licence;
use crate::name::DatasetName;
use crate::rehearsal::decision::Decisions;

use self::acts::Acts;
pub use self::behind::LeftBehind;
pub(crate) use self::fitting::unfit;
pub use self::lasted::Lasted;
use self::steps::BackupsWanted;
pub use self::steps::{PlannedStep, StepKind};

/// What the operator chose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Replace what the target's datasets hold already.
    #[serde(default)]
    pub overwrite: bool,
    /// Only these datasets; all when empty.
    #[serde(default)]
    pub datasets: Vec<DatasetName>,
    /// Follow the source's changes from the copy to the cut-over. Left out of the document where it is not so: earlier plans keep
    /// their digests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Let the source not follow the target once that has taken over: an abort loses what was written there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_way: bool,
    /// Move the licence at the cut-over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub licence: bool,
    /// Let both hosts exchange all their settings at the cut-over, and reboot; otherwise the target takes the basic ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub swap: bool,
    /// Leave services, settings and certificates alone, whatever the manifests name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data_only: bool,
    /// Bring the databases into the schemas that stand at the target, and do this about rows that do not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Decisions>,
}

/// How fast the parts of a migration go, for expected times.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// Bytes per second from the source's disk to the target's.
    pub copy: f64,
    /// Bytes per second when the target's data is read again.
    pub reread: f64,
    /// What steps took in earlier migrations.
    pub lasted: Lasted,
}

/// One host as the plan saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The agent's name, from its certificate.
    pub agent: String,
    /// The inventory's structure: what must still be so at the start.
    pub structure: BTreeMap<String, String>,
}

/// What a migration will do. Serializes to the same bytes for the same hosts, data and options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this document's form.
    pub format: u32,
    /// The appliance's name.
    pub appliance: String,
    /// What the operator chose.
    pub options: Options,
    /// The source.
    pub source: Side,
    /// The target.
    pub target: Side,
    /// The steps, in order; copies of several datasets run side by side, as do their verifications.
    pub steps: Vec<PlannedStep>,
    /// The DNS records that change, where the target's manifest names any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Advice>,
    /// What stays at the source alone, and why. Left out of the document where there is nothing: earlier plans keep their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<LeftBehind>,
}

/// A plan whose digest the operator gave: the only thing that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovedPlan {
    plan: Plan,
    digest: Digest,
}

impl ApprovedPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// The version of the plan document that this release writes.
pub const PLAN_FORMAT: u32 = 1;

impl Plan {
    /// Makes the plan. Pure: equal arguments, equal plan.
    pub fn make(
        source: (&str, &Inventory),
        target: (&str, &Inventory),
        options: Options,
        rates: &Rates,
    ) -> Result<Plan, Failure> {
        let chosen = choose(source.1, target.1, &options)?;
        if options.decisions.is_some() {
            fitting::may_fit(target.1, &chosen, &options)?;
        }
        if options.swap && !options.follow {
            return Err(Failure::operator(
                "settings",
                "they are swapped at the cut-over of a plan that follows its source",
            )
            .hint("plan with --follow, too"));
        }
        if options.licence {
            may_move_licence(source.1, target.1, &options)?;
        }
        let backups = backups_between(source.1, target.1, &chosen);
        let (mut steps, dns) = if options.follow {
            let moved: Vec<_> = chosen.iter().map(|dataset| &dataset.name).collect();
            let acts = Acts::between(&source.1.changeover, &target.1.changeover, &options, &moved)?;
            let dns = acts::records(source.1, target.1, &options)?;
            (steps::live(&chosen, &acts, dns.as_ref(), &backups, &options, rates), dns)
        } else {
            (steps::of_one_moment(&chosen, &backups, rates), None)
        };
        rates.lasted.correct(&mut steps);
        let left_behind = behind::behind(source.1, target.1, &chosen, &options);
        let side = |(agent, inventory): (&str, &Inventory)| Side {
            agent: agent.to_owned(),
            structure: inventory.structure(),
        };
        Ok(Plan {
            format: PLAN_FORMAT,
            appliance: source.1.appliance.name.clone(),
            options,
            source: side(source),
            target: side(target),
            steps,
            dns,
            left_behind,
        })
    }

    /// The bytes that the digest covers: this document as compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data: strings, numbers, lists and maps with string keys always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// How long it is expected to take.
    pub fn expected(&self) -> Duration {
        Duration::from_millis(self.steps.iter().map(|step| step.expected_ms).sum())
    }

    /// Names the plan.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Approves the plan by the digest that the operator saw; refuses any other.
    pub fn approve(self, digest: Digest) -> Result<ApprovedPlan, Failure> {
        if self.digest() != digest {
            return Err(Failure::permanent(
                format!("plan {}", digest.short()),
                "the digest is that of another plan",
            )
            .hint("run `handover plan` and start the digest it prints"));
        }
        Ok(ApprovedPlan { plan: self, digest })
    }

    /// The datasets that the plan moves, in order.
    pub fn datasets(&self) -> impl Iterator<Item = &DatasetName> {
        self.steps.iter().filter_map(|s| match &s.step {
            StepKind::Copy(dataset) | StepKind::Fit(dataset) => Some(dataset),
            _ => None,
        })
    }

    /// Refuses when a host is no longer what the plan saw, and names what changed.
    pub fn still_holds(&self, source: &Inventory, target: &Inventory) -> Result<(), Failure> {
        for (host, side, now) in [("source", &self.source, source), ("target", &self.target, target)] {
            if let Some(changed) = first_difference(&side.structure, &now.structure()) {
                return Err(Failure::operator(
                    format!("plan {}", self.digest().short()),
                    format!("the {host} has changed since the plan was made: {changed}"),
                )
                .hint("run `handover plan` again, look at what it says, and start the new digest"));
            }
        }
        Ok(())
    }
}

/// The target first, where both are asked for: when it is accepted, the source is left for good before it is backed up.
fn backups_between(source: &Inventory, target: &Inventory, chosen: &[&Dataset]) -> BackupsWanted {
    let of_host = |host, inventory: &Inventory| {
        inventory.appliance.backups.iter().map(|before| (host, *before)).collect()
    };
    let of: Vec<Vec<_>> = vec![of_host(Host::Target, target), of_host(Host::Source, source)];
    let is_chosen = |dataset: &&Dataset| chosen.iter().any(|one| one.name == dataset.name);
    BackupsWanted {
        of: of.into_iter().flatten().collect(),
        at_target: target.datasets.iter().filter(is_chosen).cloned().collect(),
    }
}

fn may_move_licence(source: &Inventory, target: &Inventory, options: &Options) -> Result<(), Failure> {
    if !options.follow {
        return Err(Failure::operator(
            "licence",
            "it moves at the cut-over of a plan that follows its source",
        )
        .hint("plan with --follow, too"));
    }
    licence::refuse_unmet(&source.licence, &target.licence, source.taken_at)
}

fn first_difference(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<String> {
    let gone = then.keys().find(|k| !now.contains_key(*k)).map(|k| format!("{k} is gone"));
    let new = now.keys().find(|k| !then.contains_key(*k)).map(|k| format!("{k} is new"));
    let other =
        then.iter().find(|(k, v)| now.get(*k).is_some_and(|n| n != *v)).map(|(k, _)| format!("{k} differs"));
    gone.or(new).or(other)
}

/// The source's datasets to copy, each checked against the target's of the same name.
fn choose<'a>(
    source: &'a Inventory,
    target: &Inventory,
    options: &Options,
) -> Result<Vec<&'a Dataset>, Failure> {
    for wanted in &options.datasets {
        if !source.datasets.iter().any(|d| d.name == *wanted) {
            return Err(Failure::operator(
                format!("dataset {wanted}"),
                "the source's manifest does not name it",
            )
            .hint("`handover inspect` lists the datasets"));
        }
    }
    let wanted = |d: &&Dataset| options.datasets.is_empty() || options.datasets.contains(&d.name);
    let chosen: Vec<&Dataset> = source.datasets.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err(Failure::operator(
            "plan",
            "there is nothing to move: the source's manifest names no dataset",
        )
        .hint("add [[database]] or [[files]] sections to the source's appliance.toml"));
    }
    chosen.iter().try_for_each(|dataset| matches_target(dataset, target))?;
    Ok(chosen)
}

pub(crate) fn matches_target(dataset: &Dataset, target: &Inventory) -> Result<(), Failure> {
    let item = format!("dataset {}", dataset.name);
    if let DatasetFacts::Unreadable { problem, hint, .. } = &dataset.facts {
        return Err(
            Failure::operator(item, format!("the source cannot read it: {problem}")).hint(hint.clone())
        );
    }
    let Some(here) = target.datasets.iter().find(|d| d.name == dataset.name) else {
        return Err(Failure::operator(item, "the target's manifest does not name it")
            .hint("add a section of the same name to the target's appliance.toml, or choose datasets with --dataset"));
    };
    let fits = match (&dataset.facts, &here.facts) {
        (DatasetFacts::Database(a), DatasetFacts::Database(b)) => a.engine == b.engine,
        (DatasetFacts::Database(_), DatasetFacts::Unreadable { declared, .. }) => declared == "database",
        (DatasetFacts::Files(_), DatasetFacts::Unreadable { declared, .. }) => declared == "files",
        (DatasetFacts::Files(_), DatasetFacts::Files(_)) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Failure::operator(item, "it is of one kind at the source and of another at the target")
        .hint("declare it alike in both manifests"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeover::{LabelFacts, ServiceFacts, Trial};
    use crate::inventory::{DatabaseFacts, TreeFacts};

    fn inventory(datasets: &[(&str, DatasetFacts)]) -> Inventory {
        let dataset = |(n, f): &(&str, DatasetFacts)| Dataset {
            name: n.parse().unwrap(),
            facts: f.clone(),
            findings: Vec::new(),
            following: Vec::new(),
            returning: Vec::new(),
            offers: None,
            excluded: Vec::new(),
        };
        Inventory {
            agent_version: "1".into(),
            taken_at: crate::time::Timestamp::default(),
            appliance: crate::inventory::ApplianceFacts::default(),
            host: crate::inventory::HostFacts::default(),
            datasets: datasets.iter().map(dataset).collect(),
            licence: Default::default(),
            changeover: Default::default(),
            hooks: Vec::new(),
        }
    }

    fn database(bytes: u64) -> DatasetFacts {
        DatasetFacts::Database(DatabaseFacts { engine: "sqlite".into(), bytes, ..DatabaseFacts::default() })
    }

    fn make(source: &Inventory, target: &Inventory, options: Options) -> Result<Plan, Failure> {
        let rates = Rates { copy: 1e8, reread: 1e9, lasted: Lasted::default() };
        Plan::make(("a", source), ("b", target), options, &rates)
    }

    #[test]
    fn copies_then_finishes_then_verifies_then_publishes() {
        let source = inventory(&[("db", database(5)), ("www", DatasetFacts::Files(TreeFacts::default()))]);
        let plan = make(&source, &source, Options::default()).unwrap();
        let ids: Vec<_> = plan.steps.iter().map(|s| s.step.id()).collect();
        assert_eq!(
            ids,
            ["prepare", "copy:db", "copy:www", "finish:db", "verify:db", "verify:www", "publish"]
        );
    }

    #[test]
    fn a_live_plan_captures_before_it_copies_and_publishes_behind_the_fence() {
        let source = inventory(&[("db", database(5)), ("www", DatasetFacts::Files(TreeFacts::default()))]);
        let follow = || Options { follow: true, ..Options::default() };
        let plan = make(&source, &source, follow()).unwrap();
        let ids: Vec<_> = plan.steps.iter().map(|s| s.step.id()).collect();
        assert_eq!(
            ids.join(" "),
            "prepare capture:db copy:db copy:www index:db verify:db verify:www \
             fence catch-up:db catch-up:www finish:db keep:db publish settle:db"
        );
        assert_eq!(plan.datasets().count(), 2);
        // A source of this release goes into maintenance.
        let mut maintains = source.clone();
        maintains.changeover.maintains = true;
        let plan = make(&maintains, &source, follow()).unwrap();
        assert!(plan.steps.iter().any(|step| step.step == StepKind::Maintain));
        // The label is shown before anybody is let in.
        let mut labelled = source.clone();
        labelled.changeover.label = Some(LabelFacts { text: "On trial".into(), file: None, problem: None });
        labelled.changeover.services.push(ServiceFacts {
            unit: "web.service".into(),
            state: "active".into(),
            enabled: true,
            trial: Trial::Stopped,
            problem: None,
        });
        let plan = make(&maintains, &labelled, follow()).unwrap();
        let ids: Vec<_> = plan.steps.iter().map(|s| s.step.id()).collect();
        assert!(ids.join(" ").ends_with("publish label serve settle:db"), "{ids:?}");
        // Earlier plans have no word of it.
        let still = make(&source, &source, Options::default()).unwrap();
        assert!(!String::from_utf8(still.to_bytes()).unwrap().contains("follow"));
    }

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
        let ids: Vec<_> = once.steps.iter().map(|step| step.step.id()).collect();
        assert_eq!(ids, ["backup:source", "prepare", "copy:db", "finish:db", "verify:db", "publish"]);
        let (source, target) = hosts(&[], &[]);
        let changed = once.still_holds(&source, &target).unwrap_err();
        assert!(changed.what.contains("the source has changed"), "{changed}");
    }

    #[test]
    fn building_indexes_takes_as_long_as_they_have_entries() {
        let finish = |index_entries| {
            let facts = DatabaseFacts { bytes: 1 << 30, index_entries, ..DatabaseFacts::default() };
            let source = inventory(&[("db", DatasetFacts::Database(facts))]);
            let plan = make(&source, &source, Options::default()).unwrap();
            plan.steps.iter().find(|step| step.step.id() == "finish:db").unwrap().expected_ms
        };
        assert!(finish(None) > 3_000, "{}", finish(None));
        assert_eq!(finish(Some(0)), 50);
        assert_eq!(finish(Some(1_000_000)), 1050);
    }

    #[test]
    fn only_the_digest_shown_approves() {
        let source = inventory(&[("db", database(5))]);
        let plan = make(&source, &source, Options::default()).unwrap();
        assert!(plan.clone().approve(plan.digest()).is_ok());
        assert!(plan.clone().approve(Digest::of(b"another")).is_err());
        let back: Plan = serde_json::from_slice(&plan.to_bytes()).unwrap();
        assert_eq!(back.digest(), plan.digest());
    }

    #[test]
    fn a_changed_host_is_named() {
        let source = inventory(&[("db", database(5))]);
        let plan = make(&source, &source, Options::default()).unwrap();
        assert_eq!(
            plan.still_holds(&inventory(&[("db", database(99))]), &source),
            Ok(()),
            "sizes may change"
        );
        let gone = plan.still_holds(&inventory(&[]), &source).unwrap_err();
        assert!(
            gone.what.ends_with("the source has changed since the plan was made: dataset db is gone"),
            "{gone}"
        );
        let mut other = source.clone();
        other.appliance.release = "9".into();
        let differs = plan.still_holds(&source, &other).unwrap_err();
        assert!(differs.what.contains("target") && differs.what.ends_with("release differs"), "{differs}");
    }

    #[test]
    fn refuses_what_cannot_be_matched() {
        let missing = |declared: &str| DatasetFacts::Unreadable {
            declared: declared.into(),
            problem: "no such file".into(),
            hint: "mount it".into(),
        };
        let db = inventory(&[("db", database(1))]);
        let table = [
            (inventory(&[]), db.clone(), "plan: there is nothing to move"),
            (db.clone(), inventory(&[]), "dataset db: the target's manifest does not name it"),
            (
                inventory(&[("db", missing("database"))]),
                db.clone(),
                "dataset db: the source cannot read it: no such file",
            ),
            (db.clone(), inventory(&[("db", missing("files"))]), "dataset db: it is of one kind"),
        ];
        for (source, target, expected) in table {
            let failure = make(&source, &target, Options::default()).unwrap_err().to_string();
            assert!(failure.starts_with(expected), "{failure}");
        }
        assert!(make(&db, &inventory(&[("db", missing("database"))]), Options::default()).is_ok());
        let options = Options { datasets: vec!["nope".parse().unwrap()], ..Options::default() };
        assert!(make(&db, &db, options).unwrap_err().to_string().starts_with("dataset nope"));
    }
}
