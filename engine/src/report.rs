//! What a migration has brought, in numbers and by name.

mod account;
mod verifying;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backup;
use crate::digest::Digest;
use crate::dns::Advice;
use crate::journal::{Logged, Migration, Sums};
use crate::kept::Kept;
use crate::name::{DatasetName, MigrationId};
use crate::phase::State;
use crate::plan::LeftBehind;
use crate::rehearsal::fitted::Fitted;
use crate::throttle::Throttle;
use crate::time::Timestamp;

pub use self::account::Made;
pub use self::verifying::{Checked, Found, Verifying};

/// Differences named in a report; further ones are only counted.
pub const NAMED: usize = 1000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The dataset.
    pub dataset: DatasetName,
    /// The table with its key range, or the file.
    pub item: String,
    /// What differs.
    pub what: String,
}

/// What was verified of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verified {
    /// How much was read again at the target.
    pub read: Sums,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Differences that were found.
    #[serde(default)]
    pub differences: u64,
    /// Rows that changed each time they were looked at, so that nothing can be said of them.
    #[serde(default)]
    pub unsettled: u64,
}

/// What the passes of a migration have brought so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Chunks applied.
    pub chunks_applied: u64,
    /// Of them, chunks whose contents the journal held already. Always 0, unless something is wrong.
    pub chunks_resent: u64,
    /// Bytes of chunks that arrived, before compression.
    pub bytes_arrived: u64,
    /// What the last verification read, by dataset.
    pub verified: BTreeMap<DatasetName, Verified>,
    /// The last pass whose verification has read all that it should, by dataset.
    #[serde(default)]
    pub verified_passes: BTreeMap<DatasetName, u32>,
    /// The first differences that it found.
    pub differences: Vec<Difference>,
    /// How many it found.
    pub differences_found: u64,
    /// The first of those that the last verification put right.
    #[serde(default)]
    pub repaired: Vec<Difference>,
    /// How many it put right, by dataset.
    #[serde(default)]
    pub repaired_found: BTreeMap<DatasetName, u64>,
    /// The verification of a copy that is followed, while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifying: Option<Verifying>,
    /// Why the last one ended before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifying_ended: Option<String>,
    /// The first items left out of the last pass, with the reason (a file that kept changing).
    pub left_out: Vec<Difference>,
    /// How many were left out, by dataset.
    #[serde(default)]
    pub left_out_found: BTreeMap<DatasetName, u64>,
    /// Working time of the passes in milliseconds.
    pub working_ms: u64,
    /// The cut-over, once one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// The cut-over that is planned for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Planned>,
    /// The source was given up: it is undone without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// How the source is throttled, where an operator has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// Backups that were made for it; they stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<backup::Made>,
    /// What an abort has kept of what was migrated, until somebody removes it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<DatasetName, Kept>,
    /// How databases were brought into the target's schemas, where the plan does that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fitted: BTreeMap<DatasetName, Fitted>,
}

/// When a cut-over is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At once.
    #[default]
    Now,
    /// At this time.
    At(Timestamp),
    /// Never: everything up to the fence is done, and the prediction made.
    DryRun,
    /// One that was planned is planned no more.
    Never,
}

/// A cut-over that is planned for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// When it begins, by the target's clock.
    pub at: Timestamp,
    /// What is asked of it.
    pub terms: Terms,
    /// Notice of it was given.
    #[serde(default)]
    pub is_told: bool,
}

/// What an operator asks of a cut-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Unless the target has taken over so long after the source was fenced off, all is undone and following goes on.
    pub max_downtime_ms: u64,
    /// The source is not fenced off while the copy is further behind.
    pub max_lag_ms: u64,
    /// When it is to begin.
    #[serde(default)]
    pub when: When,
    /// Of an abort: what was written at the target since it took over is given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// Of an abort: the source is gone for good. Nothing is asked of it, and nothing of it is put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { max_downtime_ms: 30_000, max_lag_ms: 5_000, when: When::Now, discard: false, alone: false }
    }
}

/// A cut-over, by the target's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cutover {
    /// What was asked.
    pub terms: Terms,
    /// How long writers were expected to wait.
    #[serde(default)]
    pub predicted_ms: u64,
    /// When the source began to be fenced off.
    #[serde(default)]
    pub fenced_at: Option<Timestamp>,
    /// What acts on rows by itself (triggers) may be in the unpublished databases.
    #[serde(default)]
    pub finishing: bool,
    /// The databases are being published: from here on it only goes forward, or is aborted.
    #[serde(default)]
    pub committed: bool,
    /// When the target had taken over.
    #[serde(default)]
    pub live_at: Option<Timestamp>,
    /// It has, and its services are still being started: nobody is served yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_services: bool,
    /// When users were served again: its services were up and found healthy. As `live_at` where the plan starts none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_at: Option<Timestamp>,
    /// Whether the source follows the target since.
    #[serde(default)]
    pub back: Back,
}

/// How the source follows the target that has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Back {
    /// It does not, or not yet.
    #[default]
    Not,
    /// It does: what is written at the target is carried to it.
    Following,
    /// All of it has been carried, and the target takes no more writes.
    Returned,
    /// No more: the target was accepted, or what was written there was given up.
    Ended,
}

impl Cutover {
    /// How long users found neither side, in milliseconds; none before the target serves them. Of records that do not tell when that was:
    /// until it had taken over.
    pub fn downtime_ms(&self) -> Option<u64> {
        if self.awaits_services {
            return None;
        }
        let (fenced, serving) = (self.fenced_at?.millis(), self.serving_at.or(self.live_at)?.millis());
        Some(u64::try_from(serving - fenced).unwrap_or(0))
    }
}

impl Outcome {
    /// Takes what the verification of a dataset in a pass found, in place of what an earlier one did.
    pub fn verify(
        &mut self,
        dataset: DatasetName,
        pass: u32,
        verified: Verified,
        differences: Vec<Difference>,
    ) {
        self.verified_passes.insert(dataset.clone(), pass);
        let checked = self.verifying.as_ref().and_then(|verifying| verifying.checked.get(&dataset).cloned());
        if let Some(checked) = checked {
            self.repaired(&dataset, &checked.repaired);
        }
        // A repair that did not help is none.
        let before = self.repaired.len();
        self.repaired.retain(|known| !differences.contains(known));
        if let Some(found) = self.repaired_found.get_mut(&dataset) {
            *found = found.saturating_sub((before - self.repaired.len()) as u64);
        }
        self.differences.retain(|known| known.dataset != dataset);
        self.differences.extend(differences);
        self.differences.truncate(NAMED);
        self.verified.insert(dataset, verified);
        self.differences_found = self.verified.values().map(|verified| verified.differences).sum();
    }

    /// The verification of a copy that is followed begins. What an earlier one found stays until this one has read it again.
    pub fn begin_verifying(&mut self, repair: bool) {
        self.verifying = Some(Verifying { repair, ..Verifying::default() });
        self.verifying_ended = None;
        self.repaired.clear();
        self.repaired_found.clear();
    }

    /// What differs in a tree is put right: what still differs afterwards is found again.
    pub fn begin_repair(&mut self, dataset: &DatasetName) {
        let named =
            self.differences.iter().filter(|difference| difference.dataset == *dataset).cloned().collect();
        let count = self.verified.get(dataset).map_or(0, |verified| verified.differences);
        self.repaired(dataset, &Found { count, named });
    }

    fn repaired(&mut self, dataset: &DatasetName, repaired: &Found) {
        self.repaired.retain(|known| known.dataset != *dataset);
        self.repaired.extend(repaired.named.iter().cloned());
        self.repaired.truncate(NAMED);
        self.repaired_found.insert(dataset.clone(), repaired.count);
    }

    /// Forgets what verifications found: another one begins.
    pub fn forget_verification(&mut self) {
        self.verified.clear();
        self.differences.clear();
        self.differences_found = 0;
    }

    /// Adds a backup that was made, or was whole already.
    pub fn back_up(&mut self, made: backup::Made) {
        self.backups.retain(|known| (known.host, &known.id) != (made.host, &made.id));
        self.backups.push(made);
    }

    /// Adds an item that had to be left out.
    pub fn leave_out(&mut self, item: Difference) {
        *self.left_out_found.entry(item.dataset.clone()).or_default() += 1;
        if self.left_out.len() < NAMED {
            self.left_out.push(item);
        }
    }

    /// Forgets what was left out of a dataset: it is copied again.
    pub fn forget_left_out(&mut self, dataset: &DatasetName) {
        self.left_out.retain(|item| item.dataset != *dataset);
        self.left_out_found.remove(dataset);
    }
}

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
