//! A host with backups, whose work is waited for.

#![allow(dead_code, reason = "every test binary uses some of it")]

pub mod servers;
pub mod tools;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use handover_backups::{Contents, Dataset, LocalBackups, Running, Setting, Tools, Tree};
use handover_engine::backup::{Backup, Occasion, Restored, Shelf};
use handover_engine::failure::Failure;
use handover_engine::ports::Backups;
use handover_engine::ports::backups::{Order, Standing};
use handover_platform::SystemClock;
use handover_platform::tree::{FileTree, Filter};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long a piece of work may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);

/// A host.
pub struct Host {
    pub dir: TempDir,
    pub datasets: Vec<Dataset>,
    pub backups: LocalBackups,
    pub stop: CancellationToken,
}

impl Host {
    /// Its backups lie in `backups` of a directory of its own.
    pub fn new(dir: TempDir, datasets: Vec<Dataset>) -> Self {
        let place = dir.path().join("backups");
        Self::at(dir, place, datasets, Tools::default(), None)
    }

    pub fn at(
        dir: TempDir,
        place: PathBuf,
        datasets: Vec<Dataset>,
        tools: Tools,
        keep: Option<usize>,
    ) -> Self {
        let stop = CancellationToken::new();
        let backups = open(place, datasets.clone(), tools, keep, &stop);
        Self { dir, datasets, backups, stop }
    }

    pub fn place(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    /// The agent ends in the middle of its work, and is started again.
    pub async fn restart(&mut self, tools: Tools) {
        self.stop.cancel();
        self.backups.ended().await;
        self.stop = CancellationToken::new();
        self.backups = open(self.place(), self.datasets.clone(), tools, None, &self.stop);
    }

    /// Has work done.
    pub async fn done(&self, order: &Order) -> Result<Standing, Failure> {
        self.backups.begin(order).await?;
        let wait = async {
            loop {
                match self.backups.standing(order).await? {
                    Standing::Running { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
                    Standing::Failed { failure } => return Err(failure),
                    other => return Ok(other),
                }
            }
        };
        tokio::time::timeout(WITHIN, wait).await.expect("the work takes too long")
    }

    pub async fn make(&self, id: &str) -> Result<Backup, Failure> {
        match self.done(&make(id)).await? {
            Standing::Made { backup } => Ok(*backup),
            other => panic!("{other:?}"),
        }
    }

    pub async fn verify(&self, id: &str) -> Result<(), Failure> {
        self.done(&Order::Verify { id: id.parse().unwrap() }).await.map(drop)
    }

    pub async fn restore(&self, id: &str, dataset: Option<&str>) -> Result<Vec<Restored>, Failure> {
        match self.done(&restore(id, dataset)).await? {
            Standing::Restored { datasets } => Ok(datasets),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until nothing is left of a restore that was cut short.
    pub async fn settled(&self) {
        let wait = async {
            while self.backups.unsettled().unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WITHIN, wait).await.expect("what a restore has left is not settled");
    }

    pub async fn list(&self) -> Shelf {
        self.backups.list().await.unwrap()
    }
}

fn open(
    directory: PathBuf,
    datasets: Vec<Dataset>,
    tools: Tools,
    keep: Option<usize>,
    stop: &CancellationToken,
) -> LocalBackups {
    let (guard, clock) = (Arc::new(|| Ok(())), Arc::new(SystemClock));
    let running: Running = Arc::new(|| std::future::ready(Ok(vec!["m-runs".parse().unwrap()])).boxed());
    let setting = Setting { datasets, directory, keep, tools, guard, running, clock };
    LocalBackups::new(setting, stop.clone()).unwrap()
}

pub fn make(id: &str) -> Order {
    Order::Make { id: id.parse().unwrap(), occasion: Occasion::Manual, migration: None, datasets: Vec::new() }
}

pub fn restore(id: &str, dataset: Option<&str>) -> Order {
    Order::Restore { id: id.parse().unwrap(), dataset: dataset.map(|name| name.parse().unwrap()) }
}

pub fn sqlite(name: &str, path: &Path) -> Dataset {
    Dataset { name: name.parse().unwrap(), contents: Contents::Sqlite(path.to_owned()) }
}

pub fn tree(name: &str, root: &Path, exclude: &[&str]) -> Dataset {
    let exclude: Vec<String> = exclude.iter().map(|glob| (*glob).to_owned()).collect();
    let name: handover_engine::name::DatasetName = name.parse().unwrap();
    let reader = FileTree::reader(name.clone(), root.to_owned(), Filter::new(&[], &exclude).unwrap());
    Dataset { name, contents: Contents::Tree(Tree { root: root.to_owned(), reader: Arc::new(reader) }) }
}
