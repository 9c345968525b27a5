//! What a migration tells that brings a database into the schema that stands at the target, and when it goes no further.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::decision::Decisions;
use super::report::{DatabaseReport, TableReport};
use super::run::Found;
use crate::check::{Finding, Severity};
use crate::failure::Failure;
use crate::rows::TableName;

/// Conflicts that a failure names.
const NAMED: usize = 3;
const AGAIN: &str = "`handover abort`, try decisions about them (`handover rehearse --decisions FILE`), and plan with these; \
    or repair the rows at the source, and go on";

/// How a database was brought into the target's schema.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Rows at the source.
    pub rows: u64,
    /// Rows of these that were left out, as was decided.
    pub left_out: u64,
    /// Rows that were changed, as was decided, or took another row's place.
    pub changed: u64,
    /// The tables in which that is so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<FittedTable>,
    /// The decisions that were carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<String>,
    /// The decisions about its tables that matched nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<String>,
    /// What finds no place in the target's schema, or takes its default there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// What was decided about rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedTable {
    /// The table, as the source names it.
    pub table: TableName,
    /// Rows at the source.
    pub rows: u64,
    /// Rows that were left out.
    pub left_out: u64,
    /// Rows that were changed, or took another row's place.
    pub changed: u64,
}

impl FittedTable {
    fn of(table: &TableReport) -> Self {
        let left_out = table.rows.saturating_sub(table.loaded);
        let changed = table.decided.saturating_sub(left_out);
        Self { table: table.table.clone(), rows: table.rows, left_out, changed }
    }
}

impl Fitted {
    /// What comes of a rehearsal that carried out the decisions at these places; a failure where rows or whole tables do not fit.
    pub fn of(found: &Found, decisions: &Decisions, used: &BTreeSet<usize>) -> Result<Self, Failure> {
        refuse(found)?;
        let report = &found.report;
        let tried = || report.tables.iter().filter(|table| table.tried);
        let all: Vec<FittedTable> = tried().map(FittedTable::of).collect();
        let sum = |of: fn(&FittedTable) -> u64| all.iter().map(of).sum::<u64>();
        let (rows, left_out, changed) = (sum(|t| t.rows), sum(|t| t.left_out), sum(|t| t.changed));
        let tables = all.into_iter().filter(|table| table.left_out + table.changed > 0).collect();
        let is_known = |table: &str| report.tables.iter().any(|known| known.table.to_string() == table);
        let (mut taken, mut unused) = (Vec::new(), Vec::new());
        for (at, decision) in decisions.decision.iter().enumerate() {
            let is_ours = decision.database.as_ref().is_none_or(|name| *name == report.dataset);
            match used.contains(&at) {
                true => taken.push(decision.shown()),
                false if is_ours && is_known(&decision.table) => unused.push(decision.shown()),
                false => {}
            }
        }
        Ok(Self { rows, left_out, changed, tables, used: taken, unused, findings: report.findings.clone() })
    }
}

fn refuse(found: &Found) -> Result<(), Failure> {
    let DatabaseReport { dataset, own_schema, findings, tables, .. } = &found.report;
    let item = format!("dataset {dataset}");
    if !own_schema {
        let what = "there is no schema at the target that its rows could be fitted into";
        return Err(Failure::operator(item, what)
            .hint("install the new version there, then resume; or abort, and plan without --decisions"));
    }
    if let Some(name) = found.untried.first() {
        let what = "its rows are kept by a module of the engine: they cannot be fitted into another schema";
        return Err(Failure::operator(format!("{item}, table {name}"), what).hint(
            "name it in `exclude` of the source's manifest, restart that agent, and have the new version fill its own",
        ));
    }
    if let Some(error) = findings.iter().find(|finding| finding.severity == Severity::Error) {
        let Finding { item: of, what, hint, .. } = error;
        return Err(Failure::operator(format!("{item}, {of}"), what).hint(format!("{hint}; then resume")));
    }
    let conflicts: u64 = tables.iter().flat_map(|table| table.conflicts.values()).sum();
    if conflicts == 0 {
        return Ok(());
    }
    let listed = || tables.iter().flat_map(|table| &table.listed);
    let first: Vec<String> = listed().take(NAMED).map(ToString::to_string).collect();
    let more = if conflicts > first.len() as u64 { "; …" } else { "" };
    let what = format!(
        "{conflicts} rows do not fit into the target's schema, and nothing is decided about them: {}{more}",
        first.join("; ")
    );
    Err(Failure::operator(item, what).hint(AGAIN))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::ConflictKind;
    use super::super::decision::{Decision, Verb};
    use super::*;
    use crate::rows::Schema;

    fn found(tables: Vec<TableReport>, findings: Vec<Finding>) -> Found {
        let source = Schema {
            engine: "sqlite".to_owned(),
            version: String::new(),
            settings: BTreeMap::new(),
            before_load: Vec::new(),
            after_load: Vec::new(),
            state: BTreeMap::new(),
            tables: Vec::new(),
        };
        let report = DatabaseReport {
            dataset: "main".parse().unwrap(),
            own_schema: true,
            continued: false,
            chunks_loaded: 1,
            chunks_kept: 0,
            bytes_loaded: 1,
            findings,
            tables,
        };
        Found { report, environment: Vec::new(), source, untried: Vec::new() }
    }

    fn table(name: &str, loaded: u64, decided: u64) -> TableReport {
        let table = TableName::plain(name);
        let (conflicts, listed) = (BTreeMap::new(), Vec::new());
        TableReport { table, tried: true, rows: 10, loaded, decided, conflicts, listed }
    }

    fn drop_of(table: &str) -> Decision {
        Decision {
            database: None,
            table: table.to_owned(),
            key: "id 1".to_owned(),
            kind: None,
            constraint: None,
            action: Verb::Drop,
            column: None,
            value: None,
            null: false,
            other: false,
            suffix: None,
        }
    }

    #[test]
    fn what_was_decided_is_told_by_table() {
        let found = found(vec![table("a", 10, 0), table("b", 8, 3)], Vec::new());
        let decision = vec![drop_of("b"), drop_of("b"), drop_of("elsewhere")];
        let decisions = Decisions { decision, ..Decisions::none() };
        let fitted = Fitted::of(&found, &decisions, &BTreeSet::from([0])).unwrap();
        assert_eq!((fitted.rows, fitted.left_out, fitted.changed), (20, 2, 1));
        assert_eq!(fitted.tables.len(), 1);
        assert_eq!((fitted.used.len(), fitted.unused), (1, vec!["drop: b, id 1".to_owned()]));
    }

    #[test]
    fn what_does_not_fit_goes_no_further() {
        let none = Decisions::none();
        let refused = |found: &Found| Fitted::of(found, &none, &BTreeSet::new()).unwrap_err().to_string();
        let mut conflicts = table("a", 6, 0);
        conflicts.conflicts.insert(ConflictKind::Unique, 4);
        assert!(refused(&found(vec![conflicts], Vec::new())).contains("4 rows do not fit"));
        let error = Finding::new(Severity::Error, "table a", "the new column b needs a value", "give it one");
        assert!(refused(&found(Vec::new(), vec![error])).contains("needs a value"));
        let mut other = found(Vec::new(), Vec::new());
        other.report.own_schema = false;
        assert!(refused(&other).contains("no schema at the target"));
        other = found(Vec::new(), Vec::new());
        other.untried.push(TableName::plain("words"));
        assert!(refused(&other).contains("table words"));
    }
}
