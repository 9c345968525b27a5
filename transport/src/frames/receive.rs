//! Frames back into chunks, with every bound checked before memory is given.

use bytes::{Bytes, BytesMut};
use handover_engine::chunk::{Chunk, MAX_CHUNK_BYTES};
use handover_engine::failure::Failure;
use handover_engine::rows::RowsChunk;
use handover_engine::tree::{PackChunk, Segment};
use handover_proto::v1;
use v1::data::Compression;

use crate::FRAME_BYTES;
use crate::wire::{BadField, FromWire};

/// A frame that cannot be part of a sound stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// A frame without contents, or of a kind that this release does not know.
    #[error("a frame of an unknown kind")]
    Unknown,
    /// Data before any header, or after all announced bytes have arrived.
    #[error("a data frame where a header belongs")]
    Stray,
    /// A header before the last chunk's bytes have arrived.
    #[error("a chunk of {expected} bytes ended after {found}")]
    CutOff {
        /// Bytes announced.
        expected: u64,
        /// Bytes that arrived.
        found: u64,
    },
    /// More than a frame or a chunk may hold.
    #[error("{bytes} bytes where at most {most} are allowed")]
    TooLarge {
        /// Bytes announced.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// The payload does not decompress to exactly the announced length.
    #[error("a frame's payload does not decompress to its announced {0} bytes")]
    Corrupt(u32),
    /// A header with a bad field.
    #[error(transparent)]
    Header(#[from] BadField),
}

impl From<BadFrame> for Failure {
    fn from(bad: BadFrame) -> Failure {
        Failure::transient("stream from the source", "a frame was refused")
            .because(bad)
            .hint("it is asked for again; if it stays so, compare the releases of both agents")
    }
}

/// Puts chunks together from frames. Memory grows with what has arrived, never with what was announced.
#[derive(Default)]
pub struct Receiver {
    open: Option<(v1::ChunkHeader, BytesMut)>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Receiver {
    /// Takes one frame; returns a chunk when it is complete.
    pub fn take(&mut self, frame: v1::Frame) -> Result<Option<Chunk>, BadFrame> {
        match frame.kind {
            Some(v1::frame::Kind::Header(header)) => self.header(header)?,
            Some(v1::frame::Kind::Data(data)) => self.data(data)?,
            None => return Err(BadFrame::Unknown),
        }
        match self.open.take_if(|(header, data)| data.len() as u64 == header.data_len) {
            Some((header, data)) => chunk(header, data.freeze()).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes of the unfinished chunk that have arrived.
    pub fn arrived(&self) -> usize {
        self.open.as_ref().map_or(0, |(_, data)| data.len())
    }

    /// The stream has ended: an error when it ended in the middle of a chunk.
    pub fn end(&self) -> Result<(), BadFrame> {
        match &self.open {
            Some((header, data)) => {
                Err(BadFrame::CutOff { expected: header.data_len, found: data.len() as u64 })
            }
            None => Ok(()),
        }
    }

    fn header(&mut self, header: v1::ChunkHeader) -> Result<(), BadFrame> {
        self.end()?;
        if header.data_len > MAX_CHUNK_BYTES {
            return Err(BadFrame::TooLarge { bytes: header.data_len, most: MAX_CHUNK_BYTES });
        }
        let room = usize::try_from(header.data_len).unwrap_or(usize::MAX).min(4 * FRAME_BYTES);
        self.open = Some((header, BytesMut::with_capacity(room)));
        Ok(())
    }

    fn data(&mut self, data: v1::Data) -> Result<(), BadFrame> {
        let (header, open) = self.open.as_mut().ok_or(BadFrame::Stray)?;
        let raw_len = data.raw_len as usize;
        if raw_len > FRAME_BYTES {
            return Err(BadFrame::TooLarge { bytes: u64::from(data.raw_len), most: FRAME_BYTES as u64 });
        }
        let total = (open.len() + raw_len) as u64;
        if raw_len == 0 || total > header.data_len {
            return Err(BadFrame::TooLarge { bytes: total, most: header.data_len });
        }
        match Compression::try_from(data.compression) {
            Ok(Compression::None) if data.payload.len() == raw_len => open.extend_from_slice(&data.payload),
            Ok(Compression::None) => return Err(BadFrame::Corrupt(data.raw_len)),
            Ok(Compression::Zstd) => {
                let start = open.len();
                open.resize(start + raw_len, 0);
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|_| BadFrame::Unknown)?),
                };
                // The destination is exactly as large as announced: a decompression bomb has nowhere to go.
                let written = zstd.decompress_to_buffer(&data.payload, &mut open[start..]);
                if written.ok() != Some(raw_len) {
                    return Err(BadFrame::Corrupt(data.raw_len));
                }
            }
            Err(_) => return Err(BadFrame::Unknown),
        }
        Ok(())
    }
}

fn chunk(header: v1::ChunkHeader, data: Bytes) -> Result<Chunk, BadFrame> {
    use v1::chunk_header::Kind;
    Ok(match header.kind.ok_or(BadFrame::Unknown)? {
        Kind::Rows(header) => Chunk::Rows(RowsChunk { header: FromWire::from_wire(header)?, block: data }),
        Kind::Pack(header) => {
            let files = header.files.into_iter().map(FromWire::from_wire).collect::<Result<_, BadField>>()?;
            Chunk::Pack(PackChunk { files, data })
        }
        Kind::Segment(header) => {
            let entry =
                header.entry.ok_or(BadField { field: "segment.entry", problem: "is missing".into() })?;
            let pieces =
                header.pieces.into_iter().map(FromWire::from_wire).collect::<Result<_, BadField>>()?;
            let end = header.end.map(FromWire::from_wire).transpose()?;
            Chunk::Segment(Segment {
                entry: FromWire::from_wire(entry)?,
                offset: header.offset,
                pieces,
                data,
                end,
            })
        }
        Kind::Probe(_) => return Err(BadFrame::Unknown),
    })
}
