//! Compression that adapts: to the link by its level, to the data by leaving alone what does not shrink.

use std::time::Duration;

use bytes::Bytes;
use handover_proto::v1;
use v1::data::Compression;

/// The level that a stream begins with.
const FIRST_LEVEL: i32 = 1;
/// The fastest level used: below it zstd gains little speed.
const FASTEST: i32 = -5;
/// The strongest level used: beyond it zstd needs more time than any link is worth.
const STRONGEST: i32 = 9;
/// A frame that keeps more than this share of its size is sent as it is.
const WORTHWHILE: f64 = 0.95;
/// After a frame that did not shrink, this many are sent as they are before the next attempt.
const SKIP: u32 = 7;

/// The time that a chunk took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Took {
    /// To be compressed.
    pub compressing: Duration,
    /// Waiting for the link then.
    pub waiting: Duration,
}

/// Compresses the frames of one stream at a time.
pub struct Compressor {
    level: i32,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// Where a frame is compressed to: its size is that of the worst case, which frames that wait must not hold on to.
    room: Vec<u8>,
    skip: u32,
}

impl Default for Compressor {
    fn default() -> Self {
        Self {
            level: FIRST_LEVEL,
            zstd: zstd::bulk::Compressor::new(FIRST_LEVEL).ok(),
            room: Vec::new(),
            skip: 0,
        }
    }
}

impl Compressor {
    /// The level in use.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// One frame's data, compressed where that is worth it.
    pub fn data(&mut self, raw: Bytes) -> v1::Data {
        let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        match self.compressed(&raw) {
            Some(payload) => v1::Data { compression: Compression::Zstd.into(), raw_len, payload },
            None => v1::Data { compression: Compression::None.into(), raw_len, payload: raw },
        }
    }

    fn compressed(&mut self, raw: &[u8]) -> Option<Bytes> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.room.clear();
        self.room.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let len = self.zstd.as_mut()?.compress_to_buffer(raw, &mut self.room).ok()?;
        let payload = self.room.get(..len)?;
        if payload.len() as f64 > raw.len() as f64 * WORTHWHILE {
            self.skip = SKIP;
            return None;
        }
        Some(Bytes::copy_from_slice(payload))
    }

    /// Tells what the last chunk took: a link that makes it wait deserves smaller frames, a link that does not deserves them sooner.
    pub fn adapt(&mut self, Took { compressing, waiting }: Took) {
        let level = if waiting > compressing * 2 {
            (self.level + 1).min(STRONGEST)
        } else if waiting * 2 < compressing {
            (self.level - 1).max(FASTEST)
        } else {
            self.level
        };
        // Level 0 means zstd's default, 3.
        let level = if level == 0 { level + (level - self.level).signum() } else { level };
        if level != self.level
            && self.zstd.as_mut().is_some_and(|zstd| zstd.set_compression_level(level).is_ok())
        {
            self.level = level;
        }
    }
}
