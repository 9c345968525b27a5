//! File trees in transit: paths, entries, the pieces that carry contents, and what the target remembers.

pub mod entry;
pub mod path;
pub mod spots;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::DatasetName;

pub use entry::{Entry, EntryKind, Meta, Stamp};
pub use path::{BadPath, RelPath};
pub use spots::{Changed, Cursor, MOST_SPOTS, Spots};

/// Files of at least this many bytes travel alone, cut by content; smaller ones travel packed together.
pub const LARGE_FILE: u64 = 1 << 20;
/// A pack ends before it would hold more bytes of contents than this.
pub const PACK_BYTES: u64 = 4 << 20;
/// A pack holds at most this many files.
pub const PACK_FILES: usize = 1024;
/// A segment of a large file carries at most this many bytes of contents (what is copied from the basis aside).
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// A file that the target has made whole and visible, and the journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The entry at the source whose contents it has.
    pub source: Entry,
    /// What was made of it here; a file that no longer looks so has been changed by somebody else.
    pub landed: Stamp,
    /// Small file: digest of its contents. Large file: [`digest_of_blocks`]. Anything else: digest of nothing.
    pub digest: Digest,
    /// The pass that landed it; 0 when an earlier migration did.
    #[serde(default)]
    pub pass: u32,
}

/// The digest of a large file: over the lengths and digests of its blocks, in order (a hole counts as zeros).
pub fn digest_of_blocks(blocks: &[Block]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for block in blocks {
        hasher.update(&block.len.to_le_bytes());
        hasher.update(&block.digest.map_or([0; 32], |digest| digest.0));
    }
    Digest(*hasher.finalize().as_bytes())
}

/// A request for several small files at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRequest {
    /// The tree.
    pub dataset: DatasetName,
    /// The files, in tree order; at most [`PACK_FILES`].
    pub files: Vec<PackItem>,
}

/// One file of a [`PackRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackItem {
    /// The file.
    pub path: RelPath,
    /// The contents the target has under this path already, if any: equal contents are not sent again.
    pub held: Option<Digest>,
    /// How many bytes those are: of a file that begins with them only the rest is sent. 0 when that is of no use.
    pub held_len: u64,
}

/// What became of one file of a [`PackRequest`], in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackedFile {
    /// Its contents follow in the pack's data: the next `len` bytes.
    Contents {
        /// The file as it was when it was read (its size is `len`).
        entry: Entry,
        /// Bytes of contents.
        len: u64,
        /// Digest of the contents.
        digest: Digest,
    },
    /// It begins with what the target holds; the rest of its contents follows in the pack's data: the next `len` bytes.
    Tail {
        /// The file as it was when it was read (its size is `from + len`).
        entry: Entry,
        /// Bytes that the target holds.
        from: u64,
        /// Bytes that follow.
        len: u64,
        /// Digest of all the contents.
        digest: Digest,
    },
    /// Its contents are those the target holds.
    Same {
        /// The file as it was when it was read.
        entry: Entry,
    },
    /// It has vanished, or is no regular file any more: the next scan will tell.
    Gone {
        /// The path asked for.
        path: RelPath,
    },
    /// It has grown into a large file, or kept changing while it was read: it must be asked for alone.
    Unfit {
        /// The path asked for.
        path: RelPath,
    },
}

/// Several small files, whole and in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackChunk {
    /// What became of each file asked for, in the order of the request.
    pub files: Vec<PackedFile>,
    /// The contents, one after the other.
    pub data: Bytes,
}

impl PackChunk {
    /// Every file with its own contents (empty where none follow); `None` when the lengths do not add up.
    pub fn contents(&self) -> Option<Vec<(&PackedFile, Bytes)>> {
        let mut at = 0_usize;
        let mut out = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let len = match file {
                PackedFile::Contents { len, .. } | PackedFile::Tail { len, .. } => {
                    usize::try_from(*len).ok()?
                }
                _ => 0,
            };
            let end = at.checked_add(len).filter(|end| *end <= self.data.len())?;
            out.push((file, self.data.slice(at..end)));
            at = end;
        }
        (at == self.data.len()).then_some(out)
    }

    /// True when lengths and digests are those of the data.
    pub fn is_whole(&self) -> bool {
        self.contents().is_some_and(|files| {
            files.iter().all(|(file, data)| match file {
                PackedFile::Contents { digest, entry, len } => {
                    Digest::of(data) == *digest && entry.size() == Some(*len)
                }
                // Its digest is that of all of it: whoever has the beginning can tell.
                PackedFile::Tail { entry, from, len, .. } => entry.size() == from.checked_add(*len),
                _ => true,
            })
        })
    }
}

/// One block of a large file, as cut by content: its length and digest. A run of zeros that is a hole in the
/// file has `digest: None` and no contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Bytes.
    pub len: u32,
    /// Digest of the contents; `None` for a hole.
    pub digest: Option<Digest>,
}

/// A request for the contents of one large file, from an offset to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRequest {
    /// The tree.
    pub dataset: DatasetName,
    /// The file.
    pub path: RelPath,
    /// Where to go on: 0, or the end of the last block that the journal holds.
    pub offset: u64,
    /// With `offset > 0`: the entry as it was when the first part was read. If the file has changed since, the
    /// source answers with [`SegmentEnd::Changed`] at once.
    pub begun_as: Option<Entry>,
    /// Blocks of a file that the target has (the last version of this one), in its order: those found again are
    /// named, not sent. Describes the basis from its first byte, whatever `offset` is.
    pub basis: Vec<Block>,
}

/// A part of a large file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next `len` bytes of the segment's data.
    Data(Block),
    /// These blocks of the basis: `count` of them from number `first` on.
    Basis {
        /// Number of the first block in [`FileRequest::basis`].
        first: u32,
        /// How many.
        count: u32,
    },
    /// A hole of this many bytes. Holes may be longer than a block can say.
    Hole {
        /// Bytes.
        len: u64,
    },
}

/// How a large file's stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentEnd {
    /// All of it was sent, and it did not change meanwhile. The entry as it was.
    Whole(Entry),
    /// It changed while it was read, or since the part that the target holds: ask again from the start, with what
    /// arrived as the basis.
    Changed,
    /// It has vanished, or is no regular file any more.
    Gone,
}

/// Consecutive pieces of one large file, whole and in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The file as it was when reading began.
    pub entry: Entry,
    /// Where the first piece lies in the file.
    pub offset: u64,
    /// The pieces, in order.
    pub pieces: Vec<Piece>,
    /// Contents of the `Data` pieces, one after the other.
    pub data: Bytes,
    /// Set on the last segment.
    pub end: Option<SegmentEnd>,
}

impl Segment {
    /// True when lengths and digests of the data pieces are those of the data.
    pub fn is_whole(&self) -> bool {
        let mut at = 0_usize;
        for piece in &self.pieces {
            let Piece::Data(block) = piece else { continue };
            let end = at.saturating_add(block.len as usize);
            let Some(data) = self.data.get(at..end) else { return false };
            if block.digest != Some(Digest::of(data)) {
                return false;
            }
            at = end;
        }
        at == self.data.len()
    }
}
