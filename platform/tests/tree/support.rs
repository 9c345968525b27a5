//! Two trees and a small driver between them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};
use handover_engine::digest::Digest;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Answers, Result, TreeOp, TreeReader, TreeTarget};
use handover_engine::tree::{
    Block, Entry, EntryKind, FileRequest, PackChunk, PackItem, PackedFile, Piece, RelPath, Segment,
    SegmentEnd,
};
use handover_platform::tree::{FileTree, Filter, Reader, Target};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};

pub fn path(text: impl AsRef<[u8]>) -> RelPath {
    RelPath::new(text.as_ref()).unwrap()
}

pub fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Entries by path, without what never arrives.
pub type Listing = BTreeMap<RelPath, Entry>;

pub async fn list(scan: Answers<Vec<Entry>>) -> Listing {
    let entries: Vec<Vec<Entry>> = scan.try_collect().await.unwrap();
    assert!(entries.iter().all(|batch| batch.len() <= 1024));
    let entries: Vec<Entry> = entries.into_iter().flatten().collect();
    assert!(entries.is_sorted_by(|a, b| a.path < b.path), "not in tree order");
    assert!(entries[0].path.is_root());
    let strip = |mut entry: Entry| {
        entry.stamp = Default::default();
        (entry.path.clone(), entry)
    };
    entries.into_iter().map(strip).collect()
}

pub struct Pair {
    pub source: PathBuf,
    pub target: PathBuf,
    pub filter: Filter,
    pub migration: MigrationId,
    /// What the journal would hold of large files.
    pub blocks: HashMap<RelPath, Vec<Block>>,
    /// Bytes of contents that large files cost.
    pub sent: u64,
    pub dir: tempfile::TempDir,
}

impl Pair {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        fs::create_dir(&source).unwrap();
        let (filter, migration) = (Filter::default(), "m-1".parse().unwrap());
        Self { source, target, filter, migration, blocks: HashMap::new(), sent: 0, dir }
    }

    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    pub fn reader(&self) -> Reader {
        FileTree::reader("www".parse().unwrap(), self.source.clone(), self.filter.clone())
    }

    pub fn target(&self) -> Target {
        FileTree::target("www".parse().unwrap(), self.target.clone(), self.filter.clone(), &self.migration)
    }

    /// Makes the target equal to the source. `held` says whether large files are compared with what is there.
    pub async fn copy(&mut self) -> Result<()> {
        let (reader, target) = (self.reader(), self.target());
        target.prepare().await?;
        let from: Vec<Entry> = reader.scan().try_concat_all().await?;
        let have = list(target.scan()).await;
        let mut ops = Vec::new();
        for entry in &from {
            let old = have.get(&entry.path).map(|e| std::mem::discriminant(&e.kind));
            match &entry.kind {
                EntryKind::File { .. }
                    if old.is_some_and(|old| old != std::mem::discriminant(&entry.kind)) =>
                {
                    ops.push(TreeOp::Remove(entry.path.clone()));
                }
                EntryKind::File { .. } | EntryKind::HardLink { .. } => {}
                _ => ops.push(TreeOp::Make(entry.clone())),
            }
        }
        target.change(&ops).await?;
        let small = from.iter().filter(|e| e.size().is_some() && !e.is_large());
        let items: Vec<PackItem> =
            small.map(|e| PackItem { path: e.path.clone(), held: None, held_len: 0 }).collect();
        for items in items.chunks(1024) {
            land_pack(&target, reader.pack(items.to_vec()).await?).await?;
        }
        for entry in from.iter().filter(|e| e.is_large()) {
            let whole = self.fetch(&reader, &target, &entry.path).await?;
            target.land(&[whole]).await?;
        }
        let gone = have.keys().filter(|path| !from.iter().any(|e| e.path == **path));
        let mut ops: Vec<TreeOp> = gone.cloned().map(TreeOp::Remove).collect();
        for entry in &from {
            if let EntryKind::HardLink { to } = &entry.kind {
                ops.push(TreeOp::Link { path: entry.path.clone(), to: to.clone() });
            }
        }
        let directories = from.iter().rev().filter(|e| e.kind == EntryKind::Directory);
        ops.extend(directories.cloned().map(TreeOp::Settle));
        target.change(&ops).await
    }

    pub async fn fetch(&mut self, reader: &Reader, target: &Target, path: &RelPath) -> Result<Entry> {
        let basis = self.blocks.remove(path).unwrap_or_default();
        let segments = segments(reader, path, 0, None, &basis).await?;
        let mut blocks = Vec::new();
        let mut end = None;
        for segment in segments {
            assert!(segment.is_whole());
            self.sent += segment.data.len() as u64;
            end = segment.end.clone();
            blocks.extend(target.write(segment, &basis).await?);
        }
        let Some(SegmentEnd::Whole(entry)) = end else { panic!("{end:?}") };
        self.blocks.insert(path.clone(), blocks);
        Ok(entry)
    }
}

/// All segments of a file.
pub async fn segments(
    reader: &Reader,
    path: &RelPath,
    offset: u64,
    begun_as: Option<Entry>,
    basis: &[Block],
) -> Result<Vec<Segment>> {
    let dataset = "www".parse().unwrap();
    let request = FileRequest { dataset, path: path.clone(), offset, begun_as, basis: basis.to_vec() };
    reader.file(request).try_collect().await
}

/// Where a segment ends.
pub fn end_of(segment: &Segment, basis: &[Block]) -> u64 {
    let len = |piece: &Piece| match piece {
        Piece::Data(block) => u64::from(block.len),
        Piece::Hole { len } => *len,
        Piece::Basis { first, count } => {
            basis[*first as usize..(first + count) as usize].iter().map(|b| u64::from(b.len)).sum()
        }
    };
    segment.offset + segment.pieces.iter().map(len).sum::<u64>()
}

pub async fn land_pack(target: &Target, pack: PackChunk) -> Result<()> {
    assert!(pack.is_whole());
    let entries: Vec<Entry> = pack
        .files
        .iter()
        .filter_map(|file| match file {
            PackedFile::Contents { entry, .. }
            | PackedFile::Tail { entry, .. }
            | PackedFile::Same { entry } => Some(entry.clone()),
            _ => None,
        })
        .collect();
    target.stage(pack).await?;
    let stamps = target.land(&entries).await?;
    assert_eq!(stamps.len(), entries.len());
    Ok(())
}

pub trait ConcatAll {
    async fn try_concat_all(self) -> Result<Vec<Entry>>;
}

impl ConcatAll for Answers<Vec<Entry>> {
    async fn try_concat_all(mut self) -> Result<Vec<Entry>> {
        let mut out = Vec::new();
        while let Some(batch) = self.next().await {
            out.extend(batch?);
        }
        Ok(out)
    }
}

/// Contents of every regular file, by path.
pub fn contents(root: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let path = entry.path();
            if kind.is_dir() && entry.file_name() != ".handover" {
                todo.push(path);
            } else if kind.is_file() {
                let digest = Digest::of(&fs::read(&path).unwrap());
                out.insert(path.strip_prefix(root).unwrap().to_owned(), digest);
            }
        }
    }
    out
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// `user::rwx, user:1000:r--, group::r--, mask::r--, other::---` as the kernel stores it.
pub fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    for (tag, permissions, id) in
        [(1_u16, 7_u16, nobody), (2, 4, 1000), (4, 4, nobody), (16, 4, nobody), (32, 0, nobody)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// One of everything.
pub fn plant(root: &Path) {
    let write = |name: &[u8], data: &[u8]| fs::write(root.join(OsStr::from_bytes(name)), data).unwrap();
    for dir in ["empty/in/side", "modes", "a", "a-b"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for name in [&b"no utf-8 \xff"[..], b"new\nline", b" spaces ", b"a/x", b"a-b/x", b"back\\slash", b"*?[x]"]
    {
        write(name, name);
    }
    write(b"nothing", b"");
    fs::hard_link(root.join("a/x"), root.join("a-b/hard")).unwrap();
    fs::hard_link(root.join("a/x"), root.join("z-hard")).unwrap();
    symlink("../../etc/passwd", root.join("link")).unwrap();
    symlink(OsStr::from_bytes(b"odd \xff"), root.join("a/dangling")).unwrap();
    for mode in [0o400, 0o644, 0o4755, 0o2755, 0o1600] {
        let file = root.join(format!("modes/{mode:o}"));
        fs::write(&file, "mode").unwrap();
        if mode == 0o400 {
            set_xattr(&file, "user.read-only", b"kept");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["with attributes", "dir with attributes"] {
        let place = root.join(name);
        if name.starts_with("dir") {
            fs::create_dir(&place).unwrap();
        } else {
            fs::write(&place, name).unwrap();
        }
        set_xattr(&place, "user.comment", b"binary \0 \xff");
        set_xattr(&place, "user.empty", b"");
        set_xattr(&place, "system.posix_acl_access", &acl());
    }
    set_xattr(&root.join("dir with attributes"), "system.posix_acl_default", &acl());
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"head", 0).unwrap();
    sparse.write_all_at(&noise(300_000, 7), 8 << 20).unwrap();
    sparse.set_len(12 << 20).unwrap();
    fs::File::create(root.join("only a hole")).unwrap().set_len(3 << 20).unwrap();
    write(b"large", &noise(5 << 20, 1));
    plant_as_root(root);
    // Nobody but root can copy into a directory that must not be written to.
    let mode = if is_root() { 0o1555 } else { 0o1755 };
    fs::set_permissions(root.join("modes"), fs::Permissions::from_mode(mode)).unwrap();
    for (n, name) in ["large", "a", "link", "sparse", "modes", "pipe", "nothing", ""].iter().enumerate() {
        set_mtime(&root.join(name), 1_000_000_000 + n as i64, 123_456_789);
    }
    set_mtime(&root.join("new\nline"), -5, 1);
}

fn plant_as_root(root: &Path) {
    if !is_root() {
        return;
    }
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    std::os::unix::fs::lchown(root.join("link"), Some(1234), Some(4321)).unwrap();
    std::os::unix::fs::chown(root.join("modes/4755"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(root.join("modes/4755"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(root.join("a"), Some(7), Some(8)).unwrap();
    std::os::unix::fs::chown(root.join("with attributes"), Some(1000), Some(1001)).unwrap();
    std::os::unix::fs::chown(root.join("large"), Some(1000), Some(1001)).unwrap();
    set_xattr(&root.join("with attributes"), "security.capability", &capability);
    set_xattr(&root.join("large"), "security.capability", &capability);
    set_xattr(&root.join("link"), "trusted.link", b"its own");
    let null = rustix::fs::makedev(1, 3);
    mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), null).unwrap();
    mknodat(
        CWD,
        root.join("loop"),
        FileType::BlockDevice,
        Mode::from_raw_mode(0o600),
        rustix::fs::makedev(7, 200),
    )
    .unwrap();
}

pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT, utimensat};
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
