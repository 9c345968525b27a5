//! This host's settings, as its manifest names them.

mod file;
mod ours;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::changeover::{Bundle, Scope, SettingsFacts};
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::ports::changeover::HostSettings;
use handover_engine::ports::settings_table::SettingsTables;

use crate::apply::{Changed, Kept};
use crate::disk::Disk;
use crate::rows::NoTables;
use crate::section::SettingsSection;
use crate::swap::record::{self, Reboots};

/// The settings of this host.
#[derive(Debug, Clone)]
pub struct LocalSettings(Arc<Here>);

pub(crate) struct Here {
    sections: Vec<SettingsSection>,
    tables: Arc<dyn SettingsTables>,
    pub(crate) kept: Kept,
}

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here")
            .field("sections", &self.sections)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

impl LocalSettings {
    /// Those that `sections` name, which have been checked; what is kept for migrations goes into `state`.
    pub fn new(sections: Vec<SettingsSection>, state: &Path) -> Self {
        Self::on(Disk::default(), sections, state)
    }

    /// The same, where some of them are rows of these databases.
    pub fn with_tables(
        sections: Vec<SettingsSection>,
        tables: Arc<dyn SettingsTables>,
        state: &Path,
    ) -> Self {
        Self::with_tables_on(Disk::default(), sections, tables, state)
    }

    pub(crate) fn on(disk: Disk, sections: Vec<SettingsSection>, state: &Path) -> Self {
        Self::with_tables_on(disk, sections, Arc::new(NoTables), state)
    }

    pub(crate) fn with_tables_on(
        disk: Disk,
        sections: Vec<SettingsSection>,
        tables: Arc<dyn SettingsTables>,
        state: &Path,
    ) -> Self {
        Self(Arc::new(Here { sections, tables, kept: Kept::new(state, disk) }))
    }

    pub(crate) fn sections(&self) -> &[SettingsSection] {
        &self.0.sections
    }

    pub(crate) fn tables(&self) -> &dyn SettingsTables {
        &*self.0.tables
    }

    pub(crate) fn section(&self, name: &str) -> Result<&SettingsSection> {
        self.0.section(name)
    }

    /// Does something on a thread that may wait for the disk, and for whoever holds the lock.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Here) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let here = self.0.clone();
        let done = tokio::task::spawn_blocking(move || act(&here)).await;
        done.map_err(|e| Failure::transient("settings", "they were not looked at").because(e))?
    }
}

/// What an operator is told of a disk that does not do as it should.
pub(crate) fn failed(item: impl Into<String>, what: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
    let item = item.into();
    move |error| Failure::operator(item, what).because(error).hint("mend that, then resume")
}

impl Here {
    fn section(&self, name: &str) -> Result<&SettingsSection> {
        self.sections.iter().find(|section| section.name == name).ok_or_else(|| {
            Failure::operator(item(name), "this host's manifest does not name them any more")
                .hint("write the section again, and resume; or abort")
        })
    }

    fn stage(&self, migration: &MigrationId, bundle: Bundle) -> Result<()> {
        let _lock = self.lock()?;
        let unread = || failed("settings", "what is kept of them cannot be read");
        let is_changed = self.kept.is_changed(migration).map_err(unread())?;
        let staged = self.kept.staged(migration).map_err(unread())?;
        if is_changed {
            return if staged.as_ref() == Some(&bundle) {
                Ok(())
            } else {
                Err(Failure::operator("settings", "other ones are in place already for this migration")
                    .hint("abort: this host's own are put back"))
            };
        }
        for changed in self.plan(&bundle)? {
            file::check_place(&changed.place).map_err(|(what, hint)| {
                Failure::operator(format!("settings file {}", changed.place.display()), what).hint(hint)
            })?;
        }
        self.kept.stage(migration, bundle).map_err(failed("settings", "they cannot be kept"))
    }

    /// What becomes of which files.
    fn plan(&self, bundle: &Bundle) -> Result<Vec<Changed>> {
        let mut out: Vec<Changed> = Vec::new();
        for setting in &bundle.settings {
            if setting.dataset().is_some() {
                continue;
            }
            let section = self.section(&setting.name)?;
            let place = file::place(section)?;
            let at = match out.iter().position(|changed| changed.place == place) {
                Some(at) => at,
                None => {
                    let before = file::held(section, &place)?;
                    out.push(Changed { place, after: before.clone(), before });
                    out.len() - 1
                }
            };
            let changed = &mut out[at];
            let after = changed.after.take();
            changed.after = file::changes(section, &changed.place, after, &setting.contents)?;
        }
        Ok(out)
    }

    pub(crate) fn apply_locked(&self, migration: &MigrationId) -> Result<()> {
        let staged =
            self.kept.staged(migration).map_err(failed("settings", "what is staged cannot be read"))?;
        let bundle = staged.ok_or_else(|| {
            Failure::operator("settings", "nothing is staged for this migration")
                .hint("resume: it is staged again")
        })?;
        let planned = || self.plan(&bundle).map_err(Cut::Planned);
        self.kept.apply(migration, planned).map_err(|cut| match cut {
            Cut::Planned(failure) => failure,
            Cut::Disk(error) => failed("settings", "they cannot be put in place")(error),
        })
    }

    pub(crate) fn lock(&self) -> Result<std::fs::File> {
        self.kept.lock().map_err(failed("settings", "their lock cannot be had"))
    }
}

/// What ends an `apply`.
enum Cut {
    Planned(Failure),
    Disk(std::io::Error),
}

impl From<std::io::Error> for Cut {
    fn from(error: std::io::Error) -> Self {
        Cut::Disk(error)
    }
}

/// Puts this host's own settings back, and says what somebody else had made of them.
pub(crate) fn restore_locked(kept: &Kept, migration: &MigrationId) -> Result<()> {
    let edited = kept.restore(migration).map_err(failed("settings", "this host's own cannot be put back"))?;
    for place in edited {
        tracing::warn!(%migration, kept = %place.display(), "a settings file was changed by somebody else meanwhile; it was put back, and what it was is kept");
    }
    Ok(())
}

pub(crate) fn item(name: &str) -> String {
    format!("settings {name}")
}

#[async_trait]
impl HostSettings for LocalSettings {
    async fn facts(&self) -> Result<Vec<SettingsFacts>> {
        let mut out = Vec::new();
        for section in self.sections() {
            let section = section.clone();
            out.push(match section.rows() {
                Some(rows) => self.facts_of_rows(&section, &rows).await,
                None => self.with(move |_| Ok(file::facts(&section))).await?,
            });
        }
        Ok(out)
    }

    async fn read(&self, scope: Scope) -> Result<Bundle> {
        let mut settings = Vec::new();
        for section in self.sections().iter().filter(|section| scope.holds(&section.group)) {
            let section = section.clone();
            settings.push(match section.rows() {
                Some(rows) => self.read_rows(&section, &rows).await?,
                None => self.with(move |_| file::read(&section)).await?,
            });
        }
        Ok(Bundle { settings })
    }

    async fn stage(&self, migration: &MigrationId, bundle: &Bundle) -> Result<()> {
        let own = self.0.own(bundle)?;
        self.try_rows(&own.settings).await?;
        let migration = migration.clone();
        self.with(move |here| here.stage(&migration, own)).await
    }

    async fn apply(&self, migration: &MigrationId) -> Result<()> {
        let id = migration.clone();
        self.with(move |here| {
            let _lock = here.lock()?;
            here.apply_locked(&id)
        })
        .await?;
        self.apply_rows(migration).await
    }

    async fn restore(&self, migration: &MigrationId) -> Result<()> {
        let id = migration.clone();
        self.with(move |here| {
            let _lock = here.lock()?;
            restore_locked(&here.kept, &id)?;
            record::restored(&here.kept, &id, &handover_services::HostBoot::new(), Reboots::Later)
        })
        .await?;
        // Last: a database that is down keeps no host under the name of another.
        self.restore_rows(migration).await
    }

    async fn retain(&self, migration: &MigrationId, datasets: &[DatasetName]) -> Result<()> {
        self.retain_rows(migration, datasets).await
    }

    async fn release(&self, migration: &MigrationId) -> Result<()> {
        self.release_rows(migration).await
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let migration = migration.clone();
        self.with(move |here| {
            let _lock = here.lock()?;
            record::refuse_running(&here.kept, &migration)?;
            here.kept
                .forget(&migration)
                .map_err(failed("settings", "what is kept of them cannot be removed"))?;
            record::unmark(&here.kept)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
