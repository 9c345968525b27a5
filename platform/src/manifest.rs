//! `appliance.toml`: what an appliance consists of on one host. The source's says what may be read, the target's where it
//! lands; parts are matched by name. An agent touches nothing that its own manifest does not name.

mod appliance;
mod backups;
mod calendar;
mod checks;
mod datasets;
mod error;
mod hooks;
mod label;
mod licence;

use std::path::{Path, PathBuf};

use handover_certificates::CertificateSection;
use handover_dns::DnsSection;
use handover_engine::inventory::ApplianceFacts;
use handover_notices::{NoticeSection, NoticesSection};
use handover_services::ServiceSection;
use handover_settings::SettingsSection;
use serde::Deserialize;

pub use self::appliance::{Appliance, Role};
pub use self::backups::BackupsSection;
pub use self::calendar::{CalendarSection, DowntimeSection};
pub use self::checks::CheckScriptSection;
pub use self::datasets::{DatabaseSection, FilesSection, LogSection};
pub use self::error::{ManifestError, read_toml};
pub use self::hooks::{HookSection, HooksSection, OnFailure};
pub use self::label::LabelSection;
pub use self::licence::LicenceSection;
use crate::licence::{IssuerKey, LocalLicence};

/// A manifest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The appliance itself.
    pub appliance: Appliance,
    /// Its databases.
    #[serde(default)]
    pub database: Vec<DatabaseSection>,
    /// Its file trees.
    #[serde(default)]
    pub files: Vec<FilesSection>,
    /// Its logs.
    #[serde(default)]
    pub log: Vec<LogSection>,
    /// Where its hooks are.
    #[serde(default)]
    pub hooks: HooksSection,
    /// Its hooks.
    #[serde(default)]
    pub hook: Vec<HookSection>,
    /// The vendor's scripts that look at a scratch database after a rehearsal.
    #[serde(default)]
    pub check_script: Vec<CheckScriptSection>,
    /// What is planned for it otherwise.
    #[serde(default)]
    pub calendar: CalendarSection,
    /// Its backups.
    #[serde(default)]
    pub backups: BackupsSection,
    /// Its licence.
    #[serde(default)]
    pub licence: Option<LicenceSection>,
    /// Its services.
    #[serde(default)]
    pub service: Vec<ServiceSection>,
    /// Its settings.
    #[serde(default)]
    pub settings: Vec<SettingsSection>,
    /// Its services' certificates.
    #[serde(default)]
    pub certificate: Vec<CertificateSection>,
    /// Its names in DNS; a target's alone.
    #[serde(default)]
    pub dns: Option<DnsSection>,
    /// What tells users that it is on trial.
    #[serde(default)]
    pub label: Option<LabelSection>,
    /// How clients are told of what happens.
    #[serde(default)]
    pub notices: Option<NoticesSection>,
    /// What they are told, and in which words.
    #[serde(default)]
    pub notice: Vec<NoticeSection>,
}

impl Manifest {
    /// Reads and checks a manifest.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let manifest: Self = read_toml(path)?;
        manifest.check().map_err(|(section, name, problem)| ManifestError::Section {
            path: path.to_owned(),
            section,
            name,
            problem,
        })?;
        manifest.check_tables().map_err(|(section, (key, problem))| ManifestError::Table {
            path: path.to_owned(),
            section,
            key,
            problem,
        })?;
        Ok(manifest)
    }

    /// Sections that there is one of.
    fn check_tables(&self) -> Result<(), (&'static str, (&'static str, String))> {
        let roots: Vec<PathBuf> = self.trees().into_iter().map(|section| section.root).collect();
        self.backups.check(&roots).map_err(|problem| ("backups", problem))?;
        let dns = self.dns.as_ref().map_or(Ok(()), handover_dns::check);
        dns.map_err(|problem| ("dns", problem))?;
        let licence = self.licence.as_ref().map_or(Ok(()), |licence| licence.check(&self.files));
        licence.map_err(|problem| ("licence", problem))?;
        let label = self.label.as_ref().map_or(Ok(()), |label| label.check(&self.trees()));
        label.map_err(|problem| ("label", problem))?;
        let notices = self.notices.as_ref().map_or(Ok(()), NoticesSection::check);
        notices.map_err(|problem| ("notices", problem))
    }

    fn check(&self) -> Result<(), (&'static str, String, String)> {
        datasets::check(&self.database, &self.trees())?;
        hooks::check(&self.hooks, &self.hook)?;
        handover_services::section::check(&self.service)?;
        self.check_servers()?;
        handover_settings::section::check(&self.settings)?;
        self.check_tables_of_settings()?;
        handover_certificates::check(&self.certificate)?;
        handover_notices::section::check(self.notices.as_ref(), &self.notice)?;
        checks::check(&self.check_script, &self.database)?;
        self.calendar.check()
    }

    /// Settings in tables are of databases that are named.
    fn check_tables_of_settings(&self) -> Result<(), (&'static str, String, String)> {
        for section in &self.settings {
            if let Some(dataset) = &section.database
                && !self.database.iter().any(|database| database.name == *dataset)
            {
                let problem = format!("`database`: there is no [[database]] of the name {dataset}");
                return Err(("settings", section.name.clone(), problem));
            }
        }
        Ok(())
    }

    /// Databases are read and written while services are stopped: their servers stay up.
    fn check_servers(&self) -> Result<(), (&'static str, String, String)> {
        for service in &self.service {
            let name = service.unit.split(['.', '@']).next().unwrap_or_default();
            let engine = match name {
                "mariadb" | "mysql" | "mysqld" => "mariadb",
                "postgresql" => "postgres",
                _ => continue,
            };
            if self
                .database
                .iter()
                .any(|database| database.place().is_ok_and(|place| place.engine() == engine))
            {
                let problem =
                    "it serves a [[database]], which is read while services are stopped: leave it out";
                return Err(("service", service.unit.clone(), problem.to_owned()));
            }
        }
        Ok(())
    }

    /// Its file trees, and its logs as trees of the files that their patterns match.
    pub fn trees(&self) -> Vec<FilesSection> {
        let logs = self.log.iter().cloned().map(FilesSection::from);
        self.files.iter().cloned().chain(logs).collect()
    }

    /// The licence, whose files for migrations lie in `state`.
    pub fn local_licence(&self, state: &Path) -> LocalLicence {
        let declared = self.licence.as_ref();
        // A manifest that was read has been checked for the key.
        let declared = declared
            .and_then(|section| Some((section.file.clone(), IssuerKey::parse(&section.public_key).ok()?)));
        LocalLicence::new(declared, state)
    }

    /// The appliance as an inventory shows it.
    pub fn facts(&self) -> ApplianceFacts {
        let Appliance { name, release, role, host_name, domain, addresses } = self.appliance.clone();
        let role = role.as_str().to_owned();
        let backups = self.backups.before.clone();
        ApplianceFacts { name, release, role, host_name, domain, addresses, licence: None, backups }
    }
}

#[cfg(test)]
mod tests;
