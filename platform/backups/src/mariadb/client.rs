//! MariaDB's own programs, signed in by a file that nobody else may read.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::archive::Archive;
use crate::contents::MariadbServer;
use crate::tool::{PrivateFile, Running, Tools, printed};
use crate::work::Work;

/// The package that brings the programs.
const PACKAGE: &str = "mariadb-client";
/// Seconds that a table which is in use is waited for.
const IN_USE: u32 = 10;
/// Seconds that another session is waited for, which may wait for such a table.
const LOCKED: u32 = 30;
/// Certificate authorities of the system, where none are named.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The way to one database.
pub struct Client {
    /// `mariadb-dump`.
    pub dump: PathBuf,
    shell: PathBuf,
    defaults: PrivateFile,
    tools: Tools,
    item: String,
    database: String,
}

impl Client {
    /// Finds the programs, and writes the file that they sign in with.
    pub fn open(item: &str, server: &MariadbServer, work: &Work) -> Result<Self> {
        let password = (server.password)()
            .map_err(|error| Failure::operator(item, "its password_file cannot be read").because(error))?;
        Ok(Self {
            dump: work.tools.find(item, &["mariadb-dump", "mysqldump"], PACKAGE)?,
            shell: work.tools.find(item, &["mariadb", "mysql"], PACKAGE)?,
            defaults: PrivateFile::new(&work.scratch, defaults(server, password.as_deref()).as_bytes())?,
            tools: work.tools.clone(),
            item: item.to_owned(),
            database: server.database.clone(),
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.tools.command(program);
        command.arg(format!("--defaults-file={}", self.defaults.path().display()));
        command
    }

    /// Writes what the dump program prints into an archive.
    pub async fn pour(&self, options: &[String], names: &[&str], archive: &mut Archive) -> Result<()> {
        let mut command = self.command(&self.dump);
        command.args(options).arg("--").args(names).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::start(command, &self.item)?;
        archive.pour(running.output()?).await?;
        running.succeed().await
    }

    /// Runs statements that come later.
    pub fn shell(&self, database: &str) -> Result<Running> {
        let mut command = self.command(&self.shell);
        command.args(["--batch", "--binary-mode", "--"]).arg(database);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Running::start(command, &self.item)
    }

    /// Runs statements; what they answer, row by row.
    pub async fn ask(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let mut command = self.command(&self.shell);
        command.args(["--batch", "--skip-column-names"]);
        let out = printed(command, &self.item, sql.as_bytes()).await?;
        let rows = String::from_utf8_lossy(&out);
        Ok(rows.lines().map(|row| row.split('\t').map(unescaped).collect()).collect())
    }

    /// The first value of the first row.
    pub async fn one(&self, sql: &str) -> Result<Option<String>> {
        Ok(self.firsts(sql).await?.into_iter().next())
    }

    /// Runs statements that change something, each on a line of its own, for as long as no other session does.
    pub async fn change(&self, statements: &[String]) -> Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        self.ask(&format!("{}{};\n", self.begins(), statements.join(";\n"))).await.map(drop)
    }

    /// What a session that changes something begins with: a lock that is held to its end, whatever has become of who has begun it, and a limit
    /// to how long tables that are in use are waited for.
    pub fn begins(&self) -> String {
        format!("SELECT GET_LOCK({}, {LOCKED});\nSET SESSION lock_wait_timeout = {IN_USE};\n", self.lock())
    }

    fn lock(&self) -> String {
        text(&format!("handover restore {}", Digest::of(self.database.as_bytes()).short()))
    }

    /// Waits until no session of an earlier agent changes anything any more: the server goes on with the statement that it was given.
    pub async fn alone(&self) -> Result<()> {
        match self.one(&format!("SELECT GET_LOCK({}, {LOCKED})", self.lock())).await?.as_deref() {
            Some("1") => Ok(()),
            _ => Err(Failure::transient(&self.item, "a session of an earlier restore has not ended")
                .hint("`SHOW PROCESSLIST` tells what it waits for")),
        }
    }

    /// How messages name the dataset.
    pub fn item(&self) -> &str {
        &self.item
    }

    /// A database's character set and collation; none where it is not there.
    pub async fn charset(&self, database: &str) -> Result<Option<Charset>> {
        let sql = format!(
            "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata WHERE schema_name = {}",
            text(database)
        );
        let row = self.ask(&sql).await?.into_iter().next();
        Ok(row.and_then(|row| {
            Some(Charset { character_set: row.first()?.clone(), collation: row.get(1)?.clone() })
        }))
    }

    /// All databases of the server.
    pub async fn databases(&self) -> Result<Vec<String>> {
        self.firsts("SELECT schema_name FROM information_schema.schemata").await
    }

    /// Names of things in a database.
    pub async fn names(
        &self,
        database: &str,
        column: &str,
        of: &str,
        schema: &str,
        which: &str,
    ) -> Result<Vec<String>> {
        self.firsts(&format!(
            "SELECT {column} FROM information_schema.{of} WHERE {schema} = {} AND {which} ORDER BY 1",
            text(database)
        ))
        .await
    }

    /// The first value of each row.
    async fn firsts(&self, sql: &str) -> Result<Vec<String>> {
        Ok(self.ask(sql).await?.into_iter().filter_map(|row| row.into_iter().next()).collect())
    }
}

/// A database's character set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charset {
    /// The character set.
    pub character_set: String,
    /// The collation.
    pub collation: String,
}

impl fmt::Display for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CHARACTER SET {} COLLATE {}", quote(&self.character_set), quote(&self.collation))
    }
}

/// The file that the programs sign in with.
fn defaults(server: &MariadbServer, password: Option<&str>) -> String {
    let mut out = "[client]\ndefault-character-set=utf8mb4\nmax-allowed-packet=1G\n".to_owned();
    let mut set = |name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(out, "{name}=\"{value}\"");
    };
    set("user", &server.user);
    // One that is not given must not be asked for.
    set("password", password.unwrap_or_default());
    match &server.socket {
        Some(socket) => {
            set("protocol", "socket");
            set("socket", &socket.to_string_lossy());
        }
        None => {
            set("protocol", "tcp");
            set("host", &server.host);
            set("port", &server.port.to_string());
        }
    }
    if server.tls && server.socket.is_none() {
        let ca = server.ca.as_deref().map_or(SYSTEM_CA.into(), |ca| ca.to_string_lossy());
        set("ssl-ca", &ca);
        out += "ssl\nssl-verify-server-cert\n";
    } else {
        // The programs of later versions want TLS where nothing is said.
        out += "loose-skip-ssl\n";
    }
    out
}

/// A name in a statement.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table or another thing of a database, in a statement.
pub fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", quote(database), quote(name))
}

/// A text in a statement, whatever the server's modes make of quotes.
pub fn text(text: &str) -> String {
    let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("_utf8mb4 x'{digits}'")
}

/// A value as `--batch` prints it.
fn unescaped(value: &str) -> String {
    let (mut out, mut chars) = (String::with_capacity(value.len()), value.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('0') => out.push('\0'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_signed_in_with_is_quoted() {
        let server = MariadbServer {
            user: "a\"b".to_owned(),
            password: Arc::new(|| Ok(None)),
            host: "db.example.org".to_owned(),
            port: 3306,
            socket: None,
            tls: true,
            ca: None,
            database: "shop".to_owned(),
        };
        let file = defaults(&server, Some("p\\w\"#"));
        for line in [
            "user=\"a\\\"b\"",
            "password=\"p\\\\w\\\"#\"",
            "protocol=\"tcp\"",
            "port=\"3306\"",
            "ssl-verify-server-cert",
        ] {
            assert!(file.lines().any(|found| found == line), "{line}: {file}");
        }
        let local = defaults(&MariadbServer { socket: Some("/run/s".into()), ..server }, None);
        assert!(local.contains("socket=\"/run/s\"") && !local.contains("host=") && !local.contains("ssl-ca"));
    }

    #[test]
    fn values_and_names_come_through() {
        assert_eq!(unescaped("a\\tb\\\\n\\n"), "a\tb\\n\n");
        assert_eq!((quote("a`b"), text("é")), ("`a``b`".to_owned(), "_utf8mb4 x'c3a9'".to_owned()));
    }
}
