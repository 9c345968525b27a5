//! Findings of a preflight: what stands in the way of a migration, and what to do about it.

mod backups;
mod changeover;
mod space;

use serde::{Deserialize, Serialize};

use self::backups::backups;
use self::changeover::{changeover, replicas};
pub use self::space::disk_of;
use self::space::space;
use crate::failure::Failure;
use crate::inventory::{Dataset, DatasetFacts, Inventory};
use crate::licence;
use crate::name::DatasetName;
use crate::plan::{self, Options};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Good to know.
    Info,
    /// The migration can run; somebody should look.
    Warning,
    /// The migration cannot run.
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about.
    pub item: String,
    /// What was found.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Finding {
    /// A finding.
    pub fn new(
        severity: Severity,
        item: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { severity, item: item.into(), what: what.into(), hint: hint.into() }
    }

    /// What a plan is refused for.
    fn refusal(failure: Failure) -> Self {
        Self::new(Severity::Error, failure.item, failure.what, failure.hint)
    }
}

/// Clocks further apart than this make time stamps misleading and certificates fail.
const SKEW_WARNING_MS: i64 = 5_000;

/// What two inventories tell, and how far the source's clock is ahead of the target's. Pure; that the source can be reached, and with which
/// certificate, is found by who asks.
pub fn compare(source: &Inventory, target: &Inventory, skew_ms: i64, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    versions(source, target, &mut findings);
    clocks(skew_ms, &mut findings);
    datasets(source, target, options, &mut findings);
    space(source, target, options, &mut findings);
    if options.licence {
        findings.extend(licence::unmet(&source.licence, &target.licence, source.taken_at));
    }
    backups(source, target, &mut findings);
    changeover(source, target, options, &mut findings);
    replicas(source, options, &mut findings);
    findings.extend(at("source", &source.hooks));
    findings.extend(at("target", &target.hooks));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn versions(source: &Inventory, target: &Inventory, findings: &mut Vec<Finding>) {
    if source.agent_version != target.agent_version {
        let what = format!("the source runs {}, the target {}", source.agent_version, target.agent_version);
        findings.push(Finding::new(
            Severity::Warning,
            "agents",
            what,
            "install the same release on both hosts",
        ));
    }
    if source.appliance.release != target.appliance.release {
        let what = format!("release {} here, {} there", source.appliance.release, target.appliance.release);
        let hint = "data of one release may not suit another: see the product's notes";
        findings.push(Finding::new(Severity::Warning, "appliance", what, hint));
    }
}

fn clocks(skew_ms: i64, findings: &mut Vec<Finding>) {
    if skew_ms.abs() > SKEW_WARNING_MS {
        let (ahead, seconds) =
            (if skew_ms > 0 { "ahead of" } else { "behind" }, skew_ms.abs() as f64 / 1000.0);
        let what = format!("the source's clock is {seconds:.1} s {ahead} the target's");
        findings.push(Finding::new(Severity::Warning, "clocks", what, "start NTP on both hosts"));
    }
}

/// What stands in the way of the datasets that were chosen.
fn datasets(source: &Inventory, target: &Inventory, options: &Options, findings: &mut Vec<Finding>) {
    let chosen: Vec<&Dataset> = source.datasets.iter().filter(|dataset| options.chooses(dataset)).collect();
    for dataset in &chosen {
        of_dataset(dataset, target, options, findings);
    }
    if options.decisions.is_some() {
        findings.extend(plan::unfit(target, &chosen, options));
    }
    let is_unknown = |name: &&DatasetName| !source.datasets.iter().any(|dataset| dataset.name == **name);
    let unknown: Vec<&DatasetName> = options.datasets.iter().filter(is_unknown).collect();
    // Of what is not known nothing more can be said.
    if unknown.is_empty() {
        let refused = plan::refuse_nothing(source, &chosen).and_then(|()| options.on_failure.check(options));
        findings.extend(refused.err().map(Finding::refusal));
    }
    findings.extend(unknown.into_iter().map(|name| {
        let (what, hint) =
            ("the source's manifest does not name it", "`handover inspect` lists the datasets");
        Finding::new(Severity::Error, format!("dataset {name}"), what, hint)
    }));
}

/// What stands in the way of one of them.
fn of_dataset(dataset: &Dataset, target: &Inventory, options: &Options, findings: &mut Vec<Finding>) {
    let item = format!("dataset {}", dataset.name);
    let here = target.datasets.iter().find(|d| d.name == dataset.name);
    findings.extend(at("source", &dataset.findings));
    let is_followed = options.follow && options.decisions.is_none();
    if is_followed {
        findings.extend(at("source", &dataset.following));
    }
    if is_followed && !options.one_way {
        findings.extend(at("source", &dataset.returning));
        findings.extend(here.into_iter().flat_map(|here| at("target", &here.returning)));
    }
    findings.extend(here.into_iter().flat_map(|here| at("target", &here.findings)));
    findings.extend(here.into_iter().flat_map(|here| lacking(dataset, here)));
    let notes = match &dataset.facts {
        DatasetFacts::Unreadable { problem, hint, .. } => {
            let what = format!("the source cannot read it: {problem}");
            findings.push(Finding::new(Severity::Error, item, what, hint));
            return;
        }
        DatasetFacts::Database(facts) => &facts.notes,
        DatasetFacts::Files(facts) => &facts.notes,
    };
    findings.extend(notes.iter().map(|note| Finding::new(Severity::Info, &item, note, "")));
    findings.extend(place(dataset, here, target, options));
}

/// What stands in the way of a dataset at its place at the target.
fn place(
    dataset: &Dataset,
    here: Option<&Dataset>,
    target: &Inventory,
    options: &Options,
) -> Option<Finding> {
    let error = |what: &str, hint: &str| {
        Some(Finding::new(Severity::Error, format!("dataset {}", dataset.name), what, hint))
    };
    match here.map(|here| &here.facts) {
        None => error(
            "the target's manifest does not name it",
            "add a section of the same name to the target's appliance.toml",
        ),
        Some(facts) if holds_data(facts) && !options.overwrite => error(
            "the target holds data of it already",
            "plan with --overwrite to replace it (abort brings it back until finalize), or empty it",
        ),
        Some(DatasetFacts::Unreadable { problem, hint, .. }) => {
            error(&format!("the target cannot look at its place: {problem}"), hint)
        }
        Some(_) => plan::matches_target(dataset, target).err().map(Finding::refusal),
    }
}

/// What one side has found.
fn at<'a>(side: &'a str, findings: &'a [Finding]) -> impl Iterator<Item = Finding> + 'a {
    findings
        .iter()
        .map(move |finding| Finding { what: format!("at the {side}: {}", finding.what), ..finding.clone() })
}

/// What the target's server lacks of what the source's database needs.
fn lacking(source: &Dataset, target: &Dataset) -> Vec<Finding> {
    let (DatasetFacts::Database(facts), Some(offers)) = (&source.facts, &target.offers) else {
        return Vec::new();
    };
    let missing = facts.needs.iter().filter(|need| !offers.contains(&need.thing));
    missing.map(|need| need.finding.clone()).collect()
}

/// True when a target's dataset is not empty.
pub fn holds_data(facts: &DatasetFacts) -> bool {
    match facts {
        DatasetFacts::Database(database) => database.bytes > 0,
        DatasetFacts::Files(tree) => tree.files + tree.others > 0 || tree.directories > 1,
        DatasetFacts::Unreadable { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{DatabaseFacts, Need, sample};
    use crate::plan::{Lasted, OnFailure, Plan, Rates};
    use crate::replication::{ReplicaFacts, ReplicationFacts, ServerRole};

    /// An inventory of one database.
    fn inventory(needs: Vec<Need>, offers: Option<&[&str]>) -> Inventory {
        let facts = DatabaseFacts { engine: "postgres".to_owned(), needs, ..DatabaseFacts::default() };
        let offers = offers.map(|things| things.iter().map(|thing| (*thing).to_owned()).collect());
        let error = |what, hint| vec![Finding::new(Severity::Error, "shop", what, hint)];
        let mut host = sample::host(vec![Dataset {
            following: error("no log", "switch it on"),
            returning: error("no way back", "allow it"),
            offers,
            ..sample::dataset("shop", DatasetFacts::Database(facts))
        }]);
        host.appliance.backups.push(crate::backup::Occasion::Start);
        host
    }

    #[test]
    fn what_a_changeover_cannot_do_is_told_where_there_is_one() {
        let service = |problem: Option<&str>| crate::changeover::ServiceFacts {
            unit: "web.service".to_owned(),
            state: "active".to_owned(),
            enabled: true,
            trial: crate::changeover::Trial::Open,
            problem: problem.map(str::to_owned),
        };
        let mut source = inventory(Vec::new(), None);
        let target = source.clone();
        source.changeover.services.push(service(Some("it is not there")));
        let told = |options: &Options| {
            let found = compare(&source, &target, 0, options);
            let about =
                found.into_iter().filter(|one| one.item.starts_with("service") || one.item == "manifest");
            about.map(|finding| finding.what).collect::<Vec<_>>()
        };
        let follow = Options { follow: true, ..Options::default() };
        assert_eq!(told(&follow), ["at the source: it is not there"]);
        assert!(told(&Options::default())[0].contains("stay as they are"));
        assert_eq!(told(&Options { data_only: true, ..follow }), [""; 0]);
    }

    #[test]
    fn what_a_plan_is_refused_for_is_told() {
        let source = inventory(Vec::new(), None);
        let mut log = source.clone();
        log.datasets[0].is_log = true;
        let undo =
            |one_way| Options { follow: true, one_way, on_failure: OnFailure::Undo, ..Options::default() };
        let table = [
            (&source, undo(false), ""),
            (&source, undo(true), "on-failure"),
            (&source, Options { on_failure: OnFailure::Undo, ..Options::default() }, "on-failure"),
            (&log, Options { without_logs: true, ..undo(true) }, "plan"),
            (&sample::host(Vec::new()), undo(true), "plan"),
            (&source, Options { datasets: vec!["nope".parse().unwrap()], ..undo(true) }, "dataset nope"),
        ];
        let rates = Rates { copy: 1.0, reread: 1.0, lasted: Lasted::default() };
        for (source, options, item) in table {
            let refused = Plan::make(("a", source), ("b", source), options.clone(), &rates).err();
            assert_eq!(refused.as_ref().map_or("", |failure| &failure.item), item);
            let found = compare(source, source, 0, &options);
            let refusals: Vec<Finding> = refused.into_iter().map(Finding::refusal).collect();
            let told = |one: &&Finding| ["plan", "on-failure", "dataset nope"].contains(&one.item.as_str());
            assert_eq!(found.iter().filter(told).collect::<Vec<_>>(), refusals.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn replicas_that_no_manifest_names_are_told() {
        let role = |replicas: &[&str]| ServerRole {
            replicas: replicas.iter().map(|one| (*one).to_owned()).collect(),
            follows: Vec::new(),
        };
        let told = |role, replica, options: &Options| {
            let mut source = inventory(Vec::new(), None);
            let datasets = vec!["shop".parse().unwrap()];
            let server = "db1:3306".to_owned();
            let one = ReplicationFacts { datasets, server, role, replica, problem: None };
            source.changeover.replication.push(one);
            let found = compare(&source, &inventory(Vec::new(), None), 0, options);
            let about = found.into_iter().filter(|one| one.item.starts_with("server"));
            about.map(|finding| finding.what).collect::<Vec<_>>()
        };
        let follow = Options { follow: true, ..Options::default() };
        assert!(told(Some(role(&["db2"])), None, &follow)[0].contains("(db2)"));
        let named = ReplicaFacts { server: "db2:3306".to_owned(), role: None };
        for (role, replica, options) in [
            (Some(role(&["db2"])), Some(named), &follow),
            (Some(role(&[])), None, &follow),
            (None, None, &follow),
            (Some(role(&["db2"])), None, &Options::default()),
        ] {
            assert_eq!(told(role, replica, options), [""; 0]);
        }
    }

    #[test]
    fn hooks_that_cannot_run_are_told_of_both_hosts() {
        let (mut source, mut target) = (inventory(Vec::new(), None), inventory(Vec::new(), None));
        source.hooks.push(Finding::new(Severity::Error, "hook mail", "it is not executable", "chmod 755 it"));
        target.hooks.push(Finding::new(Severity::Warning, "hook users", "it is not there", "make it"));
        let found = compare(&source, &target, 0, &Options::default());
        let hooks = found.iter().filter(|finding| finding.item.starts_with("hook"));
        let hooks: Vec<_> = hooks.map(|hook| (hook.severity, hook.what.as_str())).collect();
        let expected = [
            (Severity::Error, "at the source: it is not executable"),
            (Severity::Warning, "at the target: it is not there"),
        ];
        assert_eq!(hooks, expected);
    }

    #[test]
    fn what_the_target_does_not_offer_is_told() {
        let need = |thing: &str, severity| Need {
            thing: thing.to_owned(),
            finding: Finding::new(severity, "shop", format!("{thing} is missing"), "install it"),
        };
        let needs = || vec![need("extension a", Severity::Error), need("role b", Severity::Warning)];
        let told = |offers: Option<&[&str]>| {
            let found =
                compare(&inventory(needs(), None), &inventory(Vec::new(), offers), 0, &Options::default());
            found.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
        };
        assert_eq!(told(Some(&["extension a", "role b", "role c"])), [""; 0]);
        assert_eq!(told(Some(&["role b"])), ["extension a is missing"]);
        assert_eq!(told(Some(&[])), ["extension a is missing", "role b is missing"]);
        // A server that could not be asked is told of elsewhere.
        assert_eq!(told(None), [""; 0]);
        let follow = Options { follow: true, ..Options::default() };
        let found = |options: &Options| {
            let found = compare(&inventory(Vec::new(), None), &inventory(Vec::new(), None), 0, options);
            found.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
        };
        let back = ["at the source: no log", "at the source: no way back", "at the target: no way back"];
        assert_eq!(found(&follow), back);
        assert_eq!(found(&Options { one_way: true, ..follow }), ["at the source: no log"]);
    }
}
