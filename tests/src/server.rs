//! Private database servers: started in a directory of their own, killed when dropped.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::poll;

/// The directories of all servers of this process.
static DIRS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How long a server may take until it answers, on a busy machine, after a crash.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How many ports are tried.
const PORTS: u32 = 5;

/// A database engine with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MariaDB.
    Mariadb,
    /// PostgreSQL.
    Postgres,
}

impl Engine {
    /// As the manifest and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Mariadb => "mariadb",
            Engine::Postgres => "postgres",
        }
    }

    /// The packages that bring the server and its tools.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Engine::Mariadb => &["mariadb-server"],
            Engine::Postgres => &["postgresql-15"],
        }
    }

    fn user(self) -> &'static str {
        match self {
            Engine::Mariadb => "mysql",
            Engine::Postgres => "postgres",
        }
    }

    /// The folder of its programs.
    pub fn programs(self) -> &'static Path {
        Path::new(match self {
            Engine::Mariadb => "/usr/sbin",
            Engine::Postgres => "/usr/lib/postgresql/15/bin",
        })
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    dir: PathBuf,
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Makes a server with an empty data directory, and starts it with these further options (`--name=value`).
    pub fn start(engine: Engine, options: &[&str]) -> Result<Self> {
        Self::start_at(engine, options, free_port()?)
    }

    /// On another port if that one is taken.
    fn start_at(engine: Engine, options: &[&str], port: u16) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a private database server needs root, to run as {}",
            engine.user()
        );
        let program = engine.programs().join(if engine == Engine::Mariadb { "mariadbd" } else { "postgres" });
        let packages = engine.packages().join(" ");
        ensure!(program.exists(), "{} is missing: apt-get install {packages}", program.display());
        // Short, since the path of a socket is; and one that the server's user may pass.
        let dir = tempfile::Builder::new()
            .prefix("handover-server-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")?
            .keep();
        DIRS.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone());
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { engine, dir, port, options, child: None };
        server.make()?;
        let mut tries = 0;
        while let Err(error) = server.launch() {
            // Somebody else was quicker to take the port.
            tries += 1;
            if tries == PORTS || !format!("{error:#}").contains("Address already in use") {
                return Err(error);
            }
            server.port = free_port()?;
            fs::remove_file(server.dir.join("log"))?;
        }
        Ok(server)
    }

    /// Its engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its local socket (PostgreSQL: the directory that it lies in).
    pub fn socket(&self) -> PathBuf {
        match self.engine {
            Engine::Mariadb => self.dir.join("s.sock"),
            Engine::Postgres => self.dir.clone(),
        }
    }

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

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).context("killing the database server")?;
        }
        Ok(())
    }

    /// Starts it again, after a kill.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        // What a killed PostgreSQL leaves behind takes a moment to end, and keeps the next one from starting.
        poll::until("the database server to start again", ANSWERS_WITHIN, || Ok(self.launch().ok()))
    }

    fn make(&self) -> Result<()> {
        let user = self.engine.user();
        let (uid, gid) = (id("-u", user)?, id("-g", user)?);
        chown(&self.dir, Some(uid), Some(gid))?;
        let data = self.data();
        let mut command = match self.engine {
            Engine::Mariadb => {
                let mut command = Command::new("mariadb-install-db");
                command.arg("--no-defaults").arg("--user=mysql").arg(format!("--datadir={}", data.display()));
                command.args(["--auth-root-authentication-method=socket", "--skip-test-db"]);
                // Servers that share a folder of temporary files can meet there, and crash.
                command.arg(format!("--tmpdir={}", self.dir.display()));
                command
            }
            Engine::Postgres => {
                let mut command = Command::new(self.engine.programs().join("initdb"));
                command.arg("-D").arg(&data).args([
                    "-A",
                    "trust",
                    "--no-sync",
                    "-E",
                    "UTF8",
                    "--locale=C.UTF-8",
                ]);
                command.uid(uid).gid(gid).current_dir(&self.dir);
                command
            }
        };
        let made = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
        ensure!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        let (uid, gid) = (id("-u", self.engine.user())?, id("-g", self.engine.user())?);
        let (data, log) = (self.data(), self.dir.join("log"));
        let mut command = match self.engine {
            Engine::Mariadb => {
                let mut command = Command::new(self.engine.programs().join("mariadbd"));
                command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
                command
                    .arg(format!("--socket={}", self.socket().display()))
                    .arg(format!("--port={}", self.port));
                command
                    .arg("--bind-address=127.0.0.1")
                    .arg(format!("--pid-file={}", self.dir.join("pid").display()))
                    .arg(format!("--tmpdir={}", self.dir.display()));
                command.args([
                    "--server-id=1",
                    "--log-bin=mysql-bin",
                    "--binlog-format=ROW",
                    "--log-slave-updates",
                ]);
                command
            }
            Engine::Postgres => {
                let mut command = Command::new(self.engine.programs().join("postgres"));
                command.arg("-D").arg(&data).args(["-p", &self.port.to_string(), "-k"]).arg(&self.dir);
                command.args(["--listen_addresses=127.0.0.1", "--wal_level=logical"]);
                command
            }
        };
        command.args(&self.options).uid(uid).gid(gid).current_dir(&self.dir);
        let out = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let up = poll::until("the database server to answer", ANSWERS_WITHIN, || {
            if let Some(status) = child.try_wait()? {
                bail!("the database server ended at once ({status}):\n{}", crate::process::tail(&log));
            }
            Ok(self.run("", "SELECT 1").ok().map(drop))
        });
        self.child = Some(child);
        up
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let (Some(child), Engine::Postgres) = (&self.child, self.engine) {
            // An immediate shutdown: SIGKILL would leave the server's children to end by themselves.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(child),
                rustix::process::Signal::QUIT,
            );
            if let Some(mut child) = self.child.take() {
                let _ = child.wait();
            }
        }
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.engine.name(), crate::process::tail(&self.dir.join("log")));
        }
        let _ = fs::remove_dir_all(&self.dir);
        DIRS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.dir);
    }
}

/// Removes the files of all servers of this process, which is about to end and has ended them. A drop may do the same
/// meanwhile, and each then finds what the other has removed missing.
pub fn remove_all() {
    for dir in std::mem::take(&mut *DIRS.lock().unwrap_or_else(PoisonError::into_inner)) {
        for _ in 0..10 {
            if fs::remove_dir_all(&dir).is_ok() || !dir.exists() {
                break;
            }
            poll::pause(Duration::from_millis(20));
        }
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

/// A port that nothing listens at now. Not one of those that the kernel gives away (ip(7), `ip_local_port_range`): every outgoing connection
/// could take it before the server does.
pub fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let noise = RandomState::new().build_hasher().finish();
        let port = 15_000 + u16::try_from(noise % 15_000)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between 15000 and 30000 is free on 127.0.0.1")
}

fn id(what: &str, user: &str) -> Result<u32> {
    let output = Command::new("id").args([what, user]).output()?;
    ensure!(output.status.success(), "there is no user {user}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Side, servers, servers_by_checksum};

    #[test]
    fn a_port_that_is_taken_is_left_to_others() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for engine in [Engine::Mariadb, Engine::Postgres] {
            let server = Server::start_at(engine, &[], port).unwrap();
            assert_ne!(server.port(), port);
            assert_eq!(server.run("", "SELECT 1").unwrap(), "1\n");
        }
    }

    #[test]
    fn servers_survive_a_crash_and_are_compared() {
        for engine in [Engine::Mariadb, Engine::Postgres] {
            let mut server = Server::start(engine, &[]).unwrap();
            let pid = server.child.as_ref().map(Child::id).unwrap();
            for (database, row) in [("one", "a"), ("two", "a"), ("three", "b")] {
                server.create(database).unwrap();
                let sql = format!(
                    "CREATE TABLE t (k INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, '{row}'), (2, 'x');"
                );
                server.run(database, &sql).unwrap();
            }
            assert!(server.run("one", "SELECT nonsense").unwrap_err().to_string().contains("nonsense"));
            server.restart().unwrap();
            assert_eq!(server.run("one", "SELECT v FROM t ORDER BY k").unwrap(), "a\nx\n");
            let side = |database| Side { server: &server, database };
            let same = servers(side("one"), side("two")).unwrap();
            assert_eq!((same.found, same.rows, same.tables), (0, 2, 1), "{}", same.describe());
            let other = servers(side("one"), side("three")).unwrap();
            assert_eq!(other.found, 2, "{}", other.describe());
            let same = servers_by_checksum(side("one"), side("two")).unwrap();
            assert_eq!((same.found, same.rows, same.tables), (0, 2, 1), "{}", same.describe());
            let other = servers_by_checksum(side("one"), side("three")).unwrap();
            assert_eq!(other.found, 1, "{}", other.describe());
            server.run("three", "UPDATE t SET v = 'a' WHERE k = 1; CREATE INDEX twice ON t (k)").unwrap();
            let other = servers_by_checksum(side("one"), side("three")).unwrap();
            assert_ne!(other.found, 0, "an index at one side alone");
            let dir = server.dir.clone();
            drop(server);
            assert!(!dir.exists() && !Path::new(&format!("/proc/{pid}")).exists());
        }
    }
}
