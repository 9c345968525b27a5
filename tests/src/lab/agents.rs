//! The agents on a lab's hosts, installed from our own packages.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Host, Lab};
use crate::locate::{Binaries, Profile};
use crate::packaging::{self, Packages};

impl Lab {
    /// Makes the packages of the programs at hand and installs them: the source agent on `source`, the target agent and
    /// the command line on every other host. The agents start when there is a manifest.
    pub fn install_agents(&self, source: &str) -> Result<()> {
        let made = packaging::build(&Binaries::find(Profile::Same)?, &self.dir.join("packages"))?;
        self.hosts.iter().try_for_each(|host| host.install(&made, host.name() == source))
    }
}

impl Host {
    fn install(&self, made: &Packages, source: bool) -> Result<()> {
        let packages: Vec<&Path> = if source { vec![&made.source] } else { vec![&made.target, &made.cli] };
        let mut install = String::from("dpkg --install");
        for package in packages {
            let name = package.file_name().context("a package without a name")?;
            fs::copy(package, self.root().join("root").join(name))?;
            install += &format!(" /root/{}", name.to_string_lossy());
        }
        self.sh(&install).with_context(|| format!("installing on {}", self.name()))?;
        Ok(())
    }
}
