//! What stood in a target tree before the migration, and how it comes back.
//!
//! `.handover/before` lists it (JSON lines behind a header with a version and ahead of a checksum); what is replaced or
//! removed is kept under `.handover/undo/` at the same path. Undo makes the tree what the list says.

use std::collections::HashSet;
use std::ffi::CString;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::tree::{Entry, EntryKind, RelPath};
use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, renameat, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::STAGING;
use super::filter::Filter;
use super::meta;
use super::root::{Parents, Root};
use super::scan::{Walk, names};

/// Version of the list.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    migration: String,
    made_root: bool,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    entries: u64,
    digest: handover_engine::digest::Digest,
}

/// What the list says besides the entries.
pub struct Before {
    /// The root did not exist.
    pub made_root: bool,
    /// The paths that stood there.
    paths: HashSet<RelPath>,
}

fn inside(path: &RelPath, below: &str) -> RelPath {
    let mut bytes = format!("{STAGING}/{below}").into_bytes();
    if !path.is_root() {
        bytes.push(b'/');
        bytes.extend_from_slice(path.as_bytes());
    }
    // Built of checked parts.
    RelPath::new(bytes).unwrap_or_else(|_| RelPath::root())
}

/// Where something that stood at `path` is kept.
fn kept(path: &RelPath) -> RelPath {
    inside(path, "undo")
}

fn io<'a>(root: &'a Root, what: &'a str) -> impl Fn(std::io::Error) -> Failure + 'a {
    move |error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        super::error::failed(&root.dataset, &inside(&RelPath::root(), "before"), what, errno)
    }
}

fn damaged(root: &Root, what: &str) -> Failure {
    Failure::permanent(
        format!("{}, {STAGING}/before", root.dataset),
        format!("the list of what stood here before {what}"),
    )
    .hint("docs/recovery.md tells how to go on without it")
}

impl Before {
    /// Writes the list, unless there is one. Refuses the staging area of another migration.
    pub fn record(root: &Root, filter: &Filter, migration: &str, made_root: bool) -> Result<()> {
        let staging = root.open_at(&inside(&RelPath::root(), "before"), OFlags::RDONLY, Mode::empty());
        if let Ok(fd) = staging {
            let header: Header = read_header(root, &mut BufReader::new(std::fs::File::from(fd)))?;
            return refuse_other(root, &header, migration);
        }
        let new = inside(&RelPath::root(), "before.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let fd = root
            .open_at(&new, flags, Mode::from_raw_mode(0o600))
            .map_err(root.failed(&new, "cannot be made"))?;
        let mut out = Hashed { out: BufWriter::new(std::fs::File::from(fd)), hasher: blake3::Hasher::new() };
        let header = Header { format: FORMAT, migration: migration.to_owned(), made_root };
        out.line(&header).map_err(io(root, "cannot be written"))?;
        let mut entries = 0;
        let mut walk = Walk::new(root, filter);
        while let Some(entry) = walk.next()? {
            entries += 1;
            out.line(&entry).map_err(io(root, "cannot be written"))?;
        }
        let digest = handover_engine::digest::Digest(*out.hasher.finalize().as_bytes());
        out.line(&Trailer { entries, digest }).map_err(io(root, "cannot be written"))?;
        let file = out.out.into_inner().map_err(|e| io(root, "cannot be written")(e.into_error()))?;
        file.sync_all().map_err(io(root, "cannot be made durable"))?;
        let area = area(root)?;
        renameat(&area, "before.new", &area, "before").map_err(root.failed(&new, "cannot be renamed"))?;
        rustix::fs::fsync(&area).map_err(root.failed(&new, "cannot be made durable"))
    }

    /// Reads the list; `None` when there is none. `each` gets every entry, in tree order.
    pub fn read(
        root: &Root,
        migration: &str,
        mut each: impl FnMut(Entry) -> Result<()>,
    ) -> Result<Option<Self>> {
        let path = inside(&RelPath::root(), "before");
        let fd = match root.open_at(&path, OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(root.failed(&path, "cannot be read")(errno)),
        };
        check(root, std::fs::File::from(fd))?;
        let fd = root
            .open_at(&path, OFlags::RDONLY, Mode::empty())
            .map_err(root.failed(&path, "cannot be read"))?;
        let mut lines = BufReader::new(std::fs::File::from(fd));
        let header = read_header(root, &mut lines)?;
        refuse_other(root, &header, migration)?;
        let mut before = Self { made_root: header.made_root, paths: HashSet::new() };
        for line in lines.split(b'\n') {
            let line = line.map_err(io(root, "cannot be read"))?;
            let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { break };
            before.paths.insert(entry.path.clone());
            each(entry)?;
        }
        Ok(Some(before))
    }

    /// True when something stood at the path before the migration.
    pub fn has(&self, path: &RelPath) -> bool {
        self.paths.contains(path)
    }
}

/// The whole file is what its trailer says.
fn check(root: &Root, file: std::fs::File) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut last: Option<Vec<u8>> = None;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(io(root, "cannot be read"))?;
        if let Some(line) = last.replace(line) {
            hasher.update(&line);
            hasher.update(b"\n");
        }
    }
    let trailer: Option<Trailer> = last.and_then(|line| serde_json::from_slice(&line).ok());
    match trailer {
        Some(trailer) if trailer.digest.0 == *hasher.finalize().as_bytes() => Ok(()),
        _ => Err(damaged(root, "is damaged")),
    }
}

fn read_header(root: &Root, lines: &mut impl BufRead) -> Result<Header> {
    let mut line = Vec::new();
    lines.read_until(b'\n', &mut line).map_err(io(root, "cannot be read"))?;
    let header: Header = serde_json::from_slice(&line).map_err(|_| damaged(root, "is damaged"))?;
    if header.format != FORMAT {
        return Err(damaged(root, &format!("has format {}, this release knows {FORMAT}", header.format)));
    }
    Ok(header)
}

fn refuse_other(root: &Root, header: &Header, migration: &str) -> Result<()> {
    if header.migration == migration {
        return Ok(());
    }
    Err(Failure::operator(
        root.dataset.to_string(),
        format!("the tree holds the staging area {STAGING} of migration {}", header.migration),
    )
    .hint("abort or finalize that migration; if its agent is gone for good, docs/recovery.md tells how to clear it"))
}

struct Hashed {
    out: BufWriter<std::fs::File>,
    hasher: blake3::Hasher,
}

impl Hashed {
    fn line(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.hasher.update(&line);
        self.out.write_all(&line)
    }
}

/// The staging area.
pub fn area(root: &Root) -> Result<OwnedFd> {
    let path = RelPath::new(STAGING).unwrap_or_else(|_| RelPath::root());
    root.directory(&path).map_err(root.failed(&path, "cannot be opened"))
}

/// Keeps what stands at `path` (a thing that is no directory) under `undo/`, if it stood there before; its name stays until
/// it is replaced or removed.
pub fn keep(root: &Root, before: &Before, parents: &mut Parents<'_>, path: &RelPath) -> Result<(), Errno> {
    if !before.has(path) {
        return Ok(());
    }
    let to = kept(path);
    let Some((parent, name)) = to.split() else { return Ok(()) };
    make_directories(root, &parent)?;
    let target = root.directory(&parent)?;
    let (from, from_name) = parents.of(path)?;
    match linkat(from, &from_name, &target, name, AtFlags::empty()) {
        // Kept already: what stands there now is ours. Or there is nothing to keep.
        Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
        // A file system without hard links, or a thing that cannot have one: the name is gone for a moment.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => renameat(from, &from_name, &target, name),
        Err(errno) => Err(errno),
    }
}

fn make_directories(root: &Root, path: &RelPath) -> Result<(), Errno> {
    if root.directory(path).is_ok() {
        return Ok(());
    }
    let Some((parent, name)) = path.split() else { return Ok(()) };
    make_directories(root, &parent)?;
    match mkdirat(root.directory(&parent)?, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes what stands at `path`, a directory with all it holds; what stood there before is kept. What the filter hides
/// stays, and with it the directories it lies in.
pub fn remove(root: &Root, filter: &Filter, before: Option<&Before>, path: &RelPath) -> Result<(), Errno> {
    let mut parents = Parents::new(root);
    let stat = {
        let (parent, name) = match parents.of(path) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        match statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    };
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    let flags = if is_directory {
        for name in names(&root.directory(path)?)? {
            let child = path.join(name.as_bytes()).map_err(|_| Errno::INVAL)?;
            if !filter.hides(&child) {
                remove(root, filter, before, &child)?;
            }
        }
        AtFlags::REMOVEDIR
    } else {
        if let Some(before) = before {
            keep(root, before, &mut parents, path)?;
        }
        AtFlags::empty()
    };
    let (parent, name) = parents.of(path)?;
    match unlinkat(parent, &name, flags) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Makes the tree what the list says. Idempotent: what was put back is no longer under `undo/`.
pub fn restore(root: &Root, filter: &Filter, migration: &str) -> Result<Option<Before>> {
    let mut directories = Vec::new();
    let mut others = Vec::new();
    let read = Before::read(root, migration, |entry| {
        put_back(root, filter, &entry).map_err(root.failed(&entry.path, "cannot be put back"))?;
        if entry.kind == EntryKind::Directory {
            directories.push(entry);
        } else {
            others.push(entry);
        }
        Ok(())
    });
    let Some(before) = read? else { return Ok(None) };
    let mut extra = Vec::new();
    let mut walk = Walk::new(root, filter);
    while let Some(entry) = walk.next()? {
        if !before.has(&entry.path) && !extra.last().is_some_and(|last| entry.path.is_within(last)) {
            extra.push(entry.path);
        }
    }
    for path in extra {
        remove(root, filter, None, &path).map_err(root.failed(&path, "cannot be removed"))?;
    }
    let mut parents = Parents::new(root);
    for entry in others
        .iter()
        .filter(|e| !matches!(e.kind, EntryKind::HardLink { .. }))
        .chain(directories.iter().rev())
    {
        let settled = parents.of(&entry.path).and_then(|(parent, name)| meta::settle(parent, &name, entry));
        settled.map_err(root.failed(&entry.path, "its properties cannot be put back"))?;
    }
    Ok(Some(before))
}

fn put_back(root: &Root, filter: &Filter, entry: &Entry) -> Result<(), Errno> {
    let path = &entry.path;
    let Some((parent, name)) = path.split() else { return Ok(()) };
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    if entry.kind == EntryKind::Directory {
        if root.directory(path).is_ok() {
            return Ok(());
        }
        remove(root, filter, None, path)?;
        return mkdirat(root.directory(&parent)?, &name, Mode::from_raw_mode(0o700));
    }
    let from = kept(path);
    let Some((kept_parent, kept_name)) = from.split() else { return Ok(()) };
    let directory = match root.directory(&kept_parent) {
        Ok(directory) => directory,
        // Nothing of this directory was ever touched.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if statat(&directory, kept_name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
        return Ok(());
    }
    if root.directory(path).is_ok() {
        remove(root, filter, None, path)?;
    }
    let to = root.directory(&parent)?;
    // rename(2) of two names of one file does nothing and leaves both.
    renameat(&directory, kept_name, to.as_fd(), &name)?;
    match unlinkat(&directory, kept_name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
