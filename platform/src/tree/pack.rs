//! Reading small files whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use handover_engine::digest::Digest;
use handover_engine::ports::Result;
use handover_engine::tree::{
    Entry, EntryKind, LARGE_FILE, PACK_BYTES, PackChunk, PackItem, PackedFile, RelPath,
};
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;

use super::filter::Filter;
use super::meta;
use super::root::Root;

/// How often a file that changes while it is read is read again before it is asked for alone.
const TRIES: usize = 3;

/// Files that have grown since the scan do not make a pack larger than this: the rest is asked for alone.
const MOST_BYTES: usize = 2 * PACK_BYTES as usize;

/// Reads the files of a pack; those that grow while they are read up to where they ended, if they are logs.
pub fn read(root: &Root, filter: &Filter, items: &[PackItem], is_log: bool) -> Result<PackChunk> {
    let mut data = Vec::new();
    let (mut files, mut properties) = (Vec::with_capacity(items.len()), 0);
    for item in items {
        if !filter.admits(&item.path, false) {
            files.push(PackedFile::Gone { path: item.path.clone() });
            continue;
        }
        let start = data.len();
        let mut file =
            one(root, item, is_log, &mut data).map_err(root.failed(&item.path, "cannot be read"))?;
        if let PackedFile::Same { entry }
        | PackedFile::Contents { entry, .. }
        | PackedFile::Tail { entry, .. } = &file
        {
            properties += entry.meta.xattr_bytes();
            // As with contents: attributes that have grown since the scan.
            if properties > MOST_BYTES as u64 {
                properties -= entry.meta.xattr_bytes();
                data.truncate(start);
                file = PackedFile::Unfit { path: item.path.clone() };
            }
        }
        files.push(file);
    }
    Ok(PackChunk { files, data: data.into() })
}

fn one(root: &Root, item: &PackItem, is_log: bool, data: &mut Vec<u8>) -> Result<PackedFile, Errno> {
    let path = item.path.clone();
    let fd = match root.file(&path) {
        Ok(fd) => fd,
        Err(errno) if is_gone(errno) => return Ok(PackedFile::Gone { path }),
        Err(errno) => return Err(errno),
    };
    let start = data.len();
    for _ in 0..TRIES {
        data.truncate(start);
        let Some(stat) = stat_file(&fd)? else { return Ok(PackedFile::Gone { path }) };
        // A log that grows meanwhile is told as it was.
        let before = if is_log { entry(&fd, &path)? } else { None };
        let stamp = before.as_ref().map_or_else(|| meta::stamp(&stat), |before| before.stamp);
        let sparse = matches!(meta::file_kind(&stat), EntryKind::File { sparse: true, .. });
        if sparse || stamp.size >= LARGE_FILE || start as u64 + stamp.size > MOST_BYTES as u64 {
            return Ok(PackedFile::Unfit { path });
        }
        read_all(fd.as_fd(), stamp.size, data)?;
        let Some(after) = entry(&fd, &path)? else { return Ok(PackedFile::Gone { path }) };
        let is_quiet = stamp == after.stamp && (data.len() - start) as u64 == stamp.size;
        let entry = match before {
            _ if is_quiet => after,
            Some(before) if stands_still(&fd, stamp.size, start, data)? => before,
            _ => continue,
        };
        let digest = Digest::of(&data[start..]);
        if item.held == Some(digest) {
            data.truncate(start);
            return Ok(PackedFile::Same { entry });
        }
        let from = item.held_len;
        let begins =
            usize::try_from(from).ok().filter(|from| *from > 0).and_then(|from| data[start..].get(..from));
        if begins.is_some_and(|begins| item.held == Some(Digest::of(begins))) {
            let end = start + begins.map_or(0, <[u8]>::len);
            data.drain(start..end);
            return Ok(PackedFile::Tail { entry, from, len: stamp.size - from, digest });
        }
        return Ok(PackedFile::Contents { entry, len: stamp.size, digest });
    }
    data.truncate(start);
    Ok(PackedFile::Unfit { path })
}

/// What was read of a log that was written to meanwhile, up to the size that it had, stands there still: then it has only grown. One
/// that was truncated and written anew would show another beginning, or another end.
fn stands_still(fd: &OwnedFd, size: u64, start: usize, data: &mut Vec<u8>) -> Result<bool, Errno> {
    let end = start + usize::try_from(size).map_err(|_| Errno::FBIG)?;
    if data.len() < end {
        return Ok(false);
    }
    data.truncate(end);
    let mut again = Vec::new();
    read_all(fd.as_fd(), size, &mut again)?;
    Ok(again.get(..end - start) == Some(&data[start..]))
}

/// No regular file is there any more: nothing, or something else.
pub fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::XDEV)
}

/// Reads from the start; stops a byte after `size`, which tells that the file has grown.
fn read_all(fd: BorrowedFd<'_>, size: u64, data: &mut Vec<u8>) -> Result<(), Errno> {
    let start = data.len();
    let want = usize::try_from(size).map_err(|_| Errno::FBIG)? + 1;
    data.reserve(want);
    while data.len() - start < want {
        let at = (data.len() - start) as u64;
        match rustix::io::pread(fd, spare_capacity(data), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
fn stat_file(fd: &OwnedFd) -> Result<Option<Stat>, Errno> {
    let stat = fstat(fd)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok((regular && stat.st_nlink as u64 > 0).then_some(stat))
}

/// The entry of an open regular file; `None` when it is something else, or has no name any more.
pub fn entry(fd: &OwnedFd, path: &RelPath) -> Result<Option<Entry>, Errno> {
    let Some(stat) = stat_file(fd)? else { return Ok(None) };
    let meta = meta::meta(&stat, meta::file_xattrs(fd.as_fd())?);
    Ok(Some(Entry { path: path.clone(), kind: meta::file_kind(&stat), meta, stamp: meta::stamp(&stat) }))
}
