//! Where a database is, and how to get in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Default directory of the server's local socket in Debian.
const SOCKET: &str = "/var/run/postgresql";
/// Certificate authorities of the system, where none are named.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A connection's settings, as parsed from
/// `postgres://user:password@host:port/database?socket=…&tls=…&ca=…&password_file=…&maintenance=…&pg_dump=…&owners=…&accounts=…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Role to log in as.
    pub user: String,
    /// Host name or address; ignored where `socket` is set.
    pub host: String,
    /// Port, also part of the local socket's name.
    pub port: u16,
    /// Directory of the local socket.
    pub socket: Option<PathBuf>,
    /// The database.
    pub database: String,
    /// A database to be connected to while `database` is made, renamed or dropped.
    pub maintenance: String,
    /// The certificate authorities that may have signed the server's certificate; `None` for a connection without TLS.
    pub ca: Option<PathBuf>,
    /// The `pg_dump` program, where it is not one of the system's.
    pub pg_dump: Option<PathBuf>,
    /// Give objects the owners and grants they have at the source, where those roles exist.
    pub owners: bool,
    /// Order text keys byte by byte rather than by the column's collation: for hosts whose collations differ.
    pub bytewise_keys: bool,
    /// Source only: roles that move with the database.
    pub accounts: Vec<String>,
    pub(crate) password: Password,
}

/// How the password is found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Password {
    None,
    Given(String),
    File(PathBuf),
}

/// A URL that is not understood. Never shows the URL itself, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// Not a `postgres://` URL.
    #[error("the URL does not begin with postgres://")]
    Scheme,
    /// A part is missing.
    #[error("the URL names no {0}")]
    Missing(&'static str),
    /// A part is malformed.
    #[error("the URL's {0} is malformed")]
    Malformed(&'static str),
    /// A parameter that is unknown.
    #[error("the URL has an unknown parameter `{0}`")]
    Unknown(String),
    /// A parameter's value that is unknown.
    #[error("the URL's parameter `{0}` has a value that is none of its own")]
    Value(&'static str),
}

impl Settings {
    /// Reads a URL. Percent signs escape, in every part.
    pub fn parse(url: &str) -> Result<Self, BadSettings> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let (rest, query) = split(rest.ok_or(BadSettings::Scheme)?, '?');
        let (authority, database) = split(rest, '/');
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (login, address),
            None => ("", authority),
        };
        let (user, password) = split(login, ':');
        let mut parameters = parameters(query.unwrap_or_default())?;
        let (host, port) = host_and_port(address)?;
        let mut take = |name: &str| parameters.remove(name);
        let password = match (password, take("password_file")) {
            (Some(_), Some(_)) => return Err(BadSettings::Value("password_file")),
            (Some(given), None) => Password::Given(decode(given, "password")?),
            (None, Some(file)) => Password::File(file.into()),
            (None, None) => Password::None,
        };
        let (socket, port) = socket(take("socket"), &host, port)?;
        let ca = ca(take("tls"), take("ca"), socket.is_some() || is_loopback(&host))?;
        let owners = choice(take("owners"), "owners", "keep", "drop")?;
        let bytewise_keys = !choice(take("key_order"), "key_order", "collation", "bytes")?;
        let accounts =
            take("accounts").map_or(Vec::new(), |names| names.split(',').map(str::to_owned).collect());
        if accounts.iter().any(String::is_empty) {
            return Err(BadSettings::Value("accounts"));
        }
        let database = decode(database.unwrap_or_default(), "database")?;
        let default = if database == "postgres" { "template1" } else { "postgres" };
        let settings = Self {
            user: decode(user, "user")?,
            host,
            port,
            socket,
            maintenance: take("maintenance").unwrap_or_else(|| default.to_owned()),
            pg_dump: take("pg_dump").map(Into::into),
            database,
            ca,
            owners,
            bytewise_keys,
            accounts,
            password,
        };
        if let Some(unknown) = parameters.into_keys().next() {
            return Err(BadSettings::Unknown(unknown));
        }
        if settings.user.is_empty() {
            return Err(BadSettings::Missing("user"));
        }
        if settings.database.is_empty() {
            return Err(BadSettings::Missing("database"));
        }
        Ok(settings)
    }

    /// The server, as an operator knows it.
    pub fn server(&self) -> String {
        match &self.socket {
            Some(directory) => format!("{}/.s.PGSQL.{}", directory.display(), self.port),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// The database and its server, without credentials.
    pub fn location(&self) -> String {
        format!("{} at {}", self.database, self.server())
    }

    /// The same server's database of another name.
    pub(crate) fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// Where the password is, if it is in a file.
    pub(crate) fn password_file(&self) -> Option<&Path> {
        if let Password::File(path) = &self.password { Some(path) } else { None }
    }

    /// The password, read now.
    pub fn password(&self) -> std::io::Result<Option<String>> {
        Ok(match &self.password {
            Password::None => None,
            Password::Given(password) => Some(password.clone()),
            Password::File(path) => {
                let text = std::fs::read_to_string(path)?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("user", &self.user)
            .field("server", &self.server())
            .field("database", &self.database)
            .field("tls", &self.ca.is_some())
            .finish_non_exhaustive()
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Undoes percent escapes.
fn decode(text: &str, what: &'static str) -> Result<String, BadSettings> {
    let bad = || BadSettings::Malformed(what);
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        out.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0')).ok_or_else(bad)
}

fn parameters(query: &str) -> Result<BTreeMap<String, String>, BadSettings> {
    let mut out = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = split(pair, '=');
        let value = decode(value.unwrap_or_default(), "parameter")?;
        if out.insert(name.to_owned(), value).is_some() {
            return Err(BadSettings::Malformed("parameter"));
        }
    }
    Ok(out)
}

fn host_and_port(address: &str) -> Result<(String, Option<u16>), BadSettings> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(BadSettings::Malformed("host"))?;
            (host, rest.strip_prefix(':'))
        }
        None => split(address, ':'),
    };
    let port = port.map(|port| port.parse().map_err(|_| BadSettings::Malformed("port"))).transpose()?;
    Ok((decode(host, "host")?, port))
}

/// The socket's directory and the port: `?socket=` may name the directory or the socket itself.
fn socket(
    named: Option<String>,
    host: &str,
    port: Option<u16>,
) -> Result<(Option<PathBuf>, u16), BadSettings> {
    let Some(path) = named else {
        let default = host.is_empty().then(|| SOCKET.into());
        return Ok((default, port.unwrap_or(5432)));
    };
    if !path.starts_with('/') {
        return Err(BadSettings::Value("socket"));
    }
    match path.rsplit_once("/.s.PGSQL.") {
        Some((directory, number)) => {
            let number = number.parse().map_err(|_| BadSettings::Value("socket"))?;
            Ok((Some(directory.into()), number))
        }
        None => Ok((Some(path.into()), port.unwrap_or(5432))),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn ca(tls: Option<String>, ca: Option<String>, local: bool) -> Result<Option<PathBuf>, BadSettings> {
    let required = match tls.as_deref() {
        Some("required") => true,
        Some("off") if ca.is_some() => return Err(BadSettings::Value("tls")),
        Some("off") => false,
        Some(_) => return Err(BadSettings::Value("tls")),
        None => ca.is_some() || !local,
    };
    Ok(required.then(|| ca.unwrap_or_else(|| SYSTEM_CA.to_owned()).into()))
}

/// True for `yes` or nothing, false for `no`.
fn choice(value: Option<String>, name: &'static str, yes: &str, no: &str) -> Result<bool, BadSettings> {
    match value {
        None => Ok(true),
        Some(value) if value == yes => Ok(true),
        Some(value) if value == no => Ok(false),
        Some(_) => Err(BadSettings::Value(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let full = Settings::parse(
            "postgres://me:p%40ss@db.example:5433/shop?tls=required&ca=/etc/ca.pem&maintenance=other",
        )
        .unwrap();
        assert_eq!((full.user.as_str(), full.host.as_str(), full.port), ("me", "db.example", 5433));
        assert_eq!((full.database.as_str(), full.maintenance.as_str()), ("shop", "other"));
        assert_eq!(full.ca, Some("/etc/ca.pem".into()));
        assert_eq!(full.password().unwrap().as_deref(), Some("p@ss"));
        let local = Settings::parse("postgresql://rt@/rt?socket=/run/pg/.s.PGSQL.5440").unwrap();
        assert_eq!(local.server(), "/run/pg/.s.PGSQL.5440");
        assert_eq!(
            Settings::parse("postgres://rt@/rt").unwrap().server(),
            "/var/run/postgresql/.s.PGSQL.5432"
        );
        assert_eq!(Settings::parse("postgres://u@[::1]:7/d").unwrap().server(), "::1:7");
        assert!(Settings::parse("postgres://u@127.0.0.1/d").unwrap().ca.is_none());
        assert!(Settings::parse("postgres://u@elsewhere/d").unwrap().ca.is_some(), "no TLS by default");
        assert!(Settings::parse("postgres://u@elsewhere/d?tls=off").unwrap().ca.is_none());
    }

    #[test]
    fn refuses_bad_urls() {
        for (url, expected) in [
            ("mysql://u@h/d", BadSettings::Scheme),
            ("postgres://h/d", BadSettings::Missing("user")),
            ("postgres://u@h", BadSettings::Missing("database")),
            ("postgres://u@h:x/d", BadSettings::Malformed("port")),
            ("postgres://u@h/d%zz", BadSettings::Malformed("database")),
            ("postgres://u@h/d?sslmode=require", BadSettings::Unknown("sslmode".to_owned())),
            ("postgres://u@h/d?tls=maybe", BadSettings::Value("tls")),
            ("postgres://u@h/d?socket=here", BadSettings::Value("socket")),
        ] {
            assert_eq!(Settings::parse(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn never_shows_the_password() {
        let settings = Settings::parse("postgres://u:hunter2@h/d").unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
