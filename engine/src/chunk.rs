//! The unit of transfer: a header that describes it and the bytes it carries.

pub mod room;

use crate::rows::RowsChunk;
use crate::tree::{PackChunk, Segment};

/// No chunk may be larger than this once decompressed, whatever a peer says: room for one row of a gigabyte, the
/// most that any of the engines lets a value be.
pub const MAX_CHUNK_BYTES: u64 = (1 << 30) + (64 << 20);

/// A bounded, hashed part of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Rows of a table.
    Rows(RowsChunk),
    /// Several small files.
    Pack(PackChunk),
    /// Part of a large file.
    Segment(Segment),
}

impl Chunk {
    /// True when the bytes are those the header describes, by length and digest.
    pub fn is_whole(&self) -> bool {
        match self {
            Chunk::Rows(chunk) => chunk.is_whole(),
            Chunk::Pack(chunk) => chunk.is_whole(),
            Chunk::Segment(segment) => segment.is_whole(),
        }
    }
}
