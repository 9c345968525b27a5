//! The steps of a plan: what they do, and what they are expected to take.

use serde::{Deserialize, Serialize};

use super::{Acts, Options, Rates};
use crate::backup::{Host, Occasion};
use crate::dns::{Advice, Stage};
use crate::inventory::{Dataset, DatasetFacts};
use crate::name::DatasetName;

/// What stopping a service is expected to take.
const STOPS_MS: u64 = 500;
/// What starting one is expected to take, until it is well.
const STARTS_MS: u64 = 1_000;
/// What a host is expected to be away for when it reboots.
const REBOOTS_MS: u64 = 30_000;

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "do", content = "dataset", rename_all = "snake_case")]
pub enum StepKind {
    /// Have a host back up its datasets, before anything else is done.
    BackUp(Host),
    /// Make room at the target and record what undo will need.
    Prepare,
    /// Have the source keep a database's changes from now on.
    Capture(DatasetName),
    /// Copy a dataset.
    Copy(DatasetName),
    /// Try a database's rows in the schema that stands at the target, and copy those that fit.
    Fit(DatasetName),
    /// Make a database's indexes, before its changes are followed.
    Index(DatasetName),
    /// Make a database's indexes, views, triggers.
    Finish(DatasetName),
    /// Read a dataset again at the target and compare it with what the source sent.
    Verify(DatasetName),
    /// Take the source out of the round-robin hosts.
    Withdraw,
    /// Bring the settings to where they are to be put in place.
    Stage,
    /// Stop the services of both hosts.
    Maintain,
    /// Take the source's replicas from their primary.
    Deactivate,
    /// Fence the source's writers off.
    Fence,
    /// Carry over what the source holds behind the fence and the target does not.
    CatchUp(DatasetName),
    /// The same, of a database that is brought into the schema that stands at the target.
    Refit(DatasetName),
    /// Give the databases that are built the rows that make the target the host it is.
    Retain,
    /// Have a database's changes kept at the target from now on, and the source made ready to follow them.
    Keep(DatasetName),
    /// Put the settings in place.
    Configure,
    /// Reboot both hosts.
    Reboot,
    /// Put the databases in their final place.
    Publish,
    /// Put the certificates in place.
    Certify,
    /// Show users that the target is on trial.
    Label,
    /// Start the target's services.
    Serve,
    /// Move the licence.
    Licence,
    /// Finish at the target what takes a time that grows with the data, while it is in use.
    Settle(DatasetName),
    /// Give the target its replicas, while it is in use: a copy of it, and following from there.
    Replicate,
    /// Have a host back up its datasets again, when the target is accepted.
    BackUpAgain(Host),
    /// Have the names that users know lead to the target.
    Repoint,
    /// Put the appliance among the round-robin hosts again.
    Rejoin,
}

impl StepKind {
    /// A short stable name: `copy:mail`.
    pub fn id(&self) -> String {
        match self {
            StepKind::BackUp(host) => format!("backup:{host}"),
            StepKind::Prepare => "prepare".to_owned(),
            StepKind::Capture(d) => format!("capture:{d}"),
            StepKind::Copy(d) => format!("copy:{d}"),
            StepKind::Fit(d) => format!("fit:{d}"),
            StepKind::Index(d) => format!("index:{d}"),
            StepKind::Finish(d) => format!("finish:{d}"),
            StepKind::Verify(d) => format!("verify:{d}"),
            StepKind::Stage => "stage".to_owned(),
            StepKind::Maintain => "maintain".to_owned(),
            StepKind::Deactivate => "deactivate".to_owned(),
            StepKind::Fence => "fence".to_owned(),
            StepKind::CatchUp(d) => format!("catch-up:{d}"),
            StepKind::Refit(d) => format!("refit:{d}"),
            StepKind::Retain => "retain".to_owned(),
            StepKind::Keep(d) => format!("keep:{d}"),
            StepKind::Configure => "configure".to_owned(),
            StepKind::Reboot => "reboot".to_owned(),
            StepKind::Publish => "publish".to_owned(),
            StepKind::Certify => "certify".to_owned(),
            StepKind::Label => "label".to_owned(),
            StepKind::Serve => "serve".to_owned(),
            StepKind::Licence => "licence".to_owned(),
            StepKind::Settle(d) => format!("settle:{d}"),
            StepKind::Replicate => "replicate".to_owned(),
            StepKind::BackUpAgain(host) => format!("backup-again:{host}"),
            StepKind::Withdraw => "withdraw".to_owned(),
            StepKind::Repoint => "repoint".to_owned(),
            StepKind::Rejoin => "rejoin".to_owned(),
        }
    }

    /// What a person reads.
    pub fn title(&self) -> String {
        match self {
            StepKind::BackUp(host) => format!("back up the {host}"),
            StepKind::Prepare => "prepare the target".to_owned(),
            StepKind::Capture(d) => format!("keep changes of {d}"),
            StepKind::Copy(d) => format!("copy {d}"),
            StepKind::Fit(d) => format!("fit {d} into the new schema"),
            StepKind::Index(d) => format!("build indexes of {d}"),
            StepKind::Finish(d) => format!("finish the schema of {d}"),
            StepKind::Verify(d) => format!("verify {d}"),
            StepKind::Stage => "copy the system settings".to_owned(),
            StepKind::Maintain => "put the source into maintenance".to_owned(),
            StepKind::Deactivate => "deactivate the replica".to_owned(),
            StepKind::Fence => "fence the source off".to_owned(),
            StepKind::CatchUp(d) => format!("carry over the rest of {d}"),
            StepKind::Refit(d) => format!("fit the rest of {d}"),
            StepKind::Retain => "keep the target's own settings in databases".to_owned(),
            StepKind::Keep(d) => format!("have the source follow {d}"),
            StepKind::Configure => "change the configuration".to_owned(),
            StepKind::Reboot => "reboot both systems".to_owned(),
            StepKind::Publish => "put databases in place".to_owned(),
            StepKind::Certify => "update the certificates".to_owned(),
            StepKind::Label => "show the label".to_owned(),
            StepKind::Serve => "restart the services".to_owned(),
            StepKind::Licence => "move the licence".to_owned(),
            StepKind::Settle(d) => format!("settle {d}"),
            StepKind::Replicate => "set up and activate the replica".to_owned(),
            StepKind::BackUpAgain(host) => format!("back up the {host} again"),
            StepKind::Withdraw => "leave the round-robin hosts".to_owned(),
            StepKind::Repoint => "point names to the target".to_owned(),
            StepKind::Rejoin => "join the round-robin hosts".to_owned(),
        }
    }
}

/// One step and what it will take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// What it does.
    pub step: StepKind,
    /// Rows to move.
    pub rows: u64,
    /// Files to move.
    pub files: u64,
    /// Bytes to move.
    pub bytes: u64,
    /// Expected time in milliseconds.
    pub expected_ms: u64,
}

fn bare(step: StepKind) -> PlannedStep {
    PlannedStep { step, rows: 0, files: 0, bytes: 0, expected_ms: 100 }
}

fn lasting(step: StepKind, expected_ms: u64) -> PlannedStep {
    PlannedStep { expected_ms: expected_ms.max(100), ..bare(step) }
}

fn expected_ms(bytes: u64, rate: f64, fixed_ms: u64) -> u64 {
    fixed_ms + (bytes as f64 * 1000.0 / rate.max(1.0)) as u64
}

/// Which backups a plan has, by what both manifests say.
#[derive(Debug, Clone, Default)]
pub(super) struct BackupsWanted {
    /// The hosts, with what they are to be made before.
    pub of: Vec<(Host, Occasion)>,
    /// What the target has now, which the plan may replace: the datasets that are chosen.
    pub at_target: Vec<Dataset>,
}

impl BackupsWanted {
    fn steps(&self, wanted: Occasion, chosen: &[&Dataset], rates: &Rates) -> Vec<PlannedStep> {
        let of_host = |host| match (host, wanted) {
            (Host::Target, Occasion::Start) => self.at_target.iter().collect(),
            _ => chosen.to_vec(),
        };
        let hosts = self.of.iter().filter(|(_, before)| *before == wanted).map(|(host, _)| *host);
        let step = |host: Host| {
            let (rows, files, bytes) = of_host(host)
                .into_iter()
                .map(sizes)
                .fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
            let step = match wanted {
                Occasion::Accept => StepKind::BackUpAgain(host),
                Occasion::Start | Occasion::Manual => StepKind::BackUp(host),
            };
            // Written once, and read again: about what a copy takes.
            let expected_ms = expected_ms(bytes + rows * 100 + files * 20_000, rates.copy, 500);
            PlannedStep { step, rows: 0, files: 0, bytes, expected_ms }
        };
        hosts.map(step).collect()
    }
}

/// A copy of one moment.
pub(super) fn of_one_moment(chosen: &[&Dataset], backups: &BackupsWanted, rates: &Rates) -> Vec<PlannedStep> {
    let mut steps = backups.steps(Occasion::Start, chosen, rates);
    steps.push(bare(StepKind::Prepare));
    steps.extend(chosen.iter().map(|dataset| copy_step(dataset, rates)));
    steps.extend(chosen.iter().filter_map(|dataset| finish_step(dataset, rates)));
    steps.extend(chosen.iter().map(|dataset| verify_step(dataset, rates)));
    if chosen.iter().any(|dataset| is_database(dataset)) {
        steps.push(bare(StepKind::Publish));
    }
    steps
}

/// A copy that is kept up to date, and takes over.
pub(super) fn live(
    chosen: &[&Dataset],
    acts: &Acts,
    dns: Option<&Advice>,
    backups: &BackupsWanted,
    options: &Options,
    rates: &Rates,
) -> Vec<PlannedStep> {
    let changes = |stage| dns.is_some_and(|advice| advice.has(stage));
    let databases = || chosen.iter().filter(|dataset| is_database(dataset));
    let each = |step: fn(DatasetName) -> StepKind| databases().map(move |d| bare(step(d.name.clone())));
    let mut steps = backups.steps(Occasion::Start, chosen, rates);
    steps.push(bare(StepKind::Prepare));
    let is_fitted = |dataset: &&&Dataset| options.decisions.is_some() && is_database(dataset);
    if options.decisions.is_none() {
        steps.extend(each(StepKind::Capture));
    }
    steps.extend(chosen.iter().map(|dataset| match is_fitted(&dataset) {
        true => fit_step(dataset, rates),
        false => copy_step(dataset, rates),
    }));
    if options.decisions.is_none() {
        steps.extend(databases().filter_map(|dataset| {
            Some(PlannedStep { step: StepKind::Index(dataset.name.clone()), ..finish_step(dataset, rates)? })
        }));
    }
    steps.extend(chosen.iter().filter(|one| !is_fitted(one)).map(|dataset| verify_step(dataset, rates)));
    if changes(Stage::Before) {
        steps.push(bare(StepKind::Withdraw));
    }
    if acts.settings > 0 {
        steps.push(bare(StepKind::Stage));
    }
    if acts.maintenance {
        steps.push(lasting(StepKind::Maintain, STOPS_MS * acts.stopping.max(acts.starting) as u64));
    }
    if acts.replicas_there > 0 {
        steps.push(lasting(StepKind::Deactivate, STOPS_MS));
    }
    steps.push(bare(StepKind::Fence));
    steps.extend(chosen.iter().map(|dataset| match is_fitted(&dataset) {
        true => refit_step(dataset, rates),
        false => bare(StepKind::CatchUp(dataset.name.clone())),
    }));
    if acts.retained > 0 {
        steps.push(bare(StepKind::Retain));
    }
    steps.extend(each(StepKind::Finish));
    // What is written in one schema cannot be carried to another.
    if !options.one_way && options.decisions.is_none() {
        steps.extend(each(StepKind::Keep));
    }
    if acts.settings > 0 {
        steps.push(bare(StepKind::Configure));
    }
    if acts.swap {
        steps.push(lasting(StepKind::Reboot, REBOOTS_MS));
    }
    steps.push(bare(StepKind::Publish));
    if acts.certificates > 0 {
        steps.push(bare(StepKind::Certify));
    }
    if acts.label {
        steps.push(bare(StepKind::Label));
    }
    if acts.starting + acts.certificates > 0 {
        steps.push(lasting(StepKind::Serve, STARTS_MS * acts.starting as u64));
    }
    if options.licence {
        steps.push(bare(StepKind::Licence));
    }
    steps.extend(each(StepKind::Settle));
    if acts.replicas_here > 0 {
        steps.push(replicate_step(chosen, rates));
    }
    if changes(Stage::Cutover) {
        steps.push(bare(StepKind::Repoint));
    }
    if changes(Stage::End) {
        steps.push(bare(StepKind::Rejoin));
    }
    steps.extend(backups.steps(Occasion::Accept, chosen, rates));
    steps
}

/// Databases are copied once more, and compared: each row counts for both.
fn replicate_step(chosen: &[&Dataset], rates: &Rates) -> PlannedStep {
    let databases = chosen.iter().filter(|dataset| is_database(dataset));
    let expected = |dataset: &&Dataset| {
        copy_step(dataset, rates).expected_ms + 2 * verify_step(dataset, rates).expected_ms
    };
    let rows: u64 = databases.clone().map(|dataset| 2 * sizes(dataset).0).sum();
    let step = lasting(StepKind::Replicate, STARTS_MS + databases.map(expected).sum::<u64>());
    PlannedStep { rows, ..step }
}

fn is_database(dataset: &Dataset) -> bool {
    matches!(dataset.facts, DatasetFacts::Database(_))
}

/// Rows, files and bytes of a dataset.
fn sizes(dataset: &Dataset) -> (u64, u64, u64) {
    match &dataset.facts {
        DatasetFacts::Database(d) => (d.tables.iter().map(|t| t.rows).sum(), 0, d.bytes),
        DatasetFacts::Files(t) => (0, t.files, t.bytes),
        DatasetFacts::Unreadable { .. } => (0, 0, 0),
    }
}

fn copy_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let (rows, files, bytes) = sizes(dataset);
    // A file costs about as much as 20 kB, over what its contents cost.
    let weight = bytes + rows * row_weight(dataset) + files * 20_000;
    let expected_ms = expected_ms(weight, rates.copy, 100);
    PlannedStep { step: StepKind::Copy(dataset.name.clone()), rows, files, bytes, expected_ms }
}

/// How many bytes cost as much as a row does, over what its contents cost: that differs with the server that takes it. (Measured
/// with rows of 100 to 200 bytes; what the two servers count as a database's bytes is not the same either.)
fn row_weight(dataset: &Dataset) -> u64 {
    match &dataset.facts {
        DatasetFacts::Database(facts) if facts.engine == "mariadb" => 200,
        DatasetFacts::Database(facts) if facts.engine == "postgres" => 0,
        _ => 100,
    }
}

/// Rows are tried, and those that fit are copied.
fn fit_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let copy = copy_step(dataset, rates);
    PlannedStep { step: StepKind::Fit(dataset.name.clone()), expected_ms: 2 * copy.expected_ms, ..copy }
}

/// What behind the fence takes a time that grows with the data: rows are read at both places once more, and indexes are made.
fn refit_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let indexes = finish_step(dataset, rates).map_or(0, |step| step.expected_ms);
    let expected_ms = 2 * verify_step(dataset, rates).expected_ms + indexes;
    lasting(StepKind::Refit(dataset.name.clone()), expected_ms)
}

fn finish_step(dataset: &Dataset, rates: &Rates) -> Option<PlannedStep> {
    let DatasetFacts::Database(facts) = &dataset.facts else { return None };
    // An entry of an index costs about as much as 200 bytes. Where nothing is known of its indexes, two thirds of the database count.
    let weight = facts.index_entries.map_or(facts.bytes / 3 * 2, |entries| entries * 200);
    let expected_ms = expected_ms(weight, rates.copy * 2.0, 50);
    Some(PlannedStep { expected_ms, ..bare(StepKind::Finish(dataset.name.clone())) })
}

fn verify_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let (rows, files, bytes) = sizes(dataset);
    let expected_ms = expected_ms(bytes + rows * 100 + files * 5_000, rates.reread, 50);
    PlannedStep { step: StepKind::Verify(dataset.name.clone()), rows, files, bytes, expected_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{RecordChange, RecordKind};
    use crate::inventory::{DatabaseFacts, TableFacts};
    use crate::plan::Lasted;
    use crate::rows::TableName;

    #[test]
    fn a_replica_is_deactivated_before_and_set_up_behind_what_users_wait_for() {
        let acts = Acts {
            maintenance: true,
            starting: 1,
            swap: true,
            settings: 1,
            replicas_there: 1,
            replicas_here: 1,
            ..Acts::default()
        };
        let steps = live(
            &[],
            &acts,
            None,
            &BackupsWanted::default(),
            &Options { licence: true, ..Options::default() },
            &Rates { copy: 1e8, reread: 1e9, lasted: Lasted::default() },
        );
        let ids: Vec<_> = steps.iter().map(|step| step.step.id()).collect();
        assert_eq!(
            ids.join(" "),
            "prepare stage maintain deactivate fence configure reboot publish serve licence replicate"
        );
    }

    #[test]
    fn a_replica_takes_the_longer_the_more_rows_there_are() {
        let step = |rows| {
            let table = TableFacts { name: TableName::plain("t"), rows, bytes: 0 };
            let facts = DatabaseFacts { tables: vec![table], ..DatabaseFacts::default() };
            let dataset = Dataset {
                name: "shop".parse().unwrap(),
                facts: DatasetFacts::Database(facts),
                findings: Vec::new(),
                following: Vec::new(),
                returning: Vec::new(),
                offers: None,
                excluded: Vec::new(),
            };
            replicate_step(&[&dataset], &Rates { copy: 1e8, reread: 1e9, lasted: Lasted::default() })
        };
        let (few, many) = (step(10), step(1_000_000));
        assert_eq!((few.rows, many.rows), (20, 2_000_000));
        assert!(many.expected_ms > few.expected_ms + 1000, "{} and {}", few.expected_ms, many.expected_ms);
    }

    #[test]
    fn records_change_before_anything_else_of_a_cutover_and_after_it() {
        let change = |at| RecordChange {
            at,
            name: "www.example.net.".to_owned(),
            kind: RecordKind::A,
            from: Default::default(),
            to: Default::default(),
            was_ttl: 60,
            ttl: 60,
        };
        let rates = Rates { copy: 1e8, reread: 1e9, lasted: Lasted::default() };
        for (stages, expected) in [
            (
                &[Stage::Before, Stage::Cutover, Stage::End][..],
                "prepare withdraw maintain fence publish repoint rejoin",
            ),
            (&[Stage::Cutover], "prepare maintain fence publish repoint"),
            (&[], "prepare maintain fence publish"),
        ] {
            let changes = stages.iter().map(|at| change(*at)).collect();
            let advice = Advice { server: "192.0.2.53:53".to_owned(), automatic: true, changes };
            let acts = Acts { maintenance: true, ..Acts::default() };
            let steps =
                live(&[], &acts, Some(&advice), &BackupsWanted::default(), &Options::default(), &rates);
            let ids: Vec<_> = steps.iter().map(|step| step.step.id()).collect();
            assert_eq!(ids.join(" "), expected);
        }
    }
}
