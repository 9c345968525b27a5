//! File trees on this host: read at the source, made equal at the target.
//!
//! Every access starts from the root's descriptor and cannot leave it: `openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS` (openat2(2)), then the `*at` calls on single names. A symbolic link that somebody plants in the
//! tree, or a path in a request, leads nowhere else.

mod assemble;
mod before;
mod cut;
mod error;
mod filter;
mod large;
mod meta;
mod mounts;
mod pack;
mod reader;
mod root;
mod scan;
mod target;
mod undo;
mod watch;

use std::path::PathBuf;

use handover_engine::name::{DatasetName, MigrationId};

pub use filter::Filter;
pub use reader::Reader;
pub(crate) use reader::blocking;
pub use target::Target;

/// The staging area at a target tree's root; scans of either side leave it out.
pub const STAGING: &str = ".handover";

/// Makes the two sides of a tree.
pub struct FileTree;

impl FileTree {
    /// The tree at `root`, to be read.
    pub fn reader(dataset: DatasetName, root: PathBuf, filter: Filter) -> Reader {
        Reader::new(dataset, root, filter)
    }

    /// The tree at `root`, to be made equal to the source's by `migration`.
    pub fn target(dataset: DatasetName, root: PathBuf, filter: Filter, migration: &MigrationId) -> Target {
        Target::new(dataset, root, filter, migration.clone())
    }
}
