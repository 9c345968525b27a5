//! Making a server's data directory, and starting its process.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{ANSWERS_WITHIN, Engine, Server};
use crate::poll;

impl Server {
    /// Makes its data directory.
    pub(super) fn make(&self) -> Result<()> {
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

    /// Starts it, and waits until it answers.
    pub(super) fn launch(&mut self) -> Result<()> {
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

fn id(what: &str, user: &str) -> Result<u32> {
    let output = Command::new("id").args([what, user]).output()?;
    ensure!(output.status.success(), "there is no user {user}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}
