//! What a migration has brought, in numbers and by name.

mod account;
mod cutover;
mod outcome;
mod verifying;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dns::Advice;
use crate::journal::{Logged, Migration, Sums};
use crate::name::{DatasetName, MigrationId};
use crate::phase::State;
use crate::plan::LeftBehind;
use crate::time::Timestamp;

pub use self::account::Made;
pub use self::cutover::{Back, Cutover, Planned, Terms, When};
pub use self::outcome::{Difference, NAMED, Outcome, Verified};
pub use self::verifying::{Checked, Found, Verifying};

/// Totals of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Rows held.
    pub rows: u64,
    /// Tables held.
    pub tables: u64,
    /// Regular files held.
    pub files: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Differences that verification found.
    pub differences: u64,
    /// Differences that the last verification put right.
    #[serde(default)]
    pub repaired: u64,
    /// Items left out of the last pass.
    #[serde(default)]
    pub left_out: u64,
    /// Chunks applied.
    pub chunks_applied: u64,
    /// Chunks sent again although the journal held them.
    pub chunks_resent: u64,
}

/// What was moved and how it was verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this document's form.
    pub format: u32,
    /// The migration.
    pub migration: MigrationId,
    /// The plan it runs.
    pub plan: Digest,
    /// The appliance.
    pub appliance: String,
    /// Agents: source and target.
    pub agents: (String, String),
    /// Who started it.
    pub started_by: String,
    /// When.
    pub started_at: Timestamp,
    /// Its state.
    pub state: State,
    /// Passes so far.
    pub passes: u32,
    /// Totals.
    pub totals: Totals,
    /// What is held, by dataset.
    pub datasets: BTreeMap<DatasetName, Sums>,
    /// What the passes brought.
    pub outcome: Outcome,
    /// What stays at the source alone, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<LeftBehind>,
    /// When it ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How long users found neither side at the cut-over, in milliseconds: from the fence until the target's services were up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
    /// What happened, when, and who asked for it; the first of it are left out where it is long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Logged>,
    /// How much of it is left out.
    #[serde(default)]
    pub history_left_out: u64,
    /// The DNS records that change with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Advice>,
    /// By whom, when and on what grounds this report was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

impl Report {
    /// The report of a migration that holds `datasets`.
    pub fn of(migration: &Migration, datasets: BTreeMap<DatasetName, Sums>) -> Self {
        let outcome = migration.outcome.clone();
        let mut totals = Totals {
            differences: outcome.differences_found,
            repaired: outcome.repaired_found.values().sum(),
            left_out: outcome.left_out_found.values().sum(),
            chunks_applied: outcome.chunks_applied,
            chunks_resent: outcome.chunks_resent,
            ..Totals::default()
        };
        for sums in datasets.values() {
            totals.rows += sums.rows;
            totals.tables += sums.tables;
            totals.files += sums.files;
            totals.bytes += sums.bytes;
        }
        Report {
            format: 1,
            migration: migration.id.clone(),
            plan: migration.digest,
            appliance: migration.plan.appliance.clone(),
            agents: (migration.plan.source.agent.clone(), migration.plan.target.agent.clone()),
            started_by: migration.started_by.clone(),
            started_at: migration.started_at,
            state: migration.state.clone(),
            passes: migration.pass,
            totals,
            datasets,
            left_behind: migration.plan.left_behind.clone(),
            ended_at: None,
            downtime_ms: outcome.cutover.and_then(|cutover| cutover.downtime_ms()),
            history: Vec::new(),
            history_left_out: 0,
            dns: migration.plan.dns.clone(),
            made: None,
            outcome,
        }
    }
}
