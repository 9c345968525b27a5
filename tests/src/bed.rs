//! A test bed: a CA with identities, two agents as processes, their configuration, and the command line between them.

mod cli;
mod config;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::appliance::{Appliance, Spec};
use crate::compare::{self, Comparison};
use crate::link::Link;
use crate::locate::{Binaries, Profile, target_dir};
use crate::poll;
use crate::process::{Agent, Program};

pub use cli::{Output, Status};

/// Log filter that makes the source name every chunk it serves.
pub const SERVED: &str = "info,handover::served=debug";

/// Something to move, with its place on either side.
#[derive(Debug, Clone)]
pub enum Dataset {
    /// An SQLite database.
    Database {
        /// Its name.
        name: String,
        /// The source's file.
        source: PathBuf,
        /// Where it lands.
        target: PathBuf,
    },
    /// A database on a server.
    Server {
        /// Its name.
        name: String,
        /// Its URL at the source.
        source: String,
        /// Its URL at the target.
        target: String,
    },
    /// A file tree.
    Files {
        /// Its name.
        name: String,
        /// The source's root.
        source: PathBuf,
        /// Where it lands.
        target: PathBuf,
    },
    /// Logs: `*.log*` in a directory.
    Logs {
        /// Its name.
        name: String,
        /// The source's directory.
        source: PathBuf,
        /// Where it lands.
        target: PathBuf,
    },
}

/// Two agents and what they need. Both are killed when it is dropped.
#[derive(Debug)]
pub struct Bed {
    root: PathBuf,
    binaries: Binaries,
    datasets: Vec<Dataset>,
    /// The source agent.
    pub source: Agent,
    /// The target agent.
    pub target: Agent,
    /// Removed last.
    _temp: Option<TempDir>,
}

impl Bed {
    /// A bed with an appliance of its own, in a temporary directory; programs of the profile of the running test.
    pub fn temporary(spec: &Spec) -> Result<Self> {
        let dir = target_dir()?.join("tmp");
        fs::create_dir_all(&dir)?;
        let temp = tempfile::Builder::new().prefix("bed-").tempdir_in(&dir)?;
        let root = temp.path().to_owned();
        Appliance::make(&root.join("source/data"), spec)?;
        let mut bed = Self::at(&root, Binaries::find(Profile::Same)?, appliance_datasets(&root), SERVED)?;
        bed._temp = Some(temp);
        Ok(bed)
    }

    /// A bed under `root`, for these datasets. The agents log what `filter` says. The caller removes `root`.
    pub fn at(root: &Path, binaries: Binaries, datasets: Vec<Dataset>, filter: &str) -> Result<Self> {
        let root = fs::canonicalize(root).with_context(|| format!("{} is not there", root.display()))?;
        make_identities(&root, &binaries)?;
        config::write_manifests(&root, &datasets)?;
        config::write_source(&root)?;
        let source = Agent::start(program(&root, "source", &binaries.source, filter))?;
        config::write_target(&root, source.address())?;
        let target = Agent::start(program(&root, "target", &binaries.target, filter))?;
        Ok(Self { root, binaries, datasets, source, target, _temp: None })
    }

    /// Everything of the bed lies here.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The appliance to be moved, where the bed made one.
    pub fn original(&self) -> Appliance {
        Appliance::at(&self.root.join("source/data"))
    }

    /// Where the appliance lands.
    pub fn copy(&self) -> Appliance {
        Appliance::at(&self.root.join("target/data"))
    }

    /// The directory of an identity: `source`, `target`, `operator` or `watcher`.
    pub fn identity(&self, role: &str) -> PathBuf {
        self.root.join("pki").join(role)
    }

    /// The CA's directory.
    pub fn ca(&self) -> PathBuf {
        self.root.join("pki/ca")
    }

    /// The command line, as the operator, ready to be given a verb.
    pub fn command(&self) -> Command {
        self.command_as(&self.identity("operator"))
    }

    /// The command line with another identity.
    pub fn command_as(&self, identity: &Path) -> Command {
        let mut command = Command::new(&self.binaries.cli);
        command.arg("--target").arg(self.target.address()).arg("--identity").arg(identity);
        command
    }

    /// The command line, with no agent and as nobody.
    pub fn command_alone(&self) -> Command {
        let mut command = Command::new(&self.binaries.cli);
        command.env_remove("HANDOVER_IDENTITY").env_remove("HANDOVER_TARGET");
        command
    }

    /// Runs a verb to its end.
    pub fn cli<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output> {
        Output::of(self.command().args(args))
    }

    /// Runs a verb that must succeed, with `--json`; its document.
    pub fn json<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Value> {
        Output::of(self.command().arg("--json").args(args))?.json()
    }

    /// Makes a plan; its digest.
    pub fn plan(&self) -> Result<String> {
        text(&self.json(&["plan"])?, "digest")
    }

    /// Plans and starts; the migration's name.
    pub fn start(&self) -> Result<String> {
        text(&self.json(&["start", &self.plan()?])?, "migration")
    }

    /// The migration's status.
    pub fn status(&self) -> Result<Status> {
        Ok(serde_json::from_value(self.json(&["status"])?)?)
    }

    /// Waits until the migration has settled; an agent that is down meanwhile is waited for. A migration that failed
    /// or was paused is an error.
    pub fn settle(&self, deadline: Duration) -> Result<Status> {
        let mut last = String::from("nothing was heard");
        let settled = poll::until("the migration to settle", deadline, || match self.status() {
            Ok(status) if status.is_stuck() => bail!("the migration stands still: {status:?}"),
            Ok(status) => {
                last = format!("{status:?}");
                Ok(status.is_settled().then_some(status))
            }
            Err(error) => {
                last = format!("{error:#}");
                Ok(None)
            }
        });
        settled.with_context(|| format!("last heard: {last}"))
    }

    /// Puts a link that can be cut between the agents. Restarts the target.
    pub fn through_link(&mut self) -> Result<Link> {
        let link = Link::to(self.source.address().parse()?)?;
        let (from, to) = (self.source.address().to_owned(), link.address().to_string());
        self.configure_target(|text| text.replace(&from, &to))?;
        Ok(link)
    }

    /// Changes `target.toml` and restarts the target.
    pub fn configure_target(&mut self, change: impl FnOnce(String) -> String) -> Result<()> {
        let file = self.root.join("target/target.toml");
        fs::write(&file, change(fs::read_to_string(&file)?))?;
        self.target.restart()
    }

    /// Compares every dataset, independently of the product.
    pub fn compare(&self) -> Result<Comparison> {
        let mut all = Comparison::default();
        for dataset in &self.datasets {
            all.join(match dataset {
                Dataset::Database { source, target, .. } => compare::databases(source, target)?,
                Dataset::Files { source, target, .. } | Dataset::Logs { source, target, .. } => {
                    compare::trees(source, target)?
                }
                // Only who runs the servers can compare them.
                Dataset::Server { .. } => Comparison::default(),
            });
        }
        Ok(all)
    }
}

/// The datasets of an appliance made under `root/source/data`, landing under `root/target/data`.
pub fn appliance_datasets(root: &Path) -> Vec<Dataset> {
    let (from, to) = (Appliance::at(&root.join("source/data")), Appliance::at(&root.join("target/data")));
    vec![
        Dataset::Database { name: "app".to_owned(), source: from.database, target: to.database },
        Dataset::Files { name: "files".to_owned(), source: from.files, target: to.files },
    ]
}

fn text(document: &Value, field: &str) -> Result<String> {
    let text = document[field].as_str().with_context(|| format!("no text `{field}` in {document}"))?;
    Ok(text.to_owned())
}

fn make_identities(root: &Path, binaries: &Binaries) -> Result<()> {
    let ca = root.join("pki/ca");
    let certs = |args: &[&OsStr]| Output::of(Command::new(&binaries.cli).arg("certs").args(args))?.success();
    let word = OsStr::new;
    certs(&[word("init"), word("--ca"), ca.as_os_str(), word("--trust-domain"), word("demo.example")])?;
    for role in ["source", "target", "operator", "watcher"] {
        let out = root.join("pki").join(role);
        let (ca, out) = (ca.as_os_str(), out.as_os_str());
        let name = format!("{role}-1");
        certs(&[
            word("issue"),
            word("--ca"),
            ca,
            word("--role"),
            word(role),
            word("--name"),
            word(&name),
            word("--out"),
            out,
        ])?;
    }
    Ok(())
}

fn program(root: &Path, name: &'static str, binary: &Path, filter: &str) -> Program {
    Program {
        name,
        binary: binary.to_owned(),
        config: root.join(name).join(format!("{name}.toml")),
        state: root.join(name).join("state"),
        log: root.join(format!("{name}.log")),
        filter: filter.to_owned(),
    }
}
