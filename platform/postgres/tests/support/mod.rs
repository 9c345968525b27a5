//! A private PostgreSQL server for a test binary.

#![allow(dead_code, reason = "every test binary uses some of it")]

pub mod followed;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget};
use handover_engine::rows::{KeyRange, RowsChunk};
use handover_postgres::{PostgresDatabase, PostgresTarget, Settings};

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// Sockets are told apart by their directories.
pub const PORT: u16 = 54_320;

/// A running server; it and its files go with the last reference.
pub struct Server {
    pub dir: PathBuf,
    _temp: tempfile::TempDir,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    output
}

/// A server's program, as the server's user: it refuses to run as root.
fn program(name: &str) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--", &format!("{BIN}/{name}")]);
    command
}

impl Server {
    /// The binary's server, started if it does not run.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(""));
        *shared = Arc::downgrade(&server);
        server
    }

    /// A server of one's own, with more settings.
    pub fn start(settings: &str) -> Self {
        assert!(
            Path::new(BIN).join("initdb").exists(),
            "these tests need a PostgreSQL server: apt-get install postgresql-15"
        );
        let temp = tempfile::Builder::new().prefix("handover-pg-").tempdir().unwrap();
        let dir = temp.path().to_owned();
        run(Command::new("chown").arg("postgres").arg(&dir));
        let data = dir.join("data");
        run(program("initdb")
            .args(["-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data));
        let text = format!(
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'\nwal_level = logical\nfsync = off\n\
             shared_buffers = 64MB\nmax_connections = 200\n{settings}\n",
            dir.display()
        );
        let mut file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let server = Self { dir, _temp: temp };
        server.boot();
        server
    }

    /// A standby of this server, with more settings.
    pub fn standby(&self, settings: &str) -> Self {
        let temp = tempfile::Builder::new().prefix("handover-pg-").tempdir().unwrap();
        let dir = temp.path().to_owned();
        run(Command::new("chown").arg("postgres").arg(&dir));
        let data = dir.join("data");
        let mut copy = program("pg_basebackup");
        copy.arg("-h").arg(&self.dir).args(["-p", &PORT.to_string(), "-U", "postgres"]);
        run(copy.args(["-R", "-c", "fast", "--no-sync", "-D"]).arg(&data));
        let text = format!("unix_socket_directories = '{}'\n{settings}\n", dir.display());
        let mut file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let server = Self { dir, _temp: temp };
        server.boot();
        server
    }

    pub fn boot(&self) {
        let log = self.dir.join("data/log");
        let mut command = program("pg_ctl");
        command.arg("-D").arg(self.dir.join("data")).args(["-w", "start", "-l"]).arg(log);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(
            status.success(),
            "{}",
            std::fs::read_to_string(self.dir.join("data/log")).unwrap_or_default()
        );
    }

    pub fn stop(&self) {
        let mut command = program("pg_ctl");
        command.arg("-D").arg(self.dir.join("data")).args(["-m", "immediate", "-w", "stop"]);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    /// A URL of a database, for a role.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@/{database}?socket={}/.s.PGSQL.{PORT}", self.dir.display())
    }

    pub fn settings(&self, database: &str) -> Settings {
        Settings::parse(&self.url("postgres", database)).unwrap()
    }

    fn client(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(format!("{BIN}/{name}"));
        command.env("PGHOST", &self.dir).env("PGPORT", PORT.to_string()).env("PGUSER", "postgres");
        command.env("PGDATABASE", database).env("PGOPTIONS", "-c client_min_messages=warning");
        command
    }

    /// What a statement answers, through psql.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.attempt(database, sql).unwrap_or_else(|error| panic!("{error}: {sql}"))
    }

    /// What a statement answers, or what psql says of it.
    pub fn attempt(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = self.client("psql", database);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = sql.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    pub fn exists(&self, database: &str) -> bool {
        !self.sql("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{database}'")).is_empty()
    }

    /// All of a database, as pg_dump tells it.
    pub fn dump(&self, database: &str, arguments: &[&str]) -> Vec<u8> {
        let mut pg_dump = self.client("pg_dump", database);
        let text = run(pg_dump.args(["--exclude-schema=handover_state"]).args(arguments)).stdout;
        // Each run has random words of its own in these lines.
        let random = |line: &&[u8]| line.starts_with(b"\\restrict") || line.starts_with(b"\\unrestrict");
        text.split_inclusive(|b| *b == b'\n').filter(|line| !random(line)).flatten().copied().collect()
    }

    /// All of a database, its lines sorted: for rows that lie in another order.
    pub fn sorted_dump(&self, database: &str) -> Vec<Vec<u8>> {
        let text = self.dump(database, &["--inserts"]);
        let mut lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    }

    /// A new database's name.
    pub fn name(&self, prefix: &str) -> String {
        format!("{prefix}_{}", DATABASES.fetch_add(1, Ordering::Relaxed))
    }

    /// A new database, made with more options.
    pub fn create(&self, prefix: &str, options: &str) -> String {
        let name = self.name(prefix);
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {options}"));
        name
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The name of a database in its location.
pub fn database_at(place: &str) -> &str {
    place.split(" at ").next().unwrap_or_default()
}

pub fn migration() -> MigrationId {
    "test".parse().unwrap()
}

pub fn source(server: &Server, database: &str) -> PostgresDatabase {
    PostgresDatabase::new("shop".parse().unwrap(), &server.settings(database), Vec::new())
}

pub fn target(server: &Server, database: &str) -> PostgresTarget {
    PostgresTarget::new("shop".parse().unwrap(), &server.settings(database), &migration())
}

/// All chunks of all tables.
pub async fn all_chunks(view: &dyn DatabaseSnapshot, budget: u64) -> Vec<RowsChunk> {
    let mut out = Vec::new();
    for table in &view.schema().tables {
        let mut range = KeyRange::default();
        loop {
            let chunk = view.read(&table.name, &range, budget).await.unwrap();
            range.after.clone_from(&chunk.header.range.until);
            out.push(chunk);
            if range.after.is_none() {
                break;
            }
        }
    }
    out
}

/// Copies a database whole and publishes it.
pub async fn migrate(server: &Server, from: &str, to: &str) -> (Arc<dyn DatabaseSnapshot>, PostgresTarget) {
    let view = source(server, from).snapshot().await.unwrap();
    let target = target(server, to);
    target.prepare(view.schema()).await.unwrap();
    for batch in all_chunks(&*view, 1 << 20).await.chunks(4) {
        target.apply(batch).await.unwrap();
    }
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    (view, target)
}

/// As [`migrate`], holding one chunk at a time.
pub async fn migrate_streaming(server: &Server, from: &str, to: &str) {
    let view = source(server, from).snapshot().await.unwrap();
    let target = target(server, to);
    target.prepare(view.schema()).await.unwrap();
    for table in &view.schema().tables {
        let mut range = KeyRange::default();
        loop {
            let chunk = view.read(&table.name, &range, 2 << 20).await.unwrap();
            range.after.clone_from(&chunk.header.range.until);
            target.apply(&[chunk]).await.unwrap();
            if range.after.is_none() {
                break;
            }
        }
    }
    target.finish(view.schema()).await.unwrap();
}
