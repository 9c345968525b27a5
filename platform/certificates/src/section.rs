//! `[[certificate]]`: the certificate of one or more services, and what is to be done about it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_engine::changeover::CertificateAction;
use handover_engine::name::DatasetName;
use http::Uri;
use http::uri::Authority;
use rustls_pki_types::ServerName;
use serde::Deserialize;

/// No probe may take longer.
const LONGEST_SECONDS: u64 = 3600;
/// No authority is kept waiting longer: the whole order has ten minutes.
const LONGEST_WAIT_SECONDS: u64 = 300;
/// No certificate is issued for longer: ten years.
const LONGEST_DAYS: u32 = 3653;

/// `[[certificate]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSection {
    /// The same in both manifests, unique in each.
    pub name: String,
    /// Where the chain lies, absolute; PEM, the host's own certificate first.
    pub certificate: PathBuf,
    /// Where the private key lies, absolute; PEM. The same file as `certificate` when that holds both.
    pub key: PathBuf,
    /// Units that read it anew after a change.
    #[serde(default)]
    pub services: Vec<String>,
    /// What is to be done about it. At a source, `keep` means that it is not handed out.
    #[serde(default = "default_action")]
    pub action: CertificateAction,
    /// Names and addresses that a new one must be good for. None: those of the one that is there.
    #[serde(default)]
    pub names: Vec<String>,
    /// Where it is asked for over TLS afterwards, as `host:port`.
    #[serde(default)]
    pub probe: Vec<String>,
    /// Which name is asked for (SNI). None: the first one of the certificate.
    #[serde(default)]
    pub probe_name: Option<String>,
    /// How long it may take until the new one is served, in seconds.
    #[serde(default = "default_probe_seconds")]
    pub probe_seconds: u64,
    /// The certificate of the CA that issues a new one, absolute; PEM, followed by those above it.
    #[serde(default)]
    pub ca_certificate: Option<PathBuf>,
    /// The CA's key, absolute; PEM.
    #[serde(default)]
    pub ca_key: Option<PathBuf>,
    /// How long a new one is good for, in days.
    #[serde(default = "default_days")]
    pub days: u32,
    /// The directory of an authority that issues a new one by ACME, as `https://…`.
    #[serde(default)]
    pub acme: Option<String>,
    /// Where that authority reaches who is responsible, as `mailto:…`.
    #[serde(default)]
    pub acme_contact: Vec<String>,
    /// Whom the directory's own certificate must come from, absolute; PEM. None: those whom the system trusts.
    #[serde(default)]
    pub acme_root: Option<PathBuf>,
    /// Where the account's key is kept, absolute. None: below the agent's state directory.
    #[serde(default)]
    pub acme_account: Option<PathBuf>,
    /// How long the names' other servers get to take over what the authority asks for, in seconds.
    #[serde(default)]
    pub acme_wait_seconds: u64,
    /// A program, absolute, with its arguments, that obtains a new one itself, by ACME or otherwise.
    #[serde(default)]
    pub acme_command: Vec<String>,
}

fn default_action() -> CertificateAction {
    CertificateAction::Copy
}

fn default_probe_seconds() -> u64 {
    30
}

fn default_days() -> u32 {
    397
}

/// Where a new certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Issuer<'a> {
    /// The files of a CA.
    Authority { certificate: &'a Path, key: &'a Path },
    /// An authority that speaks ACME.
    Acme(Acme<'a>),
    /// A program, and its arguments.
    Command(&'a [String]),
}

/// An authority that speaks ACME, and the account there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acme<'a> {
    pub directory: &'a str,
    pub contact: &'a [String],
    pub root: Option<&'a Path>,
    pub account: Option<&'a Path>,
    pub wait: Duration,
}

impl CertificateSection {
    /// How long it may take until the new one is served.
    pub fn probe_limit(&self) -> Duration {
        Duration::from_secs(self.probe_seconds)
    }

    /// Whether chain and key are one file.
    pub(crate) fn is_combined(&self) -> bool {
        self.certificate == self.key
    }

    /// None where it is not to be issued again, or where [`check`] would refuse.
    pub(crate) fn issuer(&self) -> Option<Issuer<'_>> {
        match (&self.ca_certificate, &self.ca_key, &self.acme, self.acme_command.as_slice()) {
            (Some(certificate), Some(key), None, []) => Some(Issuer::Authority { certificate, key }),
            (None, None, Some(directory), []) => Some(Issuer::Acme(self.acme_at(directory))),
            (None, None, None, command @ [_, ..]) => Some(Issuer::Command(command)),
            _ => None,
        }
    }

    fn acme_at<'a>(&'a self, directory: &'a str) -> Acme<'a> {
        Acme {
            directory,
            contact: &self.acme_contact,
            root: self.acme_root.as_deref(),
            account: self.acme_account.as_deref(),
            wait: Duration::from_secs(self.acme_wait_seconds),
        }
    }
}

/// Whether it is a name that a certificate can be for: a DNS name, one with `*.` before it, or an address.
pub(crate) fn is_name(name: &str) -> bool {
    ServerName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok_and(|parsed| {
        // `*.10.0.0.1` is nothing.
        !name.starts_with("*.") || matches!(parsed, ServerName::DnsName(_))
    })
}

/// Host and port of a place to be asked.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|inner| inner.contains(':'))?,
        None => host,
    };
    let is_bare_v6 = host.contains(':') && !host.starts_with('[');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!bare.is_empty() && !is_bare_v6).then_some((bare, port))
}

/// What makes no sense: the section's kind, its name, and what is wrong with it.
pub fn check(sections: &[CertificateSection]) -> Result<(), (&'static str, String, String)> {
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for section in sections {
        let refuse = |problem: String| Err(("certificate", section.name.clone(), problem));
        if let Some(problem) = problem(section) {
            return refuse(problem);
        }
        if !names.insert(&section.name) {
            return refuse("the name is used twice".to_owned());
        }
        let own = if section.is_combined() {
            vec![&section.certificate]
        } else {
            vec![&section.certificate, &section.key]
        };
        for place in own {
            if !places.insert(place) {
                return refuse(format!("{} belongs to another section already", place.display()));
            }
        }
    }
    Ok(())
}

fn problem(section: &CertificateSection) -> Option<String> {
    if section.name.parse::<DatasetName>().is_err() {
        return Some("`name`: use 1 to 64 letters, digits, `.`, `_` and `-`".to_owned());
    }
    let paths = [
        ("certificate", Some(&section.certificate)),
        ("key", Some(&section.key)),
        ("ca_certificate", section.ca_certificate.as_ref()),
        ("ca_key", section.ca_key.as_ref()),
        ("acme_root", section.acme_root.as_ref()),
        ("acme_account", section.acme_account.as_ref()),
    ];
    for (key, path) in paths {
        let is_file = |path: &PathBuf| path.is_absolute() && path.file_name().is_some();
        if path.is_some_and(|path| !is_file(path)) {
            return Some(format!("`{key}`: write the absolute path of a file"));
        }
    }
    if section.services.iter().any(|unit| unit.is_empty() || unit.contains(['/', '\0', ' '])) {
        return Some("`services`: write names of units, like nginx.service".to_owned());
    }
    if let Some(name) = section.names.iter().find(|name| !is_name(name)) {
        return Some(format!("`names`: `{name}` is no DNS name and no address"));
    }
    if let Some(place) = section.probe.iter().find(|place| host_and_port(place).is_none()) {
        return Some(format!("`probe`: `{place}` is not like host:443 or [::1]:443"));
    }
    if section.probe_name.as_ref().is_some_and(|name| name.starts_with("*.") || !is_name(name)) {
        return Some("`probe_name`: write one DNS name or address".to_owned());
    }
    if !(1..=LONGEST_SECONDS).contains(&section.probe_seconds) {
        return Some("`probe_seconds`: write 1 to 3600".to_owned());
    }
    issuing_problem(section)
}

fn issuing_problem(section: &CertificateSection) -> Option<String> {
    let names_none = section.ca_certificate.is_none()
        && section.ca_key.is_none()
        && section.acme.is_none()
        && section.acme_command.is_empty();
    let problem = match (section.action, section.issuer()) {
        (CertificateAction::Reissue, None) if names_none => {
            "action = \"reissue\" needs `ca_certificate` and `ca_key`, or `acme`, or `acme_command`"
        }
        (CertificateAction::Reissue, None) => {
            "write `ca_certificate` and `ca_key`, or `acme`, or `acme_command`: one of them"
        }
        (CertificateAction::Reissue, Some(Issuer::Command([program, ..]))) if !program.starts_with('/') => {
            "`acme_command`: begin with the absolute path of a program"
        }
        (CertificateAction::Copy | CertificateAction::Keep, _) if !names_none => {
            "`ca_certificate`, `ca_key`, `acme` and `acme_command` are for action = \"reissue\""
        }
        _ if !(1..=LONGEST_DAYS).contains(&section.days) => "`days`: write 1 to 3653",
        _ => return acme_problem(section),
    };
    Some(problem.to_owned())
}

fn acme_problem(section: &CertificateSection) -> Option<String> {
    let Some(Issuer::Acme(acme)) = section.issuer() else {
        let is_bare = section.acme_contact.is_empty()
            && section.acme_root.is_none()
            && section.acme_account.is_none()
            && section.acme_wait_seconds == 0;
        let what = "`acme_contact`, `acme_root`, `acme_account` and `acme_wait_seconds` are for `acme`";
        return (!is_bare).then(|| what.to_owned());
    };
    if authority(acme.directory).is_none() {
        return Some("`acme`: write the https address of an authority's directory".to_owned());
    }
    let is_address = |contact: &&String| {
        contact.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty())
            && !contact.contains(|letter: char| letter.is_whitespace() || letter.is_control())
    };
    if let Some(contact) = section.acme_contact.iter().find(|contact| !is_address(contact)) {
        return Some(format!("`acme_contact`: `{contact}` is not like mailto:admin@example.org"));
    }
    if section.acme_wait_seconds > LONGEST_WAIT_SECONDS {
        return Some("`acme_wait_seconds`: write 0 to 300".to_owned());
    }
    let address = address_among(&section.names)?;
    Some(format!("`names`: `{address}` is an address, and `acme` is for DNS names: let a program obtain it"))
}

/// The first name that is an address.
pub(crate) fn address_among(names: &[String]) -> Option<&String> {
    names.iter().find(|name| name.parse::<IpAddr>().is_ok())
}

/// Host and port of an authority's directory; none where it is not reached over TLS.
pub(crate) fn authority(directory: &str) -> Option<Authority> {
    let uri: Uri = directory.parse().ok()?;
    let is_https = uri.scheme_str() == Some("https");
    uri.authority().filter(|authority| is_https && !authority.as_str().contains('@')).cloned()
}

#[cfg(test)]
mod tests;
