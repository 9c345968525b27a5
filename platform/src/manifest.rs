//! `appliance.toml`: what an appliance consists of on one host. The source's says what may be read, the target's where it
//! lands; parts are matched by name. An agent touches nothing that its own manifest does not name.

mod backups;
mod calendar;
mod checks;
mod error;
mod hooks;
mod label;
mod licence;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use handover_certificates::CertificateSection;
use handover_dns::DnsSection;
use handover_engine::inventory::ApplianceFacts;
use handover_engine::name::DatasetName;
use handover_notices::{NoticeSection, NoticesSection};
use handover_services::ServiceSection;
use handover_settings::SettingsSection;
use serde::Deserialize;

pub use self::backups::BackupsSection;
pub use self::calendar::{CalendarSection, DowntimeSection};
pub use self::checks::CheckScriptSection;
pub use self::error::{ManifestError, read_toml};
pub use self::hooks::{HookSection, HooksSection, OnFailure};
pub use self::label::LabelSection;
pub use self::licence::LicenceSection;
use crate::database::Place;
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

/// `[appliance]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// Its name; the same on both hosts.
    pub name: String,
    /// The release it runs.
    #[serde(default)]
    pub release: String,
    /// Its role.
    #[serde(default)]
    pub role: Role,
    /// The host name that users know it by.
    #[serde(default)]
    pub host_name: String,
    /// Its domain.
    #[serde(default)]
    pub domain: String,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// The part a host plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The only host.
    #[default]
    Standalone,
    /// The master of a high-availability pair.
    HaMaster,
    /// The replica of a high-availability pair.
    HaReplica,
}

impl Role {
    /// As it is written in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Standalone => "standalone",
            Role::HaMaster => "ha-master",
            Role::HaReplica => "ha-replica",
        }
    }
}

/// `[[database]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// The dataset's name.
    pub name: DatasetName,
    /// Where it is: `sqlite:/absolute/path`, `mariadb://…` or `postgres://…`.
    pub url: String,
    /// Its replica: `mariadb://…`, the same database on another server.
    #[serde(default)]
    pub replica: Option<String>,
    /// At the target: how the replica signs in at its primary, and where it finds it: `mariadb://…`.
    #[serde(default)]
    pub replication: Option<String>,
    /// Tables that are left out, with their indexes and triggers.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// `[[files]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesSection {
    /// The dataset's name.
    pub name: DatasetName,
    /// The tree's root, absolute.
    pub root: PathBuf,
    /// Only what one of these globs matches; everything when empty.
    #[serde(default)]
    pub include: Vec<String>,
    /// Not what one of these globs matches.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Its files are logs.
    #[serde(skip)]
    pub is_log: bool,
}

/// `[[log]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// The dataset's name.
    pub name: DatasetName,
    /// The directory that the logs lie in, absolute.
    pub root: PathBuf,
    /// The files that one of these globs matches: those being written, and what they are rotated to.
    pub pattern: Vec<String>,
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
        let mut names = HashSet::new();
        for database in &self.database {
            let refuse = |problem: String| Err(("database", database.name.to_string(), problem));
            if !names.insert(&database.name) {
                return refuse("the name is used twice".to_owned());
            }
            if let Err(problem) = database.place() {
                return refuse(format!("`url = \"{}\"`: {problem}", database.shown_url()));
            }
            if let Err(problem) = database.check_replica() {
                return refuse(problem);
            }
        }
        for files in &self.trees() {
            let section = if files.is_log { "log" } else { "files" };
            let refuse = |problem: &str| Err((section, files.name.to_string(), problem.to_owned()));
            if !names.insert(&files.name) {
                return refuse("the name is used twice");
            }
            if !files.root.is_absolute() {
                return refuse("`root`: write an absolute path");
            }
            if files.is_log && files.include.is_empty() {
                return refuse("`pattern`: write at least one glob, such as \"*.log*\"");
            }
        }
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
        let logs = self.log.iter().cloned().map(|LogSection { name, root, pattern }| FilesSection {
            name,
            root,
            include: pattern,
            exclude: Vec::new(),
            is_log: true,
        });
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

impl DatabaseSection {
    /// Where it is.
    pub fn place(&self) -> Result<Place, String> {
        Place::parse(&self.url)
    }

    /// The url without credentials, for messages.
    fn shown_url(&self) -> String {
        match self.url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
            None => self.url.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use handover_engine::backup::Occasion;

    use super::*;

    const GOOD: &str = r#"
        [appliance]
        name = "mail"
        release = "4.2"
        role = "ha-master"
        [[database]]
        name = "main"
        url = "sqlite:/var/lib/mail/main.db"
        [[files]]
        name = "spool"
        root = "/var/spool/mail"
        exclude = ["*.tmp"]
    "#;

    const LOG: &str = r#"
        [[log]]
        name = "logs"
        root = "/var/log/mail"
        pattern = ["*.log*"]
    "#;

    const LICENCE: &str = r#"
        [licence]
        file = "/etc/mail/licence"
        public_key = """
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
    "#;

    const BACKUPS: &str = r#"
        [backups]
        directory = "/srv/backups"
        before = ["start", "accept"]
        keep = 5
    "#;

    fn read(text: &str) -> Result<Manifest, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("appliance.toml");
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_one_is_read() {
        let manifest = read(GOOD).unwrap();
        assert_eq!(manifest.database[0].place().unwrap().location(), "/var/lib/mail/main.db");
        assert_eq!(manifest.facts().role, "ha-master");
        assert!(read(&format!("{GOOD}{LICENCE}")).unwrap().licence.is_some());
        assert_eq!(manifest.facts().backups, []);
        let facts = read(&format!("{GOOD}{BACKUPS}")).unwrap().facts();
        assert_eq!(facts.backups, [Occasion::Start, Occasion::Accept]);
    }

    #[test]
    fn a_replica_makes_sense_or_is_refused() {
        let with = |url: &str, more: &str| {
            read(&GOOD.replace("sqlite:/var/lib/mail/main.db\"", &format!("{url}\"\n{more}")))
        };
        let (url, replica) = ("mariadb://u@db1/mail", "replica = \"mariadb://u:secret@db2/mail\"");
        assert!(with(url, replica).is_ok());
        assert!(with(url, &format!("{replica}\nreplication = \"mariadb://r@db1/mail\"")).is_ok());
        for (url, more, expected) in [
            ("sqlite:/x.db", replica, "only a mariadb:// database can have one"),
            (url, "replica = \"postgres://u:secret@db2/mail\"", "`replica`: write mariadb://…"),
            (url, "replica = \"mariadb://u:secret@db2/other\"", "write mail"),
            (url, "replica = \"mariadb://u:secret@db1/mail\"", "it is the server of `url`"),
            (url, "replication = \"mariadb://u:secret@db1/mail\"", "means nothing without `replica`"),
            (
                url,
                &format!("{replica}\nreplication = \"mariadb://u@h/mail?socket=/s\""),
                "write the primary's host and port",
            ),
        ] {
            let error = with(url, more).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{expected}: {error}");
        }
    }

    #[test]
    fn a_bad_one_is_refused_by_name() {
        let table = [
            (GOOD.replace("release", "relaese"), "relaese"),
            (GOOD.replace("release", "relaese"), "line 4"),
            (GOOD.replace("sqlite:/var", "sqlite:var"), "write the path absolutely"),
            (GOOD.replace("sqlite:/var", "oracle://joe:secret@db/var"), "oracle://…@db/var"),
            (GOOD.replace("\"/var/spool", "\"var/spool"), "`spool`: `root`"),
            (GOOD.replace("\"spool\"", "\"main\""), "the name is used twice"),
            (GOOD.replace("\"spool\"", "\"a b\""), "is not a valid name"),
            (GOOD.replace("ha-master", "king"), "king"),
            (GOOD.replace("[appliance]", "[appliances]"), "appliances"),
            (GOOD.replace("exclude =", "is_log ="), "is_log"),
            (format!("{GOOD}{LOG}").replace("pattern", "patern"), "patern"),
            (format!("{GOOD}{LOG}").replace("pattern", "patern"), "line 17"),
            (format!("{GOOD}{LOG}").replace("\"*.log*\"", ""), "[[log]] `logs`: `pattern`"),
            (format!("{GOOD}{LOG}").replace("\"/var/log", "\"log"), "[[log]] `logs`: `root`"),
            (
                format!("{GOOD}{LICENCE}").replace("/etc/mail", "/var/spool/mail"),
                "[licence] `file`: it would be copied with `spool`: write \"licence\"",
            ),
            (format!("{GOOD}{LOG}").replace("\"logs\"", "\"spool\""), "the name is used twice"),
            (
                format!("{GOOD}{LICENCE}").replace("\"/etc", "\"etc"),
                "[licence] `file`: write an absolute path",
            ),
            (
                format!("{GOOD}{LICENCE}").replace("MCow", "MCoa"),
                "[licence] `public_key`: write the issuer's Ed25519 key",
            ),
            (format!("{GOOD}{LICENCE}").replace("public_key", "private_key"), "private_key"),
            (
                format!("{GOOD}{BACKUPS}").replace("\"/srv", "\"srv"),
                "[backups] `directory`: write an absolute path",
            ),
            (
                format!("{GOOD}{BACKUPS}").replace("/srv", "/var/spool/mail"),
                "a tree that is backed up itself",
            ),
            (format!("{GOOD}{BACKUPS}").replace("accept", "manual"), "[backups] `before`: write \"start\""),
            (format!("{GOOD}{BACKUPS}").replace("accept", "start"), "name each once"),
            (format!("{GOOD}{BACKUPS}").replace("accept", "lunch"), "lunch"),
            (format!("{GOOD}{BACKUPS}").replace("= 5", "= 0"), "[backups] `keep`: write 1 or more"),
            (
                format!("{GOOD}[[service]]\nunit = 'mariadb'")
                    .replace("sqlite:/var/lib/mail/main.db", "mariadb://u@h/d"),
                "[[service]] `mariadb",
            ),
        ];
        for (text, expected) in table {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
