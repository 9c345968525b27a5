//! The steps that a plan can have: what they do, and how they are named.

use serde::{Deserialize, Serialize};

use crate::backup::Host;
use crate::name::DatasetName;

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
