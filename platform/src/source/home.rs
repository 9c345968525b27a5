//! Writing to the source's trees once it has been replaced: what an abort brings home.
//!
//! It is written as at a target: staged out of sight, durable, and made visible when whole.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use handover_engine::chunk::Chunk;
use handover_engine::failure::Failure;
use handover_engine::ports::{HomeTree, HomeTrees, Result, TreeOp, TreeTarget};
use handover_engine::tree::{Entry, EntryKind, RelPath};

use super::LocalSource;
use crate::tree::{FileTree, Filter, Target};

/// Trees that are being written to. They know of large files in the making.
#[derive(Default)]
pub(super) struct Homes(Mutex<HashMap<HomeTree, Target>>);

impl LocalSource {
    fn home(&self, tree: &HomeTree) -> Result<Target> {
        let section = &self.known_tree(&tree.dataset)?.section;
        let mut homes = self.homes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = homes.get(tree) {
            return Ok(known.clone());
        }
        let filter = Filter::new(&section.include, &section.exclude)?;
        let made = FileTree::target(section.name.clone(), section.root.clone(), filter, &tree.migration);
        Ok(homes.entry(tree.clone()).or_insert(made).clone())
    }

    fn leave_home(&self, tree: &HomeTree) {
        self.homes.0.lock().unwrap_or_else(PoisonError::into_inner).remove(tree);
    }
}

#[async_trait]
impl HomeTrees for LocalSource {
    async fn begin(&self, tree: &HomeTree) -> Result<()> {
        // As for reading: what is being put back from a backup is not written to.
        self.may_be_read()?;
        let home = self.home(tree)?;
        home.prepare().await?;
        home.recover().await?;
        home.discard_staged(&[]).await
    }

    async fn refused(&self, tree: &HomeTree, entries: Vec<Entry>) -> Result<Vec<RelPath>> {
        let home = self.home(tree)?;
        let refused =
            entries.into_iter().filter(|one| !home.admits(&one.path, one.kind == EntryKind::Directory));
        Ok(refused.map(|one| one.path).collect())
    }

    async fn stage(&self, tree: &HomeTree, contents: Chunk) -> Result<()> {
        let home = self.home(tree)?;
        match contents {
            Chunk::Pack(pack) => home.stage(pack).await,
            Chunk::Segment(segment) => home.write(segment, &[]).await.map(drop),
            Chunk::Rows(_) => Err(Failure::permanent(tree.dataset.to_string(), "rows were sent for a tree")),
        }
    }

    async fn land(&self, tree: &HomeTree, files: Vec<Entry>) -> Result<()> {
        self.home(tree)?.land(&files).await.map(drop)
    }

    async fn change(&self, tree: &HomeTree, ops: Vec<TreeOp>) -> Result<()> {
        self.home(tree)?.change(&ops).await
    }

    async fn keep(&self, tree: &HomeTree) -> Result<()> {
        if self.known_tree(&tree.dataset).is_err() {
            return Ok(());
        }
        let home = self.home(tree)?;
        self.leave_home(tree);
        // Nothing was begun where this host is the target of another migration.
        if home.is_anothers().await? { Ok(()) } else { home.forget().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_migration_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let of = |migration: &str| {
            let root = dir.path().to_owned();
            FileTree::target("www".parse().unwrap(), root, Filter::default(), &migration.parse().unwrap())
        };
        let (ours, theirs) = (of("m1"), of("m2"));
        assert!(!ours.is_anothers().await.unwrap());
        theirs.prepare().await.unwrap();
        assert!(ours.is_anothers().await.unwrap() && !theirs.is_anothers().await.unwrap());
        assert!(ours.forget().await.is_err(), "an abort would fail for it");
        theirs.forget().await.unwrap();
        assert!(!ours.is_anothers().await.unwrap());
    }
}
