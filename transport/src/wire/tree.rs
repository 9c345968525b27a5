//! Files on the wire.

use handover_engine::ports::TreeOp;
use handover_engine::time::Timestamp;
use handover_engine::tree::{
    Block, Entry, EntryKind, Meta, PackItem, PackRequest, PackedFile, Piece, RelPath, SegmentEnd, Stamp,
};
use handover_proto::v1;
use v1::entry::Kind;

use super::{BadField, FromWire, IntoWire, digest, name, required};

/// A path inside a tree.
pub(crate) fn path(field: &'static str, bytes: impl Into<Vec<u8>>) -> Result<RelPath, BadField> {
    RelPath::new(bytes).map_err(|bad| BadField::bad(field, bad))
}

impl IntoWire<v1::Timestamp> for Timestamp {
    fn into_wire(self) -> v1::Timestamp {
        let time = self;
        v1::Timestamp { seconds: time.seconds, nanos: time.nanos }
    }
}

fn time(field: &'static str, message: Option<v1::Timestamp>) -> Result<Timestamp, BadField> {
    let v1::Timestamp { seconds, nanos } = required(field, message)?;
    if nanos >= 1_000_000_000 {
        return Err(BadField::bad(field, "has more nanoseconds than a second"));
    }
    Ok(Timestamp { seconds, nanos })
}

impl IntoWire<v1::Stamp> for Stamp {
    fn into_wire(self) -> v1::Stamp {
        let stamp = self;
        let Stamp { inode, size, mtime, ctime } = stamp;
        v1::Stamp { inode, size, mtime: Some(mtime.into_wire()), ctime: Some(ctime.into_wire()) }
    }
}

fn stamp(message: Option<v1::Stamp>) -> Result<Stamp, BadField> {
    let v1::Stamp { inode, size, mtime, ctime } = required("entry.stamp", message)?;
    Ok(Stamp { inode, size, mtime: time("stamp.mtime", mtime)?, ctime: time("stamp.ctime", ctime)? })
}

impl IntoWire<v1::Entry> for Entry {
    fn into_wire(self) -> v1::Entry {
        let entry = self;
        let kind = match entry.kind {
            EntryKind::File { size, sparse, linked } => Kind::File(v1::RegularFile { size, sparse, linked }),
            EntryKind::HardLink { to } => Kind::HardLink(v1::HardLink { to: Vec::from(to).into() }),
            EntryKind::Directory => Kind::Directory(v1::Directory {}),
            EntryKind::Symlink { target } => Kind::Symlink(v1::Symlink { target: target.into() }),
            EntryKind::Fifo => Kind::Fifo(v1::Fifo {}),
            EntryKind::Device { block, major, minor } => Kind::Device(v1::Device { block, major, minor }),
        };
        let Meta { mode, uid, gid, mtime, xattrs } = entry.meta;
        let xattr = |(name, value): (Vec<u8>, Vec<u8>)| v1::Xattr { name: name.into(), value: value.into() };
        v1::Entry {
            path: Vec::from(entry.path).into(),
            kind: Some(kind),
            mode,
            uid,
            gid,
            mtime: Some(mtime.into_wire()),
            xattrs: xattrs.into_iter().map(xattr).collect(),
            stamp: Some(entry.stamp.into_wire()),
        }
    }
}

impl FromWire<v1::Entry> for Entry {
    fn from_wire(message: v1::Entry) -> Result<Self, BadField> {
        let kind = match required("entry.kind", message.kind)? {
            Kind::File(v1::RegularFile { size, sparse, linked }) => EntryKind::File { size, sparse, linked },
            Kind::HardLink(link) => EntryKind::HardLink { to: path("hard_link.to", link.to)? },
            Kind::Directory(_) => EntryKind::Directory,
            Kind::Symlink(link) => EntryKind::Symlink { target: link.target.into() },
            Kind::Fifo(_) => EntryKind::Fifo,
            Kind::Device(v1::Device { block, major, minor }) => EntryKind::Device { block, major, minor },
        };
        if message.mode > 0o7777 {
            return Err(BadField::bad("entry.mode", "has bits beyond 07777"));
        }
        let xattrs = message.xattrs.into_iter().map(|xattr| (xattr.name.into(), xattr.value.into()));
        let meta = Meta {
            mode: message.mode,
            uid: message.uid,
            gid: message.gid,
            mtime: time("entry.mtime", message.mtime)?,
            xattrs: xattrs.collect(),
        };
        Ok(Self { path: path("entry.path", message.path)?, kind, meta, stamp: stamp(message.stamp)? })
    }
}

impl IntoWire<v1::TreeChange> for TreeOp {
    fn into_wire(self) -> v1::TreeChange {
        use v1::tree_change::Kind;
        let kind = match self {
            TreeOp::Make(entry) => Kind::Make(entry.into_wire()),
            TreeOp::Link { path, to } => {
                Kind::Link(v1::TreeLink { path: Vec::from(path).into(), to: Vec::from(to).into() })
            }
            TreeOp::Settle(entry) => Kind::Settle(entry.into_wire()),
            TreeOp::Remove(path) => Kind::Remove(Vec::from(path).into()),
        };
        v1::TreeChange { kind: Some(kind) }
    }
}

impl FromWire<v1::TreeChange> for TreeOp {
    fn from_wire(message: v1::TreeChange) -> Result<Self, BadField> {
        use v1::tree_change::Kind;
        Ok(match required("change.kind", message.kind)? {
            Kind::Make(entry) => TreeOp::Make(FromWire::from_wire(entry)?),
            Kind::Link(v1::TreeLink { path: name, to }) => {
                TreeOp::Link { path: path("link.path", name)?, to: path("link.to", to)? }
            }
            Kind::Settle(entry) => TreeOp::Settle(FromWire::from_wire(entry)?),
            Kind::Remove(name) => TreeOp::Remove(path("remove", name)?),
        })
    }
}

impl IntoWire<v1::Block> for Block {
    fn into_wire(self) -> v1::Block {
        let block = self;
        let digest = block.digest.map(|digest| digest.0.to_vec()).unwrap_or_default();
        v1::Block { len: block.len, digest: digest.into() }
    }
}

impl FromWire<v1::Block> for Block {
    fn from_wire(message: v1::Block) -> Result<Self, BadField> {
        let digest =
            if message.digest.is_empty() { None } else { Some(digest("block.digest", &message.digest)?) };
        Ok(Self { len: message.len, digest })
    }
}

impl IntoWire<v1::PackRequest> for PackRequest {
    fn into_wire(self) -> v1::PackRequest {
        let request = self;
        let item = |item: PackItem| v1::PackItem {
            path: Vec::from(item.path).into(),
            held: item.held.map(|digest| digest.0.to_vec()).unwrap_or_default().into(),
            held_len: item.held_len,
        };
        v1::PackRequest {
            dataset: request.dataset.into(),
            files: request.files.into_iter().map(item).collect(),
        }
    }
}

impl FromWire<v1::PackRequest> for PackRequest {
    fn from_wire(message: v1::PackRequest) -> Result<Self, BadField> {
        let item = |item: v1::PackItem| {
            let held = if item.held.is_empty() { None } else { Some(digest("files.held", &item.held)?) };
            Ok(PackItem { path: path("files.path", item.path)?, held, held_len: item.held_len })
        };
        if message.files.len() > handover_engine::tree::PACK_FILES {
            return Err(BadField::bad("files", "are more than a pack may hold"));
        }
        let files = message.files.into_iter().map(item).collect::<Result<_, BadField>>()?;
        Ok(Self { dataset: name("dataset", &message.dataset)?, files })
    }
}

impl IntoWire<v1::PackedFile> for PackedFile {
    fn into_wire(self) -> v1::PackedFile {
        let file = self;
        use v1::packed_file::Kind;
        let kind = match file {
            PackedFile::Contents { entry, len, digest } => Kind::Contents(v1::Contents {
                entry: Some(entry.into_wire()),
                len,
                digest: digest.0.to_vec().into(),
            }),
            PackedFile::Tail { entry, from, len, digest } => Kind::Tail(v1::Tail {
                entry: Some(entry.into_wire()),
                from,
                len,
                digest: digest.0.to_vec().into(),
            }),
            PackedFile::Same { entry } => Kind::Same(entry.into_wire()),
            PackedFile::Gone { path } => Kind::Gone(Vec::from(path).into()),
            PackedFile::Unfit { path } => Kind::Unfit(Vec::from(path).into()),
        };
        v1::PackedFile { kind: Some(kind) }
    }
}

impl FromWire<v1::PackedFile> for PackedFile {
    fn from_wire(message: v1::PackedFile) -> Result<Self, BadField> {
        use v1::packed_file::Kind;
        Ok(match required("file.kind", message.kind)? {
            Kind::Contents(contents) => PackedFile::Contents {
                entry: FromWire::from_wire(required("contents.entry", contents.entry)?)?,
                len: contents.len,
                digest: digest("contents.digest", &contents.digest)?,
            },
            Kind::Tail(tail) => PackedFile::Tail {
                entry: FromWire::from_wire(required("tail.entry", tail.entry)?)?,
                from: tail.from,
                len: tail.len,
                digest: digest("tail.digest", &tail.digest)?,
            },
            Kind::Same(entry) => PackedFile::Same { entry: FromWire::from_wire(entry)? },
            Kind::Gone(bytes) => PackedFile::Gone { path: path("file.gone", bytes)? },
            Kind::Unfit(bytes) => PackedFile::Unfit { path: path("file.unfit", bytes)? },
        })
    }
}

impl IntoWire<v1::Piece> for Piece {
    fn into_wire(self) -> v1::Piece {
        let piece = self;
        use v1::piece::Kind;
        let kind = match piece {
            Piece::Data(block) => Kind::Data(block.into_wire()),
            Piece::Basis { first, count } => Kind::Basis(v1::BasisRun { first, count }),
            Piece::Hole { len } => Kind::Hole(len),
        };
        v1::Piece { kind: Some(kind) }
    }
}

impl FromWire<v1::Piece> for Piece {
    fn from_wire(message: v1::Piece) -> Result<Self, BadField> {
        use v1::piece::Kind;
        Ok(match required("piece.kind", message.kind)? {
            Kind::Data(block) => Piece::Data(FromWire::from_wire(block)?),
            Kind::Basis(v1::BasisRun { first, count }) => Piece::Basis { first, count },
            Kind::Hole(len) => Piece::Hole { len },
        })
    }
}

impl IntoWire<v1::segment_header::End> for SegmentEnd {
    fn into_wire(self) -> v1::segment_header::End {
        let end = self;
        match end {
            SegmentEnd::Whole(entry) => v1::segment_header::End::Whole(entry.into_wire()),
            SegmentEnd::Changed => v1::segment_header::End::Changed(v1::Changed {}),
            SegmentEnd::Gone => v1::segment_header::End::Gone(v1::Gone {}),
        }
    }
}

impl FromWire<v1::segment_header::End> for SegmentEnd {
    fn from_wire(message: v1::segment_header::End) -> Result<Self, BadField> {
        use v1::segment_header::End;
        Ok(match message {
            End::Whole(entry) => SegmentEnd::Whole(FromWire::from_wire(entry)?),
            End::Changed(_) => SegmentEnd::Changed,
            End::Gone(_) => SegmentEnd::Gone,
        })
    }
}
