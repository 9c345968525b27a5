//! PostgreSQL's own programs, of the server's version, signed in by a file that nobody else may read.

use std::path::{Path, PathBuf};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::process::Command;

use crate::contents::PostgresServer;
use crate::tool::{PrivateFile, Tools, printed};
use crate::work::Work;

/// Where the system keeps its versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The way to a server.
pub struct Client {
    programs: PathBuf,
    server: PostgresServer,
    passwords: Option<PrivateFile>,
    tools: Tools,
    item: String,
}

impl Client {
    /// Finds the programs of the server's version, or the next newer one.
    pub async fn open(item: &str, server: &PostgresServer, work: &Work) -> Result<Self> {
        let password = (server.password)()
            .map_err(|error| Failure::operator(item, "its password_file cannot be read").because(error))?;
        let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let passwords = password
            .map(|password| {
                PrivateFile::new(&work.scratch, format!("*:*:*:*:{}\n", escaped(&password)).as_bytes())
            })
            .transpose()?;
        let any = newest(item, server.programs.as_deref(), &work.tools, "psql")?;
        let programs = any.parent().unwrap_or(Path::new("/usr/bin")).to_owned();
        let client = Self {
            programs,
            server: server.clone(),
            passwords,
            tools: work.tools.clone(),
            item: item.to_owned(),
        };
        let version = client.maintain("SHOW server_version_num").await?;
        let major = version.first().and_then(|version| version.parse::<u32>().ok()).unwrap_or(0) / 10_000;
        let programs = of_version(item, server.programs.as_deref(), major)?;
        Ok(Self { programs, ..client })
    }

    /// One of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A program to run, with nothing of this process' environment that could redirect it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.tools.command(program);
        command.env("PGCONNECT_TIMEOUT", "10");
        match &self.passwords {
            Some(file) => command.env("PGPASSFILE", file.path()),
            None => command.env("PGPASSFILE", "/dev/null"),
        };
        command
    }

    /// The settings for libpq, without the password.
    pub fn connection(&self, database: &str) -> String {
        let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let server = &self.server;
        let host =
            server.socket.as_ref().map_or_else(|| server.host.clone(), |dir| dir.display().to_string());
        let mut out = format!(
            "host={} port={} dbname={} user={} application_name=handover",
            value(&host),
            server.port,
            value(database),
            value(&server.user)
        );
        match &server.ca {
            Some(ca) if server.socket.is_none() => {
                out += &format!(" sslmode=verify-full sslrootcert={}", value(&ca.display().to_string()));
            }
            _ => out += " sslmode=disable",
        }
        out
    }

    /// Runs statements in a database; the first column of what they answer.
    pub async fn ask(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        let mut command = self.command(&self.program("psql"));
        command.args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command.args(["--dbname", &self.connection(database)]);
        let out = printed(command, &self.item, sql.as_bytes()).await?;
        Ok(String::from_utf8_lossy(&out).lines().map(str::to_owned).collect())
    }

    /// As [`Self::ask`], while the database itself is made, renamed or dropped.
    pub async fn maintain(&self, sql: &str) -> Result<Vec<String>> {
        self.ask(&self.server.maintenance, sql).await
    }

    /// All databases of the server.
    pub async fn databases(&self) -> Result<Vec<String>> {
        self.maintain("SELECT datname FROM pg_catalog.pg_database").await
    }
}

/// A name in a statement.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in a statement.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn missing(item: &str, name: &str, package: &str) -> Failure {
    Failure::operator(item, format!("its backups need {name}, which is not on this host"))
        .hint(format!("apt-get install {package}, or name its directory with `?pg_dump=` in `url`"))
}

/// The versions that are installed, oldest first.
fn installed() -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let mut out: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("pg_restore").exists())
        .collect();
    out.sort();
    out
}

/// A program of the newest version.
pub fn newest(item: &str, named: Option<&Path>, tools: &Tools, name: &str) -> Result<PathBuf> {
    if let Some(named) = named {
        let program = named.join(name);
        return if program.exists() { Ok(program) } else { Err(missing(item, name, "postgresql-client")) };
    }
    match installed().pop() {
        Some((_, programs)) => Ok(programs.join(name)),
        None => tools.find(item, &[name], "postgresql-client"),
    }
}

fn of_version(item: &str, named: Option<&Path>, major: u32) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let fit = installed().into_iter().find(|(version, _)| *version >= major);
    fit.map(|(_, programs)| programs).ok_or_else(|| {
        missing(item, &format!("pg_dump for PostgreSQL {major}"), &format!("postgresql-client-{major}"))
    })
}
