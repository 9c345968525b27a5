//! Writing to the trees of a source that has been replaced: an abort brings home what was written at the target.

use async_trait::async_trait;

use super::{Result, TreeOp};
use crate::failure::Failure;
use crate::name::{DatasetName, MigrationId};
use crate::tree::{Entry, PackChunk, RelPath, Segment};

/// A tree at the source, and for whom it is written to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HomeTree {
    /// The tree.
    pub dataset: DatasetName,
    /// The migration that is being aborted.
    pub migration: MigrationId,
}

/// The trees of a source, written to as [`TreeTarget`](super::TreeTarget) is: out of sight first, and so that all of it can be taken back
/// until it is kept. The source's own manifest says what may stand in a tree.
#[async_trait]
pub trait HomeTrees: Send + Sync {
    /// Makes the tree ready to be written to. The first call of a migration records what is there, for `undo`. What an earlier attempt has left
    /// out of sight goes. Idempotent.
    async fn begin(&self, tree: &HomeTree) -> Result<()>;

    /// Those of these entries that the source's manifest does not let stand in the tree.
    async fn refused(&self, tree: &HomeTree, entries: Vec<Entry>) -> Result<Vec<RelPath>>;

    /// As [`TreeTarget::stage`](super::TreeTarget::stage).
    async fn stage(&self, tree: &HomeTree, pack: PackChunk) -> Result<()>;

    /// As [`TreeTarget::write`](super::TreeTarget::write), without a basis.
    async fn write(&self, tree: &HomeTree, segment: Segment) -> Result<()>;

    /// As [`TreeTarget::land`](super::TreeTarget::land).
    async fn land(&self, tree: &HomeTree, files: Vec<Entry>) -> Result<()>;

    /// As [`TreeTarget::change`](super::TreeTarget::change).
    async fn change(&self, tree: &HomeTree, ops: Vec<TreeOp>) -> Result<()>;

    /// What was brought stays: nothing is left of what `undo` would need. Idempotent.
    async fn keep(&self, tree: &HomeTree) -> Result<()>;

    /// The tree is as it was before `begin`. Idempotent; a tree that was never begun is no error.
    async fn undo(&self, tree: &HomeTree) -> Result<()>;
}

/// A source that takes no files.
pub struct NoHome;

fn takes_none<T>(tree: &HomeTree) -> Result<T> {
    Err(takes_no_files(format!("dataset {}", tree.dataset)))
}

/// How it is told that a source takes no files.
pub fn takes_no_files(item: impl Into<String>) -> Failure {
    Failure::operator(item, "the source takes no files: what was written at the target cannot be brought home")
        .hint("upgrade the source's agent, then `handover resume`; or `handover abort --discard`, which leaves the files in what is kept aside")
}

#[async_trait]
impl HomeTrees for NoHome {
    async fn begin(&self, tree: &HomeTree) -> Result<()> {
        takes_none(tree)
    }

    async fn refused(&self, tree: &HomeTree, _: Vec<Entry>) -> Result<Vec<RelPath>> {
        takes_none(tree)
    }

    async fn stage(&self, tree: &HomeTree, _: PackChunk) -> Result<()> {
        takes_none(tree)
    }

    async fn write(&self, tree: &HomeTree, _: Segment) -> Result<()> {
        takes_none(tree)
    }

    async fn land(&self, tree: &HomeTree, _: Vec<Entry>) -> Result<()> {
        takes_none(tree)
    }

    async fn change(&self, tree: &HomeTree, _: Vec<TreeOp>) -> Result<()> {
        takes_none(tree)
    }

    async fn keep(&self, _: &HomeTree) -> Result<()> {
        Ok(())
    }

    async fn undo(&self, _: &HomeTree) -> Result<()> {
        Ok(())
    }
}
