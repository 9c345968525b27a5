//! A lab: whole Debian hosts with systemd, MariaDB and a link of their own between them, for what processes on one host
//! cannot show: services, packages, a host that crashes, a link with a distance.
//!
//! A host is an overlay over one base tree, booted by systemd-nspawn in a network namespace. [`Lab::up`] clears what an
//! earlier run of the same name has left, however it ended.

mod agents;
mod base;
pub mod ha;
mod host;
mod leftovers;
mod link;
mod missing;
mod pair;
mod stopped;
pub mod wizard;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::stopped::Continuing;
use crate::locate::target_dir;

pub use host::{Host, Kernel};
pub use link::{Shape, carry};
pub use missing::{PROGRAMS, why_not};
pub use pair::Pair;

/// Hosts that run, joined by a link. All of it is gone when it is dropped.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    hosts: Vec<Host>,
    kept: bool,
    _commands: Continuing,
}

impl Lab {
    /// Boots hosts (at most four) that see each other by their names; they run when this returns. The base tree is made
    /// first if it is not there, which takes a minute or two once.
    pub fn up(name: &str, hosts: &[&str]) -> Result<Self> {
        if let Some(reason) = why_not() {
            anyhow::bail!("the lab cannot run here: {reason}");
        }
        let base = base::tree()?;
        down(name)?;
        let dir = place(name)?;
        fs::create_dir_all(&dir)?;
        // Made before anything can fail: what is half up is cleared by its drop.
        let mut lab = Self {
            name: name.to_owned(),
            dir,
            hosts: Vec::new(),
            kept: false,
            _commands: Continuing::begin(),
        };
        Shape::default().write(&lab.dir)?;
        for (index, host) in hosts.iter().enumerate() {
            lab.hosts.push(Host::prepare(&lab.name, &lab.dir, host, index, &base, hosts)?);
        }
        link::connect(&lab.name, &lab.dir, hosts)?;
        for host in &lab.hosts {
            host.begin(Kernel::Whole)?;
        }
        for host in &lab.hosts {
            host.wait_until_running()?;
        }
        Ok(lab)
    }

    /// A lab that was left running.
    pub fn open(name: &str) -> Result<Self> {
        let dir = place(name)?;
        let mut hosts: Vec<_> = fs::read_dir(dir.join("hosts"))
            .context("no lab is up: `cargo xtask lab up`")?
            .map(|entry| Ok(Host::open(name, &dir, &entry?.file_name().to_string_lossy())))
            .collect::<Result<_>>()?;
        hosts.sort_by(|one: &Host, other| one.name().cmp(other.name()));
        Ok(Self { name: name.to_owned(), dir, hosts, kept: true, _commands: Continuing::begin() })
    }

    /// Leaves it running.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// A host, by its name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.iter().find(|host| host.name() == name).with_context(|| format!("no host {name:?}"))
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Shapes the link from now on, in every direction. The hosts see no loss of carrier.
    pub fn shape(&self, shape: &Shape) -> Result<()> {
        shape.write(&self.dir)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = down(&self.name) {
            eprintln!("warning: the lab {:?} is not quite gone: {error:#}", self.name);
        }
    }
}

/// Ends every host of a lab and removes all it had: processes, control groups, mounts, namespaces, files. One that is
/// not up is no error.
pub fn down(name: &str) -> Result<()> {
    leftovers::clear(name, &place(name)?)
}

fn place(name: &str) -> Result<PathBuf> {
    Ok(root()?.join(name))
}

fn root() -> Result<PathBuf> {
    Ok(target_dir()?.join("lab"))
}

fn hosts_dir(dir: &Path) -> PathBuf {
    dir.join("hosts")
}

/// What namespaces and control groups of a lab are called, or one of its hosts'.
fn label(lab: &str, host: &str) -> String {
    format!("handover-{lab}-{host}")
}
