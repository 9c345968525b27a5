//! The steps of a plan: what they do, and what they are expected to take.

use serde::{Deserialize, Serialize};

use super::{Acts, Options, Rates};
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
    /// Make room at the target and record what undo will need.
    Prepare,
    /// Have the source keep a database's changes from now on.
    Capture(DatasetName),
    /// Copy a dataset.
    Copy(DatasetName),
    /// Make a database's indexes, before its changes are followed.
    Index(DatasetName),
    /// Make a database's indexes, views, triggers.
    Finish(DatasetName),
    /// Read a dataset again at the target and compare it with what the source sent.
    Verify(DatasetName),
    /// Bring the settings to where they are to be put in place.
    Stage,
    /// Stop the services of both hosts.
    Maintain,
    /// Fence the source's writers off.
    Fence,
    /// Carry over what the source holds behind the fence and the target does not.
    CatchUp(DatasetName),
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
    /// Start the target's services.
    Serve,
    /// Move the licence.
    Licence,
    /// Finish at the target what takes a time that grows with the data, while it is in use.
    Settle(DatasetName),
}

impl StepKind {
    /// A short stable name: `copy:mail`.
    pub fn id(&self) -> String {
        match self {
            StepKind::Prepare => "prepare".to_owned(),
            StepKind::Capture(d) => format!("capture:{d}"),
            StepKind::Copy(d) => format!("copy:{d}"),
            StepKind::Index(d) => format!("index:{d}"),
            StepKind::Finish(d) => format!("finish:{d}"),
            StepKind::Verify(d) => format!("verify:{d}"),
            StepKind::Stage => "stage".to_owned(),
            StepKind::Maintain => "maintain".to_owned(),
            StepKind::Fence => "fence".to_owned(),
            StepKind::CatchUp(d) => format!("catch-up:{d}"),
            StepKind::Retain => "retain".to_owned(),
            StepKind::Keep(d) => format!("keep:{d}"),
            StepKind::Configure => "configure".to_owned(),
            StepKind::Reboot => "reboot".to_owned(),
            StepKind::Publish => "publish".to_owned(),
            StepKind::Certify => "certify".to_owned(),
            StepKind::Serve => "serve".to_owned(),
            StepKind::Licence => "licence".to_owned(),
            StepKind::Settle(d) => format!("settle:{d}"),
        }
    }

    /// What a person reads.
    pub fn title(&self) -> String {
        match self {
            StepKind::Prepare => "prepare the target".to_owned(),
            StepKind::Capture(d) => format!("keep changes of {d}"),
            StepKind::Copy(d) => format!("copy {d}"),
            StepKind::Index(d) => format!("build indexes of {d}"),
            StepKind::Finish(d) => format!("finish the schema of {d}"),
            StepKind::Verify(d) => format!("verify {d}"),
            StepKind::Stage => "copy the system settings".to_owned(),
            StepKind::Maintain => "put the source into maintenance".to_owned(),
            StepKind::Fence => "fence the source off".to_owned(),
            StepKind::CatchUp(d) => format!("carry over the rest of {d}"),
            StepKind::Retain => "keep the target's own settings in databases".to_owned(),
            StepKind::Keep(d) => format!("have the source follow {d}"),
            StepKind::Configure => "change the configuration".to_owned(),
            StepKind::Reboot => "reboot both systems".to_owned(),
            StepKind::Publish => "put databases in place".to_owned(),
            StepKind::Certify => "update the certificates".to_owned(),
            StepKind::Serve => "restart the services".to_owned(),
            StepKind::Licence => "move the licence".to_owned(),
            StepKind::Settle(d) => format!("settle {d}"),
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

/// A copy of one moment.
pub(super) fn of_one_moment(chosen: &[&Dataset], rates: &Rates) -> Vec<PlannedStep> {
    let mut steps = vec![bare(StepKind::Prepare)];
    steps.extend(chosen.iter().map(|dataset| copy_step(dataset, rates)));
    steps.extend(chosen.iter().filter_map(|dataset| finish_step(dataset, rates)));
    steps.extend(chosen.iter().map(|dataset| verify_step(dataset, rates)));
    if chosen.iter().any(|dataset| is_database(dataset)) {
        steps.push(bare(StepKind::Publish));
    }
    steps
}

/// A copy that is kept up to date, and takes over.
pub(super) fn live(chosen: &[&Dataset], acts: &Acts, options: &Options, rates: &Rates) -> Vec<PlannedStep> {
    let databases = || chosen.iter().filter(|dataset| is_database(dataset));
    let each = |step: fn(DatasetName) -> StepKind| databases().map(move |d| bare(step(d.name.clone())));
    let mut steps = vec![bare(StepKind::Prepare)];
    steps.extend(each(StepKind::Capture));
    steps.extend(chosen.iter().map(|dataset| copy_step(dataset, rates)));
    steps.extend(databases().filter_map(|dataset| {
        Some(PlannedStep { step: StepKind::Index(dataset.name.clone()), ..finish_step(dataset, rates)? })
    }));
    steps.extend(chosen.iter().map(|dataset| verify_step(dataset, rates)));
    if acts.settings > 0 {
        steps.push(bare(StepKind::Stage));
    }
    if acts.maintenance {
        steps.push(lasting(StepKind::Maintain, STOPS_MS * acts.stopping.max(acts.starting) as u64));
    }
    steps.push(bare(StepKind::Fence));
    steps.extend(chosen.iter().map(|dataset| bare(StepKind::CatchUp(dataset.name.clone()))));
    if acts.retained > 0 {
        steps.push(bare(StepKind::Retain));
    }
    steps.extend(each(StepKind::Finish));
    if !options.one_way {
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
    if acts.starting + acts.certificates > 0 {
        steps.push(lasting(StepKind::Serve, STARTS_MS * acts.starting as u64));
    }
    if options.licence {
        steps.push(bare(StepKind::Licence));
    }
    steps.extend(each(StepKind::Settle));
    steps
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
    // A row costs about as much as 100 bytes and a file as much as 20 kB, over what their contents cost.
    let weight = bytes + rows * 100 + files * 20_000;
    let expected_ms = expected_ms(weight, rates.copy, 100);
    PlannedStep { step: StepKind::Copy(dataset.name.clone()), rows, files, bytes, expected_ms }
}

fn finish_step(dataset: &Dataset, rates: &Rates) -> Option<PlannedStep> {
    let DatasetFacts::Database(facts) = &dataset.facts else { return None };
    // An entry of an index costs about as much as 200 bytes of the database, where nothing is known of its indexes.
    let weight = facts.index_entries.map_or(facts.bytes, |entries| entries * 200);
    let expected_ms = expected_ms(weight, rates.copy * 2.0, 50);
    Some(PlannedStep { expected_ms, ..bare(StepKind::Finish(dataset.name.clone())) })
}

fn verify_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let (rows, files, bytes) = sizes(dataset);
    let expected_ms = expected_ms(bytes + rows * 100 + files * 5_000, rates.reread, 50);
    PlannedStep { step: StepKind::Verify(dataset.name.clone()), rows, files, bytes, expected_ms }
}
