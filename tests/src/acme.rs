//! A private authority of certificates that speaks ACME (Pebble, the test server of Let's Encrypt), in a directory of its own. It looks for
//! challenges at one name server. Killed when dropped.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;

use crate::certificate::SELF_SIGNED;
use crate::poll;
use crate::server::{free_port, run};

/// How long it may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How many ports are tried.
const PORTS: u32 = 5;
/// The name that it issues nothing for. Pebble compares it with names of no fewer labels, and breaks off at shorter ones.
pub const BLOCKED: &str = "blocked.example";

/// A running authority.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    ports: [u16; 2],
    names: SocketAddr,
    wants_known_accounts: bool,
    child: Option<Child>,
}

impl Authority {
    /// Starts one that asks the server at `names` for texts.
    pub fn start(names: SocketAddr) -> Result<Self> {
        Self::start_as(names, false)
    }

    /// Starts one that takes no account that it has not heard of otherwise.
    pub fn start_for_known_accounts(names: SocketAddr) -> Result<Self> {
        Self::start_as(names, true)
    }

    fn start_as(names: SocketAddr, wants_known_accounts: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("handover-pebble-").tempdir()?;
        make_certificate(dir.path())?;
        let mut authority = Self { dir, ports: [0; 2], names, wants_known_accounts, child: None };
        for tried in 1.. {
            authority.ports = [free_port()?, free_port()?];
            match authority.launch() {
                // Somebody else was quicker to take a port.
                Err(error) if tried < PORTS && format!("{error:#}").contains("address already in use") => {}
                launched => return launched.map(|()| authority),
            }
        }
        bail!("no port was tried")
    }

    /// The address of its directory.
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.ports[0])
    }

    /// What its own TLS is trusted by.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("tls.pem")
    }

    /// Checks by a program of its own that a chain was issued by this authority, and for which names.
    pub fn verify(&self, chain: &Path) -> Result<String> {
        let issuer = self.dir.path().join("issuer.pem");
        fs::write(&issuer, self.asked("roots/0")?)?;
        let mut verify = Command::new("openssl");
        run(verify.args(["verify", "-CAfile"]).arg(&issuer).arg("-untrusted").arg(chain).arg(chain), "")?;
        let mut show = Command::new("openssl");
        run(show.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(chain), "")
    }

    /// How often something stands in its log.
    pub fn logged(&self, what: &str) -> Result<usize> {
        Ok(fs::read_to_string(self.log())?.matches(what).count())
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).context("killing the authority")?;
        }
        Ok(())
    }

    /// Starts it again at the same ports, with nothing that it knew: a new CA, and no accounts.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.launch()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn asked(&self, what: &str) -> Result<String> {
        let mut client = Command::new("curl");
        client.args(["--silent", "--show-error", "--fail", "--cacert"]).arg(self.root());
        let output = client.arg(format!("https://127.0.0.1:{}/{what}", self.ports[1])).output();
        let output = output.context("curl does not run: apt-get install curl")?;
        ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn launch(&mut self) -> Result<()> {
        let (dir, log) = (self.dir.path(), self.log());
        let file = dir.join("pebble.json");
        fs::write(&file, self.configuration())?;
        let out = fs::File::create(&log)?;
        let mut command = Command::new("pebble");
        command.arg("-config").arg(&file).arg("-dnsserver").arg(self.names.to_string()).current_dir(dir);
        // It refuses some nonces nevertheless, as an authority may; by itself each twentieth: then one in eight thousand questions is refused thrice.
        command
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", "1");
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().context("pebble does not run: apt-get install pebble");
        self.child = Some(child?);
        let up = poll::until("the authority to answer", ANSWERS_WITHIN, || {
            let is_over = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if is_over.is_some() {
                bail!("the authority does not serve:\n{}", fs::read_to_string(&log)?);
            }
            Ok(self.asked("roots/0").ok().map(drop))
        });
        if up.is_err() {
            self.kill()?;
        }
        up
    }

    fn configuration(&self) -> String {
        let place = |port: u16| format!("127.0.0.1:{port}");
        json!({ "pebble": {
            "listenAddress": place(self.ports[0]),
            "managementListenAddress": place(self.ports[1]),
            "certificate": self.root(),
            "privateKey": self.dir.path().join("tls.key"),
            "httpPort": 5002,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.wants_known_accounts,
            "domainBlocklist": [BLOCKED],
        } })
        .to_string()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of pebble:\n{}", crate::process::tail(&self.log()));
        }
    }
}

/// What it serves TLS with: a certificate that vouches for itself.
fn make_certificate(dir: &Path) -> Result<()> {
    let text = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = server\n[name]\nCN = authority\n\
                [server]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical,CA:FALSE\n";
    fs::write(dir.join("tls.conf"), text)?;
    let mut command = Command::new("openssl");
    command.args(SELF_SIGNED);
    command.args(["-config", "tls.conf", "-keyout", "tls.key", "-out", "tls.pem"]).current_dir(dir);
    run(&mut command, "").map(drop)
}
