//! The verification of a copy that is followed, as far as it has got. It is journaled with the outcome, so that a restarted agent
//! goes on where the last one stood.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Difference, NAMED};
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
