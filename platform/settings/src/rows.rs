//! Settings that are rows of databases: read, put in place, put back.
//!
//! What was there is written down, durably, before the first row is changed. Each table is changed in one transaction; one whose answer was
//! lost is changed again, to the same rows.

pub(crate) mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use handover_engine::changeover::{Contents, RowValue, RowValues, Setting, SettingsFacts, SettingsRows};
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::ports::settings_table::{At, Ending, HeldRow, SettingsTable, SettingsTables};

use self::record::{ChangedRows, Purpose, Undo};
use crate::section::{LARGEST, SettingsSection};
use crate::store::{Here, LocalSettings, failed, item};

/// A database that does not answer within this time is asked again later.
const WITHIN: Duration = Duration::from_secs(60);

/// The databases of a host that has none.
#[derive(Debug)]
pub(crate) struct NoTables;

impl SettingsTables for NoTables {
    fn open(&self, rows: &SettingsRows, _at: At<'_>) -> Result<Arc<dyn SettingsTable>> {
        Err(Failure::operator(rows.to_string(), "no database of this host is known"))
    }
}

/// What a database answers, if it does in time.
async fn answer<T>(name: &str, asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(WITHIN, asked).await.unwrap_or_else(|_| {
        Err(Failure::transient(item(name), format!("their database has not answered for {WITHIN:?}")))
    })
}

fn not_there(name: &str, rows: &SettingsRows) -> Failure {
    Failure::operator(item(name), format!("the {rows} is not there"))
        .hint("make it, or mend [[settings]] in appliance.toml")
}

fn values(held: &BTreeMap<String, HeldRow>) -> RowValues {
    held.iter().map(|(key, row)| (key.clone(), row.value.clone())).collect()
}

fn bytes(values: &RowValues) -> usize {
    let size = |(key, value): (&String, &RowValue)| {
        key.len() + if let RowValue::Text(text) = value { text.len() } else { 0 }
    };
    values.iter().map(size).sum()
}

/// What becomes of which rows of a section, from how they are. Keys that stay what they are, are left out.
fn changed(
    section: &SettingsSection,
    rows: SettingsRows,
    held: &BTreeMap<String, HeldRow>,
    mut after: RowValues,
) -> Option<ChangedRows> {
    if section.keys.is_empty() {
        for key in held.keys() {
            after.entry(key.clone()).or_insert(RowValue::Absent);
        }
    }
    after.retain(|key, value| held.get(key).map_or(RowValue::Absent, |row| row.value.clone()) != *value);
    let before = after.keys().map(|key| (key.clone(), held.get(key).map(|row| row.whole.clone()))).collect();
    let name = section.name.clone();
    (!after.is_empty()).then_some(ChangedRows { name, rows, before, after })
}

/// Rows of the other host as they are some of this host: of the same database, and no keys that are not named here.
pub(crate) fn ours(section: &SettingsSection, theirs: &Contents) -> Result<Contents> {
    let refuse = |what: &str, hint: &str| Err(Failure::operator(item(&section.name), what).hint(hint));
    let Contents::Rows { dataset, named, values } = theirs else {
        return refuse("they are of a table here, and of a file at the other host", "write both alike");
    };
    if Some(dataset) != section.database.as_ref() {
        return refuse(
            "they are of another database at the other host",
            "write the same `database` in both manifests",
        );
    }
    if *named == section.keys.is_empty() {
        return refuse(
            "one manifest names keys of them, the other one all rows",
            "write the same `keys` in both manifests",
        );
    }
    let mut values = values.clone();
    values.retain(|key, _| section.keys.is_empty() || section.keys.contains(key));
    if bytes(&values) > LARGEST {
        return refuse("they are larger than 256 KiB", "name single keys");
    }
    Ok(Contents::Rows { dataset: dataset.clone(), named: *named, values })
}

impl LocalSettings {
    async fn held(
        &self,
        section: &SettingsSection,
        rows: &SettingsRows,
        at: At<'_>,
    ) -> Result<Option<BTreeMap<String, HeldRow>>> {
        answer(&section.name, self.tables().open(rows, at)?.read(&section.keys)).await
    }

    pub(crate) async fn facts_of_rows(
        &self,
        section: &SettingsSection,
        rows: &SettingsRows,
    ) -> SettingsFacts {
        let problem = match self.held(section, rows, At::Place).await {
            Err(failure) => Some(failure.to_string()),
            // A database that is to be moved here may not be there yet.
            Ok(_) => None,
        };
        SettingsFacts {
            name: section.name.clone(),
            group: section.group.clone(),
            file: rows.to_string(),
            dataset: Some(rows.dataset.clone()),
            problem,
        }
    }

    pub(crate) async fn read_rows(&self, section: &SettingsSection, rows: &SettingsRows) -> Result<Setting> {
        let held = self.held(section, rows, At::Place).await?;
        let mut values = values(&held.ok_or_else(|| not_there(&section.name, rows))?);
        for key in &section.keys {
            values.entry(key.clone()).or_insert(RowValue::Absent);
        }
        if bytes(&values) > LARGEST {
            return Err(Failure::operator(item(&section.name), "its rows are larger than 256 KiB")
                .hint("name single `keys` in both manifests"));
        }
        let contents =
            Contents::Rows { dataset: rows.dataset.clone(), named: !section.keys.is_empty(), values };
        Ok(Setting { name: section.name.clone(), group: section.group.clone(), contents })
    }

    /// What becomes of which rows, to put these settings in place.
    async fn planned(&self, settings: &[Setting]) -> Result<Vec<ChangedRows>> {
        let mut out = Vec::new();
        for setting in settings {
            let Contents::Rows { values, .. } = &setting.contents else { continue };
            let section = self.section(&setting.name)?;
            let Some(rows) = section.rows() else { continue };
            let held = self.held(section, &rows, At::Place).await?;
            let held = held.ok_or_else(|| not_there(&section.name, &rows))?;
            out.extend(changed(section, rows, &held, values.clone()));
        }
        Ok(out)
    }

    /// Refuses what could not be put in place.
    pub(crate) async fn try_rows(&self, settings: &[Setting]) -> Result<()> {
        for one in self.planned(settings).await? {
            let table = self.tables().open(&one.rows, At::Place)?;
            answer(&one.name, table.write(&one.forth(), Ending::TakeBack)).await?;
        }
        Ok(())
    }

    /// Puts the rows in place that are staged.
    pub(crate) async fn apply_rows(&self, migration: &MigrationId) -> Result<()> {
        let _lock = self.lock_rows().await?;
        let id = migration.clone();
        let unread = || failed("settings", "what is staged cannot be read");
        let staged = self.with(move |here| here.kept.staged(&id).map_err(unread())).await?;
        let staged = staged.unwrap_or_default().settings;
        if !staged.iter().any(|setting| setting.dataset().is_some()) {
            return Ok(());
        }
        let undo = match self.undo_of_rows(migration, Purpose::Applied).await? {
            Some(undo) => undo,
            None => {
                let undo = Undo::new(self.planned(&staged).await?);
                self.keep_undo(migration, Purpose::Applied, undo.clone()).await?;
                undo
            }
        };
        self.put(migration, Purpose::Applied, undo).await
    }

    /// Puts back the rows that were there.
    pub(crate) async fn restore_rows(&self, migration: &MigrationId) -> Result<()> {
        let _lock = self.lock_rows().await?;
        let Some(undo) = self.undo_of_rows(migration, Purpose::Applied).await? else { return Ok(()) };
        for one in undo.changed.iter().rev() {
            let table = self.tables().open(&one.rows, At::Place)?;
            let now = answer(&one.name, table.read(&one.keys())).await?;
            let back = one.back(&now.ok_or_else(|| not_there(&one.name, &one.rows))?);
            if !back.edited.is_empty() {
                self.keep_edited(migration, &one.name, back.edited).await?;
            }
            if !back.changes.is_empty() {
                answer(&one.name, table.write(&back.changes, Ending::Commit)).await?;
            }
        }
        self.forget_undo(migration, Purpose::Applied).await
    }

    /// Gives what is built of these databases this host's own rows, of sections that make it the one it is.
    pub(crate) async fn retain_rows(&self, migration: &MigrationId, datasets: &[DatasetName]) -> Result<()> {
        let _lock = self.lock_rows().await?;
        let undo = match self.undo_of_rows(migration, Purpose::Retained).await? {
            Some(undo) => undo,
            None => {
                let undo = Undo::new(self.own_of_built(migration, datasets).await?);
                self.keep_undo(migration, Purpose::Retained, undo.clone()).await?;
                undo
            }
        };
        self.put(migration, Purpose::Retained, undo).await
    }

    async fn own_of_built(
        &self,
        migration: &MigrationId,
        datasets: &[DatasetName],
    ) -> Result<Vec<ChangedRows>> {
        let mut out = Vec::new();
        for section in self.sections().iter().filter(|section| section.group.is_of_the_host()) {
            let Some(rows) = section.rows().filter(|rows| datasets.contains(&rows.dataset)) else { continue };
            let Some(own) = self.held(section, &rows, At::Place).await? else {
                tracing::info!(
                    section = section.name,
                    "nothing of its own stands here: the source's rows come along"
                );
                continue;
            };
            let built = self.held(section, &rows, At::Built(migration)).await?;
            let built = built.ok_or_else(|| {
                Failure::operator(item(&section.name), format!("the {rows} does not come from the source"))
                    .hint(
                        "take it out of `exclude` at the source, or the section out of the target's manifest",
                    )
            })?;
            let mut values = values(&own);
            for key in &section.keys {
                values.entry(key.clone()).or_insert(RowValue::Absent);
            }
            out.extend(changed(section, rows, &built, values));
        }
        Ok(out)
    }

    /// What is built is as it came from the source, where it was not published yet.
    pub(crate) async fn release_rows(&self, migration: &MigrationId) -> Result<()> {
        let _lock = self.lock_rows().await?;
        let Some(undo) = self.undo_of_rows(migration, Purpose::Retained).await? else { return Ok(()) };
        for one in undo.changed.iter().rev() {
            let table = self.tables().open(&one.rows, At::Built(migration))?;
            let Some(now) = answer(&one.name, table.read(&one.keys())).await? else { continue };
            let back = one.back(&now).changes;
            if !back.is_empty() {
                answer(&one.name, table.write(&back, Ending::Commit)).await?;
            }
        }
        self.forget_undo(migration, Purpose::Retained).await
    }

    /// Puts new values in place, and notes that they are.
    async fn put(&self, migration: &MigrationId, purpose: Purpose, mut undo: Undo) -> Result<()> {
        if undo.is_applied {
            return Ok(());
        }
        let at = match purpose {
            Purpose::Applied => At::Place,
            Purpose::Retained => At::Built(migration),
        };
        for one in &undo.changed {
            let table = self.tables().open(&one.rows, at)?;
            answer(&one.name, table.write(&one.forth(), Ending::Commit)).await?;
        }
        undo.is_applied = true;
        self.keep_undo(migration, purpose, undo).await
    }

    async fn lock_rows(&self) -> Result<std::fs::File> {
        self.with(|here| here.kept.lock_rows().map_err(failed("settings", "their lock cannot be had"))).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        migration: &MigrationId,
        what: &'static str,
        act: impl FnOnce(&Here, &MigrationId) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let migration = migration.clone();
        self.with(move |here| act(here, &migration).map_err(failed("settings", what))).await
    }

    async fn undo_of_rows(&self, migration: &MigrationId, purpose: Purpose) -> Result<Option<Undo>> {
        let what = "what is kept of rows cannot be read";
        self.on_disk(migration, what, move |here, id| here.kept.undo_of_rows(id, purpose)).await
    }

    async fn keep_undo(&self, migration: &MigrationId, purpose: Purpose, undo: Undo) -> Result<()> {
        let what = "what rows were cannot be kept";
        self.on_disk(migration, what, move |here, id| here.kept.keep_undo_of_rows(id, purpose, &undo)).await
    }

    async fn forget_undo(&self, migration: &MigrationId, purpose: Purpose) -> Result<()> {
        let what = "what is kept of rows cannot be removed";
        self.on_disk(migration, what, move |here, id| here.kept.forget_undo_of_rows(id, purpose)).await
    }

    async fn keep_edited(&self, migration: &MigrationId, name: &str, edited: RowValues) -> Result<()> {
        let name = name.to_owned();
        let what = "what somebody has made of rows cannot be kept";
        let keep = move |here: &Here, id: &MigrationId| {
            let kept =
                here.kept.keep_edited(id, &format!("rows of {name}"), &serde_json::to_vec(&edited)?)?;
            tracing::warn!(migration = %id, section = name, kept = %kept.display(), "rows were changed by somebody else meanwhile; they are put back, and what they were is kept");
            Ok(())
        };
        self.on_disk(migration, what, keep).await
    }
}

#[cfg(test)]
mod tests;
