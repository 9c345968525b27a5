//! The way back: services are what they were.

use futures::future::join_all;
use handover_engine::ports::Result;

use super::order::{Found, to_start};
use super::{LocalServices, first_failure};
use crate::record::{Before, Record};
use crate::section::ServiceSection;

impl LocalServices {
    /// Makes them what they were. Goes on past what fails, since each that is up again is one less that is missed; tells the first failure.
    pub(super) async fn restore(&self, record: &Record) -> Result<()> {
        let unsealed = self.unseal(&record.sealed).await;
        let sections: Vec<_> = record.units.iter().map(|before| self.section(&before.unit)).collect();
        let mut found = Vec::new();
        for section in &sections {
            found.push(Found { section, state: self.units.look(&section.unit).await? });
        }
        let ran = |f: &Found<'_>| {
            record.units.iter().any(|before| before.unit == f.section.unit && before.was_active)
        };
        // One that is called for may run whenever it is.
        let rested = |f: &&Found<'_>| !ran(f) && !f.is_triggered(&found);
        let not_to_run: Vec<_> = found.iter().filter(rested).cloned().collect();
        let to_run: Vec<_> = found.iter().filter(|f| ran(f)).cloned().collect();
        let files = self.restore_files(record, &found).await;
        let mut done = vec![unsealed, files, self.stop_all(&not_to_run).await];
        for group in to_start(&to_run) {
            done.extend(join_all(group.iter().map(|f| self.bring_up(f.section))).await);
        }
        first_failure(done)
    }

    /// What the manifest says of a unit; nothing where it names it no more.
    pub(super) fn section(&self, unit: &str) -> ServiceSection {
        let named = self.sections.iter().find(|section| section.unit == unit);
        named.cloned().unwrap_or_else(|| ServiceSection::of(unit))
    }

    /// Those that started with the host do so again, and no others.
    async fn restore_files(&self, record: &Record, found: &[Found<'_>]) -> Result<()> {
        let those = |file: &str, is_so: fn(&str) -> bool| -> Vec<&str> {
            let is_meant = |before: &Before, f: &Found<'_>| {
                before.unit == f.section.unit && before.file == file && is_so(&f.state.file)
            };
            let meant = found.iter().filter(|f| record.units.iter().any(|before| is_meant(before, f)));
            meant.map(|f| f.section.unit.as_str()).collect()
        };
        let no_more =
            [those("disabled", |now| now == "enabled"), those("enabled-runtime", |now| now == "enabled")];
        self.disable(&no_more.concat(), false).await?;
        self.enable(&those("enabled", |now| now != "enabled"), false).await?;
        self.enable(&those("enabled-runtime", |now| now != "enabled-runtime"), true).await
    }
}
