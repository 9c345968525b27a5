//! Chunks as frames: one header, then the bytes in pieces of at most [`FRAME_BYTES`], each compressed by itself.

mod compress;
mod receive;

use bytes::Bytes;
use handover_engine::chunk::Chunk;
use handover_engine::rows::RowsChunk;
use handover_engine::tree::{PackChunk, Segment};
use handover_proto::v1;

pub use compress::{Compressor, Took};
pub use receive::{BadFrame, Receiver};

use crate::FRAME_BYTES;
use crate::wire::IntoWire;

/// A chunk's header message and its bytes.
pub fn split(chunk: Chunk) -> (v1::ChunkHeader, Bytes) {
    use v1::chunk_header::Kind;
    let (kind, data) = match chunk {
        Chunk::Rows(RowsChunk { header, block }) => (Kind::Rows(header.into_wire()), block),
        Chunk::Pack(PackChunk { files, data }) => {
            let files = files.into_iter().map(IntoWire::into_wire).collect();
            (Kind::Pack(v1::PackHeader { files }), data)
        }
        Chunk::Segment(Segment { entry, offset, pieces, data, end }) => {
            let header = v1::SegmentHeader {
                entry: Some(entry.into_wire()),
                offset,
                pieces: pieces.into_iter().map(IntoWire::into_wire).collect(),
                end: end.map(IntoWire::into_wire),
            };
            (Kind::Segment(header), data)
        }
    };
    (v1::ChunkHeader { data_len: data.len() as u64, kind: Some(kind) }, data)
}

/// The frames of a chunk. Compresses: call it where blocking is allowed.
pub fn frames(chunk: Chunk, compressor: &mut Compressor) -> Vec<v1::Frame> {
    let (header, data) = split(chunk);
    std::iter::once(header_frame(header)).chain(data_frames(data, compressor)).collect()
}

/// The frame that a chunk begins with.
pub fn header_frame(header: v1::ChunkHeader) -> v1::Frame {
    v1::Frame { kind: Some(v1::frame::Kind::Header(header)) }
}

/// The frames of a part of a chunk's bytes. Compresses: call it where blocking is allowed.
pub fn data_frames(mut data: Bytes, compressor: &mut Compressor) -> Vec<v1::Frame> {
    let mut frames = Vec::with_capacity(1 + data.len() / FRAME_BYTES);
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(FRAME_BYTES));
        frames.push(v1::Frame { kind: Some(v1::frame::Kind::Data(compressor.data(piece))) });
    }
    frames
}

#[cfg(test)]
pub(crate) mod tests;
