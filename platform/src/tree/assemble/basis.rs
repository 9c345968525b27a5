//! The file that stands under the path already, and what its blocks are.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use handover_engine::digest::Digest;
use handover_engine::tree::{Block, Stamp};
use rustix::fs::{FileType, copy_file_range, fstat};
use rustix::io::Errno;

use super::super::large::next_run;
use super::super::meta;
use super::Trouble;

/// Bytes read at once: what is read is still in the processor's cache when it is hashed.
const BUFFER: usize = 512 << 10;
/// Buffers under way between the two threads.
const BUFFERS: usize = 2;
/// A smaller file is read again by one thread.
const ALONE: u64 = 16 << 20;
/// Bytes copied by the kernel at once.
const COPY: u64 = 32 << 20;

/// The file that stands under the path.
pub struct Basis {
    file: Arc<File>,
    stamp: Stamp,
    /// Where each block begins.
    starts: Vec<u64>,
    may_change: bool,
    is_elsewhere: bool,
}

impl Basis {
    /// The same file; it stands under another path.
    pub fn elsewhere(self) -> Self {
        Self { is_elsewhere: true, may_change: false, ..self }
    }

    /// It does not stand under the path: all of the file has to be staged.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// `None` when it is no regular file. `is_ours` says that undoing the migration does not need it.
    pub fn new(fd: OwnedFd, blocks: &[Block], is_ours: bool) -> Option<Self> {
        let stat = fstat(&fd).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut at = 0;
        let starts = blocks.iter().map(|block| {
            let start = at;
            at += u64::from(block.len);
            start
        });
        let starts = starts.collect();
        // Through another name it would be seen changing.
        let may_change = is_ours && stat.st_nlink == 1;
        let (file, stamp) = (Arc::new(File::from(fd)), meta::stamp(&stat));
        Some(Self { starts, file, stamp, may_change, is_elsewhere: false })
    }

    /// What it looked like when it was opened.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The open file.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// It may be changed where it is, once it is out of sight.
    pub fn may_change(&self) -> bool {
        self.may_change
    }

    /// It looks as it did when it was opened. One that was set aside may lose its other name meanwhile, which changes its ctime.
    pub fn is_unchanged(&self) -> bool {
        let is_like = |stamp: Stamp| {
            stamp == self.stamp || self.is_elsewhere && stamp == Stamp { ctime: stamp.ctime, ..self.stamp }
        };
        fstat(&*self.file).is_ok_and(|stat| is_like(meta::stamp(&stat)))
    }

    /// Where a block begins.
    pub fn start(&self, block: usize) -> Option<u64> {
        self.starts.get(block).copied()
    }

    /// It has a hole there.
    pub fn is_hole(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        end <= self.stamp.size
            && next_run(&self.file, offset, self.stamp.size).is_ok_and(|(start, _)| start >= end)
    }

    /// Copies the first `len` bytes, holes as holes. Fails when the file has changed since its blocks were verified.
    pub fn copy_prefix(&self, to: &File, len: u64) -> Result<(), Trouble> {
        let mut at = 0;
        while at < len {
            let (start, stop) = next_run(&self.file, at, len)?;
            self.copy_run(to, start.min(len), stop.min(len))?;
            at = stop;
        }
        to.set_len(len)?;
        if self.is_unchanged() { Ok(()) } else { Err(Trouble::Basis) }
    }

    fn copy_run(&self, to: &File, start: u64, stop: u64) -> Result<(), Trouble> {
        let (mut from, mut into) = (start, start);
        while from < stop {
            let want = usize::try_from((stop - from).min(COPY)).unwrap_or(BUFFER);
            match copy_file_range(&*self.file, Some(&mut from), to, Some(&mut into), want) {
                Ok(0) => return Err(Trouble::Basis),
                Ok(_) | Err(Errno::INTR) => {}
                // Not within this file system, or not by this kernel.
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return self.copy_by_hand(to, from, stop);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn copy_by_hand(&self, to: &File, mut at: u64, stop: u64) -> Result<(), Trouble> {
        let mut buffer = vec![0; BUFFER];
        while at < stop {
            let want = usize::try_from((stop - at).min(BUFFER as u64)).unwrap_or(BUFFER);
            match self.file.read_at(&mut buffer[..want], at)? {
                0 => return Err(Trouble::Basis),
                read => {
                    to.write_all_at(&buffer[..read], at)?;
                    at += read as u64;
                }
            }
        }
        Ok(())
    }
}

/// Reads the blocks of `run`, which begins at `start`, and verifies them on another thread; `take` gets the bytes in order.
pub fn verified(
    file: &Arc<File>,
    start: u64,
    run: &[Block],
    mut take: impl FnMut(&[u8]) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let (to, parts) = sync_channel(BUFFERS);
    let (give_back, free) = sync_channel::<Vec<u8>>(BUFFERS + 1);
    for _ in 0..BUFFERS {
        // There is room for all of them.
        let _ = give_back.try_send(Vec::new());
    }
    std::thread::scope(|scope| {
        let reader = move || {
            let (mut at, mut offset) = (0, start);
            while at < run.len() {
                let Ok(mut buffer) = free.recv() else { return };
                let count = fitting(&run[at..]);
                let read = read_verified(file, offset, &run[at..at + count], &mut buffer);
                let broken = read.is_err();
                if to.send(read.map(|()| buffer)).is_err() || broken {
                    return;
                }
                offset += bytes_of(&run[at..at + count]);
                at += count;
            }
        };
        let spawned = std::thread::Builder::new().name("verify-basis".to_owned()).spawn_scoped(scope, reader);
        spawned.map_err(|_| Trouble::Errno(Errno::AGAIN))?;
        // Taken along, so that the reader ends when this ends early.
        let (parts, give_back) = (parts, give_back);
        for part in parts {
            let bytes = part?;
            take(&bytes)?;
            let _ = give_back.try_send(bytes);
        }
        Ok(())
    })
}

fn read_verified(file: &File, offset: u64, blocks: &[Block], buffer: &mut Vec<u8>) -> Result<(), Trouble> {
    let len = blocks.iter().map(|block| block.len as usize).sum();
    buffer.resize(len, 0);
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Trouble::Basis,
        _ => error.into(),
    })?;
    let mut bytes = &buffer[..];
    for block in blocks {
        let (own, rest) = bytes.split_at_checked(block.len as usize).ok_or(Trouble::Pieces)?;
        bytes = rest;
        if block.digest != Some(Digest::of(own)) {
            return Err(Trouble::Basis);
        }
    }
    Ok(())
}

/// How many blocks from the first on fit into one buffer: at least one.
fn fitting(run: &[Block]) -> usize {
    let mut len = 0;
    let fits = |block: &&Block| {
        len += block.len as usize;
        len <= BUFFER
    };
    run.iter().take_while(fits).count().max(1)
}

/// Whether an open file consists of these blocks, and of nothing else. Reads a large one on two threads.
pub fn consists_of(file: &File, blocks: &[Block]) -> Result<bool, Errno> {
    let size = bytes_of(blocks);
    if file.metadata().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?.len() != size {
        return Ok(false);
    }
    let (first, second) = blocks.split_at(if size < ALONE { blocks.len() } else { blocks.len() / 2 });
    let (one, other) = std::thread::scope(|scope| {
        let work = move || stands_at(file, bytes_of(first), second);
        let other = std::thread::Builder::new().name("read-again".to_owned()).spawn_scoped(scope, work);
        let one = stands_at(file, 0, first);
        let other = match other {
            Ok(other) => other.join().unwrap_or(Err(Trouble::Errno(Errno::IO))),
            Err(_) => work(),
        };
        (one, other)
    });
    match one.and(other) {
        Ok(()) => Ok(true),
        Err(Trouble::Errno(errno)) => Err(errno),
        Err(_) => Ok(false),
    }
}

fn bytes_of(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| u64::from(block.len)).sum()
}

/// That these blocks stand at this offset.
fn stands_at(file: &File, mut offset: u64, blocks: &[Block]) -> Result<(), Trouble> {
    let (mut at, mut buffer) = (0, Vec::new());
    while at < blocks.len() {
        let hole = blocks[at].digest.is_none();
        let run = &blocks[at..];
        let run = &run[..run.iter().take_while(|block| block.digest.is_none() == hole).count()];
        let run = if hole { run } else { &run[..fitting(run)] };
        let len = bytes_of(run);
        if hole {
            is_zero(file, offset, len)?;
        } else {
            read_verified(file, offset, run, &mut buffer)?;
        }
        offset += len;
        at += run.len();
    }
    Ok(())
}

fn is_zero(file: &File, offset: u64, len: u64) -> Result<(), Trouble> {
    let (mut at, end, mut buffer) = (offset, offset + len, vec![0; BUFFER]);
    while at < end {
        // Holes need no reading.
        at = next_run(file, at, end)?.0;
        let want = usize::try_from((end - at).min(BUFFER as u64)).unwrap_or(BUFFER);
        if want == 0 {
            return Ok(());
        }
        match file.read_at(&mut buffer[..want], at)? {
            0 => return Err(Trouble::Basis),
            read if buffer[..read].iter().any(|&b| b != 0) => return Err(Trouble::Basis),
            read => at += read as u64,
        }
    }
    Ok(())
}
