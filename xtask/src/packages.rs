//! What Debian's packages bring: the peers of benchmarks, and the servers that tests and scenarios start.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::shell::{is_installed, run_visibly, say};

/// A program (a name to be found, or a path) and the package that brings it.
pub type Needed = (&'static str, &'static str);

/// The peers of the benchmarks of files.
pub const FILE_PEERS: &[Needed] = &[
    ("rsync", "rsync"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("mmdebstrap", "mmdebstrap"),
];

/// What the lab and the packages need.
pub const LAB: &[Needed] = handover_tests::lab::PROGRAMS;

/// The database servers, a server of TLS, one of DNS with its tools, and an authority of certificates with what asks it.
pub const SERVERS: &[Needed] = &[
    ("/usr/sbin/mariadbd", "mariadb-server"),
    ("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    ("openssl", "openssl"),
    ("/usr/sbin/named", "bind9"),
    ("nsupdate", "bind9-dnsutils"),
    ("pebble", "pebble"),
    ("curl", "curl"),
];

/// A server of mail.
pub const MAIL: &[Needed] = &[("/usr/lib/python3/dist-packages/aiosmtpd", "python3-aiosmtpd")];

fn is_there(program: &str) -> bool {
    if program.starts_with('/') { Path::new(program).exists() } else { is_installed(program) }
}

/// Installs what is missing; needs root for that.
pub fn install(needed: &[Needed]) -> Result<()> {
    let missing: Vec<_> =
        needed.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    ensure!(
        rustix::process::geteuid().is_root(),
        "these packages are missing, and installing them needs root: apt-get install {packages}"
    );
    say(format!("installing {packages}"));
    let apt = |args: &[&str]| {
        run_visibly(
            Command::new("apt-get").args(["-q", "-y"]).args(args).env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update"])?;
    // Servers of the system's own may come up: what is started here listens elsewhere.
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)
}
