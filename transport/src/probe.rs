//! Incompressible bytes from memory, through the same frames as everything else: how fast is the way?

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use handover_proto::v1;
use tonic::Status;

use crate::FRAME_BYTES;

/// Bytes that one chunk of a probe announces.
const CHUNK: u64 = 64 << 20;
/// No probe is longer than this.
const MOST: u64 = 64 << 30;

/// `bytes` of noise as frames.
pub fn frames(bytes: u64) -> BoxStream<'static, Result<v1::Frame, Status>> {
    let noise = noise();
    let left = bytes.min(MOST);
    // State: bytes left in all, and bytes left of the announced chunk.
    let frames = futures::stream::unfold((left, 0_u64), move |(left, open)| {
        let noise = noise.clone();
        async move {
            if open == 0 {
                let data_len = left.min(CHUNK);
                let header = header(data_len);
                return (data_len > 0).then_some((Ok(header), (left, data_len)));
            }
            let len = open.min(FRAME_BYTES as u64);
            let payload = noise.slice(..len as usize);
            let compression = v1::data::Compression::None.into();
            let data = v1::Data { compression, raw_len: len as u32, payload };
            let frame = v1::Frame { kind: Some(v1::frame::Kind::Data(data)) };
            Some((Ok(frame), (left - len, open - len)))
        }
    });
    frames.boxed()
}

fn header(data_len: u64) -> v1::Frame {
    let kind = Some(v1::chunk_header::Kind::Probe(v1::ProbeHeader {}));
    v1::Frame { kind: Some(v1::frame::Kind::Header(v1::ChunkHeader { data_len, kind })) }
}

fn noise() -> Bytes {
    let mut out = vec![0; FRAME_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"handover probe");
    hasher.finalize_xof().fill(&mut out);
    out.into()
}

/// Bytes of noise in a frame, checked like any other frame's.
pub fn received(frame: &v1::Frame) -> u64 {
    match &frame.kind {
        Some(v1::frame::Kind::Data(data)) if data.payload.len() == data.raw_len as usize => {
            u64::from(data.raw_len)
        }
        _ => 0,
    }
}
