//! Putting a large file together out of sight.
//!
//! While all pieces are an identical prefix of the file that stands here, nothing is written: they are only verified and
//! counted. The first difference makes the prefix real.

mod basis;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use handover_engine::failure::{Class, Failure};
use handover_engine::tree::{Block, Piece, Segment, Stamp};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use basis::{Basis, consists_of};

/// What [`Failure::what`] says when the basis does not have the contents that its blocks describe.
pub const BASIS_MISMATCH: &str = "the file here is not what the journal says it is";

/// Writing back to the disk begins each time this much has been written, so that little is left to wait for at the end.
const FLUSH_EVERY: u64 = 32 << 20;
/// The longest hole that one block describes.
const HOLE: u64 = 1 << 30;

/// True when a segment could not be written because the file that stands under the path does not have the contents that
/// `basis` describes: ask the source again, without a basis.
pub fn is_basis_mismatch(failure: &Failure) -> bool {
    failure.class == Class::Transient && failure.what == BASIS_MISMATCH
}

/// What goes wrong while a file is put together.
#[derive(Debug)]
pub enum Trouble {
    /// A system call.
    Errno(Errno),
    /// The file that stands here does not have the contents that the index says.
    Basis,
    /// The pieces contradict each other.
    Pieces,
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Trouble::Errno(errno)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Trouble::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl Trouble {
    /// Before it is told as a failure of a path.
    pub fn into_failure(self, failed: impl Fn(Errno) -> Failure, item: String) -> Failure {
        match self {
            Trouble::Errno(errno) => failed(errno),
            Trouble::Basis => {
                Failure::transient(item, BASIS_MISMATCH).hint("it is copied without the help of what is here")
            }
            Trouble::Pieces => Failure::permanent(item, "the source sent pieces that do not fit together")
                .hint("are both agents of the same release?"),
        }
    }
}

/// So much of a file is an identical prefix of the basis, which looked like this; kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Bytes.
    pub end: u64,
    /// The basis.
    pub basis: Stamp,
}

/// A large file in the making.
pub struct Assembly {
    basis: Option<Basis>,
    /// The staged file; none while everything so far is an identical prefix of the basis.
    staged: Option<Arc<File>>,
    /// How much of the file is there (or counted).
    end: u64,
    unflushed: u64,
    flusher: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Assembly {
    /// A new file, `basis` being what stands there now.
    pub fn new(basis: Option<Basis>) -> Self {
        Self { basis, staged: None, end: 0, unflushed: 0, flusher: None }
    }

    /// A file whose first `end` bytes are staged already. What lies behind them goes.
    pub fn resumed(basis: Option<Basis>, staged: File, end: u64) -> std::io::Result<Self> {
        staged.set_len(end)?;
        let mut assembly = Self::new(basis);
        (assembly.staged, assembly.end) = (Some(Arc::new(staged)), end);
        Ok(assembly)
    }

    /// A file whose first `end` bytes are those of the basis.
    pub fn counted_so_far(basis: Basis, end: u64) -> Self {
        let mut assembly = Self::new(Some(basis));
        assembly.end = end;
        assembly
    }

    /// How much of the file is there.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What must be remembered of it, when nothing is staged.
    pub fn counted(&self) -> Option<Counted> {
        let basis = self.basis.as_ref().filter(|_| self.staged.is_none() && self.end > 0)?;
        Some(Counted { end: self.end, basis: basis.stamp() })
    }

    /// Goes back: what lies behind `offset` comes again.
    pub fn rewind(&mut self, offset: u64) -> Result<(), Trouble> {
        if offset < self.end {
            self.flushed()?;
            if let Some(staged) = &self.staged {
                staged.set_len(offset)?;
            }
            self.end = offset;
        }
        Ok(())
    }

    /// Takes a segment; `stage` makes the staged file when it is needed. Returns the blocks it consists of.
    pub fn take(
        &mut self,
        segment: &Segment,
        blocks: &[Block],
        stage: &Stage<'_>,
    ) -> Result<Vec<Block>, Trouble> {
        if segment.offset != self.end {
            return Err(Trouble::Pieces);
        }
        let (mut data, mut loose) = (&segment.data[..], 0);
        let mut out = Vec::new();
        for piece in &segment.pieces {
            // Neighbouring blocks of contents are written together.
            if let Piece::Data(block) = piece {
                loose += block.len as usize;
                out.push(*block);
                continue;
            }
            self.write(&mut data, std::mem::take(&mut loose), stage)?;
            match piece {
                Piece::Data(_) => {}
                Piece::Hole { len } => {
                    self.room(segment, *len)?;
                    self.hole(*len, stage)?;
                    let holes = (0..len.div_ceil(HOLE)).map(|n| (len - n * HOLE).min(HOLE));
                    out.extend(
                        holes.map(|len| Block { len: u32::try_from(len).unwrap_or(u32::MAX), digest: None }),
                    );
                }
                Piece::Basis { first, count } => {
                    let range = *first as usize..(*first as usize).saturating_add(*count as usize);
                    let run = blocks.get(range).ok_or(Trouble::Pieces)?;
                    self.room(segment, run.iter().map(|block| u64::from(block.len)).sum())?;
                    self.reuse(*first as usize, run, stage)?;
                    out.extend_from_slice(run);
                }
            }
        }
        self.write(&mut data, loose, stage)?;
        Ok(out)
    }

    /// A file does not become larger than its entry says.
    fn room(&self, segment: &Segment, len: u64) -> Result<(), Trouble> {
        let fits = self.end.checked_add(len).is_some_and(|end| end <= segment.entry.stamp.size);
        if fits { Ok(()) } else { Err(Trouble::Pieces) }
    }

    /// The next `len` bytes of `data`.
    fn write(&mut self, data: &mut &[u8], len: usize, stage: &Stage<'_>) -> Result<(), Trouble> {
        let (bytes, rest) = data.split_at_checked(len).ok_or(Trouble::Pieces)?;
        *data = rest;
        if bytes.is_empty() {
            return Ok(());
        }
        self.real(stage)?.write_all_at(bytes, self.end)?;
        self.advance(len as u64)
    }

    fn hole(&mut self, len: u64, stage: &Stage<'_>) -> Result<(), Trouble> {
        let same = self.staged.is_none() && self.basis.as_ref().is_some_and(|b| b.is_hole(self.end, len));
        if !same {
            self.real(stage)?.set_len(self.end + len)?;
        }
        self.end += len;
        Ok(())
    }

    /// Blocks of the basis: verified as they are read, copied unless they only continue an identical prefix.
    fn reuse(&mut self, first: usize, run: &[Block], stage: &Stage<'_>) -> Result<(), Trouble> {
        let mut at = 0;
        while at < run.len() {
            if run[at].digest.is_none() {
                self.hole(u64::from(run[at].len), stage)?;
                at += 1;
                continue;
            }
            let count = run[at..].iter().take_while(|block| block.digest.is_some()).count();
            let start =
                self.basis.as_ref().and_then(|basis| basis.start(first + at)).ok_or(Trouble::Basis)?;
            if self.staged.is_some() || start != self.end {
                self.real(stage)?;
            }
            self.copy(start, &run[at..at + count])?;
            at += count;
        }
        Ok(())
    }

    /// Verifies blocks on one thread and writes them, if a file is staged, on this.
    fn copy(&mut self, start: u64, run: &[Block]) -> Result<(), Trouble> {
        let basis = self.basis.as_ref().map(Basis::file).ok_or(Trouble::Basis)?;
        basis::verified(&basis, start, run, |bytes| {
            if let Some(staged) = &self.staged {
                staged.write_all_at(bytes, self.end)?;
            }
            self.advance(bytes.len() as u64)
        })
    }

    fn advance(&mut self, len: u64) -> Result<(), Trouble> {
        self.end += len;
        self.unflushed += len;
        if self.unflushed >= FLUSH_EVERY {
            self.flush()?;
        }
        Ok(())
    }

    /// Begins to write back, on another thread; waits for the one before.
    fn flush(&mut self) -> Result<(), Trouble> {
        self.unflushed = 0;
        let Some(staged) = self.staged.clone() else { return Ok(()) };
        self.flushed()?;
        let spawned =
            std::thread::Builder::new().name("write-back".to_owned()).spawn(move || staged.sync_data());
        // Without a thread it is written back in the end, all at once.
        self.flusher = spawned.ok();
        Ok(())
    }

    /// Waits until nothing is being written back any more.
    pub fn flushed(&mut self) -> Result<(), Trouble> {
        match self.flusher.take() {
            Some(flusher) => Ok(flusher.join().unwrap_or_else(|_| Err(Errno::IO.into()))?),
            None => Ok(()),
        }
    }

    /// Makes what is staged durable; false when nothing is.
    pub fn sync(&mut self) -> Result<bool, Trouble> {
        self.flushed()?;
        self.unflushed = 0;
        let Some(staged) = &self.staged else { return Ok(false) };
        staged.sync_data()?;
        Ok(true)
    }

    /// The file is whole: unless it is the very file that stands here already, it is staged now, to its exact length.
    pub fn finish(&mut self, stage: &Stage<'_>) -> Result<(), Trouble> {
        if self.staged.is_none() && self.basis.as_ref().is_some_and(|basis| basis.stamp().size == self.end) {
            return if self.basis.as_ref().is_some_and(Basis::is_unchanged) {
                Ok(())
            } else {
                Err(Trouble::Basis)
            };
        }
        self.real(stage)?.set_len(self.end)?;
        Ok(())
    }

    /// The staged file; makes it, with the prefix that was only counted so far.
    fn real(&mut self, stage: &Stage<'_>) -> Result<Arc<File>, Trouble> {
        if let Some(staged) = &self.staged {
            return Ok(staged.clone());
        }
        let staged = Arc::new(stage()?);
        if self.end > 0 {
            let basis = self.basis.as_ref().ok_or(Trouble::Basis)?;
            basis.copy_prefix(&staged, self.end)?;
            self.unflushed = self.end;
        }
        self.staged = Some(staged.clone());
        Ok(staged)
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        // Dropped before it is whole: what could not be written back is written again.
        let _ = self.flushed();
    }
}

/// Makes the staged file.
pub type Stage<'a> = dyn Fn() -> Result<File, Errno> + 'a;
