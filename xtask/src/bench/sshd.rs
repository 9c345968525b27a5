//! An sshd of our own on the loopback interface, with keys made for the day.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use handover_tests::poll;
use handover_tests::process::tail;

use crate::shell::run_quietly;
use crate::workplace::remove;

/// A running sshd, stopped when dropped.
pub struct Sshd {
    child: Child,
    dir: PathBuf,
}

impl Sshd {
    /// Starts one with its files under `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        remove(dir)?;
        fs::create_dir_all(dir)?;
        fs::create_dir_all("/run/sshd").context("sshd wants /run/sshd, which needs root")?;
        for key in ["host", "client"] {
            let mut keygen = Command::new("ssh-keygen");
            run_quietly(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"]).arg(dir.join(key)))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        write_configuration(dir, port)?;
        let sshd = if Path::new("/usr/sbin/sshd").exists() { "/usr/sbin/sshd" } else { "/usr/bin/sshd" };
        let child = Command::new(sshd)
            .args(["-D", "-f"])
            .arg(dir.join("sshd_config"))
            .arg("-E")
            .arg(dir.join("sshd.log"))
            .stdin(Stdio::null())
            .spawn()
            .context("starting sshd")?;
        let mut sshd = Self { child, dir: dir.to_owned() };
        sshd.wait(port)?;
        Ok(sshd)
    }

    fn wait(&mut self, port: u16) -> Result<()> {
        poll::until("sshd to listen", Duration::from_secs(10), || {
            if let Some(status) = self.child.try_wait()? {
                bail!("sshd ended at once ({status}):\n{}", tail(&self.dir.join("sshd.log")));
            }
            Ok(TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        run_quietly(self.ssh().arg("true"))
    }

    fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(self.dir.join("ssh_config")).arg("bench");
        ssh
    }

    /// `rsync <options> from/ to/` over ssh, with everything below `from` landing below `to`.
    pub fn rsync(&self, options: &[&str], from: &Path, to: &Path) -> Result<()> {
        let config = self.dir.join("ssh_config");
        ensure!(!config.display().to_string().contains([' ', '\'']), "rsync's -e splits words at spaces");
        let mut rsync = Command::new("rsync");
        rsync.args(options).arg("-e").arg(format!("ssh -F {}", config.display()));
        run_quietly(rsync.arg(format!("{}/", from.display())).arg(format!("bench:{}/", to.display())))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_configuration(dir: &Path, port: u16) -> Result<()> {
    fs::copy(dir.join("client.pub"), dir.join("authorized_keys"))?;
    let shown = dir.display();
    fs::write(
        dir.join("sshd_config"),
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized_keys\n\
             PidFile {shown}/sshd.pid\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\n"
        ),
    )?;
    let host = fs::read_to_string(dir.join("host.pub"))?;
    fs::write(dir.join("known_hosts"), format!("[127.0.0.1]:{port} {host}"))?;
    fs::write(
        dir.join("ssh_config"),
        format!(
            "Host bench\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {shown}/client\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {shown}/known_hosts\n  StrictHostKeyChecking yes\n"
        ),
    )?;
    Ok(())
}
