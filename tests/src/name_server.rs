//! A private name server (BIND): the zone `example.net` in a directory of its own, changed by who has its key. Killed when dropped.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::lab::Host;
use crate::poll;
use crate::server::free_port;

/// The server's program, and the package that brings it.
const PROGRAM: &str = "/usr/sbin/named";
/// How long it may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How many ports are tried.
const PORTS: u32 = 5;
/// The name of the key that may change addresses, aliases and texts of the zone.
pub const KEY: &str = "handover";
/// The name of one that the server knows, and that may change nothing.
pub const READER: &str = "reader";

/// Where a server runs.
#[derive(Debug)]
struct Place {
    address: Ipv4Addr,
    /// What a command is run by there, with its arguments; nothing on this machine itself.
    by: Vec<OsString>,
}

impl Place {
    fn command(&self, program: &str) -> Command {
        let mut words = self.by.iter().cloned().chain([program.into()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

/// A running server.
#[derive(Debug)]
pub struct NameServer {
    place: Place,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl NameServer {
    /// Starts one with these lines in its zone, as `www 3600 A 192.0.2.10`.
    pub fn start(zone: &[&str]) -> Result<Self> {
        Self::start_in(Place { address: Ipv4Addr::LOCALHOST, by: Vec::new() }, zone)
    }

    /// The same in the network of a lab's host, at its address there: every host of the lab reaches it.
    pub fn start_beside(host: &Host, address: Ipv4Addr, zone: &[&str]) -> Result<Self> {
        let nothing = host.beside(Path::new("env"));
        let by = [nothing.get_program()].into_iter().chain(nothing.get_args()).map(OsString::from).collect();
        Self::start_in(Place { address, by }, zone)
    }

    fn start_in(place: Place, zone: &[&str]) -> Result<Self> {
        ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: apt-get install bind9 bind9-dnsutils");
        let dir = tempfile::Builder::new().prefix("handover-named-").tempdir()?;
        let head = format!(
            "$ORIGIN example.net.\n$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A {}\n",
            place.address
        );
        fs::write(dir.path().join("zone"), format!("{head}{}\n", zone.join("\n")))?;
        let mut server = Self { place, dir, port: 0, child: None };
        for key in [KEY, READER] {
            write_secret(&server.secret_file(key))?;
        }
        for tried in 1.. {
            server.port = free_port()?;
            match server.launch() {
                // Somebody else was quicker to take the port.
                Err(error) if tried < PORTS && format!("{error:#}").contains("address in use") => {}
                launched => return launched.map(|()| server),
            }
        }
        bail!("no port was tried")
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        (self.place.address, self.port).into()
    }

    /// A key's secret, in base64, in a file for its owner alone.
    pub fn secret_file(&self, key: &str) -> PathBuf {
        self.dir.path().join(format!("{key}.secret"))
    }

    /// What it has of a name (without the zone) and kind, by a client of its own.
    pub fn values(&self, name: &str, kind: &str) -> Result<BTreeSet<String>> {
        let told = self.dig(&["+short", &format!("{name}.example.net"), kind])?;
        Ok(told.lines().map(str::to_owned).collect())
    }

    /// A name's records as lines of a zone: `www.example.net. 60 IN A 192.0.2.20`.
    pub fn lines(&self, name: &str, kind: &str) -> Result<Vec<String>> {
        let told = self.dig(&["+noall", "+answer", &format!("{name}.example.net"), kind])?;
        let mut lines: Vec<_> =
            told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.sort();
        Ok(lines)
    }

    /// Changes its records as somebody else would, in the words of nsupdate: `update add www.example.net 60 A 192.0.2.9`.
    pub fn update(&self, commands: &[&str]) -> Result<()> {
        let secret = fs::read_to_string(self.secret_file(KEY))?;
        let script = format!(
            "server {} {}\nzone example.net\nkey hmac-sha256:{KEY} {}\n{}\nsend\n",
            self.place.address,
            self.port,
            secret.trim(),
            commands.join("\n")
        );
        let mut client = self.place.command("nsupdate");
        crate::server::run(client.arg("-v"), &script).map(drop)
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).context("killing the name server")?;
        }
        Ok(())
    }

    /// Starts it again at the same port, after a kill.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.launch()
    }

    fn dig(&self, question: &[&str]) -> Result<String> {
        let mut client = self.place.command("dig");
        client.args([
            format!("@{}", self.place.address).as_str(),
            "-p",
            &self.port.to_string(),
            "+tcp",
            "+norecurse",
            "+time=1",
            "+tries=1",
        ]);
        let output = client.args(question).output().context("dig does not run")?;
        ensure!(output.status.success(), "dig: {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn launch(&mut self) -> Result<()> {
        let (dir, log) = (self.dir.path(), self.dir.path().join("log"));
        fs::write(dir.join("named.conf"), self.configuration()?)?;
        let out = fs::File::create(&log)?;
        let mut command = self.place.command(PROGRAM);
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(dir.join("named.conf")).current_dir(dir);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        self.child = Some(command.spawn().with_context(|| format!("{command:?}"))?);
        let up = poll::until("the name server to answer", ANSWERS_WITHIN, || {
            let told = fs::read_to_string(&log)?;
            let is_over = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if is_over.is_some() || told.contains("address in use") {
                bail!("the name server does not serve:\n{told}");
            }
            Ok(self
                .values("ns", "A")
                .ok()
                .filter(|found| found.contains(&self.place.address.to_string()))
                .map(drop))
        });
        if up.is_err() {
            self.kill()?;
        }
        up
    }

    fn configuration(&self) -> Result<String> {
        let (dir, address, port) = (self.dir.path().display(), self.place.address, self.port);
        let mut text = format!(
            "options {{ directory \"{dir}\"; pid-file \"{dir}/pid\"; session-keyfile \"{dir}/session.key\";\n\
             listen-on port {port} {{ {address}; }}; listen-on-v6 {{ none; }}; recursion no; notify no;\n\
             dnssec-validation no; empty-zones-enable no; }};\ncontrols {{ }};\n"
        );
        for key in [KEY, READER] {
            let secret = fs::read_to_string(self.secret_file(key))?;
            text += &format!("key {key} {{ algorithm hmac-sha256; secret \"{}\"; }};\n", secret.trim());
        }
        text += &format!(
            "zone example.net {{ type primary; file \"{dir}/zone\";\n\
             update-policy {{ grant {KEY} zonesub A AAAA CNAME TXT; }}; }};\n"
        );
        Ok(text)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of named:\n{}", crate::process::tail(&self.dir.path().join("log")));
        }
    }
}

/// A secret that is made for this run: 32 bytes in base64, whose alphabet hexadecimal digits are a part of.
fn write_secret(file: &Path) -> Result<()> {
    let noise = |_| RandomState::new().hash_one(file);
    let secret: String = (0..4).map(noise).map(|part| format!("{part:016x}")).collect();
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(file)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(std::io::Write::write_all(&mut file, format!("{secret}\n").as_bytes())?)
}
