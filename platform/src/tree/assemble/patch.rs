//! What differs from the file that stands here, kept apart: a sparse file with the new contents at their offsets.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Bytes copied at once.
const BUFFER: usize = 1 << 20;

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Where it begins.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
}

impl Range {
    fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// New contents of parts of a file.
pub struct Patch {
    file: File,
    /// In order, none touching the next.
    ranges: Vec<Range>,
}

impl Patch {
    /// An empty one, its contents to be kept in `file`.
    pub fn new(file: File) -> Self {
        Self { file, ranges: Vec::new() }
    }

    /// One whose contents are in `file` already.
    pub fn resumed(file: File, ranges: Vec<Range>) -> Self {
        Self { file, ranges }
    }

    /// Where the contents are.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What it changes.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// How much it changes.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.len).sum()
    }

    /// Adds contents behind all that it has.
    pub fn write(&mut self, bytes: &[u8], start: u64) -> std::io::Result<()> {
        self.file.write_all_at(bytes, start)?;
        let len = bytes.len() as u64;
        match self.ranges.last_mut() {
            Some(last) if last.end() == start => last.len += len,
            _ => self.ranges.push(Range { start, len }),
        }
        Ok(())
    }

    /// Forgets what lies behind `end`.
    pub fn cut(&mut self, end: u64) {
        self.ranges.retain_mut(|range| {
            range.len = range.len.min(end.saturating_sub(range.start));
            range.len > 0
        });
    }

    /// Makes sure that there is room for it in `to`, so that applying it cannot run out of space.
    pub fn reserve(&self, to: &File) -> Result<(), Errno> {
        for range in &self.ranges {
            match fallocate(to, FallocateFlags::KEEP_SIZE, range.start, range.len) {
                // A file system that cannot tell in advance.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Writes it into `to`. May be done again.
    pub fn apply(&self, to: &File) -> std::io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        for range in &self.ranges {
            let mut at = range.start;
            while at < range.end() {
                let want = usize::try_from((range.end() - at).min(BUFFER as u64)).unwrap_or(BUFFER);
                self.file.read_exact_at(&mut buffer[..want], at)?;
                to.write_all_at(&buffer[..want], at)?;
                at += want as u64;
            }
        }
        Ok(())
    }
}
