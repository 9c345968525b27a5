//! Properties: reading them into an [`Entry`], and giving them to what stands at the target.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use handover_engine::time::Timestamp;
use handover_engine::tree::{Entry, EntryKind, Meta, RelPath, Stamp};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fgetxattr, flistxattr, fstat, getxattr, lgetxattr, listxattr, llistxattr, openat, readlinkat,
    removexattr, setxattr, statat, utimensat,
};
use rustix::io::Errno;

/// A sparse file smaller than this is not worth the care.
const SPARSE_FROM: u64 = 64 << 10;

fn time(seconds: i64, nanos: u64) -> Timestamp {
    Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
}

/// What `stat` tells of a change.
#[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
pub fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        inode: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        ctime: time(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
    }
}

/// True for a regular file.
pub fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// A regular file's kind.
#[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
pub fn file_kind(stat: &Stat) -> EntryKind {
    let size = stat.st_size as u64;
    let sparse = size >= SPARSE_FROM && (stat.st_blocks as u64).saturating_mul(512) < size;
    EntryKind::File { size, sparse, linked: stat.st_nlink as u64 > 1 }
}

/// The kind of thing, or `None` for a socket.
fn kind(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<Option<EntryKind>, Errno> {
    let device = |block| {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        EntryKind::Device { block, major, minor }
    };
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => file_kind(stat),
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => {
            EntryKind::Symlink { target: readlinkat(directory, name, Vec::new())?.into_bytes() }
        }
        FileType::Fifo => EntryKind::Fifo,
        FileType::CharacterDevice => device(false),
        FileType::BlockDevice => device(true),
        _ => return Ok(None),
    }))
}

/// The entry of `name` in `directory`, with its `stat`; `None` for a socket.
pub fn entry(directory: BorrowedFd<'_>, name: &CStr, path: RelPath) -> Result<Option<(Entry, Stat)>, Errno> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let Some(kind) = kind(directory, name, &stat)? else { return Ok(None) };
    let meta = meta(&stat, xattrs(&place(directory, name))?);
    Ok(Some((Entry { path, kind, meta, stamp: stamp(&stat) }, stat)))
}

/// The properties in `stat`, with these attributes.
#[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
pub fn meta(stat: &Stat, xattrs: BTreeMap<Vec<u8>, Vec<u8>>) -> Meta {
    let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    Meta {
        mode: if link { 0o777 } else { stat.st_mode as u32 & 0o7777 },
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        xattrs,
    }
}

/// A path to `name` in `directory` for the calls that know no directory descriptors; only for those that do not follow a
/// symbolic link at its end.
fn place(directory: BorrowedFd<'_>, name: &CStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    path
}

/// All extended attributes of what lies at `place`, a symbolic link's own.
fn xattrs(place: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    collect(|buffer| llistxattr(place, buffer), |name, buffer| lgetxattr(place, name, buffer))
}

/// All extended attributes of an open file.
pub fn file_xattrs(fd: BorrowedFd<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    collect(|buffer| flistxattr(fd, buffer), |name, buffer| fgetxattr(fd, name, buffer))
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut names = [0_u8; 1024];
    let names = match list(&mut names[..]) {
        Ok(0) => return Ok(BTreeMap::new()),
        Ok(len) => names[..len].to_vec(),
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(Errno::RANGE) => grow(list)?,
        Err(errno) => return Err(errno),
    };
    let mut out = BTreeMap::new();
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        match grow(|buffer| get(name, buffer)) {
            Ok(value) => drop(out.insert(name.to_vec(), value)),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(out)
}

/// Calls with a larger and larger buffer, up to the most that the kernel lets an attribute (or their list) be.
fn grow(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut size = 256;
    loop {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if size < (64 << 10) => size *= 4,
            Err(errno) => return Err(errno),
        }
    }
}

/// Gives what lies at `name` in `directory` the entry's owner, mode, attributes and time; see [`settle`].
pub fn settle_at(directory: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<(), Errno> {
    let fd = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    settle(fd.as_fd(), entry)
}

/// Gives something open (`O_PATH` is enough) the entry's owner, mode, attributes and time. Does nothing when they are right
/// already. `ESTALE` when it is not the kind of thing that the entry is.
///
/// The order matters: a change of owner clears set-id bits and capabilities (chown(2)), a read-only file takes no `user.`
/// attributes from anyone but root, and everything else may change times. The calls go over `/proc/self/fd`, which
/// leads to the open thing itself, whatever its name is by now.
pub fn settle(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
    let wanted = &entry.meta;
    let stat = fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) != file_type(&entry.kind) {
        return Err(Errno::STALE);
    }
    let place = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let listed = collect(|buffer| listxattr(&*place, buffer), |name, buffer| getxattr(&*place, name, buffer));
    let have = meta(&stat, listed?);
    if have == *wanted {
        return Ok(());
    }
    let owner_differs = (have.uid, have.gid) != (wanted.uid, wanted.gid);
    if owner_differs {
        let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
        chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    }
    let attributes_differ = have.xattrs != wanted.xattrs || owner_differs;
    let by_user = |name: &[u8]| name.starts_with(b"user.");
    if attributes_differ {
        set_xattrs(&place, &have, wanted, by_user)?;
    }
    let link = matches!(entry.kind, EntryKind::Symlink { .. });
    if !link && (owner_differs || have.mode != wanted.mode) {
        chmodat(CWD, &*place, Mode::from_raw_mode(wanted.mode), AtFlags::empty())?;
    }
    if attributes_differ {
        set_xattrs(&place, &have, wanted, |name| !by_user(name))?;
    }
    set_time(fd, wanted.mtime)
}

fn file_type(kind: &EntryKind) -> FileType {
    match kind {
        EntryKind::File { .. } | EntryKind::HardLink { .. } => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink { .. } => FileType::Symlink,
        EntryKind::Fifo => FileType::Fifo,
        EntryKind::Device { block: true, .. } => FileType::BlockDevice,
        EntryKind::Device { block: false, .. } => FileType::CharacterDevice,
    }
}

/// Makes those extended attributes that `which` names what they should be.
fn set_xattrs(place: &str, have: &Meta, wanted: &Meta, which: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
    for name in have.xattrs.keys().filter(|name| which(name) && !wanted.xattrs.contains_key(*name)) {
        match removexattr(place, &name[..]) {
            // The change of owner or mode has removed it.
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    for (name, value) in wanted.xattrs.iter().filter(|(name, _)| which(name)) {
        setxattr(place, &name[..], value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Sets the time of modification of something open.
pub fn set_time(fd: BorrowedFd<'_>, mtime: Timestamp) -> Result<(), Errno> {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let mtime = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    let times = Timestamps { last_access: omit, last_modification: mtime };
    utimensat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), &times, AtFlags::empty())
}
