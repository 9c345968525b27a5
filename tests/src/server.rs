//! Private database servers: started in a directory of their own, killed when dropped.

mod client;
mod engine;
mod launch;

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::poll;

pub use client::run;
pub use engine::Engine;

/// The directories of all servers of this process.
static DIRS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How long a server may take until it answers, on a busy machine, after a crash.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How many ports are tried.
const PORTS: u32 = 5;

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

#[cfg(test)]
mod tests {
    use std::path::Path;

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
