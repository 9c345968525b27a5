//! Asking a server: its address, its programs, and SQL through its command-line client.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Engine, Server};

impl Server {
    /// A database of it, as a manifest names it: over its local socket, as the administrator.
    pub fn url(&self, database: &str) -> String {
        let socket = self.socket();
        match self.engine {
            Engine::Mariadb => format!("mariadb://root@localhost/{database}?socket={}", socket.display()),
            Engine::Postgres => {
                format!("postgres://postgres@localhost:{}/{database}?socket={}", self.port, socket.display())
            }
        }
    }

    /// Its command-line client, as the administrator.
    pub fn client(&self, database: &str) -> Command {
        let mut command = match self.engine {
            Engine::Mariadb => {
                let mut command = self.tool("mariadb");
                command.args([
                    "--batch",
                    "--raw",
                    "--skip-column-names",
                    "--binary-mode",
                    "--default-character-set=binary",
                ]);
                command
            }
            Engine::Postgres => {
                let mut command = self.tool("psql");
                command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
                command
            }
        };
        if !database.is_empty() {
            command.arg(database);
        }
        command
    }

    /// One of the engine's own programs, told where the server is.
    pub fn tool(&self, name: &str) -> Command {
        match self.engine {
            Engine::Mariadb => {
                let mut command = Command::new(name);
                command
                    .arg("--no-defaults")
                    .arg(format!("--socket={}", self.socket().display()))
                    .arg("--user=root");
                command
            }
            Engine::Postgres => {
                let mut command = Command::new(self.engine.programs().join(name));
                command.arg("-h").arg(self.socket()).args(["-p", &self.port.to_string(), "-U", "postgres"]);
                command.env("PGOPTIONS", "-c client_min_messages=warning");
                command
            }
        }
    }

    /// Runs SQL; what it prints.
    pub fn run(&self, database: &str, sql: &str) -> Result<String> {
        let database =
            if database.is_empty() && self.engine == Engine::Postgres { "postgres" } else { database };
        run(&mut self.client(database), sql)
    }

    /// Makes an empty database.
    pub fn create(&self, database: &str) -> Result<()> {
        let quote = if self.engine == Engine::Mariadb { '`' } else { '"' };
        self.run("", &format!("CREATE DATABASE {quote}{database}{quote}")).map(drop)
    }

    /// Drops the databases whose names begin so: all that migrations of one of that name have left.
    pub fn drop_databases(&self, beginning: &str) -> Result<()> {
        let (list, quote, force) = match self.engine {
            Engine::Mariadb => ("SELECT schema_name FROM information_schema.schemata", '`', ""),
            Engine::Postgres => ("SELECT datname FROM pg_database", '"', " WITH (FORCE)"),
        };
        for name in self.run("", list)?.lines().filter(|name| name.starts_with(beginning)) {
            self.run("", &format!("DROP DATABASE {quote}{name}{quote}{force}"))?;
        }
        Ok(())
    }
}

/// Feeds SQL to a client of either engine; what it prints.
pub fn run(client: &mut Command, sql: &str) -> Result<String> {
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().with_context(|| format!("{client:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let text = sql.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    // A client that failed did not read all of it, and says why by itself.
    let _ = writer.join();
    let told = String::from_utf8_lossy(&output.stderr);
    let shown: String = sql.chars().take(300).collect();
    ensure!(output.status.success(), "{shown:?} was refused: {told}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
