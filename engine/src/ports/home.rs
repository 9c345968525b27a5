//! Writing to the trees of a source that has been replaced: an abort brings home what was written at the target.

use async_trait::async_trait;

use super::{Result, TreeOp};
use crate::chunk::Chunk;
use crate::failure::Failure;
use crate::name::{DatasetName, MigrationId};
use crate::tree::{Entry, RelPath};

/// A tree at the source, and for whom it is written to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HomeTree {
    /// The tree.
    pub dataset: DatasetName,
    /// The migration that is being aborted.
    pub migration: MigrationId,
}

/// The trees of a source, written to as [`TreeTarget`](super::TreeTarget) is: out of sight first, and whole when it gets its name. The source's own
/// manifest says what may stand in a tree.
#[async_trait]
pub trait HomeTrees: Send + Sync {
    /// Makes the tree ready to be written to. What an earlier attempt has left out of sight goes. Idempotent.
    async fn begin(&self, tree: &HomeTree) -> Result<()>;

    /// Those of these entries that the source's manifest does not let stand in the tree.
    async fn refused(&self, tree: &HomeTree, entries: Vec<Entry>) -> Result<Vec<RelPath>>;

    /// Contents: of a pack as by [`TreeTarget::stage`](super::TreeTarget::stage), of a segment as by
    /// [`TreeTarget::write`](super::TreeTarget::write) without a basis.
    async fn stage(&self, tree: &HomeTree, contents: Chunk) -> Result<()>;

    /// As [`TreeTarget::land`](super::TreeTarget::land).
    async fn land(&self, tree: &HomeTree, files: Vec<Entry>) -> Result<()>;

    /// As [`TreeTarget::change`](super::TreeTarget::change).
    async fn change(&self, tree: &HomeTree, ops: Vec<TreeOp>) -> Result<()>;

    /// Nothing more is brought, and what was brought stays: nothing but that is left of it. Idempotent; a tree that was never begun, or is not
    /// known any more, is no error.
    async fn keep(&self, tree: &HomeTree) -> Result<()>;
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

    async fn stage(&self, tree: &HomeTree, _: Chunk) -> Result<()> {
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
}
