//! Putting a large file together out of sight.
//!
//! While all pieces are an identical prefix of the file that stands here (the basis), nothing is written: they are only
//! verified and counted. What differs from it in place is kept apart, as a [`Patch`]. Only when a piece of it moves, or
//! much of it differs, is the file written as a whole.

mod basis;
mod patch;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use handover_engine::failure::Failure;
use handover_engine::ports::tree::no_help;
use handover_engine::tree::{Block, Piece, Segment, Stamp};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use basis::{Basis, consists_of};
pub use patch::{Patch, Range};

/// Writing back to the disk begins each time this much has been written, so that little is left to wait for at the end.
const FLUSH_EVERY: u64 = 32 << 20;
/// The longest hole that one block describes.
const HOLE: u64 = 1 << 30;

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
            Trouble::Basis => no_help(item),
            Trouble::Pieces => Failure::permanent(item, "the source sent pieces that do not fit together")
                .hint("are both agents of the same release?"),
        }
    }
}

/// So much of a file is as the basis has it, but for what is kept apart; remembered over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Bytes.
    pub end: u64,
    /// What the basis looked like.
    pub basis: Stamp,
    /// Where it differs, in order; none when there is no patch.
    pub patch: Option<Vec<Range>>,
}

/// Where the contents go that have arrived.
enum Made {
    /// Nowhere: all is as in the basis.
    Same,
    /// What differs from the basis, apart.
    Patch(Patch),
    /// All of it, in a file of its own.
    Whole(Arc<File>),
}

/// Makes the files that an assembly needs.
pub trait Stage {
    /// For all the contents.
    fn whole(&self) -> Result<File, Errno>;
    /// For a patch.
    fn patch(&self) -> Result<File, Errno>;
}

/// A large file in the making.
pub struct Assembly {
    basis: Option<Basis>,
    made: Made,
    /// How much of the file is there (or counted).
    end: u64,
    unflushed: u64,
    flusher: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Assembly {
    /// A new file, `basis` being what stands there now.
    pub fn new(basis: Option<Basis>) -> Self {
        Self { basis, made: Made::Same, end: 0, unflushed: 0, flusher: None }
    }

    /// A file whose first `end` bytes are staged already. What lies behind them goes.
    pub fn resumed(basis: Option<Basis>, staged: File, end: u64) -> std::io::Result<Self> {
        staged.set_len(end)?;
        let mut assembly = Self::new(basis);
        (assembly.made, assembly.end) = (Made::Whole(Arc::new(staged)), end);
        Ok(assembly)
    }

    /// A file whose first `end` bytes are those of the basis, but for the patch.
    pub fn counted_so_far(basis: Basis, end: u64, patch: Option<Patch>) -> Self {
        let mut assembly = Self::new(Some(basis));
        assembly.end = end;
        if let Some(mut patch) = patch {
            patch.cut(end);
            assembly.made = Made::Patch(patch);
        }
        assembly
    }

    /// How much of the file is there.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What must be remembered of it, when it is not staged as a whole.
    pub fn counted(&self) -> Option<Counted> {
        let basis = self.basis.as_ref().filter(|basis| !basis.is_elsewhere())?.stamp();
        let patch = match &self.made {
            Made::Whole(_) => return None,
            Made::Same if self.end == 0 => return None,
            Made::Same => None,
            Made::Patch(patch) => Some(patch.ranges().to_vec()),
        };
        Some(Counted { end: self.end, basis, patch })
    }

    /// Goes back: what lies behind `offset` comes again.
    pub fn rewind(&mut self, offset: u64) -> Result<(), Trouble> {
        if offset < self.end {
            self.flushed()?;
            match &mut self.made {
                Made::Same => {}
                Made::Patch(patch) => patch.cut(offset),
                Made::Whole(staged) => staged.set_len(offset)?,
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
        stage: &dyn Stage,
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
    fn write(&mut self, data: &mut &[u8], len: usize, stage: &dyn Stage) -> Result<(), Trouble> {
        let (bytes, rest) = data.split_at_checked(len).ok_or(Trouble::Pieces)?;
        *data = rest;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.may_patch(len as u64) {
            if let Made::Same = self.made {
                self.made = Made::Patch(Patch::new(stage.patch()?));
            }
            if let Made::Patch(patch) = &mut self.made {
                patch.write(bytes, self.end)?;
            }
        } else {
            self.real(stage)?.write_all_at(bytes, self.end)?;
        }
        self.advance(len as u64)
    }

    /// Whether `more` bytes that differ from the basis are worth being kept apart.
    fn may_patch(&self, more: u64) -> bool {
        let Some(basis) = self.basis.as_ref().filter(|basis| basis.may_change()) else { return false };
        let apart = match &self.made {
            Made::Same => 0,
            Made::Patch(patch) => patch.bytes(),
            Made::Whole(_) => return false,
        };
        // A patch is written twice.
        apart + more <= basis.stamp().size / 4
    }

    fn is_whole(&self) -> bool {
        matches!(self.made, Made::Whole(_))
    }

    fn hole(&mut self, len: u64, stage: &dyn Stage) -> Result<(), Trouble> {
        let same = !self.is_whole() && self.basis.as_ref().is_some_and(|b| b.is_hole(self.end, len));
        if !same {
            self.real(stage)?.set_len(self.end + len)?;
        }
        self.end += len;
        Ok(())
    }

    /// Blocks of the basis: verified as they are read, copied unless they are where they were.
    fn reuse(&mut self, first: usize, run: &[Block], stage: &dyn Stage) -> Result<(), Trouble> {
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
            if self.is_whole() || start != self.end {
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
            if let Made::Whole(staged) = &self.made {
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
        let Made::Whole(staged) = &self.made else { return Ok(()) };
        let staged = staged.clone();
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

    /// Makes what is staged durable.
    pub fn sync(&mut self) -> Result<(), Trouble> {
        self.flushed()?;
        self.unflushed = 0;
        match &self.made {
            Made::Same => Ok(()),
            Made::Patch(patch) => Ok(patch.file().sync_data()?),
            Made::Whole(staged) => Ok(staged.sync_data()?),
        }
    }

    /// The file is whole: unless it is the very file that stands here already, what makes it so is staged now.
    pub fn finish(&mut self, stage: &dyn Stage) -> Result<(), Trouble> {
        let Some(basis) = self.basis.as_ref().filter(|basis| !self.is_whole() && !basis.is_elsewhere())
        else {
            self.real(stage)?.set_len(self.end)?;
            return Ok(());
        };
        if let Made::Same = self.made
            && basis.stamp().size != self.end
        {
            if basis.may_change() {
                // It only becomes shorter.
                self.made = Made::Patch(Patch::new(stage.patch()?));
            } else {
                self.real(stage)?.set_len(self.end)?;
                return Ok(());
            }
        }
        if self.basis.as_ref().is_some_and(Basis::is_unchanged) { Ok(()) } else { Err(Trouble::Basis) }
    }

    /// The file with all the contents; makes it, with what was only counted or kept apart so far.
    fn real(&mut self, stage: &dyn Stage) -> Result<Arc<File>, Trouble> {
        if let Made::Whole(staged) = &self.made {
            return Ok(staged.clone());
        }
        let staged = Arc::new(stage.whole()?);
        if self.end > 0 {
            let basis = self.basis.as_ref().ok_or(Trouble::Basis)?;
            basis.copy_prefix(&staged, self.end.min(basis.stamp().size))?;
            staged.set_len(self.end)?;
            if let Made::Patch(patch) = &self.made {
                patch.apply(&staged)?;
            }
            self.unflushed = self.end;
        }
        self.made = Made::Whole(staged.clone());
        Ok(staged)
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        // Dropped before it is whole: what could not be written back is written again.
        let _ = self.flushed();
    }
}
