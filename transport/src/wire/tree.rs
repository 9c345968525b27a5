//! Files on the wire.

use handover_engine::time::Timestamp;
use handover_engine::tree::{
    Block, Entry, EntryKind, Meta, PackItem, PackRequest, PackedFile, Piece, RelPath, SegmentEnd, Stamp,
};
use handover_proto::v1;
use v1::entry::Kind;

use super::{BadField, digest, name, required};

/// A path inside a tree.
pub(crate) fn path(field: &'static str, bytes: impl Into<Vec<u8>>) -> Result<RelPath, BadField> {
    RelPath::new(bytes).map_err(|bad| BadField::bad(field, bad))
}

impl From<Timestamp> for v1::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.seconds, nanos: time.nanos }
    }
}

fn time(field: &'static str, message: Option<v1::Timestamp>) -> Result<Timestamp, BadField> {
    let v1::Timestamp { seconds, nanos } = required(field, message)?;
    if nanos >= 1_000_000_000 {
        return Err(BadField::bad(field, "has more nanoseconds than a second"));
    }
    Ok(Timestamp { seconds, nanos })
}

impl From<Stamp> for v1::Stamp {
    fn from(stamp: Stamp) -> Self {
        let Stamp { inode, size, mtime, ctime } = stamp;
        Self { inode, size, mtime: Some(mtime.into()), ctime: Some(ctime.into()) }
    }
}

fn stamp(message: Option<v1::Stamp>) -> Result<Stamp, BadField> {
    let v1::Stamp { inode, size, mtime, ctime } = required("entry.stamp", message)?;
    Ok(Stamp { inode, size, mtime: time("stamp.mtime", mtime)?, ctime: time("stamp.ctime", ctime)? })
}

impl From<Entry> for v1::Entry {
    fn from(entry: Entry) -> Self {
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
        Self {
            path: Vec::from(entry.path).into(),
            kind: Some(kind),
            mode,
            uid,
            gid,
            mtime: Some(mtime.into()),
            xattrs: xattrs.into_iter().map(xattr).collect(),
            stamp: Some(entry.stamp.into()),
        }
    }
}

impl TryFrom<v1::Entry> for Entry {
    type Error = BadField;
    fn try_from(message: v1::Entry) -> Result<Self, BadField> {
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

impl From<Block> for v1::Block {
    fn from(block: Block) -> Self {
        let digest = block.digest.map(|digest| digest.0.to_vec()).unwrap_or_default();
        Self { len: block.len, digest: digest.into() }
    }
}

impl TryFrom<v1::Block> for Block {
    type Error = BadField;
    fn try_from(message: v1::Block) -> Result<Self, BadField> {
        let digest = if message.digest.is_empty() { None } else { Some(digest("block.digest", &message.digest)?) };
        Ok(Self { len: message.len, digest })
    }
}

impl From<PackRequest> for v1::PackRequest {
    fn from(request: PackRequest) -> Self {
        let item = |item: PackItem| v1::PackItem {
            path: Vec::from(item.path).into(),
            held: item.held.map(|digest| digest.0.to_vec()).unwrap_or_default().into(),
        };
        Self { dataset: request.dataset.into(), files: request.files.into_iter().map(item).collect() }
    }
}

impl TryFrom<v1::PackRequest> for PackRequest {
    type Error = BadField;
    fn try_from(message: v1::PackRequest) -> Result<Self, BadField> {
        let item = |item: v1::PackItem| {
            let held = if item.held.is_empty() { None } else { Some(digest("files.held", &item.held)?) };
            Ok(PackItem { path: path("files.path", item.path)?, held })
        };
        if message.files.len() > handover_engine::tree::PACK_FILES {
            return Err(BadField::bad("files", "are more than a pack may hold"));
        }
        let files = message.files.into_iter().map(item).collect::<Result<_, BadField>>()?;
        Ok(Self { dataset: name("dataset", &message.dataset)?, files })
    }
}

impl From<PackedFile> for v1::PackedFile {
    fn from(file: PackedFile) -> Self {
        use v1::packed_file::Kind;
        let kind = match file {
            PackedFile::Contents { entry, len, digest } => {
                Kind::Contents(v1::Contents { entry: Some(entry.into()), len, digest: digest.0.to_vec().into() })
            }
            PackedFile::Same { entry } => Kind::Same(entry.into()),
            PackedFile::Gone { path } => Kind::Gone(Vec::from(path).into()),
            PackedFile::Unfit { path } => Kind::Unfit(Vec::from(path).into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::PackedFile> for PackedFile {
    type Error = BadField;
    fn try_from(message: v1::PackedFile) -> Result<Self, BadField> {
        use v1::packed_file::Kind;
        Ok(match required("file.kind", message.kind)? {
            Kind::Contents(contents) => PackedFile::Contents {
                entry: required("contents.entry", contents.entry)?.try_into()?,
                len: contents.len,
                digest: digest("contents.digest", &contents.digest)?,
            },
            Kind::Same(entry) => PackedFile::Same { entry: entry.try_into()? },
            Kind::Gone(bytes) => PackedFile::Gone { path: path("file.gone", bytes)? },
            Kind::Unfit(bytes) => PackedFile::Unfit { path: path("file.unfit", bytes)? },
        })
    }
}

impl From<Piece> for v1::Piece {
    fn from(piece: Piece) -> Self {
        use v1::piece::Kind;
        let kind = match piece {
            Piece::Data(block) => Kind::Data(block.into()),
            Piece::Basis { first, count } => Kind::Basis(v1::BasisRun { first, count }),
            Piece::Hole { len } => Kind::Hole(len),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Piece> for Piece {
    type Error = BadField;
    fn try_from(message: v1::Piece) -> Result<Self, BadField> {
        use v1::piece::Kind;
        Ok(match required("piece.kind", message.kind)? {
            Kind::Data(block) => Piece::Data(block.try_into()?),
            Kind::Basis(v1::BasisRun { first, count }) => Piece::Basis { first, count },
            Kind::Hole(len) => Piece::Hole { len },
        })
    }
}

impl From<SegmentEnd> for v1::segment_header::End {
    fn from(end: SegmentEnd) -> Self {
        match end {
            SegmentEnd::Whole(entry) => Self::Whole(entry.into()),
            SegmentEnd::Changed => Self::Changed(v1::Changed {}),
            SegmentEnd::Gone => Self::Gone(v1::Gone {}),
        }
    }
}

impl TryFrom<v1::segment_header::End> for SegmentEnd {
    type Error = BadField;
    fn try_from(message: v1::segment_header::End) -> Result<Self, BadField> {
        use v1::segment_header::End;
        Ok(match message {
            End::Whole(entry) => SegmentEnd::Whole(entry.try_into()?),
            End::Changed(_) => SegmentEnd::Changed,
            End::Gone(_) => SegmentEnd::Gone,
        })
    }
}
