//! Reading small files whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use handover_engine::digest::Digest;
use handover_engine::ports::Result;
use handover_engine::tree::{Entry, LARGE_FILE, PackChunk, PackItem, PackedFile, RelPath};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::meta;
use super::root::Root;

/// How often a file that changes while it is read is read again before it is asked for alone.
const TRIES: usize = 3;

/// Reads the files of a pack.
pub fn read(root: &Root, items: &[PackItem]) -> Result<PackChunk> {
    let mut data = Vec::new();
    let mut files = Vec::with_capacity(items.len());
    for item in items {
        let file = one(root, item, &mut data);
        files.push(file.map_err(root.failed(&item.path, "cannot be read"))?);
    }
    Ok(PackChunk { files, data: data.into() })
}

fn one(root: &Root, item: &PackItem, data: &mut Vec<u8>) -> Result<PackedFile, Errno> {
    let path = item.path.clone();
    let fd = match root.file(&path) {
        Ok(fd) => fd,
        // Gone, or something else now.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
            return Ok(PackedFile::Gone { path });
        }
        Err(errno) => return Err(errno),
    };
    let start = data.len();
    for _ in 0..TRIES {
        data.truncate(start);
        let Some(before) = entry(&fd, &path)? else { return Ok(PackedFile::Gone { path }) };
        let size = before.size().unwrap_or(0);
        if size >= LARGE_FILE || before.is_large() {
            return Ok(PackedFile::Unfit { path });
        }
        read_all(fd.as_fd(), size, data)?;
        let Some(after) = entry(&fd, &path)? else { return Ok(PackedFile::Gone { path }) };
        if before.stamp != after.stamp || (data.len() - start) as u64 != size {
            continue;
        }
        let digest = Digest::of(&data[start..]);
        if item.held == Some(digest) {
            data.truncate(start);
            return Ok(PackedFile::Same { entry: after });
        }
        return Ok(PackedFile::Contents { entry: after, len: size, digest });
    }
    data.truncate(start);
    Ok(PackedFile::Unfit { path })
}

/// Reads from the start; one byte more than `size` is asked for, to see whether the file has grown.
fn read_all(fd: BorrowedFd<'_>, size: u64, data: &mut Vec<u8>) -> Result<(), Errno> {
    let start = data.len();
    let want = usize::try_from(size).map_err(|_| Errno::FBIG)? + 1;
    data.resize(start + want, 0);
    let mut at = 0;
    while at < want {
        match rustix::io::pread(fd, &mut data[start + at..], at as u64) {
            Ok(0) => break,
            Ok(read) => at += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    data.truncate(start + at);
    Ok(())
}

/// The entry of an open regular file; `None` when it is something else, or has no name any more.
#[allow(clippy::unnecessary_cast, reason = "the width of these fields differs between architectures")]
pub fn entry(fd: &OwnedFd, path: &RelPath) -> Result<Option<Entry>, Errno> {
    use std::os::fd::AsRawFd;
    let stat = fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink as u64 == 0 {
        return Ok(None);
    }
    // The trailing component is followed: it is the open file itself.
    let xattrs = meta::followed_xattrs(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes())?;
    let meta = meta::meta(&stat, xattrs);
    Ok(Some(Entry { path: path.clone(), kind: meta::file_kind(&stat), meta, stamp: meta::stamp(&stat) }))
}
