//! A private MariaDB server, gone with its last user.

#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod pair;
pub mod subject;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use handover_mariadb::Settings;
use handover_tests::server::{self, Engine};

/// What every test's server has.
const OPTIONS: [&str; 4] = [
    "--gtid-strict-mode=ON",
    "--log-bin-trust-function-creators=1",
    "--innodb-buffer-pool-size=128M",
    "--innodb-log-file-size=256M",
];

/// A running server.
pub struct Server(Mutex<server::Server>);

impl Server {
    /// The server that the tests of a binary share while any of them runs.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(&["--local-infile=1"]));
        *shared = Arc::downgrade(&server);
        server
    }

    /// A server of one's own with further options.
    pub fn start(options: &[&str]) -> Self {
        let options: Vec<&str> = OPTIONS.iter().chain(options).copied().collect();
        Self(Mutex::new(server::Server::start(Engine::Mariadb, &options).unwrap()))
    }

    fn inner(&self) -> MutexGuard<'_, server::Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn socket(&self) -> PathBuf {
        self.inner().socket()
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.inner().port()
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.inner().data()
    }

    /// Kills the server and starts it again.
    pub fn crash(&self) {
        self.inner().restart().unwrap();
    }

    pub fn kill(&self) {
        self.inner().kill().unwrap();
    }

    /// Runs statements through the engine's own client; what they print.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let mut client = self.inner().client(database);
        client.arg("--default-character-set=utf8mb4").arg("--skip-raw");
        server::run(&mut client, statements).unwrap()
    }

    /// Runs statements; false where the server refuses one.
    pub fn allows(&self, database: &str, statements: &str) -> bool {
        let mut client = self.inner().client(database);
        server::run(&mut client, statements).is_ok()
    }

    /// The URL of a database, for the account that runs the tests.
    pub fn url(&self, database: &str) -> String {
        self.inner().url(database)
    }

    pub fn settings(&self, database: &str) -> Settings {
        Settings::parse(&self.url(database)).unwrap()
    }

    /// A name for a database that no other test has.
    pub fn fresh(&self, name: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("{name}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a database with these statements.
    pub fn database(&self, name: &str, statements: &str) -> String {
        let name = self.fresh(name);
        self.sql("", &format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"));
        self.sql(&name, statements);
        name
    }
}
