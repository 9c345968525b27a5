//! `[[service]]`: a unit that is stopped and started when a host is changed over.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use handover_engine::changeover::Trial;
use serde::{Deserialize, Deserializer};

/// No service may take longer to come up or to stop.
const LONGEST_SECONDS: u64 = 3600;
/// What a unit of an appliance can be.
const SUFFIXES: [&str; 5] = [".service", ".socket", ".timer", ".path", ".target"];

/// `[[service]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSection {
    /// Its unit; without a suffix it is a `.service`.
    #[serde(deserialize_with = "unit")]
    pub unit: String,
    /// Started lowest first, stopped highest first; those of equal order side by side.
    #[serde(default)]
    pub order: i32,
    /// How it is asked whether it is well.
    #[serde(default)]
    pub check: Option<Check>,
    /// How long it may take to become well, in seconds.
    #[serde(default = "default_check_seconds")]
    pub check_seconds: u64,
    /// How long it may take to stop, in seconds.
    #[serde(default = "default_stop_seconds")]
    pub stop_seconds: u64,
    /// How it runs while the target is on trial.
    #[serde(default)]
    pub trial: TrialKind,
    /// Networks that it reaches, and is reached from, though it is sealed off.
    #[serde(default)]
    pub trial_allow: Vec<String>,
}

/// How a service runs while the target is on trial, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialKind {
    /// As it always does.
    #[default]
    Open,
    /// Sealed off from the network.
    Sealed,
    /// It does not run.
    Stopped,
}

/// How a service is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Check {
    /// It takes connections.
    Tcp {
        /// Host and port.
        address: String,
    },
    /// It answers a GET with 2xx or 3xx.
    Http {
        /// Host and port, to connect to.
        address: String,
        /// As the request names the host.
        host: String,
        /// Path and query.
        path: String,
    },
    /// A command ends with exit code 0. It is run without a shell.
    Command(Vec<String>),
}

/// A check as it is written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "write \"tcp://host:port\", \"http://…\" or { command = [\"/path\", …] }")]
enum Written {
    Url(String),
    Command(WrittenCommand),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCommand {
    command: Vec<String>,
}

impl TryFrom<Written> for Check {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Command(WrittenCommand { command }) => match command.first() {
                Some(program) if program.starts_with('/') => Ok(Check::Command(command)),
                _ => {
                    Err("`command`: write the absolute path of an executable, then its arguments".to_owned())
                }
            },
            Written::Url(url) => parse(&url),
        }
    }
}

fn parse(url: &str) -> Result<Check, String> {
    if let Some(address) = url.strip_prefix("tcp://") {
        let address = address.trim_end_matches('/');
        port_of(address).ok_or_else(|| format!("`{url}`: write tcp://host:port"))?;
        return Ok(Check::Tcp { address: address.to_owned() });
    }
    if let Some(rest) = url.strip_prefix("http://") {
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let has_port = port_of(host).is_some();
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains(['@', '#']);
        let is_name = !host.is_empty() && (has_port || !host.contains(':') || host.ends_with(']'));
        if !is_plain || !is_name {
            return Err(format!("`{url}`: write http://host/path or http://host:port/path"));
        }
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        return Ok(Check::Http { address, host: host.to_owned(), path });
    }
    if url.starts_with("https://") {
        return Err(format!(
            "`{url}`: https is asked by a command that knows whom to trust: \
             {{ command = [\"/usr/bin/curl\", \"--fail\", \"--silent\", \"--show-error\", \"{url}\"] }}"
        ));
    }
    Err(format!("`{url}`: write tcp://host:port, http://… or {{ command = [\"/path\", …] }}"))
}

/// The port of `host:port`.
fn port_of(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
    let is_plain = host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#".contains(&byte));
    port.parse().ok().filter(|port| *port > 0 && is_host && is_plain)
}

fn unit<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    String::deserialize(value).map(|name| whole_name(&name))
}

/// The name of a unit with its suffix; without one it is a service's.
pub fn whole_name(unit: &str) -> String {
    let is_whole = unit.is_empty() || SUFFIXES.iter().any(|suffix| unit.ends_with(suffix));
    if is_whole { unit.to_owned() } else { format!("{unit}.service") }
}

fn default_check_seconds() -> u64 {
    30
}

fn default_stop_seconds() -> u64 {
    90
}

impl ServiceSection {
    /// A unit with nothing said about it.
    pub fn of(unit: &str) -> Self {
        let (check_seconds, stop_seconds) = (default_check_seconds(), default_stop_seconds());
        let (trial, trial_allow) = (TrialKind::Open, Vec::new());
        Self { unit: unit.to_owned(), order: 0, check: None, check_seconds, stop_seconds, trial, trial_allow }
    }

    /// How it runs on trial.
    pub fn on_trial(&self) -> Trial {
        match self.trial {
            TrialKind::Open => Trial::Open,
            TrialKind::Sealed => Trial::Sealed(self.trial_allow.clone()),
            TrialKind::Stopped => Trial::Stopped,
        }
    }

    /// How long it may take to become well.
    pub fn check_limit(&self) -> Duration {
        Duration::from_secs(self.check_seconds)
    }

    /// How long it may take to stop.
    pub fn stop_limit(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }
}

/// What makes no sense: the section, its name, the problem.
pub fn check(services: &[ServiceSection]) -> Result<(), (&'static str, String, String)> {
    let mut units = HashSet::new();
    for service in services {
        let refuse = |problem: &str| Err(("service", service.unit.clone(), problem.to_owned()));
        if !is_unit(&service.unit) {
            return refuse("`unit`: write the name of a unit, like nginx.service");
        }
        if !units.insert(&service.unit) {
            return refuse("the unit is named twice");
        }
        for (key, seconds) in
            [("check_seconds", service.check_seconds), ("stop_seconds", service.stop_seconds)]
        {
            if !(1..=LONGEST_SECONDS).contains(&seconds) {
                return refuse(&format!("`{key}`: write 1 to {LONGEST_SECONDS}"));
            }
        }
        let has_sockets = [".service", ".socket"].iter().any(|suffix| service.unit.ends_with(suffix));
        if service.trial == TrialKind::Sealed && !has_sockets {
            return refuse(
                "`trial`: only services and sockets can be sealed off: write \"stopped\" or \"open\"",
            );
        }
        if service.trial != TrialKind::Sealed && !service.trial_allow.is_empty() {
            return refuse("`trial_allow`: it is for trial = \"sealed\"");
        }
        if let Some(bad) = service.trial_allow.iter().find(|network| !is_network(network)) {
            return refuse(&format!("`trial_allow`: `{bad}`: write addresses, like 192.0.2.1 or 10.0.0.0/8"));
        }
    }
    Ok(())
}

/// An address, or one with the length of a network's prefix. Everything is no network.
fn is_network(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').unzip();
    let Ok(address) = address.unwrap_or(text).parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix.parse().is_ok_and(|bits: u8| (1..=most).contains(&bits)))
}

/// As systemd itself takes names; a template without an instance is no unit that could run.
fn is_unit(name: &str) -> bool {
    let stem = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or_default();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() < 256
        && stem.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && !stem.ends_with('@')
        && stem.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sections {
        service: Vec<ServiceSection>,
    }

    fn read(text: &str) -> Result<Vec<ServiceSection>, String> {
        let text = format!("[[service]]\n{text}");
        let sections: Sections = toml::from_str(&text).map_err(|error| error.to_string())?;
        let told = |(section, name, problem)| format!("[[{section}]] `{name}`: {problem}");
        check(&sections.service).map_err(told)?;
        Ok(sections.service)
    }

    #[test]
    fn sections_are_read() {
        let http = |address: &str, host: &str, path: &str| Check::Http {
            address: address.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
        };
        let tcp = |address: &str| Check::Tcp { address: address.to_owned() };
        for (text, check) in [
            ("'tcp://127.0.0.1:25'", tcp("127.0.0.1:25")),
            ("'tcp://[::1]:25'", tcp("[::1]:25")),
            ("'http://localhost'", http("localhost:80", "localhost", "/")),
            (
                "'http://localhost:8080/health?deep=1'",
                http("localhost:8080", "localhost:8080", "/health?deep=1"),
            ),
            ("'http://[::1]/x'", http("[::1]:80", "[::1]", "/x")),
            ("{ command = ['/bin/true', '-x'] }", Check::Command(vec!["/bin/true".into(), "-x".into()])),
        ] {
            let read = read(&format!("unit = 'nginx'\ncheck = {text}")).unwrap();
            let expected = ServiceSection { check: Some(check), ..ServiceSection::of("nginx.service") };
            assert_eq!(read, [expected]);
        }
        let all = read("unit = 'a@1.socket'\norder = -5\ncheck_seconds = 7\nstop_seconds = 8").unwrap();
        assert_eq!((all[0].unit.as_str(), all[0].order), ("a@1.socket", -5));
        assert_eq!((all[0].check_limit().as_secs(), all[0].stop_limit().as_secs()), (7, 8));
        let sealed =
            read("unit = 'x'\ntrial = 'sealed'\ntrial_allow = ['10.0.0.0/8', '::1', 'fd00::/8']").unwrap();
        assert_eq!(sealed[0].on_trial().to_string(), "sealed off but for 10.0.0.0/8 ::1 fd00::/8");
        assert_eq!(read("unit = 'x.timer'\ntrial = 'stopped'").unwrap()[0].on_trial(), Trial::Stopped);
    }

    /// What operators are shown.
    #[test]
    fn the_sample_is_read() {
        let docs = include_str!("../../../docs/services.md");
        let sample = docs.split("```").find_map(|part| part.strip_prefix("toml\n")).unwrap();
        let Sections { service } = toml::from_str(sample).unwrap();
        check(&service).unwrap();
        assert_eq!(service.len(), 4);
    }

    #[test]
    fn bad_ones_are_refused_by_name() {
        for (text, part) in [
            ("order = 1", "unit"),
            ("unit = ''", "`unit`: write the name"),
            ("unit = '../x.service'", "`../x.service`: `unit`"),
            ("unit = 'a b'", "`a b.service`: `unit`"),
            ("unit = 'getty@.service'", "`unit`"),
            ("unit = '--root.service'", "`unit`"),
            ("unit = 'x'\ncheck_seconds = 0", "`x.service`: `check_seconds`: write 1 to 3600"),
            ("unit = 'x'\nstop_seconds = 3601", "`stop_seconds`"),
            ("unit = 'x'\n[[service]]\nunit = 'x.service'", "named twice"),
            ("unit = 'x'\nretries = 3", "retries"),
            ("unit = 'x'\ntrial = 'shut'", "shut"),
            ("unit = 'x.timer'\ntrial = 'sealed'", "`trial`: only services and sockets"),
            ("unit = 'x'\ntrial_allow = ['10.0.0.1']", "`trial_allow`: it is for"),
            ("unit = 'x'\ntrial = 'sealed'\ntrial_allow = ['any']", "`any`: write addresses"),
            ("unit = 'x'\ntrial = 'sealed'\ntrial_allow = ['0.0.0.0/0']", "`0.0.0.0/0`: write addresses"),
            ("unit = 'x'\ntrial = 'sealed'\ntrial_allow = ['10.0.0.0/33']", "write addresses"),
            ("unit = 'x'\ncheck = 'ftp://x:1'", "`ftp://x:1`: write tcp://host:port"),
            ("unit = 'x'\ncheck = 'tcp://x'", "`tcp://x`: write tcp://host:port"),
            ("unit = 'x'\ncheck = 'tcp://x:0'", "write tcp://host:port"),
            ("unit = 'x'\ncheck = 'tcp://::1:25'", "write tcp://host:port"),
            ("unit = 'x'\ncheck = 'http://x:y/'", "write http://host/path"),
            ("unit = 'x'\ncheck = 'http:///x'", "write http://host/path"),
            ("unit = 'x'\ncheck = 'http://x/a b'", "write http://host/path"),
            ("unit = 'x'\ncheck = 'https://x/'", "https is asked by a command"),
            ("unit = 'x'\ncheck = { command = ['true'] }", "absolute path"),
            ("unit = 'x'\ncheck = { command = [] }", "absolute path"),
            ("unit = 'x'\ncheck = { command = ['/x'], shell = true }", "command = ["),
            ("unit = 'x'\ncheck = 7", "tcp://host:port"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
