//! What a rehearsal tells.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quarantine::{Entry, Fate};
use super::{Conflict, ConflictKind};
use crate::check::{Finding, Severity};
use crate::name::DatasetName;
use crate::rows::TableName;
use crate::time::Timestamp;

/// The format of the report.
pub const FORMAT: u32 = 1;
/// Conflicts of a table that are listed one by one; all are counted.
pub const LISTED: usize = 1000;

/// A rehearsal, as told at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RehearsalReport {
    /// The report's format.
    pub format: u32,
    /// Who asked for it.
    pub by: String,
    /// When it began, by the target's clock.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The scratch databases are still there.
    pub kept: bool,
    /// What was found in each database.
    pub databases: Vec<DatabaseReport>,
    /// What the vendor's check scripts said.
    pub checks: Vec<Checked>,
    /// The decisions that were carried out.
    pub used: Vec<String>,
    /// The decisions that matched nothing.
    pub unused: Vec<String>,
}

/// What was found in one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseReport {
    /// The database.
    pub dataset: DatasetName,
    /// Rows were tried against the schema of the target's own database; otherwise against the source's.
    pub own_schema: bool,
    /// A scratch database of an earlier rehearsal was brought up to date.
    pub continued: bool,
    /// Chunks that came from the source.
    pub chunks_loaded: u64,
    /// Chunks that stood.
    pub chunks_kept: u64,
    /// Text bytes that came from the source.
    pub bytes_loaded: u64,
    /// What the new system lacks, or has in addition.
    pub findings: Vec<Finding>,
    /// Its tables.
    pub tables: Vec<TableReport>,
}

/// What was found in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableReport {
    /// The table.
    pub table: TableName,
    /// Its rows were tried.
    pub tried: bool,
    /// Rows at the source.
    pub rows: u64,
    /// Rows in the scratch database.
    pub loaded: u64,
    /// Rows that were left out or changed as was decided.
    pub decided: u64,
    /// How many rows break what, without those that were decided about.
    pub conflicts: BTreeMap<ConflictKind, u64>,
    /// The first of them.
    pub listed: Vec<Conflict>,
}

/// What a check script said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// The script.
    pub name: String,
    /// The database it looked at.
    pub dataset: DatasetName,
    /// It found all well.
    pub well: bool,
    /// How it ended, and the last lines that it printed.
    pub said: Vec<String>,
}

impl TableReport {
    /// A table of `rows` rows whose quarantine holds these.
    pub fn of(table: TableName, rows: u64, entries: &[Entry]) -> Self {
        let mut conflicts = BTreeMap::new();
        let mut listed = Vec::new();
        let (mut out, mut decided) = (0, 0);
        for entry in entries {
            out += u64::from(entry.fate != Fate::Settled);
            if entry.fate == Fate::Open {
                *conflicts.entry(entry.conflict.kind).or_default() += 1;
                if listed.len() < LISTED {
                    listed.push(entry.conflict.clone());
                }
            } else {
                decided += 1;
            }
        }
        Self { table, tried: true, rows, loaded: rows.saturating_sub(out), decided, conflicts, listed }
    }

    /// A table whose rows were not tried.
    pub fn untried(table: TableName, rows: u64) -> Self {
        let (conflicts, listed) = (BTreeMap::new(), Vec::new());
        Self { table, tried: false, rows, loaded: 0, decided: 0, conflicts, listed }
    }
}

impl RehearsalReport {
    /// How many rows break what the target demands.
    pub fn conflicts(&self) -> u64 {
        let tables = self.databases.iter().flat_map(|database| &database.tables);
        tables.flat_map(|table| table.conflicts.values()).sum()
    }

    /// Nothing stands in the way: no conflict, no error of the environment, no script that complains.
    pub fn is_clean(&self) -> bool {
        let has_error =
            |database: &DatabaseReport| database.findings.iter().any(|f| f.severity == Severity::Error);
        self.conflicts() == 0 && !self.databases.iter().any(has_error) && self.checks.iter().all(|c| c.well)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::quarantine::Form;
    use super::*;

    fn entry(fate: Fate, kind: ConflictKind) -> Entry {
        let table = TableName::plain("t");
        let conflict =
            Conflict { kind, table, key: "id 1".to_owned(), constraint: "c".to_owned(), other: None };
        Entry { number: 0, values: Bytes::new(), form: Form::Source, conflict, fate }
    }

    #[test]
    fn all_are_counted_and_some_are_listed() {
        use ConflictKind::{Check, Unique};
        for (entries, loaded, decided, conflicts) in [
            (vec![], 5, 0, vec![]),
            (vec![entry(Fate::Open, Unique)], 4, 0, vec![(Unique, 1)]),
            (
                vec![entry(Fate::Open, Unique), entry(Fate::Open, Check), entry(Fate::Open, Unique)],
                2,
                0,
                vec![(Unique, 2), (Check, 1)],
            ),
            (
                vec![
                    entry(Fate::Settled, Unique),
                    entry(Fate::Dropped, Check),
                    entry(Fate::Displaced, Unique),
                ],
                3,
                3,
                vec![],
            ),
        ] {
            let report = TableReport::of(TableName::plain("t"), 5, &entries);
            assert_eq!((report.loaded, report.decided), (loaded, decided));
            assert_eq!(report.conflicts.into_iter().collect::<Vec<_>>(), conflicts);
        }
        let many = vec![entry(Fate::Open, Unique); LISTED + 5];
        let report = TableReport::of(TableName::plain("t"), 5000, &many);
        assert_eq!((report.listed.len(), report.conflicts[&Unique]), (LISTED, LISTED as u64 + 5));
    }
}
