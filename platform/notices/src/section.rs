//! `[notices]` and `[[notice]]`: who is told by mail, of what, and in which words.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use serde::{Deserialize, Deserializer};

use crate::text::{Kind, problem};

/// No server may take longer.
const LONGEST_SECONDS: u64 = 300;

/// `[notices]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticesSection {
    /// The server that takes mail.
    #[serde(deserialize_with = "server")]
    pub smtp: Server,
    /// Who sends.
    #[serde(deserialize_with = "mailbox")]
    pub from: Mailbox,
    /// Who is told.
    #[serde(default, deserialize_with = "mailboxes")]
    pub to: Vec<Mailbox>,
    /// The account at the server.
    #[serde(default)]
    pub user: Option<String>,
    /// The file with its password, absolute.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Whom the server's certificate must come from, PEM.
    #[serde(default = "default_ca")]
    pub ca: PathBuf,
    /// How long all that is sent at one moment may take, in seconds.
    #[serde(default = "default_seconds")]
    pub seconds: u64,
}

/// A server of mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub security: Security,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// In the open.
    Plain,
    /// Over TLS once the server was asked for it, or not at all.
    StartTls,
    /// Over TLS from the first byte.
    Tls,
}

/// `[[notice]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticeSection {
    /// What is told.
    #[serde(deserialize_with = "kinds")]
    pub moments: Vec<Kind>,
    /// The subject; one of the product's where there is none.
    #[serde(default)]
    pub subject: Option<String>,
    /// The text.
    #[serde(default)]
    pub body: Option<String>,
    /// Who is told; those of `[notices]` where nobody is named.
    #[serde(default, deserialize_with = "mailboxes")]
    pub to: Vec<Mailbox>,
    /// What comes next does not happen unless it was sent, where it can be stopped.
    #[serde(default)]
    pub required: bool,
}

fn default_ca() -> PathBuf {
    PathBuf::from("/etc/ssl/certs/ca-certificates.crt")
}

fn default_seconds() -> u64 {
    10
}

fn server<'de, D: Deserializer<'de>>(value: D) -> Result<Server, D::Error> {
    let url = String::deserialize(value)?;
    Server::parse(&url).map_err(serde::de::Error::custom)
}

fn mailbox<'de, D: Deserializer<'de>>(value: D) -> Result<Mailbox, D::Error> {
    parse_mailbox(&String::deserialize(value)?).map_err(serde::de::Error::custom)
}

fn mailboxes<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Mailbox>, D::Error> {
    let all = Vec::<String>::deserialize(value)?;
    all.iter().map(|text| parse_mailbox(text).map_err(serde::de::Error::custom)).collect()
}

fn parse_mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no address: write name@example.org or Name <name@example.org>"))
}

fn kinds<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Kind>, D::Error> {
    let names = Vec::<String>::deserialize(value)?;
    names.iter().map(|name| name.parse().map_err(serde::de::Error::custom)).collect()
}

impl Server {
    fn parse(url: &str) -> Result<Self, String> {
        const HINT: &str = "write smtp://host:25, starttls://host:587 or smtps://host:465";
        let bad = || format!("`{url}`: {HINT}; user and password have keys of their own");
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let (security, usual) = match scheme {
            "smtp" => (Security::Plain, 25),
            "starttls" => (Security::StartTls, 587),
            "smtps" => (Security::Tls, 465),
            _ => return Err(bad()),
        };
        let rest = rest.trim_end_matches('/');
        // The colons of a bare address of version 6 are not a port's.
        let split = rest.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let (host, port) = match split {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?),
            None => (rest, usual),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_plain = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
        if !is_plain {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port, security })
    }
}

impl NoticesSection {
    /// How long all that is sent at one moment may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// What makes no sense, by key.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.user.is_some() != self.password_file.is_some() {
            return Err(("user", "write `user` and `password_file`, or neither".to_owned()));
        }
        if self.user.is_some() && self.smtp.security == Security::Plain {
            return Err((
                "smtp",
                "a password is not sent in the open: write starttls:// or smtps://".to_owned(),
            ));
        }
        for (key, path) in [("password_file", self.password_file.as_ref()), ("ca", Some(&self.ca))] {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err((key, "write an absolute path".to_owned()));
            }
        }
        if !(1..=LONGEST_SECONDS).contains(&self.seconds) {
            return Err(("seconds", format!("write 1 to {LONGEST_SECONDS}")));
        }
        Ok(())
    }
}

/// What makes no sense: the section, its name, the problem.
pub fn check(
    section: Option<&NoticesSection>,
    notices: &[NoticeSection],
) -> Result<(), (&'static str, String, String)> {
    let nobody = section.is_some_and(|section| section.to.is_empty());
    if nobody && notices.is_empty() {
        return Err(("notice", "(all)".to_owned(), "`notices.to`: write who is told".to_owned()));
    }
    for notice in notices {
        let name = notice.moments.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
        let refuse = |problem: &str| Err(("notice", name.clone(), problem.to_owned()));
        if section.is_none() {
            return refuse("there is no [notices], which says where mail is sent to");
        }
        if notice.moments.is_empty() {
            return refuse("`moments`: write at least one");
        }
        if nobody && notice.to.is_empty() {
            return refuse("`to`: write who is told, here or in [notices]");
        }
        if notice
            .subject
            .as_ref()
            .is_some_and(|subject| subject.trim().is_empty() || subject.contains(['\r', '\n']))
        {
            return refuse("`subject`: write one line");
        }
        for (key, text) in [("subject", &notice.subject), ("body", &notice.body)] {
            if let Some(bad) = text.as_deref().and_then(problem) {
                return refuse(&format!("`{key}`: {bad}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Manifest {
        notices: Option<NoticesSection>,
        #[serde(default)]
        notice: Vec<NoticeSection>,
    }

    const GOOD: &str = "[notices]\nsmtp = 'starttls://mail.example.org'\nfrom = 'Shop <shop@example.org>'\nto = ['users@example.org']\n\
                        user = 'shop'\npassword_file = '/etc/secret'\n[[notice]]\nmoments = ['cutover-planned', 'aborted']\nrequired = true\n";

    fn read(text: &str) -> Result<Manifest, String> {
        let manifest: Manifest = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(section) = &manifest.notices {
            section.check().map_err(|(key, problem)| format!("[notices] `{key}`: {problem}"))?;
        }
        check(manifest.notices.as_ref(), &manifest.notice)
            .map_err(|(section, name, problem)| format!("[[{section}]] `{name}`: {problem}"))?;
        Ok(manifest)
    }

    #[test]
    fn sections_are_read() {
        let manifest = read(GOOD).unwrap();
        let section = manifest.notices.unwrap();
        assert_eq!(
            section.smtp,
            Server { host: "mail.example.org".into(), port: 587, security: Security::StartTls }
        );
        assert_eq!(section.limit(), Duration::from_secs(10));
        assert_eq!(manifest.notice[0].moments, [Kind::CutoverPlanned, Kind::Aborted]);
        for (url, host, port) in [
            ("smtp://localhost", "localhost", 25),
            ("smtps://10.0.0.1:4650/", "10.0.0.1", 4650),
            ("smtp://[::1]:2525", "::1", 2525),
            ("smtp://[::1]", "::1", 25),
        ] {
            let server = Server::parse(url).unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port), "{url}");
        }
        assert!(read("").unwrap().notices.is_none());
    }

    /// What operators are shown.
    #[test]
    fn the_samples_are_read() {
        let docs = include_str!("../../../docs/notices.md");
        let samples: Vec<_> = docs.split("```").filter_map(|part| part.strip_prefix("toml\n")).collect();
        assert!(!samples.is_empty());
        for sample in samples {
            read(sample).unwrap();
        }
    }

    #[test]
    fn bad_ones_are_refused_by_name() {
        for (text, part) in [
            (GOOD.replace("starttls://mail", "mail"), "write smtp://host:25"),
            (GOOD.replace("starttls://mail", "starttls://u:p@mail"), "keys of their own"),
            (GOOD.replace("starttls", "smtp"), "[notices] `smtp`: a password is not sent in the open"),
            (GOOD.replace("user = 'shop'\n", ""), "[notices] `user`"),
            (GOOD.replace("/etc/secret", "secret"), "[notices] `password_file`: write an absolute path"),
            (GOOD.replace("users@example.org", "users"), "`users` is no address"),
            (GOOD.replace("'users@example.org'", ""), "[[notice]] `cutover-planned, aborted`: `to`"),
            (GOOD.replace("aborted", "eaten"), "`eaten` is nothing that notice is given of"),
            (GOOD.replace("required = true", "subject = \"a\\nb\""), "`subject`: write one line"),
            (GOOD.replace("required = true", "body = '{who}'"), "`body`: `{who}` is not known"),
            (GOOD.replace("user =", "seconds = 0\nuser ="), "[notices] `seconds`"),
            (GOOD.replace("required", "requires"), "requires"),
            ("[[notice]]\nmoments = ['aborted']".to_owned(), "there is no [notices]"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
