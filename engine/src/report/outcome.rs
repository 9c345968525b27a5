//! What the passes of a migration have brought so far. It is journaled as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cutover, Found, Planned, Verifying};
use crate::backup;
use crate::journal::Sums;
use crate::kept::Kept;
use crate::name::DatasetName;
use crate::rehearsal::fitted::Fitted;
use crate::throttle::Throttle;

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
