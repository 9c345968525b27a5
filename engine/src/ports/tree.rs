//! What the file adapters provide: a tree to read, and a tree to make equal to it.

use std::time::Duration;

use async_trait::async_trait;

use super::{Answers, Keeper, Result};
use crate::failure::{Class, Failure};
use crate::inventory::TreeFacts;
use crate::tree::{
    Block, Changed, Cursor, Entry, FileRequest, IndexEntry, PackChunk, PackItem, RelPath, Segment, Spots,
    Stamp,
};

/// A tree on this host, to be read. Nothing outside its root is ever opened, whatever a request says.
#[async_trait]
pub trait TreeReader: Send + Sync {
    /// Root, counts and bytes. Changes nothing.
    async fn facts(&self) -> Result<TreeFacts>;

    /// Everything in the tree that the manifest's globs let through, in tree order, root first, in batches. What
    /// vanishes during the scan is left out; mount points inside are entries, but not entered.
    fn scan(&self) -> Answers<Vec<Entry>>;

    /// As `scan`, of these places alone. Every file with other names is told as one by itself.
    fn scan_at(&self, spots: &Spots) -> Answers<Vec<Entry>>;

    /// As [`TreeSource::changed`](super::TreeSource::changed).
    async fn changed(&self, since: Option<Cursor>, wait: Duration) -> Result<Changed>;

    /// Reads small files whole; a file that changes while it is read is read again.
    async fn pack(&self, files: Vec<PackItem>) -> Result<PackChunk>;

    /// Reads a large file from `request.offset` to its end.
    fn file(&self, request: FileRequest) -> Answers<Segment>;
}

/// What [`Failure::what`] says when what stands at the target does not help to write a segment.
const NO_HELP: &str = "what is here of the file is not what the journal says it is";

/// How [`TreeTarget::write`] fails when the file under the path does not have the contents that the basis describes, or the part that
/// the journal holds is gone from the staging area.
pub fn no_help(item: impl Into<String>) -> Failure {
    Failure::transient(item, NO_HELP).hint("it is copied without the help of what is here")
}

/// True for the failures of [`no_help`]: ask the source again, for the whole file.
pub fn is_no_help(failure: &Failure) -> bool {
    failure.class == Class::Transient && failure.what == NO_HELP
}

/// One change of the target tree that needs no contents from the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeOp {
    /// Make a directory (open to its owner only, until `Settle`), symbolic link, pipe or device as the entry says;
    /// whatever else stands there goes.
    Make(Entry),
    /// Make another name of an existing file; whatever else stands there goes.
    Link {
        /// The new name.
        path: RelPath,
        /// The existing name.
        to: RelPath,
    },
    /// Set owner, mode, attributes and times of what stands there.
    Settle(Entry),
    /// Remove it (a directory with all it holds).
    Remove(RelPath),
}

/// A tree on this host, to be made equal to the source's.
///
/// Contents are staged out of sight (in `.handover` under the root, which scans leave out) and land under their names
/// only when whole. What stood there before the migration is kept for `undo` when it is replaced or removed.
#[async_trait]
pub trait TreeTarget: Keeper {
    /// Whether this host's manifest lets something stand at the path. What it does not is left out of the copy, and refused
    /// by the methods that write.
    fn admits(&self, path: &RelPath, is_directory: bool) -> bool;

    /// Makes the root and the staging area. The first call of a migration records what is there, for `undo`; later calls
    /// find that record and keep it. Idempotent.
    async fn prepare(&self) -> Result<()>;

    /// True when this migration has prepared the tree already.
    async fn is_prepared(&self) -> Result<bool>;

    /// True when the root holds anything (the staging area aside).
    async fn occupied(&self) -> Result<bool>;

    /// Everything in the target tree, in tree order, root first, in batches (the staging area left out).
    fn scan(&self) -> Answers<Vec<Entry>>;

    /// As `scan`, of these places alone. Every file with other names is told as one by itself.
    fn scan_at(&self, spots: &Spots) -> Answers<Vec<Entry>>;

    /// Writes the contents of a pack's files out of sight, with their final owner, mode, attributes and times. The beginning of a
    /// `PackedFile::Tail` is copied from what was set aside for it, or else stands under its path; fails with [`no_help`] when that is not what
    /// the journal says. Not durable, not visible. Idempotent.
    async fn stage(&self, pack: PackChunk) -> Result<()>;

    /// Writes a segment of a large file out of sight; pieces of the basis are copied from the file that stands under the
    /// path now, and verified against `basis` on the way. Segments come in order. Returns the blocks written, in order.
    /// Idempotent: a segment that was written already may be written again. Fails with [`no_help`] when what is here is not what the
    /// journal says.
    async fn write(&self, segment: Segment, basis: &[Block]) -> Result<Vec<Block>>;

    /// Where other file systems are mounted in the tree: nothing below is part of it.
    async fn mounts(&self) -> Result<Vec<RelPath>> {
        Ok(Vec::new())
    }

    /// Whether its files are logs, which grow and are renamed: worth looking for under other names.
    fn is_log(&self) -> bool;

    /// Keeps a file that landed under `from`, whatever happens there, to be what `to` is compared with and copied from in this pass. False
    /// when what stands there is not what landed, or cannot be kept.
    async fn set_aside(&self, from: &RelPath, landed: &Stamp, to: &RelPath) -> Result<bool>;

    /// Makes what was written of these large files durable, still out of sight, so that the journal may hold it.
    async fn sync(&self, paths: &[RelPath]) -> Result<()>;

    /// Makes staged files durable and visible under their names, all of them: returns what each looks like now, in
    /// order. For a file whose contents were already right (`PackedFile::Same`) sets its properties only. Idempotent.
    async fn land(&self, files: &[Entry]) -> Result<Vec<Stamp>>;

    /// Carries out changes without contents, in order, and makes them durable. Idempotent.
    async fn change(&self, ops: &[TreeOp]) -> Result<()>;

    /// Reads a landed file again and tells whether its contents have the digest the journal holds (of a large file: whether
    /// each of its blocks has).
    async fn reread(&self, file: &IndexEntry, blocks: &[Block]) -> Result<bool>;

    /// Drops staged contents that no journal entry needs: all but those of the large files in `keep`.
    async fn discard_staged(&self, keep: &[RelPath]) -> Result<()>;

    /// Gives a file that was being changed out of sight when the agent ended, or when landing failed, its name back. Waits
    /// for work that was begun. Changes nothing in a tree that this migration has not prepared. Idempotent.
    async fn recover(&self) -> Result<()>;

    /// Takes back everything since `prepare`: the tree is as it was then. Idempotent.
    async fn undo(&self) -> Result<()>;

    /// Forgets what `undo` would need and removes the staging area. Idempotent.
    async fn forget(&self) -> Result<()>;
}
