//! The peers, from Debian's packages.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::shell::{is_installed, run_visibly, say};

/// A program and the package that brings it.
const PEERS: [(&str, &str); 4] =
    [("rsync", "rsync"), ("sshd", "openssh-server"), ("ssh", "openssh-client"), ("mmdebstrap", "mmdebstrap")];

/// Installs the peers that are missing; needs root for that.
pub fn install() -> Result<()> {
    let missing: Vec<_> =
        PEERS.iter().filter(|(program, _)| !is_installed(program)).map(|peer| peer.1).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    ensure!(
        rustix::process::geteuid().is_root(),
        "the peers are missing, and installing them needs root: apt-get install {packages}"
    );
    say(format!("installing {packages}"));
    let apt = |args: &[&str]| {
        run_visibly(
            Command::new("apt-get").args(["-q", "-y"]).args(args).env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update"])?;
    // No service shall start: the benchmark runs an sshd of its own.
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)
}
