//! Putting a large file together out of sight.
//!
//! While all pieces are an identical prefix of the file that stands here, nothing is written: they are only verified and
//! counted. The first difference makes the prefix real.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::tree::{Block, Piece, Segment};
use rustix::io::Errno;

/// Bytes copied at once.
const BUFFER: usize = 4 << 20;
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
            Trouble::Basis => Failure::transient(item, "the file here is not what the journal says it is")
                .hint("it is copied without its help"),
            Trouble::Pieces => Failure::permanent(item, "the source sent pieces that do not fit together")
                .hint("are both agents of the same release?"),
        }
    }
}

/// A large file in the making.
pub struct Assembly {
    /// The file that stands under the path now, if it can be read.
    basis: Option<File>,
    /// Where each block of the basis begins.
    starts: Vec<u64>,
    /// The staged file; none while everything so far is an identical prefix of the basis.
    staged: Option<Arc<File>>,
    /// How much of the file is there (or counted).
    end: u64,
    unflushed: u64,
    flusher: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Assembly {
    /// A new file, `basis` being what stands there now.
    pub fn new(basis: Option<OwnedFd>, blocks: &[Block]) -> Self {
        let mut at = 0;
        let starts = blocks.iter().map(|block| {
            let start = at;
            at += u64::from(block.len);
            start
        });
        let starts = starts.collect();
        Self { basis: basis.map(File::from), starts, staged: None, end: 0, unflushed: 0, flusher: None }
    }

    /// A file whose first `end` bytes are staged already.
    pub fn resumed(basis: Option<OwnedFd>, blocks: &[Block], staged: File, end: u64) -> Self {
        Self { staged: Some(Arc::new(staged)), end, ..Self::new(basis, blocks) }
    }

    /// How much of the file is there.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes a segment; `stage` makes the staged file when it is needed. Returns the blocks it consists of.
    pub fn take(
        &mut self,
        segment: &Segment,
        blocks: &[Block],
        stage: impl Fn() -> Result<File, Errno>,
    ) -> Result<Vec<Block>, Trouble> {
        if segment.offset != self.end {
            return Err(Trouble::Pieces);
        }
        let mut data = &segment.data[..];
        let mut out = Vec::new();
        for piece in &segment.pieces {
            match piece {
                Piece::Data(block) => {
                    let (bytes, rest) = data.split_at_checked(block.len as usize).ok_or(Trouble::Pieces)?;
                    data = rest;
                    self.real(&stage)?.write_all_at(bytes, self.end)?;
                    self.advance(u64::from(block.len))?;
                    out.push(*block);
                }
                Piece::Hole { len } => {
                    self.real(&stage)?.set_len(self.end + len)?;
                    self.advance(*len)?;
                    let holes = (0..len.div_ceil(HOLE)).map(|n| (len - n * HOLE).min(HOLE));
                    out.extend(
                        holes.map(|len| Block { len: u32::try_from(len).unwrap_or(u32::MAX), digest: None }),
                    );
                }
                Piece::Basis { first, count } => {
                    let range = *first as usize..(*first as usize).saturating_add(*count as usize);
                    let run = blocks.get(range).ok_or(Trouble::Pieces)?;
                    self.reuse(*first as usize, run, &stage)?;
                    out.extend_from_slice(run);
                }
            }
        }
        Ok(out)
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

    fn flushed(&mut self) -> Result<(), Trouble> {
        match self.flusher.take() {
            Some(flusher) => Ok(flusher.join().unwrap_or_else(|_| Err(Errno::IO.into()))?),
            None => Ok(()),
        }
    }

    /// Makes what is there durable, a counted prefix too.
    pub fn sync(&mut self, stage: impl Fn() -> Result<File, Errno>) -> Result<(), Trouble> {
        if self.end > 0 {
            self.real(&stage)?;
        }
        self.flushed()?;
        if let Some(staged) = &self.staged {
            staged.sync_data()?;
        }
        Ok(())
    }

    /// The end of a hole at the end of the file, and of what an earlier run may have written beyond.
    pub fn trim(&mut self) -> Result<(), Trouble> {
        self.flushed()?;
        if let Some(staged) = &self.staged {
            staged.set_len(self.end)?;
        }
        Ok(())
    }

    /// The staged file; makes it, with the prefix that was only counted so far.
    fn real(&mut self, stage: &impl Fn() -> Result<File, Errno>) -> Result<Arc<File>, Trouble> {
        if let Some(staged) = &self.staged {
            return Ok(staged.clone());
        }
        let staged = Arc::new(stage()?);
        if self.end > 0 {
            let basis = self.basis.as_ref().ok_or(Trouble::Basis)?;
            let (mut from, mut to) = (0, 0);
            while to < self.end {
                let want = usize::try_from(self.end - to).unwrap_or(BUFFER).min(BUFFER);
                let copied =
                    rustix::fs::copy_file_range(basis, Some(&mut from), &*staged, Some(&mut to), want)?;
                if copied == 0 {
                    return Err(Trouble::Basis);
                }
            }
        }
        self.staged = Some(staged.clone());
        Ok(staged)
    }

    /// Blocks of the basis: verified as they are read, copied unless they only continue an identical prefix.
    fn reuse(
        &mut self,
        first: usize,
        run: &[Block],
        stage: &impl Fn() -> Result<File, Errno>,
    ) -> Result<(), Trouble> {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < run.len() {
            let start = self.starts.get(first + at).copied().ok_or(Trouble::Pieces)?;
            if run[at].digest.is_none() {
                self.real(stage)?.set_len(self.end + u64::from(run[at].len))?;
                self.advance(u64::from(run[at].len))?;
                at += 1;
                continue;
            }
            let count = fitting(&run[at..]);
            let len: usize = run[at..at + count].iter().map(|block| block.len as usize).sum();
            buffer.resize(len, 0);
            let basis = self.basis.as_ref().ok_or(Trouble::Basis)?;
            basis.read_exact_at(&mut buffer, start).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Trouble::Basis,
                _ => error.into(),
            })?;
            if !verified(&run[at..at + count], &buffer) {
                return Err(Trouble::Basis);
            }
            if self.staged.is_some() || start != self.end {
                self.real(stage)?.write_all_at(&buffer, self.end)?;
            }
            self.advance(len as u64)?;
            at += count;
        }
        Ok(())
    }
}

/// How many blocks from the first on fit into one buffer: at least one, none of them a hole.
fn fitting(run: &[Block]) -> usize {
    let mut len = 0;
    let fits = |block: &&Block| {
        len += block.len as usize;
        block.digest.is_some() && len <= BUFFER
    };
    run.iter().take_while(fits).count().max(1)
}

/// Every block's bytes have its digest.
fn verified(blocks: &[Block], mut bytes: &[u8]) -> bool {
    blocks.iter().all(|block| match bytes.split_at_checked(block.len as usize) {
        Some((own, rest)) => {
            bytes = rest;
            block.digest == Some(Digest::of(own))
        }
        None => false,
    })
}

/// Whether an open file consists of these blocks.
pub fn consists_of(file: &File, blocks: &[Block]) -> std::io::Result<bool> {
    let (mut offset, mut buffer, mut at) = (0, Vec::new(), 0);
    while at < blocks.len() {
        let hole = blocks[at].digest.is_none();
        let count = if hole { 1 } else { fitting(&blocks[at..]) };
        let len: u64 = blocks[at..at + count].iter().map(|block| u64::from(block.len)).sum();
        if hole {
            if !is_zero(file, offset, len)? {
                return Ok(false);
            }
        } else {
            buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            match file.read_exact_at(&mut buffer, offset) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
                other => other?,
            }
            if !verified(&blocks[at..at + count], &buffer) {
                return Ok(false);
            }
        }
        offset += len;
        at += count;
    }
    Ok(file.metadata()?.len() == offset)
}

fn is_zero(file: &File, offset: u64, len: u64) -> std::io::Result<bool> {
    let (mut at, end, mut buffer) = (offset, offset + len, vec![0; BUFFER]);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        match file.read_at(&mut buffer[..want], at)? {
            0 => return Ok(false),
            read if buffer[..read].iter().any(|&b| b != 0) => return Ok(false),
            read => at += read as u64,
        }
    }
    Ok(true)
}
