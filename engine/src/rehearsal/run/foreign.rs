//! Foreign keys, checked once all rows are there.

use super::super::ConflictKind;
use super::super::quarantine::Fate;
use super::{MOST, Trial};
use crate::check::{Finding, Severity};
use crate::ports::Result;
use crate::ports::scratch::{ForeignKey, Refusal};
use crate::rows::TableName;

/// Rows that are looked up at once.
const TOGETHER: usize = 1000;

impl Trial {
    /// Takes out the rows that refer to nothing, and those that refer to these, until there are none.
    pub(super) async fn check_foreign_keys(&mut self) -> Result<()> {
        let mut keys = Vec::new();
        for key in self.made.wanted.foreign_keys.clone() {
            let Some(child) = self.source_name(&key.table) else { continue };
            if self.is_untried(&key.parent) {
                let what = format!("foreign key {} is not checked: {} is not tried", key.name, key.parent);
                let hint = "see what keeps the other table from being tried";
                let finding = Finding::new(Severity::Warning, format!("table {child}"), what, hint);
                self.report.findings.push(finding);
                continue;
            }
            keys.push((child, key));
        }
        if !keys.is_empty() {
            self.tell(format!("{} foreign keys are checked", keys.len()));
        }
        loop {
            let mut found = false;
            for (child, key) in &keys {
                found |= self.check_foreign_key(child, key).await?;
            }
            if !found {
                return Ok(());
            }
        }
    }

    async fn check_foreign_key(&mut self, child: &TableName, key: &ForeignKey) -> Result<bool> {
        let mut found = 0;
        loop {
            let orphans = self.stage.scratch.orphans(key, TOGETHER).await?;
            if orphans.is_empty() || self.is_given_up(child, key, found) {
                return Ok(found > 0 && found < MOST);
            }
            found += orphans.len() as u64;
            let constraint = key.name.clone();
            let refusal = Refusal { kind: ConflictKind::ForeignKey, constraint, in_the_way: None };
            for entry in self.take_out(child, &orphans, &refusal, Fate::Open).await? {
                self.rule_orphan(child, entry).await?;
            }
        }
    }

    fn is_given_up(&mut self, child: &TableName, key: &ForeignKey, found: u64) -> bool {
        if found < MOST {
            return false;
        }
        let what = format!("{found} rows and more break foreign key {}: it is checked no further", key.name);
        let hint = "repair what they have in common, then rehearse again";
        self.report.findings.push(Finding::new(Severity::Error, format!("table {child}"), what, hint));
        true
    }

    /// The source's name of a table that is tried.
    fn source_name(&self, wanted: &TableName) -> Option<TableName> {
        self.tables.iter().find(|(_, table)| table.fit.table == *wanted).map(|(name, _)| name.clone())
    }

    /// The source has such a table, and its rows are not tried; or no row of it can be.
    fn is_untried(&self, wanted: &TableName) -> bool {
        let is_tried = self.source_name(wanted).is_some();
        let is_known = self.report.tables.iter().any(|table| !table.tried && table.table == *wanted);
        !is_tried && (is_known || self.made.wanted.untried.contains(wanted))
    }
}
