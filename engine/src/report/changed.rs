//! What a migration has changed beside the data, by name: settings, services, certificates, the licence, DNS records. Never values of settings,
//! which may be secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::backup::Host;
use crate::time::Timestamp;

/// Something that a step has changed beside the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The step's id.
    pub step: String,
    /// The host; none of what belongs to neither, as DNS records do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// What it is about: `settings mail`, `certificate www`.
    pub item: String,
    /// What was done.
    pub what: String,
    /// What else is known of it, by name: a certificate's `fingerprint`, a licence's `guid`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// When.
    pub at: Timestamp,
    /// When it was taken back: by an abort, by a cut-over that was called off or, of a label, when the trial was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_at: Option<Timestamp>,
}

impl Outcome {
    /// Takes what a step has changed. Told again, by a step that was done again, it is there once.
    pub fn change(&mut self, changes: Vec<Change>) {
        for change in changes {
            let is_same = |known: &&mut Change| {
                (&known.step, known.host, &known.item) == (&change.step, change.host, &change.item)
            };
            match self.changed.iter_mut().find(is_same) {
                Some(known) => *known = change,
                None => self.changed.push(change),
            }
        }
    }

    /// What these steps have changed was taken back; at one host, where it is named.
    pub fn take_back(&mut self, steps: &[String], host: Option<Host>, at: Timestamp) {
        let is_meant = |change: &&mut Change| {
            steps.contains(&change.step)
                && (host.is_none() || change.host == host)
                && change.undone_at.is_none()
        };
        self.changed.iter_mut().filter(is_meant).for_each(|change| change.undone_at = Some(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(step: &str, host: Host, at: i64) -> Change {
        Change {
            step: step.to_owned(),
            host: Some(host),
            item: "service web.service".to_owned(),
            what: "stopped".to_owned(),
            facts: BTreeMap::new(),
            at: Timestamp::from_millis(at),
            undone_at: None,
        }
    }

    #[test]
    fn what_is_done_again_is_told_once_and_what_is_taken_back_is_told_so() {
        let mut outcome = Outcome::default();
        outcome.change(vec![change("maintain", Host::Source, 1), change("maintain", Host::Target, 1)]);
        outcome.change(vec![change("serve", Host::Target, 2), change("maintain", Host::Source, 3)]);
        let told = |outcome: &Outcome| -> Vec<_> {
            let told = |one: &Change| (one.at.millis(), one.undone_at.map(|at| at.millis()));
            outcome.changed.iter().map(told).collect()
        };
        assert_eq!(told(&outcome), [(3, None), (1, None), (2, None)]);
        let steps = ["maintain".to_owned()];
        outcome.take_back(&steps, Some(Host::Source), Timestamp::from_millis(4));
        assert_eq!(told(&outcome), [(3, Some(4)), (1, None), (2, None)]);
        outcome.take_back(&steps, None, Timestamp::from_millis(5));
        assert_eq!(told(&outcome), [(3, Some(4)), (1, Some(5)), (2, None)]);
        // The next cut-over.
        outcome.change(vec![change("maintain", Host::Target, 6)]);
        assert_eq!(told(&outcome), [(3, Some(4)), (6, None), (2, None)]);
    }
}
