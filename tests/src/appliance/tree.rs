//! The file tree: sizes from nothing to one large file, and everything odd that a file system holds.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;
use rand::Rng;
use rand::rngs::StdRng;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat, utimensat,
};
use rustix::io::Errno;
use walkdir::WalkDir;

use super::content::{Content, seeded};

/// What tree to make.
#[derive(Debug, Clone)]
pub struct TreeSpec {
    /// Number of plain files.
    pub files: u32,
    /// What they weigh together, about.
    pub bytes: u64,
    /// Size of the one large file, half random and half text; 0 for none.
    pub large: u64,
    /// Hard links, symbolic links, sparse files, extended attributes, pipes, odd names, modes and times.
    pub oddities: bool,
}

/// Makes the tree.
pub fn make(root: &Path, seed: u64, spec: &TreeSpec) -> Result<()> {
    let mut rng = seeded(seed, "tree");
    let mut content = Content::new(seed);
    fs::create_dir_all(root.join("data"))?;
    plain_files(root, &mut rng, &mut content, spec)?;
    if spec.large > 0 {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(root.join("large.bin"))?);
        content.write_mixed(spec.large, &mut out)?;
        out.flush()?;
    }
    if spec.oddities {
        oddities(&root.join("odd"))?;
    }
    set_times(root, &mut rng)
}

fn plain_files(root: &Path, rng: &mut StdRng, content: &mut Content, spec: &TreeSpec) -> Result<()> {
    let mean = spec.bytes / u64::from(spec.files.max(1));
    let mut buffer = Vec::new();
    for n in 0..spec.files {
        let dir = root.join(format!("data/{:03}/{}", n / 50, ["a", "b b", "c"][n as usize % 3]));
        if n % 50 < 3 {
            fs::create_dir_all(&dir)?;
        }
        let size = usize::try_from(size(rng, mean))?;
        buffer.clear();
        if n % 2 == 0 {
            content.text(size, &mut buffer);
        } else {
            content.random(size, &mut buffer);
        }
        let path = dir.join(format!("file {n:05}"));
        fs::write(&path, &buffer)?;
        fs::set_permissions(
            &path,
            fs::Permissions::from_mode([0o644, 0o600, 0o755, 0o640][rng.random_range(0..4)]),
        )?;
    }
    Ok(())
}

/// Nothing for one file in twenty, else anything up to twice the mean.
fn size(rng: &mut StdRng, mean: u64) -> u64 {
    if rng.random_range(0..20) == 0 { 0 } else { rng.random_range(1..=2 * mean.max(1)) }
}

fn oddities(odd: &Path) -> Result<()> {
    fs::create_dir_all(odd.join("empty/inside/inside"))?;
    links(odd)?;
    names(&odd.join("names"))?;
    sparse(odd)?;
    modes(odd)?;
    attributes(odd)?;
    mknodat(CWD, odd.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(odd.join("link to a file"), Some(1234), Some(4321))?;
        std::os::unix::fs::chown(odd.join("modes/600"), Some(1000), Some(1000))?;
        std::os::unix::fs::chown(odd.join("pipe"), Some(65_533), Some(7))?;
    }
    Ok(())
}

fn links(odd: &Path) -> Result<()> {
    fs::create_dir_all(odd.join("deep/er"))?;
    fs::write(odd.join("hard 1"), "three names")?;
    fs::hard_link(odd.join("hard 1"), odd.join("hard 2"))?;
    fs::hard_link(odd.join("hard 1"), odd.join("deep/er/hard 3"))?;
    fs::write(odd.join("deep/empty hard 1"), "")?;
    fs::hard_link(odd.join("deep/empty hard 1"), odd.join("empty hard 2"))?;
    symlink("hard 1", odd.join("link to a file"))?;
    symlink("deep", odd.join("link to a directory"))?;
    symlink("../../../../etc/passwd", odd.join("link out of the tree"))?;
    symlink("nowhere", odd.join("dangling"))?;
    symlink("/", odd.join("absolute"))?;
    symlink("loop", odd.join("loop"))?;
    symlink(OsStr::from_bytes(b"no utf-8 \xff"), odd.join("link to odd bytes"))?;
    Ok(())
}

fn names(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let long = [b'l'; 255];
    let names: [&[u8]; 14] = [
        b" leading space",
        b"trailing space ",
        b"-dash",
        b"new\nline",
        b"tab\t",
        b"back\\slash",
        b"*?[glob]",
        b"no utf-8 \xff\xfe",
        "ünïcode".as_bytes(),
        "😀".as_bytes(),
        b"...",
        b"~",
        b"quote'\"",
        &long,
    ];
    for name in names {
        fs::write(dir.join(OsStr::from_bytes(name)), name)?;
    }
    // The same letter, composed and decomposed: two names.
    fs::write(dir.join("é"), "composed")?;
    fs::write(dir.join("e\u{301}"), "decomposed")?;
    fs::create_dir(dir.join(OsStr::from_bytes(b"dir \xf0 \n")))?;
    fs::write(dir.join(OsStr::from_bytes(b"dir \xf0 \n")).join("a"), "a")?;
    let deep = dir.join(["d"; 60].join("/"));
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("bottom"), "bottom")?;
    Ok(())
}

fn sparse(odd: &Path) -> Result<()> {
    let file = File::create(odd.join("sparse"))?;
    file.write_all_at(b"head", 0)?;
    file.write_all_at(&[7; 5000], 24 << 20)?;
    file.set_len(48 << 20)?;
    File::create(odd.join("only a hole"))?.set_len(5 << 20)?;
    fs::write(odd.join("zeros, but not sparse"), vec![0; 300_000])?;
    Ok(())
}

fn modes(odd: &Path) -> Result<()> {
    fs::create_dir_all(odd.join("modes"))?;
    let own = if rustix::process::geteuid().is_root() { 0o000 } else { 0o400 };
    for mode in [own, 0o600, 0o444, 0o4755, 0o2755, 0o1644, 0o777] {
        let path = odd.join(format!("modes/{mode:o}"));
        fs::write(&path, format!("{mode:o}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for mode in [0o700, 0o1777, 0o2750, 0o555] {
        let path = odd.join(format!("modes/dir {mode:o}"));
        fs::create_dir(&path)?;
        fs::write(path.join("inside"), "inside")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn attributes(odd: &Path) -> Result<()> {
    fs::write(odd.join("with attributes"), "attributes")?;
    fs::create_dir(odd.join("dir with attributes"))?;
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for name in ["with attributes", "dir with attributes"] {
        let path = odd.join(name);
        set_attribute(&path, "user.comment", b"binary \0 \xff")?;
        set_attribute(&path, "user.empty", b"")?;
        set_attribute(&path, "system.posix_acl_access", &acl())?;
    }
    set_attribute(&odd.join("dir with attributes"), "system.posix_acl_default", &acl())?;
    set_attribute(&odd.join("with attributes"), "security.capability", &capability)
}

/// `user::rw-, user:1000:r--, group::r--, mask::r--, other::---` as the kernel stores it.
fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Sets an attribute, where the file system and our rights allow it.
fn set_attribute(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    match lsetxattr(path, name, value, XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}

/// Gives everything a time of its own, to the nanosecond; directories after what they hold.
fn set_times(root: &Path, rng: &mut StdRng) -> Result<()> {
    for entry in WalkDir::new(root).contents_first(true).sort_by_file_name() {
        let tv_sec = match rng.random_range(0..50) {
            0 => -rng.random_range(1..1_000_000_000),
            1 => rng.random_range(2_200_000_000..4_000_000_000),
            _ => rng.random_range(1_000_000_000..1_700_000_000),
        };
        let time = Timespec { tv_sec, tv_nsec: rng.random_range(0..1_000_000_000) };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, entry?.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
