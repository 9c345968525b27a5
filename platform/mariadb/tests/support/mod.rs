//! A private MariaDB server, gone with its last user.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use handover_mariadb::Settings;

const SERVER: &str = "mariadbd";

/// A running server.
pub struct Server {
    dir: tempfile::TempDir,
    child: Mutex<Child>,
    options: Vec<String>,
}

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
        let path = std::env::var("PATH").unwrap_or_default();
        let found = path.split(':').chain(["/usr/sbin"]).any(|dir| Path::new(dir).join(SERVER).exists());
        assert!(found, "these tests need a MariaDB server: apt-get install mariadb-server");
        let dir = tempfile::Builder::new().prefix("handover-mariadb-").tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        open(dir.path());
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").arg("mysql").arg(&data).status().unwrap().success());
        }
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=socket", "--skip-test-db"])
            .args(user())
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", data.display()))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
        let child = spawn(&data, &options);
        let server = Self { dir, child: Mutex::new(child), options };
        server.wait();
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.data().join("s.sock")
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while !client(&self.socket(), "", "SELECT 1").is_ok_and(|out| out.starts_with('1')) {
            let log = std::fs::read_to_string(self.data().join("err.log")).unwrap_or_default();
            assert!(Instant::now() < until, "the server does not start: {log}");
            #[expect(clippy::disallowed_methods, reason = "another process is waited for")]
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server and starts it again.
    pub fn crash(&self) {
        self.kill();
        let child = spawn(&self.data(), &self.options);
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
        self.wait();
    }

    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Runs statements through the engine's own client; what they print.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        match client(&self.socket(), database, statements) {
            Ok(out) => out,
            Err(error) => panic!("{error}"),
        }
    }

    /// The URL of a database, for the account that runs the tests.
    pub fn url(&self, database: &str) -> String {
        let user = if rustix::process::geteuid().is_root() { "root" } else { "mysql" };
        format!("mariadb://{user}@localhost/{database}?socket={}", self.socket().display())
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

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn open(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=mysql")
}

fn spawn(data: &Path, options: &[String]) -> Child {
    let d = data.display();
    Command::new(SERVER)
        .arg("--no-defaults")
        .args(user())
        .args([format!("--datadir={d}"), format!("--socket={d}/s.sock"), format!("--pid-file={d}/pid")])
        .arg(format!("--tmpdir={d}"))
        .args([format!("--log-error={d}/err.log"), "--server-id=1".into(), "--log-bin=mysql-bin".into()])
        .args(["--binlog-format=ROW", "--gtid-strict-mode=ON", "--log-bin-trust-function-creators=1"])
        .args(["--innodb-buffer-pool-size=128M", "--innodb-log-file-size=256M"])
        .args(if options.iter().any(|o| o.starts_with("--port")) { None } else { Some("--skip-networking") })
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn client(socket: &Path, database: &str, statements: &str) -> Result<String, String> {
    use std::io::Write;
    let mut child = Command::new("mariadb")
        .args([
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--default-character-set=utf8mb4",
            "--binary-mode",
        ])
        .arg(format!("--socket={}", socket.display()))
        .args(if database.is_empty() { None } else { Some(database) })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client that cannot connect does not read: its error says why.
    let _ = child.stdin.take().unwrap().write_all(statements.as_bytes());
    let out = child.wait_with_output().unwrap();
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }
}
