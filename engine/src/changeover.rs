//! Changing over: what each host does to itself beside its data. Settings, services, certificates; what is told of them, and what
//! travels between the hosts.

mod rows;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dns::DnsFacts;
use crate::name::DatasetName;
use crate::replication::ReplicationFacts;

pub use self::rows::{RowValue, RowValues, SettingsRows};

/// What settings belong together for, as a manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Group(pub String);

impl Group {
    /// The groups that make a host the one it is. Where settings are not swapped, they are left alone (MISSION A6).
    pub const OF_THE_HOST: [&'static str; 7] =
        ["network", "dns", "web-server", "round-robin", "load-balancing", "remote-data", "ftp-backup"];

    /// Whether it is left alone where settings are not swapped.
    pub fn is_of_the_host(&self) -> bool {
        Self::OF_THE_HOST.contains(&self.0.as_str())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those that are not of the host.
    Basic,
    /// All of them.
    All,
}

impl Scope {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Basic => "basic",
            Scope::All => "all",
        }
    }

    /// Whether settings of this group are among them.
    pub fn holds(self, group: &Group) -> bool {
        match self {
            Scope::Basic => !group.is_of_the_host(),
            Scope::All => true,
        }
    }
}

/// Settings on their way from one host to the other, matched by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// In the order of the manifest that they were read by.
    pub settings: Vec<Setting>,
}

/// The settings of one section of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The section's name; the same in both manifests.
    pub name: String,
    /// What they are for.
    pub group: Group,
    /// What they are.
    pub contents: Contents,
}

/// What the settings of a section are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contents {
    /// The file is not there.
    Absent,
    /// The whole file.
    Whole {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Its permissions, for a host that has no such file.
        mode: u32,
    },
    /// Some keys of the file, with their values; none where the file has no such key.
    Keys(BTreeMap<String, Option<serde_json::Value>>),
    /// Rows of a table.
    Rows {
        /// The database that they are in.
        dataset: DatasetName,
        /// Keys are named: others are left alone.
        named: bool,
        /// What each key has.
        values: RowValues,
    },
}

impl Setting {
    /// The database that its rows are in, where it has any.
    pub fn dataset(&self) -> Option<&DatasetName> {
        if let Contents::Rows { dataset, .. } = &self.contents { Some(dataset) } else { None }
    }
}

/// What an inventory tells of a section of settings. No values: they may be secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsFacts {
    /// The section's name.
    pub name: String,
    /// What they are for.
    pub group: Group,
    /// Where they are: a file, or a table.
    pub file: String,
    /// The database that the table is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetName>,
    /// What keeps the agent from reading or changing them, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What an inventory tells of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Its unit.
    pub unit: String,
    /// Its state, as systemd names it: `active`, `inactive`, `failed`…
    pub state: String,
    /// Whether it starts with the host.
    pub enabled: bool,
    /// How it runs while the target is on trial.
    #[serde(default, skip_serializing_if = "Trial::is_open")]
    pub trial: Trial,
    /// What keeps the agent from handling it, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How a service runs while the target is on trial.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// As it always does.
    #[default]
    Open,
    /// It reaches, and is reached by, nothing but this host and these networks.
    Sealed(Vec<String>),
    /// It does not run before the target is accepted.
    Stopped,
}

impl Trial {
    /// It is as it always is.
    pub fn is_open(&self) -> bool {
        *self == Trial::Open
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trial::Open => f.write_str("open"),
            Trial::Sealed(allowed) if allowed.is_empty() => f.write_str("sealed off"),
            Trial::Sealed(allowed) => write!(f, "sealed off but for {}", allowed.join(" ")),
            Trial::Stopped => f.write_str("stopped"),
        }
    }
}

/// What an inventory tells of the label that a trial carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelFacts {
    /// What it says.
    pub text: String,
    /// The file that it is shown by; none where hooks alone do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What keeps the agent from showing it, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is to be done about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateAction {
    /// The source's is put in place at the target.
    Copy,
    /// A new one is issued at the target.
    Reissue,
    /// The target keeps its own.
    Keep,
}

/// What an inventory tells of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The section's name.
    pub name: String,
    /// What is to be done about it.
    pub action: CertificateAction,
    /// The names it is for.
    pub names: Vec<String>,
    /// The SHA-256 digest of the host's own certificate, in hexadecimal; none where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// When it expires; none where there is no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<crate::time::Timestamp>,
    /// What is wrong with it, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A certificate with its key on its way to the target. Its key is a secret: it is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateMaterial {
    /// The section's name; the same in both manifests.
    pub name: String,
    /// The chain, the host's own certificate first, in PEM.
    pub chain: String,
    /// The private key, in PEM.
    pub key: String,
}

impl fmt::Debug for CertificateMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateMaterial").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an inventory tells of all that a host does to itself when it is changed over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The agent can put its host into maintenance. Those of earlier releases say nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintains: bool,
    /// Its services, in the manifest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceFacts>,
    /// Its settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<SettingsFacts>,
    /// Its certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFacts>,
    /// The servers of its databases, as far as they can have replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replication: Vec<ReplicationFacts>,
    /// Its DNS records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsFacts>,
    /// The label of a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelFacts>,
}

impl Facts {
    /// The manifest names nothing of the kind.
    pub fn is_empty(&self) -> bool {
        let replicated = self.replication.iter().any(|one| one.replica.is_some());
        self.services.is_empty()
            && self.settings.is_empty()
            && self.certificates.is_empty()
            && self.dns.is_none()
            && self.label.is_none()
            && !replicated
    }

    /// Nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Facts::default()
    }

    /// What must not change between approval and start, by item.
    pub fn structure(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let services = self.services.iter().map(|service| {
            let trial = if service.trial.is_open() { String::new() } else { service.trial.to_string() };
            (format!("service {}", service.unit), trial)
        });
        let settings = self.settings.iter();
        let settings = settings.map(|section| {
            (format!("settings {}", section.name), format!("{} {}", section.group, section.file))
        });
        let certificates = self.certificates.iter();
        let certificates =
            certificates.map(|one| (format!("certificate {}", one.name), format!("{:?}", one.action)));
        let replicas = self.replication.iter().filter_map(|one| {
            Some((format!("replica of {}", one.names()), one.replica.as_ref()?.server.clone()))
        });
        // What the server has is not in it: round-robin hosts come and go.
        let dns = self.dns.iter().map(|dns| {
            let how = if dns.automatic { "updated" } else { "asked" };
            let names =
                [&dns.service_names[..], &dns.round_robin[..]].map(|names| names.join(" ")).join("; ");
            ("dns".to_owned(), format!("{} {how}: {names}", dns.server))
        });
        let label = self.label.iter();
        let label = label.map(|one| {
            ("label".to_owned(), format!("{:?} {}", one.text, one.file.as_deref().unwrap_or_default()))
        });
        services.chain(settings).chain(certificates).chain(replicas).chain(dns).chain(label)
    }

    /// What keeps the agent from doing its part: what it is about, and the problem.
    pub fn problems(&self) -> impl Iterator<Item = (String, &str)> + '_ {
        let services = self.services.iter().map(|one| (format!("service {}", one.unit), &one.problem));
        let settings = self.settings.iter().map(|one| (format!("settings {}", one.name), &one.problem));
        let certificates =
            self.certificates.iter().map(|one| (format!("certificate {}", one.name), &one.problem));
        let replicated = self.replication.iter().filter(|one| one.replica.is_some());
        let replicas = replicated.map(|one| (format!("replica of {}", one.names()), &one.problem));
        let dns = self.dns.iter().map(|dns| ("dns".to_owned(), &dns.problem));
        let label = self.label.iter().map(|one| ("label".to_owned(), &one.problem));
        services
            .chain(settings)
            .chain(certificates)
            .chain(replicas)
            .chain(dns)
            .chain(label)
            .filter_map(|(item, problem)| Some((item, problem.as_deref()?)))
    }
}

/// How far a host is with a change of its settings that a reboot belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapStanding {
    /// Nothing of the kind goes on: its settings are its own.
    Own,
    /// The new settings are in place and its dead-man timer runs, but it was not booted with them yet.
    Armed,
    /// It was booted with the new settings, and its dead-man timer runs.
    Up,
    /// The new settings are there to stay, until they are restored.
    Confirmed,
    /// It has restored its own and was booted with them: nobody had confirmed in time, or it was asked to.
    RolledBack,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_what_makes_it_the_one_it_is() {
        for (group, is_basic) in
            [("mail", true), ("network", false), ("ftp-backup", false), ("Network", true)]
        {
            let group = Group(group.to_owned());
            assert_eq!(Scope::Basic.holds(&group), is_basic, "{group}");
            assert!(Scope::All.holds(&group));
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let material =
            CertificateMaterial { name: "www".into(), chain: "chain".into(), key: "secret".into() };
        assert!(!format!("{material:?}").contains("secret"));
    }
}
