//! This host's settings, as its manifest names them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::changeover::{Bundle, Contents, Scope, Setting, SettingsFacts};
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::ports::changeover::HostSettings;
use handover_engine::ports::settings_table::SettingsTables;

use crate::apply::{Changed, Kept};
use crate::disk::{self, Disk, Held};
use crate::format::{self, FormatError};
use crate::rows::{self, NoTables};
use crate::section::{LARGEST, SettingsSection};
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
        Self(Arc::new(Here { sections, tables, kept: Kept::new(state, Disk::default()) }))
    }

    pub(crate) fn on(disk: Disk, sections: Vec<SettingsSection>, state: &Path) -> Self {
        Self(Arc::new(Here { sections, tables: Arc::new(NoTables), kept: Kept::new(state, disk) }))
    }

    #[cfg(test)]
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

fn facts(section: &SettingsSection) -> SettingsFacts {
    SettingsFacts {
        name: section.name.clone(),
        group: section.group.clone(),
        file: section.file.display().to_string(),
        dataset: None,
        problem: problem(section),
    }
}

impl Here {
    fn section(&self, name: &str) -> Result<&SettingsSection> {
        self.sections.iter().find(|section| section.name == name).ok_or_else(|| {
            Failure::operator(item(name), "this host's manifest does not name them any more")
                .hint("write the section again, and resume; or abort")
        })
    }

    /// What comes, as settings of this host.
    fn own(&self, bundle: &Bundle) -> Result<Bundle> {
        let mut own = Vec::new();
        for section in &self.sections {
            let Some(setting) = bundle.settings.iter().find(|setting| setting.name == section.name) else {
                continue;
            };
            own.push(ours(section, setting)?);
        }
        Ok(Bundle { settings: own })
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
            check_place(&changed.place).map_err(|(what, hint)| {
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
            let place = place(section)?;
            let at = match out.iter().position(|changed| changed.place == place) {
                Some(at) => at,
                None => {
                    let before = disk::read(&place)
                        .map_err(failed(item(&section.name), "their file cannot be read"))?;
                    out.push(Changed { place, after: before.clone(), before });
                    out.len() - 1
                }
            };
            let changed = &mut out[at];
            changed.after = changes(section, &changed.place, changed.after.take(), &setting.contents)?;
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

fn place(section: &SettingsSection) -> Result<PathBuf> {
    disk::resolve(&section.file)
        .map_err(failed(item(&section.name), "the link that their file is cannot be followed"))
}

fn check_place(place: &Path) -> std::result::Result<(), (String, String)> {
    let directory = disk::directory(place).display();
    disk::may_write(place).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => (
            format!("{directory} is not there"),
            "make it, or mend [[settings]] in appliance.toml".to_owned(),
        ),
        _ => (
            format!("{directory} cannot be written to: {error}"),
            format!("`systemctl edit` the agent's unit: ReadWritePaths={directory}"),
        ),
    })
}

fn problem(section: &SettingsSection) -> Option<String> {
    let place = match disk::resolve(&section.file) {
        Ok(place) => place,
        Err(error) => return Some(format!("its link cannot be followed: {error} (mend it)")),
    };
    if let Err((what, hint)) = check_place(&place) {
        return Some(format!("{what} ({hint})"));
    }
    read(section).err().map(|failure| failure.to_string())
}

fn refused(section: &SettingsSection) -> impl Fn(FormatError) -> Failure + '_ {
    |error| {
        let hint = match &error {
            FormatError::Unreadable { .. } => "mend the file, or `format` in [[settings]]",
            FormatError::Key { .. } | FormatError::Unfaithful { .. } => {
                "mend `keys` in [[settings]] of both manifests, or leave them out: the whole file travels then"
            }
        };
        Failure::operator(item(&section.name), format!("{}: {error}", section.file.display())).hint(hint)
    }
}

fn read(section: &SettingsSection) -> Result<Setting> {
    let held =
        disk::read(&place(section)?).map_err(failed(item(&section.name), "their file cannot be read"))?;
    let contents = match held {
        None => Contents::Absent,
        Some(held) if section.keys.is_empty() => Contents::Whole { bytes: held.bytes, mode: held.mode },
        Some(held) => {
            let paths = section.paths().map_err(|bad| {
                Failure::operator(item(&section.name), "its manifest is not in order").because(bad)
            })?;
            Contents::Keys(
                format::get(section.format(), &section.file, &held.bytes, &paths)
                    .map_err(refused(section))?,
            )
        }
    };
    Ok(Setting { name: section.name.clone(), group: section.group.clone(), contents })
}

/// A setting of the other host as it is one of this host: its group, and no keys that are not named here.
fn ours(section: &SettingsSection, theirs: &Setting) -> Result<Setting> {
    let refuse = |what: &str, hint: &str| Err(Failure::operator(item(&section.name), what).hint(hint));
    if section.group.is_of_the_host() && !theirs.group.is_of_the_host() {
        return refuse(
            "they make a host the one it is here, and do not at the other host",
            "write the same `group` in both manifests",
        );
    }
    let contents = match &theirs.contents {
        contents if section.database.is_some() => rows::ours(section, contents)?,
        Contents::Absent => Contents::Absent,
        Contents::Whole { bytes, .. } if bytes.len() > LARGEST => {
            return refuse("they are larger than 256 KiB", "name single keys, or move the file as [[files]]");
        }
        Contents::Whole { bytes, mode } if section.keys.is_empty() => {
            Contents::Whole { bytes: bytes.clone(), mode: mode & 0o777 }
        }
        Contents::Keys(values) if !section.keys.is_empty() => {
            let own: Vec<_> = section.paths().unwrap_or_default().iter().map(ToString::to_string).collect();
            let named = values.iter().filter(|(key, _)| own.contains(key));
            Contents::Keys(named.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        Contents::Rows { .. } => {
            return refuse("they are of a file here, and of a table at the other host", "write both alike");
        }
        Contents::Whole { .. } | Contents::Keys(_) => {
            return refuse(
                "one manifest names keys of them, the other one the whole file",
                "write the same `keys` in both manifests",
            );
        }
    };
    Ok(Setting { name: section.name.clone(), group: section.group.clone(), contents })
}

/// What becomes of a file.
fn changes(
    section: &SettingsSection,
    place: &Path,
    before: Option<Held>,
    contents: &Contents,
) -> Result<Option<Held>> {
    let no_keys =
        || section.paths().unwrap_or_default().iter().map(|path| (path.to_string(), None)).collect();
    let values: format::Values = match contents {
        Contents::Absent if section.keys.is_empty() => return Ok(None),
        Contents::Absent => no_keys(),
        Contents::Whole { bytes, mode } => {
            return match before {
                Some(before) => Ok(Some(Held { bytes: bytes.clone(), ..before })),
                None => new_file(section, place, bytes.clone(), *mode).map(Some),
            };
        }
        Contents::Keys(values) => values.clone(),
        // They are in no file.
        Contents::Rows { .. } => return Ok(before),
    };
    let Some(before) = before else {
        if values.values().all(Option::is_none) {
            return Ok(None);
        }
        return Err(Failure::operator(
            item(&section.name),
            format!("{} is not there", section.file.display()),
        )
        .hint("put the file in place, or leave `keys` out in both manifests: the whole file travels then"));
    };
    let bytes =
        format::set(section.format(), &section.file, &before.bytes, &values).map_err(refused(section))?;
    if bytes.len() > LARGEST {
        return Err(Failure::operator(item(&section.name), "their file would be larger than 256 KiB")
            .hint("move it as [[files]]"));
    }
    Ok(Some(Held { bytes, ..before }))
}

/// A file that this host does not have: it belongs to whom its directory belongs.
fn new_file(section: &SettingsSection, place: &Path, bytes: Vec<u8>, mode: u32) -> Result<Held> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(disk::directory(place))
        .map_err(failed(item(&section.name), "their directory cannot be looked at"))?;
    Ok(Held { bytes, owner: (meta.uid(), meta.gid()), mode, attributes: Vec::new() })
}

#[async_trait]
impl HostSettings for LocalSettings {
    async fn facts(&self) -> Result<Vec<SettingsFacts>> {
        let mut out = Vec::new();
        for section in self.sections() {
            let section = section.clone();
            out.push(match section.rows() {
                Some(rows) => self.facts_of_rows(&section, &rows).await,
                None => self.with(move |_| Ok(facts(&section))).await?,
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
                None => self.with(move |_| read(&section)).await?,
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
