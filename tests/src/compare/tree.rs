//! Two file trees: kind, mode, owner, times, size, contents, attributes, links and holes of everything in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;
use walkdir::WalkDir;

use super::Comparison;

/// Allocated bytes that a sparse file may have more than the original.
const SLACK: u64 = 256 << 10;
const BLOCK: usize = 1 << 20;

/// Compares two trees, roots included.
pub fn trees(left: &Path, right: &Path) -> Result<Comparison> {
    let mut out = Comparison::default();
    if !right.exists() {
        out.differs(format!("tree {} is missing", right.display()));
        return Ok(out);
    }
    let (mut a, mut b) = (Tree::read(left)?, Tree::read(right)?);
    let mut buffers = (vec![0; BLOCK], vec![0; BLOCK]);
    for (path, x) in std::mem::take(&mut a.entries) {
        out.files += u64::from(x.meta.is_file());
        out.bytes += if x.meta.is_file() && a.groups.first(&path, &x.meta) { x.meta.len() } else { 0 };
        let name = show(&path);
        let Some(y) = b.entries.remove(&path) else {
            out.differs(format!("{name} is missing"));
            continue;
        };
        let mut differ = |what: String| out.differs(format!("{name}: {what}"));
        compare_meta(&x, &y, &mut differ);
        let (first, there) = (a.groups.name(&path, &x.meta), b.groups.name(&path, &y.meta));
        if first != there {
            differ(format!("hard linked to {} instead of {}", show(&there), show(&first)));
        }
        if x.meta.is_file() && y.meta.is_file() && first == path {
            compare_contents(&left.join(&path), &right.join(&path), &mut buffers, &mut differ)?;
        }
    }
    for path in b.entries.keys() {
        out.differs(format!("{} is there for no reason", show(path)));
    }
    Ok(out)
}

fn show(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        "the root".to_owned()
    } else {
        path.as_os_str().as_bytes().escape_ascii().to_string()
    }
}

struct Found {
    meta: fs::Metadata,
    link: Option<PathBuf>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// The first name of every inode that has several.
#[derive(Default)]
struct Groups(BTreeMap<(u64, u64), PathBuf>);

impl Groups {
    fn name(&self, path: &Path, meta: &fs::Metadata) -> PathBuf {
        self.0.get(&(meta.dev(), meta.ino())).map_or_else(|| path.to_owned(), Clone::clone)
    }

    fn first(&self, path: &Path, meta: &fs::Metadata) -> bool {
        self.name(path, meta) == path
    }
}

struct Tree {
    entries: BTreeMap<PathBuf, Found>,
    groups: Groups,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut tree = Tree { entries: BTreeMap::new(), groups: Groups::default() };
        // The target's staging area stays until the migration is finalized or aborted.
        let staging = root.join(".handover");
        let walk = WalkDir::new(root).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(move |entry| entry.path() != staging) {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.file_type().is_socket() {
                continue;
            }
            let path = entry.path().strip_prefix(root)?.to_owned();
            if !meta.is_dir() && meta.nlink() > 1 {
                tree.groups.0.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
            }
            let link = if meta.is_symlink() { Some(fs::read_link(entry.path())?) } else { None };
            let xattrs =
                xattrs(entry.path()).with_context(|| format!("attributes of {}", entry.path().display()))?;
            tree.entries.insert(path, Found { meta, link, xattrs });
        }
        Ok(tree)
    }
}

fn xattrs(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let len = match llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut found = BTreeMap::new();
    for name in names[..len].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let len = lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        found.insert(OsString::from_vec(name.to_vec()), value);
    }
    Ok(found)
}

fn compare_meta(x: &Found, y: &Found, differ: &mut impl FnMut(String)) {
    let (l, r) = (&x.meta, &y.meta);
    if l.file_type() != r.file_type() {
        return differ(format!("{:?} became {:?}", l.file_type(), r.file_type()));
    }
    let mut check = |what: &str, a: String, b: String| {
        if a != b {
            differ(format!("{what} {a} became {b}"));
        }
    };
    check("mode", format!("{:o}", l.mode()), format!("{:o}", r.mode()));
    check("owner", format!("{}:{}", l.uid(), l.gid()), format!("{}:{}", r.uid(), r.gid()));
    check(
        "time",
        format!("{}.{:09}", l.mtime(), l.mtime_nsec()),
        format!("{}.{:09}", r.mtime(), r.mtime_nsec()),
    );
    check("attributes", format!("{:?}", x.xattrs), format!("{:?}", y.xattrs));
    check("link", format!("{:?}", x.link), format!("{:?}", y.link));
    check("device", l.rdev().to_string(), r.rdev().to_string());
    if !l.is_dir() {
        check("size", l.len().to_string(), r.len().to_string());
    }
    let (allocated, there) = (l.blocks() * 512, r.blocks() * 512);
    if l.is_file() && allocated < l.len() && there > allocated + SLACK {
        differ(format!("is sparse: {allocated} bytes on disk became {there}"));
    }
}

fn compare_contents(
    left: &Path,
    right: &Path,
    (a, b): &mut (Vec<u8>, Vec<u8>),
    differ: &mut impl FnMut(String),
) -> Result<()> {
    let (mut l, mut r) = (File::open(left)?, File::open(right)?);
    let mut at = 0;
    loop {
        let (n, m) = (fill(&mut l, a)?, fill(&mut r, b)?);
        if a[..n] != b[..m] {
            let same = a[..n].iter().zip(&b[..m]).take_while(|(x, y)| x == y).count();
            differ(format!("contents differ at byte {}", at + same as u64));
            return Ok(());
        }
        if n < BLOCK {
            return Ok(());
        }
        at += n as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn base(dir: &Path) {
        fs::create_dir_all(dir.join("d")).unwrap();
        fs::write(dir.join("d/a"), vec![b'x'; 2 * BLOCK]).unwrap();
        fs::write(dir.join("b"), "b").unwrap();
        fs::hard_link(dir.join("b"), dir.join("c")).unwrap();
        symlink("b", dir.join("l")).unwrap();
        File::create(dir.join("hole")).unwrap().set_len(1 << 20).unwrap();
        align(dir);
    }

    /// Gives everything one time, so that only what a test changed differs.
    fn align(dir: &Path) {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
        let time = Timespec { tv_sec: 1, tv_nsec: 2 };
        for entry in WalkDir::new(dir).contents_first(true) {
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, entry.unwrap().path(), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }

    fn check(change: impl Fn(&Path), expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let [l, r] = ["l", "r"].map(|name| dir.path().join(name));
        base(&l);
        base(&r);
        change(&r);
        align(&r);
        let out = trees(&l, &r).unwrap();
        assert_eq!((out.files, out.bytes), (4, 3 * (1 << 20) + 1));
        match expected {
            "" => assert_eq!(out.named, Vec::<String>::new()),
            expected => assert!(out.describe().contains(expected), "{}", out.describe()),
        }
    }

    #[test]
    fn names_what_differs() {
        check(|_| {}, "");
        check(|r| fs::remove_file(r.join("d/a")).unwrap(), "d/a is missing");
        check(|r| fs::write(r.join("d/new"), "").unwrap(), "d/new is there for no reason");
        check(|r| fs::write(r.join("b"), "B").unwrap(), "b: contents differ at byte 0");
        check(
            |r| fs::set_permissions(r.join("d"), fs::Permissions::from_mode(0o700)).unwrap(),
            "d: mode 40755 became 40700",
        );
        check(|r| fs::write(r.join("hole"), vec![0; 1 << 20]).unwrap(), "hole: is sparse");
        let relinked = |r: &Path| {
            fs::remove_file(r.join("c")).unwrap();
            fs::write(r.join("c"), "b").unwrap();
        };
        check(relinked, "c: hard linked to c instead of b");
        let pointed = |r: &Path| {
            fs::remove_file(r.join("l")).unwrap();
            symlink("c", r.join("l")).unwrap();
        };
        check(pointed, "l: link");
        let late = |r: &Path| {
            let mut bytes = vec![b'x'; 2 * BLOCK];
            bytes[BLOCK + 7] = b'y';
            fs::write(r.join("d/a"), bytes).unwrap();
        };
        check(late, &format!("d/a: contents differ at byte {}", BLOCK + 7));
    }
}
