//! The verification of a copy that is followed, as far as it has got. It is journaled with the outcome, so that a restarted agent
//! goes on where the last one stood.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Difference, NAMED, Outcome};
use crate::journal::Sums;
use crate::name::DatasetName;
use crate::rows::Key;

/// A verification under way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verifying {
    /// What differs is put right.
    pub repair: bool,
    /// How far it has got, by database.
    #[serde(default)]
    pub checked: BTreeMap<DatasetName, Checked>,
}

/// How far the verification of a database has got.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checked {
    /// So many of the tables that are followed are through, in the schema's order.
    pub tables: u64,
    /// The next one is through up to this key.
    pub after: Option<Key>,
    /// What was read again at the target.
    pub read: Sums,
    /// What differs.
    pub differ: Found,
    /// What differed, and was put right.
    pub repaired: Found,
    /// Rows that changed each time they were looked at.
    pub unsettled: u64,
}

/// Things that were found: all are counted, the first are named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub named: Vec<Difference>,
}

impl Found {
    /// Adds one, unless it is named already: an agent that was started again may find it once more.
    pub fn add(&mut self, difference: Difference) {
        if self.named.contains(&difference) {
            return;
        }
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(difference);
        }
    }

    /// Takes one back.
    pub fn remove(&mut self, difference: &Difference) {
        self.count = self.count.saturating_sub(1);
        self.named.retain(|known| known != difference);
    }
}

impl Outcome {
    /// Differences that are known and were not put right: those of the last verification, and what one under way has found so far.
    pub fn known_differences(&self) -> u64 {
        let mut known: BTreeMap<_, _> =
            self.verified.iter().map(|(dataset, verified)| (dataset, verified.differences)).collect();
        for (dataset, checked) in self.verifying.iter().flat_map(|verifying| &verifying.checked) {
            let count = known.entry(dataset).or_default();
            *count = checked.differ.count.max(*count);
        }
        known.values().sum()
    }

    /// The verification under way is over, at its end or before it. What it has found so far is not forgotten.
    pub fn end_verifying(&mut self) {
        for (dataset, checked) in self.verifying.take().into_iter().flat_map(|verifying| verifying.checked) {
            let known = self.verified.get(&dataset).map_or(0, |verified| verified.differences);
            if checked.differ.count <= known {
                continue;
            }
            self.verified.entry(dataset.clone()).or_default().differences = checked.differ.count;
            self.differences.retain(|known| known.dataset != dataset);
            self.differences.extend(checked.differ.named);
            self.differences.truncate(NAMED);
        }
        self.differences_found = self.verified.values().map(|verified| verified.differences).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verified;

    fn name(name: &str) -> DatasetName {
        name.parse().unwrap()
    }

    fn found(dataset: &str, count: u64) -> Found {
        let difference = |n| Difference {
            dataset: name(dataset),
            item: format!("table t, id {n}"),
            what: "it is missing at the target".to_owned(),
        };
        Found { count, named: (0..count).map(difference).collect() }
    }

    fn outcome(verified: u64, under_way: Option<u64>) -> Outcome {
        let mut outcome = Outcome::default();
        let last = Verified { differences: verified, ..Verified::default() };
        outcome.verify(name("a"), 1, last, found("a", verified).named);
        outcome.verify(name("b"), 1, Verified::default(), Vec::new());
        outcome.verifying = under_way.map(|count| {
            let checked = Checked { differ: found("a", count), ..Checked::default() };
            Verifying { checked: [(name("a"), checked)].into(), ..Verifying::default() }
        });
        outcome
    }

    #[test]
    fn what_is_known_to_differ() {
        for (verified, under_way, known) in
            [(0, None, 0), (3, None, 3), (0, Some(2), 2), (3, Some(0), 3), (3, Some(4), 4), (0, Some(0), 0)]
        {
            let mut outcome = outcome(verified, under_way);
            assert_eq!(outcome.known_differences(), known, "{verified} {under_way:?}");
            // One that ends before its end has found what it has found.
            outcome.end_verifying();
            assert_eq!((outcome.known_differences(), outcome.differences_found), (known, known));
            assert_eq!(outcome.differences.len() as u64, known);
        }
    }
}
