//! Where a server is and how to sign in, from a URL.

use std::fmt;
use std::path::PathBuf;

use crate::accounts::Account;

/// How many connections read or load at once, unless told.
const CONNECTIONS: usize = 4;

/// A server, a database in it, and how to sign in. Never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Account.
    pub user: String,
    /// Its password, when given in the URL.
    password: Option<String>,
    /// A file that holds the password; read again at every connection, so that it may be changed.
    pub password_file: Option<PathBuf>,
    /// Host name or address; unused with a socket.
    pub host: String,
    /// Port; unused with a socket.
    pub port: u16,
    /// The database.
    pub database: String,
    /// A local socket.
    pub socket: Option<PathBuf>,
    /// Connect with TLS or not at all.
    pub tls: bool,
    /// The certificate authority of the server's certificate; the usual public ones where `None`.
    pub ca: Option<PathBuf>,
    /// Connections that read or load at once.
    pub connections: usize,
    /// Loading is written to the target's binary log (default). Without, replicas of the target do not get the rows.
    pub binlog: bool,
    /// Accounts that move with the database: at the source those that are sent, at the target those that may be made.
    pub accounts: Vec<Account>,
}

/// The URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// It does not begin with `mariadb://` or `mysql://`.
    #[error("the URL must begin with mariadb:// or mysql://")]
    Scheme,
    /// No database is named.
    #[error("the URL names no database")]
    NoDatabase,
    /// No user is named.
    #[error("the URL names no user")]
    NoUser,
    /// The port is no number.
    #[error("the port is no number from 1 to 65535")]
    Port,
    /// A percent sign without two hexadecimal digits, or bytes that are no text.
    #[error("a percent sign must be followed by two hexadecimal digits, and the result must be UTF-8")]
    Percent,
    /// An option that means nothing.
    #[error(
        "the URL has an option {0:?}; known are socket, password_file, tls, ca, connections, binlog, accounts"
    )]
    Option(String),
    /// An option's value that means nothing.
    #[error("the URL's option {0} has a value that it cannot have")]
    Value(&'static str),
}

impl Settings {
    /// Reads `mariadb://user:password@host:port/database?option=value&…`.
    ///
    /// Options: `socket=/path`, `password_file=/path`, `tls=required`, `ca=/path`, `connections=4`, `binlog=off`,
    /// `accounts=app@localhost,report@%25`. Accounts move only when the URLs of both sides name them.
    pub fn parse(url: &str) -> Result<Self, BadSettings> {
        let rest = url
            .strip_prefix("mariadb://")
            .or_else(|| url.strip_prefix("mysql://"))
            .ok_or(BadSettings::Scheme)?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.rsplit_once('/').ok_or(BadSettings::NoDatabase)?;
        let (account, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match account.split_once(':') {
            Some((user, password)) => (user, Some(decode(password)?)),
            None => (account, None),
        };
        let (host, port) = host_and_port(address)?;
        let mut settings = Self {
            user: decode(user)?,
            password,
            password_file: None,
            host,
            port,
            database: decode(database)?,
            socket: None,
            tls: false,
            ca: None,
            connections: CONNECTIONS,
            binlog: true,
            accounts: Vec::new(),
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            settings.set(name, decode(value)?)?;
        }
        if settings.user.is_empty() {
            return Err(BadSettings::NoUser);
        }
        if settings.database.is_empty() {
            return Err(BadSettings::NoDatabase);
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), BadSettings> {
        match name {
            "socket" => self.socket = Some(path(value, "socket")?),
            "password_file" => self.password_file = Some(path(value, "password_file")?),
            "ca" => (self.ca, self.tls) = (Some(path(value, "ca")?), true),
            "tls" => match value.as_str() {
                "required" => self.tls = true,
                "off" if self.ca.is_none() => self.tls = false,
                _ => return Err(BadSettings::Value("tls")),
            },
            "connections" => match value.parse() {
                Ok(n @ 1..=64) => self.connections = n,
                _ => return Err(BadSettings::Value("connections")),
            },
            "binlog" => match value.as_str() {
                "on" => self.binlog = true,
                "off" => self.binlog = false,
                _ => return Err(BadSettings::Value("binlog")),
            },
            "accounts" => {
                let accounts: Result<Vec<Account>, ()> = value.split(',').map(str::parse).collect();
                self.accounts = accounts.map_err(|()| BadSettings::Value("accounts"))?;
            }
            _ => return Err(BadSettings::Option(name.to_owned())),
        }
        Ok(())
    }

    /// The same server and account, with a password.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The password, from the URL or its file.
    pub fn password(&self) -> std::io::Result<Option<String>> {
        match &self.password_file {
            None => Ok(self.password.clone()),
            Some(file) => {
                let text = std::fs::read_to_string(file)?;
                Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
        }
    }

    /// The database and its server, without credentials.
    pub fn location(&self) -> String {
        format!("{} at {}", self.database, self.server())
    }

    /// The server, for messages.
    pub fn server(&self) -> String {
        match &self.socket {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.server(), self.database)
    }
}

fn path(value: String, name: &'static str) -> Result<PathBuf, BadSettings> {
    if value.starts_with('/') { Ok(value.into()) } else { Err(BadSettings::Value(name)) }
}

fn host_and_port(address: &str) -> Result<(String, u16), BadSettings> {
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = match port {
        None => 3306,
        Some(port) => match port.parse() {
            Ok(port @ 1..) => port,
            _ => return Err(BadSettings::Port),
        },
    };
    let host = if host.is_empty() { "localhost".to_owned() } else { decode(host)? };
    Ok((host, port))
}

fn decode(text: &str) -> Result<String, BadSettings> {
    let (mut out, mut bytes) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(BadSettings::Percent);
        let value = digit()? * 16 + digit()?;
        out.push(u8::try_from(value).map_err(|_| BadSettings::Percent)?);
    }
    String::from_utf8(out).map_err(|_| BadSettings::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let s = Settings::parse("mariadb://rt:p%40s%3Aw@db.example:3307/rt5?tls=required&ca=/etc/ca.pem")
            .unwrap();
        assert_eq!(
            (s.user.as_str(), s.host.as_str(), s.port, s.database.as_str()),
            ("rt", "db.example", 3307, "rt5")
        );
        assert_eq!(s.password().unwrap().as_deref(), Some("p@s:w"));
        assert!(s.tls && s.ca == Some("/etc/ca.pem".into()));
        let s = Settings::parse("mysql://root@/app?socket=/run/mysqld/mysqld.sock&connections=2&binlog=off")
            .unwrap();
        assert_eq!(s.server(), "/run/mysqld/mysqld.sock");
        assert!(s.connections == 2 && !s.binlog);
        let s = Settings::parse("mysql://u@h/d?accounts=app@localhost,report@%25").unwrap();
        assert_eq!(s.accounts, ["app@localhost", "report"].map(|name| name.parse().unwrap()));
        assert_eq!(Settings::parse("mysql://u@[::1]:33/d").unwrap().server(), "::1:33");
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let table = [
            ("postgres://u@h/d", BadSettings::Scheme),
            ("mysql://u@h", BadSettings::NoDatabase),
            ("mysql://u@h/", BadSettings::NoDatabase),
            ("mysql://h/d", BadSettings::NoUser),
            ("mysql://u@h:0/d", BadSettings::Port),
            ("mysql://u@h:x/d", BadSettings::Port),
            ("mysql://u:%4@h/d", BadSettings::Percent),
            ("mysql://u@h/d?nope=1", BadSettings::Option("nope".into())),
            ("mysql://u@h/d?tls=maybe", BadSettings::Value("tls")),
            ("mysql://u@h/d?ca=/c&tls=off", BadSettings::Value("tls")),
            ("mysql://u@h/d?socket=relative", BadSettings::Value("socket")),
            ("mysql://u@h/d?accounts=a,,b", BadSettings::Value("accounts")),
            ("mysql://u@h/d?connections=0", BadSettings::Value("connections")),
        ];
        for (url, expected) in table {
            assert_eq!(Settings::parse(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn never_shows_the_password() {
        let shown = format!("{:?}", Settings::parse("mysql://u:s3cret@h/d").unwrap());
        assert_eq!(shown, "u@h:3306/d");
        let error = Settings::parse("mysql://u:s3cret@h:bad/d").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}
