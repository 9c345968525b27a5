//! The target's side of a tree.

mod aside;
mod contents;
mod kept;
mod land;
mod patch;
mod staging;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::{Answers, Result, TreeOp, TreeTarget};
use handover_engine::tree::{Block, Entry, IndexEntry, PackChunk, RelPath, Segment, Spots, Stamp};
use tokio::sync::RwLock;

use super::assemble::Assembly;
use super::before::Before;
use super::filter::Filter;
use super::mounts;
use super::reader::blocking;
use super::root::Root;
use super::scan::{self, Walk};
use super::{STAGING, undo};

/// A tree to be made equal to the source's.
#[derive(Clone)]
pub struct Target {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: DatasetName,
    path: PathBuf,
    filter: Arc<Filter>,
    migration: MigrationId,
    is_log: bool,
    /// What stood here before, once it has been read.
    before: Mutex<Option<Arc<Before>>>,
    /// Large files in the making.
    assemblies: Mutex<HashMap<RelPath, Assembly>>,
    /// Held while a name in the staging area is made or moved away. The kernel lets one do that at a time, and the others spin for as
    /// long: they sleep here instead, and the processor is free for those who compress and digest.
    naming: Mutex<()>,
    /// Held for reading by all that changes something, for writing by what needs the tree for itself: work that a caller no
    /// longer waits for goes on to its end, and must not meet an undo.
    gate: Arc<RwLock<()>>,
}

impl Target {
    pub(super) fn new(dataset: DatasetName, path: PathBuf, filter: Filter, migration: MigrationId) -> Self {
        let shared = Shared {
            dataset,
            path,
            filter: Arc::new(filter),
            migration,
            is_log: false,
            before: Mutex::default(),
            assemblies: Mutex::default(),
            naming: Mutex::default(),
            gate: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same tree, of logs; to be called before anything else.
    pub fn of_logs(mut self) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.is_log = true;
        }
        self
    }

    /// Whether another migration is at work in the tree.
    pub async fn is_anothers(&self) -> Result<bool> {
        self.run(|shared| {
            Ok(shared.path.exists() && Before::is_anothers(&shared.root()?, shared.migration.as_str())?)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let gate = shared.gate.clone().read_owned().await;
        blocking(&self.shared.dataset, move || {
            let _gate = gate;
            work(&shared)
        })
        .await
    }

    /// As `run`, when all that was begun before has ended, and before anything else begins.
    async fn run_alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let gate = shared.gate.clone().write_owned().await;
        blocking(&self.shared.dataset, move || {
            let _gate = gate;
            work(&shared)
        })
        .await
    }
}

impl Shared {
    fn root(&self) -> Result<Root> {
        Root::open(&self.dataset, &self.path)
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assemblies(&self) -> MutexGuard<'_, HashMap<RelPath, Assembly>> {
        self.assemblies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what this host's manifest does not name, whatever the peer sends.
    fn refuse_excluded(&self, path: &RelPath, is_directory: bool) -> Result<()> {
        if self.filter.admits(path, is_directory) {
            return Ok(());
        }
        let item = format!("{}, {path}", self.dataset);
        Err(Failure::permanent(item, "this host's manifest excludes it")
            .hint("correct `include` and `exclude` in the target's appliance.toml, or those of the source"))
    }

    fn before(&self, root: &Root) -> Result<Arc<Before>> {
        let mut held = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = &*held {
            return Ok(before.clone());
        }
        let before = Before::read(root, self.migration.as_str(), |_| Ok(()))?.ok_or_else(|| {
            Failure::permanent(self.dataset.to_string(), "the tree was not prepared for this migration")
        })?;
        if before.globs != *self.filter.globs() {
            // What was hidden then was not listed, and would be taken for the migration's own.
            let what =
                "`include` or `exclude` in the target's manifest has changed since the migration began";
            return Err(Failure::operator(self.dataset.to_string(), what)
                .hint("put it back and restart the agent; or abort, and plan again"));
        }
        Ok(held.insert(Arc::new(before)).clone())
    }

    /// As `TreeTarget::recover`: a file that was being changed gets its name back.
    fn recover(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let root = self.root()?;
        // Not what another migration is changing, nor where undo has taken the staging area away.
        if !Before::owner(&root, self.migration.as_str())? || !staging::Staging::is_there(&root) {
            return Ok(());
        }
        patch::recover(&root, &staging::Staging::open(&root)?)
    }

    fn undo(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let root = self.root()?;
        let Some(before) = undo::restore(&root, self.migration.as_str())? else {
            return self.clear_leftovers(&root);
        };
        root.sync_all()?;
        self.clear(&root)?;
        if before.made_root {
            // Not when something has been put into it meanwhile that is not ours.
            let _ = std::fs::remove_dir(&self.path);
        }
        Ok(())
    }

    fn forget(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let root = self.root()?;
        // Not what another migration needs.
        if !Before::owner(&root, self.migration.as_str())? {
            return self.clear_leftovers(&root);
        }
        if staging::Staging::is_there(&root) {
            patch::recover(&root, &staging::Staging::open(&root)?)?;
        }
        // The list first: nobody must take up an undo that has half of what it needs.
        Before::remove(&root)?;
        self.clear(&root)
    }

    /// What is left of a staging area whose list is gone: clearing it was interrupted.
    fn clear_leftovers(&self, root: &Root) -> Result<()> {
        let is_left = ["staging", "undo"].iter().any(|name| self.path.join(STAGING).join(name).exists());
        if is_left { self.clear(root) } else { Ok(()) }
    }
}

#[async_trait]
impl TreeTarget for Target {
    fn admits(&self, path: &RelPath, is_directory: bool) -> bool {
        self.shared.filter.admits(path, is_directory)
    }

    async fn prepare(&self) -> Result<()> {
        self.run_alone(Shared::prepare).await
    }

    async fn is_prepared(&self) -> Result<bool> {
        self.run(|shared| {
            if !shared.path.exists() {
                return Ok(false);
            }
            Before::owner(&shared.root()?, shared.migration.as_str())
        })
        .await
    }

    async fn occupied(&self) -> Result<bool> {
        self.run(|shared| {
            if !shared.path.exists() {
                return Ok(false);
            }
            let root = shared.root()?;
            let mut walk = Walk::new(&root, &shared.filter);
            walk.next()?;
            Ok(walk.next()?.is_some())
        })
        .await
    }

    fn scan(&self) -> Answers<Vec<Entry>> {
        let shared = self.shared.clone();
        scan::stream(move || shared.root(), self.shared.filter.clone())
    }

    fn is_log(&self) -> bool {
        self.shared.is_log
    }

    async fn mounts(&self) -> Result<Vec<RelPath>> {
        self.run(|shared| mounts::below(&shared.dataset, &shared.path)).await
    }

    async fn set_aside(&self, from: &RelPath, landed: &Stamp, to: &RelPath) -> Result<bool> {
        let (from, landed, to) = (from.clone(), *landed, to.clone());
        self.run(move |shared| shared.set_aside(&from, landed, &to)).await
    }

    fn scan_at(&self, spots: &Spots) -> Answers<Vec<Entry>> {
        let shared = self.shared.clone();
        scan::stream_at(move || shared.root(), self.shared.filter.clone(), spots)
    }

    async fn stage(&self, pack: PackChunk) -> Result<()> {
        self.run(move |shared| shared.stage(&pack)).await
    }

    async fn write(&self, segment: Segment, basis: &[Block]) -> Result<Vec<Block>> {
        let basis = basis.to_vec();
        self.run(move |shared| shared.write(&segment, &basis)).await
    }

    async fn sync(&self, paths: &[RelPath]) -> Result<()> {
        let paths = paths.to_vec();
        self.run(move |shared| shared.sync(&paths)).await
    }

    async fn land(&self, files: &[Entry]) -> Result<Vec<Stamp>> {
        let files = files.to_vec();
        self.run(move |shared| shared.land(&files)).await
    }

    async fn change(&self, ops: &[TreeOp]) -> Result<()> {
        let ops = ops.to_vec();
        self.run(move |shared| shared.change(&ops)).await
    }

    async fn reread(&self, file: &IndexEntry, blocks: &[Block]) -> Result<bool> {
        let (file, blocks) = (file.clone(), blocks.to_vec());
        self.run(move |shared| shared.reread(&file, &blocks)).await
    }

    async fn discard_staged(&self, keep: &[RelPath]) -> Result<()> {
        let keep = keep.to_vec();
        self.run_alone(move |shared| shared.discard_staged(&keep)).await
    }

    async fn recover(&self) -> Result<()> {
        self.run_alone(Shared::recover).await
    }

    async fn undo(&self) -> Result<()> {
        self.run_alone(Shared::undo).await
    }

    async fn forget(&self) -> Result<()> {
        self.run_alone(Shared::forget).await
    }
}
