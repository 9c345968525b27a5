//! The list of what stood in a target tree before the migration: `.handover/before`. Only a whole list gets that name.
//!
//! Format: a line with the version; records, each its length (u32, little-endian) and its bytes (postcard): first a
//! [`Header`], then every [`Entry`] in tree order; a length of zero; the BLAKE3 digest of all that.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::tree::{Entry, EntryKind, RelPath};
use rustix::fs::{AtFlags, Mode, OFlags, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::STAGING;
use super::filter::{Filter, Globs};
use super::root::Root;
use super::scan::Walk;

/// The first line, with the version.
const FORMAT: &[u8] = b"handover tree before 2\n";
/// Bytes of the digest at the end.
const DIGEST: u64 = 32;
/// No record is longer: paths and attributes are bounded by the kernel.
const LONGEST: u32 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Header {
    migration: String,
    made_root: bool,
    /// What of the tree the list holds: what the filter hid is in it no more than what was not there.
    globs: Globs,
}

/// What the list says besides the entries.
pub struct Before {
    /// The root did not exist.
    pub made_root: bool,
    /// What of the tree it is about.
    pub globs: Globs,
    /// The paths that stood there; true for directories.
    paths: HashMap<RelPath, bool>,
}

/// A place in the staging area: `path` below `below`.
pub fn inside(below: &str, path: &RelPath) -> RelPath {
    let parts = [STAGING.as_bytes(), below.as_bytes(), path.as_bytes()];
    let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    // Built of checked parts.
    RelPath::new(parts.join(&b'/')).unwrap_or_else(|_| RelPath::root())
}

fn place() -> RelPath {
    inside("before", &RelPath::root())
}

fn io<'a>(root: &'a Root, what: &'a str) -> impl Fn(std::io::Error) -> Failure + 'a {
    move |error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        super::error::failed(&root.dataset, &place(), what, errno)
    }
}

fn damaged(root: &Root, what: &str) -> Failure {
    let item = format!("{}, {STAGING}/before", root.dataset);
    Failure::permanent(item, format!("the list of what stood here before {what}"))
        .hint("docs/recovery.md tells how to go on without it")
}

impl Before {
    /// Whether there is a list. Refuses that of another migration.
    pub fn owner(root: &Root, migration: &str) -> Result<bool> {
        let Some(mut list) = List::open(root)? else { return Ok(false) };
        refuse_other(root, &list.header()?, migration).map(|()| true)
    }

    /// Whether there is a list, and of another migration.
    pub fn is_anothers(root: &Root, migration: &str) -> Result<bool> {
        let Some(mut list) = List::open(root)? else { return Ok(false) };
        Ok(list.header()?.migration != migration)
    }

    /// Writes the list.
    pub fn record(root: &Root, filter: &Filter, migration: &str, made_root: bool) -> Result<()> {
        let new = inside("before.new", &RelPath::root());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let fd = root
            .open_at(&new, flags, Mode::from_raw_mode(0o600))
            .map_err(root.failed(&new, "cannot be made"))?;
        let unwritten = io(root, "cannot be written");
        let mut out = Hashed { out: BufWriter::new(File::from(fd)), hasher: blake3::Hasher::new() };
        out.bytes(FORMAT).map_err(&unwritten)?;
        let header = Header { migration: migration.to_owned(), made_root, globs: filter.globs().clone() };
        out.record(&header).map_err(&unwritten)?;
        let mut walk = Walk::new(root, filter);
        while let Some(entry) = walk.next()? {
            out.record(&entry).map_err(&unwritten)?;
        }
        let file = out.finish().map_err(&unwritten)?;
        file.sync_all().map_err(io(root, "cannot be made durable"))?;
        let area =
            root.directory(&inside("", &RelPath::root())).map_err(root.failed(&new, "cannot be renamed"))?;
        renameat(&area, "before.new", &area, "before").map_err(root.failed(&new, "cannot be renamed"))?;
        rustix::fs::fsync(&area).map_err(root.failed(&new, "cannot be made durable"))
    }

    /// Removes the list, durably.
    pub fn remove(root: &Root) -> Result<()> {
        let (list, area) = (place(), inside("", &RelPath::root()));
        let failed = root.failed(&list, "cannot be removed");
        let area = root.directory(&area).map_err(&failed)?;
        match unlinkat(&area, "before", AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        rustix::fs::fsync(&area).map_err(&failed)
    }

    /// What of the tree the list is about; `None` when there is no list.
    pub fn globs(root: &Root, migration: &str) -> Result<Option<Globs>> {
        let Some(mut list) = List::open(root)? else { return Ok(None) };
        let header = list.header()?;
        refuse_other(root, &header, migration).map(|()| Some(header.globs))
    }

    /// Reads the list, once it has proven whole; `None` when there is none. `each` gets every entry, in tree order.
    pub fn read(
        root: &Root,
        migration: &str,
        mut each: impl FnMut(Entry) -> Result<()>,
    ) -> Result<Option<Self>> {
        let Some(list) = List::open(root)? else { return Ok(None) };
        list.check()?;
        let Some(mut list) = List::open(root)? else { return Ok(None) };
        let header = list.header()?;
        refuse_other(root, &header, migration)?;
        let mut before = Self { made_root: header.made_root, globs: header.globs, paths: HashMap::new() };
        while let Some(entry) = list.next::<Entry>()? {
            before.paths.insert(entry.path.clone(), entry.kind == EntryKind::Directory);
            each(entry)?;
        }
        Ok(Some(before))
    }

    /// True when something stood at the path before the migration.
    pub fn has(&self, path: &RelPath) -> bool {
        self.paths.contains_key(path)
    }

    /// True when something that was no directory stood there.
    pub fn had_other_than_directory(&self, path: &RelPath) -> bool {
        self.paths.get(path) == Some(&false)
    }
}

/// The list, being read.
struct List<'a> {
    root: &'a Root,
    file: BufReader<File>,
}

impl<'a> List<'a> {
    fn open(root: &'a Root) -> Result<Option<Self>> {
        let place = place();
        match root.open_at(&place, OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { root, file: BufReader::new(File::from(fd)) })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(root.failed(&place, "cannot be read")(errno)),
        }
    }

    /// The whole of it is what its digest says.
    fn check(self) -> Result<()> {
        let unread = io(self.root, "cannot be read");
        let len = self.file.get_ref().metadata().map_err(&unread)?.len();
        let (mut hasher, mut digest) = (blake3::Hasher::new(), Vec::new());
        let mut listed = self.file.take(len.saturating_sub(DIGEST));
        hasher.update_reader(&mut listed).map_err(&unread)?;
        listed.into_inner().read_to_end(&mut digest).map_err(&unread)?;
        if digest == hasher.finalize().as_bytes() { Ok(()) } else { Err(damaged(self.root, "is damaged")) }
    }

    fn header(&mut self) -> Result<Header> {
        let mut format = [0; FORMAT.len()];
        self.file.read_exact(&mut format).map_err(|_| damaged(self.root, "is damaged"))?;
        if format != FORMAT {
            return Err(damaged(self.root, "is damaged, or of another release"));
        }
        self.next()?.ok_or_else(|| damaged(self.root, "is damaged"))
    }

    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>> {
        let mut len = [0; 4];
        self.file.read_exact(&mut len).map_err(|_| damaged(self.root, "ends too early"))?;
        let len = u32::from_le_bytes(len);
        if len == 0 {
            return Ok(None);
        }
        if len > LONGEST {
            return Err(damaged(self.root, "is damaged"));
        }
        let mut record = vec![0; len as usize];
        self.file.read_exact(&mut record).map_err(|_| damaged(self.root, "ends too early"))?;
        postcard::from_bytes(&record).map(Some).map_err(|_| damaged(self.root, "is damaged"))
    }
}

fn refuse_other(root: &Root, header: &Header, migration: &str) -> Result<()> {
    if header.migration == migration {
        return Ok(());
    }
    let what = format!("the tree holds the staging area {STAGING} of migration {}", header.migration);
    Err(Failure::operator(root.dataset.to_string(), what).hint(
        "abort or finalize that migration; if its agent is gone for good, docs/recovery.md tells how to clear it",
    ))
}

/// The list, being written.
struct Hashed {
    out: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Hashed {
    fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    fn record(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let record = postcard::to_allocvec(value).map_err(std::io::Error::other)?;
        self.bytes(&u32::try_from(record.len()).map_err(std::io::Error::other)?.to_le_bytes())?;
        self.bytes(&record)
    }

    fn finish(mut self) -> std::io::Result<File> {
        self.bytes(&[0; 4])?;
        self.out.write_all(self.hasher.finalize().as_bytes())?;
        self.out.into_inner().map_err(std::io::IntoInnerError::into_error)
    }
}
