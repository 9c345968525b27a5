//! Valid bytes, to be changed.

use std::collections::BTreeMap;

use bytes::Bytes;
use handover_engine::chunk::Chunk;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::rows::{
    Ddl, HeldChunk, Key, KeyRange, RowsChunk, RowsHeader, RowsRequest, RowsWanted, Schema, SnapshotId,
    TableName,
};
use handover_engine::time::Timestamp;
use handover_engine::tree::{
    Block, Entry, EntryKind, Meta, PackChunk, PackItem, PackRequest, PackedFile, Piece, RelPath, Segment,
    SegmentEnd, Stamp,
};
use handover_proto::v1;
use handover_transport::frames::{Compressor, frames};
use handover_transport::wire::IntoWire;
use prost::Message;

pub fn rows_blocks() -> Vec<Vec<u8>> {
    [&b"i1\tta\\tb\\\\\n\\N\tb\\0\n"[..], b"\n", b"", b"a\\nb\tc\n\n"].map(<[u8]>::to_vec).into()
}

pub fn sqlite_rows() -> Vec<Vec<u8>> {
    let rows: [(u8, &[u8]); 3] =
        [(5, b"i-42\tr3ff0000000000000\tttext\\n\tb\\0\\\\\t\\N"), (1, b"i9223372036854775807"), (1, b"t")];
    rows.map(|(width, row)| [&[width], row].concat()).into()
}

fn range() -> KeyRange {
    KeyRange { after: Some(Key(Bytes::from_static(b"i1"))), until: Some(Key(Bytes::from_static(b"i9"))) }
}

fn rows() -> RowsChunk {
    let block = Bytes::from_static(b"i2\tta\ni9\ttb\n");
    let digest = Digest::of(&block);
    let header = RowsHeader {
        table: TableName::plain("t"),
        range: range(),
        rows: 2,
        bytes: 12,
        digest,
        unchanged: false,
    };
    RowsChunk { header, block }
}

fn entry(kind: EntryKind) -> Entry {
    let time = Timestamp { seconds: -1, nanos: 999_999_999 };
    let xattrs = BTreeMap::from([(b"user.a".to_vec(), b"b".to_vec())]);
    Entry {
        path: RelPath::new("a/b").unwrap(),
        kind,
        meta: Meta { mode: 0o4755, uid: 1, gid: 2, mtime: time, xattrs },
        stamp: Stamp { inode: 3, size: 5, mtime: time, ctime: time },
    }
}

fn file() -> Entry {
    entry(EntryKind::File { size: 5, sparse: false, linked: true })
}

fn block() -> Block {
    Block { len: 5, digest: Some(Digest::of(b"hello")) }
}

fn packed() -> Vec<PackedFile> {
    let path = RelPath::new("c").unwrap();
    vec![
        PackedFile::Contents { entry: file(), len: 5, digest: Digest::of(b"hello") },
        PackedFile::Same { entry: file() },
        PackedFile::Gone { path: path.clone() },
        PackedFile::Unfit { path },
    ]
}

fn pieces() -> Vec<Piece> {
    vec![Piece::Data(block()), Piece::Hole { len: 1 << 40 }, Piece::Basis { first: 7, count: 2 }]
}

pub fn frame_streams() -> Vec<Vec<u8>> {
    let data = Bytes::from_static(b"hello");
    let pack = Chunk::Pack(PackChunk { files: packed(), data: data.clone() });
    let end = Some(SegmentEnd::Whole(file()));
    let segment = Chunk::Segment(Segment { entry: file(), offset: 9, pieces: pieces(), data, end });
    let long = Bytes::from("a row\n".repeat(1000));
    let mut header = rows().header;
    (header.bytes, header.digest) = (long.len() as u64, Digest::of(&long));
    let long = Chunk::Rows(RowsChunk { header, block: long });
    let chunks = [Chunk::Rows(rows()), pack, segment, long];
    let stream = |chunks: &[Chunk]| {
        let mut compressor = Compressor::default();
        let sent = chunks.iter().flat_map(|chunk| frames(chunk.clone(), &mut compressor));
        sent.flat_map(|frame| frame.encode_length_delimited_to_vec()).collect()
    };
    chunks.chunks(1).map(stream).chain([stream(&chunks)]).collect()
}

pub fn wire_messages() -> Vec<Vec<u8>> {
    let held = HeldChunk { range: range(), rows: 2, bytes: 12, digest: Digest::of(b"x") };
    let request = |wanted| RowsRequest {
        lease: "l-1".parse().unwrap(),
        snapshot: SnapshotId("s".into()),
        table: TableName { schema: "public".into(), name: "t".into() },
        wanted,
        budget: 1 << 20,
    };
    let files =
        vec![PackItem { path: RelPath::new("c").unwrap(), held: Some(Digest::of(b"y")), held_len: 1 }];
    let pack = PackRequest { dataset: "www".parse().unwrap(), files };
    let mut out = Vec::new();
    let mut add = |which: u8, message: Vec<u8>| out.push([&[which], &message[..]].concat());
    for wanted in [RowsWanted::Range(range()), RowsWanted::Recheck(vec![held.clone()])] {
        add(0, IntoWire::<v1::RowsRequest>::into_wire(request(wanted)).encode_to_vec());
    }
    add(1, held.into_wire().encode_to_vec());
    add(2, rows().header.into_wire().encode_to_vec());
    let to = RelPath::new("a").unwrap();
    let target = b"../x".to_vec();
    let device = EntryKind::Device { block: true, major: 8, minor: 1 };
    let kinds = [EntryKind::HardLink { to }, EntryKind::Symlink { target }, EntryKind::Fifo, device];
    for entry in kinds.into_iter().map(entry).chain([file()]) {
        add(3, entry.into_wire().encode_to_vec());
    }
    add(4, block().into_wire().encode_to_vec());
    add(5, pack.into_wire().encode_to_vec());
    packed().into_iter().for_each(|file| add(6, file.into_wire().encode_to_vec()));
    pieces().into_iter().for_each(|piece| add(7, piece.into_wire().encode_to_vec()));
    out
}

pub fn documents() -> Vec<Vec<u8>> {
    let ddl = Ddl { kind: "table".into(), name: "t".into(), sql: "CREATE TABLE t (a)".into() };
    let schema = Schema {
        engine: "sqlite".into(),
        version: "3".into(),
        settings: BTreeMap::from([("encoding".into(), "UTF-8".into())]),
        before_load: vec![ddl],
        after_load: Vec::new(),
        state: BTreeMap::new(),
        tables: Vec::new(),
    };
    let failure = Failure::operator("files www", "cannot be read").hint("mount it");
    vec![serde_json::to_vec(&schema).unwrap(), serde_json::to_vec(&failure).unwrap()]
}
