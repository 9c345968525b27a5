//! Properties: reading them into an [`Entry`], and giving them to what stands at the target.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use handover_engine::time::Timestamp;
use handover_engine::tree::{Entry, EntryKind, Meta, RelPath, Stamp};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, getxattr,
    lgetxattr, listxattr, llistxattr, lremovexattr, lsetxattr, readlinkat, statat, utimensat,
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

/// A path to `name` in `directory` for the calls that know no directory descriptors.
pub fn place(directory: BorrowedFd<'_>, name: &CStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    path
}

/// All extended attributes of what lies at `place`, a symbolic link's own.
pub fn xattrs(place: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    collect(|buffer| llistxattr(place, buffer), |name, buffer| lgetxattr(place, name, buffer))
}

/// All extended attributes of what `place` leads to.
pub fn followed_xattrs(place: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    collect(|buffer| listxattr(place, buffer), |name, buffer| getxattr(place, name, buffer))
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

/// Gives what lies at `name` in `directory` the entry's owner, mode, attributes and time. The order matters: a change of
/// owner clears set-id bits and capabilities (chown(2)), and everything else changes times.
pub fn settle(directory: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<(), Errno> {
    let wanted = &entry.meta;
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let place = place(directory, name);
    let have = meta(&stat, xattrs(&place)?);
    if have == *wanted {
        return Ok(());
    }
    let owner_differs = (have.uid, have.gid) != (wanted.uid, wanted.gid);
    if owner_differs {
        let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
        chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let link = matches!(entry.kind, EntryKind::Symlink { .. });
    if !link && (owner_differs || have.mode != wanted.mode) {
        chmodat(directory, name, Mode::from_raw_mode(wanted.mode), AtFlags::empty())?;
    }
    if have.xattrs != wanted.xattrs || owner_differs {
        for name in have.xattrs.keys().filter(|name| !wanted.xattrs.contains_key(*name)) {
            match lremovexattr(&place[..], &name[..]) {
                // The change of owner or mode has removed it.
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        for (name, value) in &wanted.xattrs {
            lsetxattr(&place[..], &name[..], value, XattrFlags::empty())?;
        }
    }
    set_time(directory, name, wanted.mtime)
}

/// Sets the time of modification.
pub fn set_time(directory: BorrowedFd<'_>, name: &CStr, mtime: Timestamp) -> Result<(), Errno> {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let mtime = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    let times = Timestamps { last_access: omit, last_modification: mtime };
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
