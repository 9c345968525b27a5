use handover_engine::digest::Digest;
use handover_engine::rows::{KeyRange, RowsHeader, TableName};
use proptest::prelude::*;

use super::*;

/// A chunk of rows with this block.
pub fn rows(block: Vec<u8>) -> Chunk {
    let header = RowsHeader {
        table: TableName::plain("t"),
        range: KeyRange::default(),
        rows: 1,
        bytes: block.len() as u64,
        digest: Digest::of(&block),
        unchanged: false,
    };
    Chunk::Rows(RowsChunk { header, block: block.into() })
}

fn receive(frames: impl IntoIterator<Item = v1::Frame>) -> Result<Vec<Chunk>, BadFrame> {
    let mut receiver = Receiver::default();
    let mut chunks = Vec::new();
    for frame in frames {
        chunks.extend(receiver.take(frame)?);
    }
    receiver.end()?;
    Ok(chunks)
}

fn header(data_len: u64) -> v1::Frame {
    let (mut header, _) = split(rows(Vec::new()));
    header.data_len = data_len;
    v1::Frame { kind: Some(v1::frame::Kind::Header(header)) }
}

fn data(compression: v1::data::Compression, raw_len: usize, payload: Vec<u8>) -> v1::Frame {
    let data = v1::Data { compression: compression.into(), raw_len: raw_len as u32, payload: payload.into() };
    v1::Frame { kind: Some(v1::frame::Kind::Data(data)) }
}

#[test]
fn refuses_what_breaks_a_bound() {
    use v1::data::Compression::{None, Zstd};
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let most = handover_engine::chunk::MAX_CHUNK_BYTES;
    let table = [
        (vec![data(None, 1, vec![1])], BadFrame::Stray),
        (vec![header(most + 1)], BadFrame::TooLarge { bytes: most + 1, most }),
        (vec![header(9), header(9)], BadFrame::CutOff { expected: 9, found: 0 }),
        (vec![header(9), data(None, 3, vec![0; 3])], BadFrame::CutOff { expected: 9, found: 3 }),
        (vec![header(2), data(None, 3, vec![0; 3])], BadFrame::TooLarge { bytes: 3, most: 2 }),
        (vec![header(9), data(None, 3, vec![0; 4])], BadFrame::Corrupt(3)),
        (vec![header(9), data(None, 0, vec![])], BadFrame::TooLarge { bytes: 0, most: 9 }),
        (vec![header(9), data(Zstd, 3, vec![0; 3])], BadFrame::Corrupt(3)),
        (vec![header(1 << 20), data(Zstd, 1 << 20, bomb.clone())], BadFrame::Corrupt(1 << 20)),
        (
            vec![header(64 << 20), data(Zstd, 64 << 20, bomb)],
            BadFrame::TooLarge { bytes: 64 << 20, most: FRAME_BYTES as u64 },
        ),
        (vec![v1::Frame { kind: Option::None }], BadFrame::Unknown),
    ];
    for (frames, expected) in table {
        assert_eq!(receive(frames), Err(expected));
    }
}

#[test]
fn incompressible_bytes_travel_as_they_are() {
    use rand_bytes as random;
    let mut compressor = Compressor::default();
    let sent = compressor.data(random(FRAME_BYTES).into());
    assert_eq!(sent.compression, i32::from(v1::data::Compression::None));
    let text = compressor.data(vec![b'a'; FRAME_BYTES].into());
    assert_eq!(text.payload.len(), FRAME_BYTES, "the next few are not tried");
    let text = (0..8).map(|_| compressor.data(vec![b'a'; FRAME_BYTES].into())).last().unwrap();
    assert!(text.payload.len() < FRAME_BYTES / 100, "but then text is noticed");
}

#[test]
fn the_level_follows_the_link() {
    use std::time::Duration;
    let (short, long) = (Duration::from_millis(1), Duration::from_millis(10));
    let took = |compressing, waiting| Took { compressing, waiting };
    let mut compressor = Compressor::default();
    (0..20).for_each(|_| compressor.adapt(took(short, long)));
    assert_eq!(compressor.level(), 9);
    (0..40).for_each(|_| compressor.adapt(took(long, short)));
    assert_eq!(compressor.level(), -5);
    compressor.adapt(took(short, short));
    assert_eq!(compressor.level(), -5);
}

fn rand_bytes(len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"noise");
    let mut out = vec![0; len];
    hasher.finalize_xof().fill(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn chunks_arrive_as_they_left(sizes in proptest::collection::vec(0_usize..(3 << 20), 1..4), noise: bool) {
        let mut compressor = Compressor::default();
        let chunks: Vec<Chunk> = sizes.iter()
            .map(|size| rows(if noise { rand_bytes(*size) } else { vec![7; *size] })).collect();
        let sent: Vec<v1::Frame> = chunks.iter().flat_map(|c| frames(c.clone(), &mut compressor)).collect();
        prop_assert_eq!(receive(sent).unwrap(), chunks);
    }

    #[test]
    fn any_message_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        use prost::Message;
        if let Ok(frame) = v1::Frame::decode(&bytes[..]) {
            let _ = receive([frame]);
        }
    }
}
