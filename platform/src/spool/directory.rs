//! The spools of a target, each in a directory of its own.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::{Direction, Result, Spool, Spools};
use handover_engine::reserve::Disk;

use super::FileSpool;
use crate::tree::blocking;

/// The spools of a target, in its state directory.
pub struct SpoolDirectory {
    root: PathBuf,
    limit: u64,
    /// Where datasets land.
    beside: Vec<PathBuf>,
    open: Mutex<HashMap<PathBuf, Arc<FileSpool>>>,
}

impl SpoolDirectory {
    /// Spools in directories below `root`, each of at most `limit` bytes.
    pub fn new(root: PathBuf, limit: u64) -> Self {
        Self { root, limit, beside: Vec::new(), open: Mutex::default() }
    }

    /// The same, with the places that fill besides.
    #[must_use]
    pub fn beside(mut self, places: Vec<PathBuf>) -> Self {
        self.beside = places;
        self
    }

    /// Removes the spools of all migrations but these: what is left of others that ended.
    pub fn keep_only(&self, migrations: &[MigrationId]) -> Result<()> {
        let failed = |error| {
            Failure::operator(
                format!("spool {}", self.root.display()),
                "what is left of an earlier migration cannot be removed",
            )
            .because(error)
            .hint("is the state directory writable, and its file system sound?")
        };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if !migrations.iter().any(|id| entry.file_name().to_str() == Some(id.as_str())) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Spools for SpoolDirectory {
    async fn spool(
        &self,
        migration: &MigrationId,
        dataset: &DatasetName,
        direction: Direction,
    ) -> Result<Arc<dyn Spool>> {
        let dir = match direction {
            Direction::Forth => self.root.join(migration.as_str()).join(dataset.as_str()),
            // No dataset's name begins with a dot.
            Direction::Back => self.root.join(migration.as_str()).join(".back").join(dataset.as_str()),
        };
        let (limit, name) = (self.limit, dataset.clone());
        if let Some(spool) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&dir) {
            return Ok(spool.clone());
        }
        let place = dir.clone();
        let spool = blocking(dataset, move || FileSpool::open(name, place, limit)).await?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(open.entry(dir).or_insert_with(|| Arc::new(spool)).clone())
    }

    async fn disks(&self) -> Vec<Disk> {
        let places: Vec<PathBuf> = [&self.root].into_iter().chain(&self.beside).cloned().collect();
        tokio::task::spawn_blocking(move || crate::disk::disks(places)).await.unwrap_or_default()
    }
}
