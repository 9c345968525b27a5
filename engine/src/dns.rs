//! The DNS records of an appliance: which of them change when it moves to another host, and in which order.
//!
//! A *service name* is what users know the appliance by: it follows the appliance. A *round-robin name* holds the addresses of several hosts: the
//! appliance's is taken out before its host goes into maintenance, and is put back at the end.

mod advice;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::advice::advise;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// The name that another one stands for.
    Cname,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [RecordKind; 3] = [RecordKind::A, RecordKind::Aaaa, RecordKind::Cname];
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordKind::A => "A",
            RecordKind::Aaaa => "AAAA",
            RecordKind::Cname => "CNAME",
        })
    }
}

/// All records of one name and kind, as a server has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSet {
    /// Whose: in lower case, with its final dot.
    pub name: String,
    /// Of which kind.
    pub kind: RecordKind,
    /// For how many seconds others may keep them; 0 where there are none.
    pub ttl: u32,
    /// Addresses, or a name in lower case with its final dot. None: there are none.
    pub values: BTreeSet<String>,
}

/// A text of a name (TXT), which may stand beside others of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRecord {
    /// Whose: in lower case, with its final dot.
    pub name: String,
    /// At most 255 bytes.
    pub value: String,
}

impl TextRecord {
    /// Where an authority looks for proof that `name` is ours (RFC 8555, section 8.4).
    pub fn challenge(name: &str, value: String) -> Self {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        Self { name: format!("_acme-challenge.{name}."), value }
    }
}

/// What an inventory tells of DNS, as the target's manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsFacts {
    /// The server that is asked, and told where that is automatic.
    pub server: String,
    /// The records are changed by signed updates; otherwise by the operator.
    pub automatic: bool,
    /// Names that follow the appliance.
    pub service_names: Vec<String>,
    /// Names that hold several hosts.
    pub round_robin: Vec<String>,
    /// For how many seconds others may keep changed records; none: as long as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// What the server has of these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RecordSet>,
    /// What keeps the agent from asking it, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// When records change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// First, before the source goes into maintenance.
    Before,
    /// Once the target has taken over.
    Cutover,
    /// At the end.
    End,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 3] = [Stage::Before, Stage::Cutover, Stage::End];

    /// What a person reads.
    pub fn title(self) -> &'static str {
        match self {
            Stage::Before => "before the cut-over, to keep users away from the source",
            Stage::Cutover => "once the target has taken over, to bring users to it",
            Stage::End => "at the end, to let the appliance be one of the round-robin hosts again",
        }
    }
}

/// Records of one name and kind that change together. Others of the same name are left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordChange {
    /// When.
    pub at: Stage,
    /// Whose.
    pub name: String,
    /// Of which kind.
    pub kind: RecordKind,
    /// What is taken out.
    pub from: BTreeSet<String>,
    /// What is put in.
    pub to: BTreeSet<String>,
    /// For how many seconds others may keep those that are taken out.
    pub was_ttl: u32,
    /// For how many seconds others may keep those that are put in.
    pub ttl: u32,
}

/// How a set of records stands to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is as it should be.
    Done,
    /// It is to become this.
    Due(RecordSet),
    /// Somebody else has changed it: it holds neither what is taken out nor what is put in.
    Foreign,
}

impl RecordChange {
    /// How `found` stands to it.
    pub fn standing(&self, found: &RecordSet) -> Standing {
        let is_left = self.from.iter().any(|value| found.values.contains(value) && !self.to.contains(value));
        let is_there = self.to.is_subset(&found.values);
        if !is_left && is_there {
            return Standing::Done;
        }
        if !is_left && !self.from.is_empty() {
            return Standing::Foreign;
        }
        let values = found.values.difference(&self.from).chain(&self.to).cloned().collect();
        let ttl = if self.to.is_empty() { found.ttl } else { self.ttl };
        Standing::Due(RecordSet { name: self.name.clone(), kind: self.kind, ttl, values })
    }

    /// The lines of a zone file that go (`-`) and come (`+`).
    pub fn lines(&self) -> Vec<String> {
        let line = |sign, ttl, value| format!("{sign} {} {ttl} IN {} {value}", self.name, self.kind);
        let gone = self.from.iter().map(|value| line('-', self.was_ttl, value));
        gone.chain(self.to.iter().map(|value| line('+', self.ttl, value))).collect()
    }
}

/// What takes `changes`, made in this order, back: one change for each name and kind, and none where they cancel each other.
pub fn undone(changes: &[RecordChange]) -> Vec<RecordChange> {
    let mut net: BTreeMap<(&str, RecordKind), RecordChange> = BTreeMap::new();
    for change in changes {
        let none = || RecordChange {
            from: BTreeSet::new(),
            to: BTreeSet::new(),
            was_ttl: change.ttl,
            ttl: change.was_ttl,
            ..change.clone()
        };
        let back = net.entry((change.name.as_str(), change.kind)).or_insert_with(none);
        // What came goes; what had come and went is neither here nor there.
        for value in change.from.difference(&change.to) {
            if !back.from.remove(value) {
                back.to.insert(value.clone());
            }
        }
        for value in change.to.difference(&change.from) {
            if !back.to.remove(value) {
                back.from.insert(value.clone());
            }
        }
    }
    net.into_values().filter(|back| !(back.from.is_empty() && back.to.is_empty())).collect()
}

/// What a plan says of DNS: which records change, and who changes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advice {
    /// The server that has them.
    pub server: String,
    /// They are changed by signed updates. Otherwise the operator changes them, and is waited for.
    pub automatic: bool,
    /// In order.
    pub changes: Vec<RecordChange>,
}

impl Advice {
    /// What changes at a stage.
    pub fn at(&self, stage: Stage) -> impl Iterator<Item = &RecordChange> {
        self.changes.iter().filter(move |change| change.at == stage)
    }

    /// Whether anything changes at a stage.
    pub fn has(&self, stage: Stage) -> bool {
        self.at(stage).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn change(at: Stage, from: &str, to: &str) -> RecordChange {
        let (name, kind) = ("www.example.net.".to_owned(), RecordKind::A);
        RecordChange { at, name, kind, from: values(from), to: values(to), was_ttl: 3600, ttl: 60 }
    }

    fn found(text: &str) -> RecordSet {
        let name = "www.example.net.".to_owned();
        RecordSet { name, kind: RecordKind::A, ttl: 3600, values: values(text) }
    }

    #[test]
    fn a_set_is_as_it_should_be_or_to_be_changed_or_somebody_elses() {
        // Taken out, put in, found; what it becomes.
        let table = [
            ("1", "2", "1", Some(Some("2"))),
            ("1", "2", "1 9", Some(Some("2 9"))),
            ("1", "2", "2 9", Some(None)),
            ("1", "2", "1 2", Some(Some("2"))),
            ("1", "2", "9", None),
            ("1", "2", "", None),
            ("1", "", "1 9", Some(Some("9"))),
            ("1", "", "9", Some(None)),
            ("", "2", "9", Some(Some("2 9"))),
            ("", "2", "2 9", Some(None)),
        ];
        for (from, to, now, expected) in table {
            let standing = change(Stage::Cutover, from, to).standing(&found(now));
            let ttl = if to.is_empty() { 3600 } else { 60 };
            let expected = match expected {
                None => Standing::Foreign,
                Some(None) => Standing::Done,
                Some(Some(after)) => Standing::Due(RecordSet { ttl, ..found(after) }),
            };
            assert_eq!(standing, expected, "-{from} +{to} of {now}");
        }
    }

    #[test]
    fn what_was_changed_is_taken_back_at_once() {
        let back = |changes: &[(Stage, &str, &str)]| {
            let changes: Vec<_> = changes.iter().map(|(at, from, to)| change(*at, from, to)).collect();
            undone(&changes).iter().flat_map(RecordChange::lines).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            back(&[(Stage::Cutover, "1", "2")]),
            "- www.example.net. 60 IN A 2\n+ www.example.net. 3600 IN A 1"
        );
        // The source goes out, the target comes in.
        assert_eq!(
            back(&[(Stage::Before, "1", ""), (Stage::End, "", "2")]),
            "- www.example.net. 60 IN A 2\n+ www.example.net. 3600 IN A 1"
        );
        // Addresses are swapped: the same goes out and comes in.
        assert_eq!(back(&[(Stage::Before, "1", ""), (Stage::End, "", "1")]), "");
    }

    #[test]
    fn lines_are_those_of_a_zone_file() {
        assert_eq!(
            change(Stage::Before, "192.0.2.10", "").lines(),
            ["- www.example.net. 3600 IN A 192.0.2.10"]
        );
    }
}
