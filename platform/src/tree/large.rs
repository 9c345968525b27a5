//! Reading a large file: read ahead on one thread, cut and match on another.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::tree::{
    Block, Entry, EntryKind, FileRequest, Meta, Piece, SEGMENT_BYTES, Segment, SegmentEnd, Stamp,
};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::cut::{self, Matcher};
use super::pack;
use super::root::Root;

/// Bytes read at once.
const WINDOW: usize = 4 << 20;
/// A segment ends when it covers this much of the file, even if it carries little.
const SPAN: u64 = 128 << 20;

/// What the reading thread hands over, in order.
enum Part {
    /// Bytes of a run of data.
    Bytes(Vec<u8>),
    /// A run of data has ended: blocks do not reach over it.
    End,
    /// A hole of so many bytes.
    Hole(u64),
    /// The file could not be read on; `None` when it is shorter than it was.
    Broken(Option<Errno>),
}

type To = mpsc::Sender<Result<Segment>>;

/// Sends the segments of a file. An error is a failure to be sent; `Ok(())` also when nobody listens any more.
pub fn read(root: &Root, request: &FileRequest, to: &To) -> Result<()> {
    let failed = |errno| root.failed(&request.path, "cannot be read")(errno);
    let fd = match root.file(&request.path) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return gone(request, to),
        Err(errno) => return Err(failed(errno)),
    };
    let Some(entry) = pack::entry(&fd, &request.path).map_err(failed)? else { return gone(request, to) };
    let changed = request.begun_as.as_ref().is_some_and(|then| then.stamp != entry.stamp);
    if changed || request.offset > entry.size().unwrap_or(0) {
        end(&entry, request.offset, SegmentEnd::Changed, to);
        return Ok(());
    }
    let fd = Arc::new(fd);
    let parts = read_ahead(fd.clone(), &entry, request.offset)?;
    let average = cut::average(entry.size().unwrap_or(0), &request.basis);
    let matcher = Matcher::new(&request.basis, average, request.offset);
    let mut sender =
        Sender { entry: &entry, to, segment: Segment::default_at(&entry, request.offset), covered: 0 };
    if !sender.run(matcher, &parts).map_err(failed)? {
        return Ok(());
    }
    let ended = match pack::entry(&fd, &request.path).map_err(failed)? {
        Some(after) if after.stamp == entry.stamp && sender.at() == entry.stamp.size => {
            SegmentEnd::Whole(after)
        }
        _ => SegmentEnd::Changed,
    };
    sender.finish(ended);
    Ok(())
}

fn gone(request: &FileRequest, to: &To) -> Result<()> {
    let meta = Meta {
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: handover_engine::time::Timestamp::default(),
        xattrs: std::collections::BTreeMap::new(),
    };
    let kind = EntryKind::File { size: 0, sparse: false, linked: false };
    let entry = Entry { path: request.path.clone(), kind, meta, stamp: Stamp::default() };
    end(&entry, request.offset, SegmentEnd::Gone, to);
    Ok(())
}

fn end(entry: &Entry, offset: u64, end: SegmentEnd, to: &To) {
    let segment = Segment { end: Some(end), ..Segment::default_at(entry, offset) };
    // Nobody may be listening any more.
    let _ = to.blocking_send(Ok(segment));
}

/// Reads from `offset` to the size that the entry has, ahead of who takes it.
fn read_ahead(fd: Arc<OwnedFd>, entry: &Entry, offset: u64) -> Result<Receiver<Part>> {
    let (size, sparse) = (entry.stamp.size, matches!(entry.kind, EntryKind::File { sparse: true, .. }));
    let (to, parts) = sync_channel(3);
    let spawned = std::thread::Builder::new().name("read-ahead".to_owned()).spawn(move || {
        let mut at = offset;
        while at < size {
            let run = if sparse { next_run(&fd, at, size) } else { Ok((at, size)) };
            let (start, stop) = match run {
                Ok(run) => run,
                Err(errno) => return drop(to.send(Part::Broken(Some(errno)))),
            };
            if start > at && to.send(Part::Hole(start - at)).is_err() {
                return;
            }
            at = start;
            while at < stop {
                let want = WINDOW.min(usize::try_from(stop - at).unwrap_or(WINDOW));
                let mut bytes = vec![0; want];
                let part = match pread_full(&fd, &mut bytes, at) {
                    Ok(read) if read == want => Part::Bytes(bytes),
                    Ok(_) => Part::Broken(None),
                    Err(errno) => Part::Broken(Some(errno)),
                };
                let broken = matches!(part, Part::Broken(_));
                if to.send(part).is_err() || broken {
                    return;
                }
                at += want as u64;
            }
            if stop > start && to.send(Part::End).is_err() {
                return;
            }
        }
    });
    spawned
        .map_err(|e| Failure::transient(entry.path.to_string(), "no thread to read it with").because(e))?;
    Ok(parts)
}

/// The next run of data at or after `at`; it begins at `size` when only a hole is left.
fn next_run(fd: &OwnedFd, at: u64, size: u64) -> Result<(u64, u64), Errno> {
    let start = match seek(fd, SeekFrom::Data(at)) {
        Ok(start) => start.min(size),
        Err(Errno::NXIO) => return Ok((size, size)),
        Err(errno) => return Err(errno),
    };
    let stop = if start < size { seek(fd, SeekFrom::Hole(start))?.min(size) } else { size };
    Ok((start, stop))
}

fn pread_full(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut at = 0;
    while at < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[at..], offset + at as u64) {
            Ok(0) => break,
            Ok(read) => at += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(at)
}

/// Makes segments of blocks.
struct Sender<'a> {
    entry: &'a Entry,
    to: &'a To,
    segment: Segment,
    /// Bytes of the file that the open segment covers.
    covered: u64,
}

trait DefaultAt {
    fn default_at(entry: &Entry, offset: u64) -> Self;
}

impl DefaultAt for Segment {
    fn default_at(entry: &Entry, offset: u64) -> Self {
        Segment { entry: entry.clone(), offset, pieces: Vec::new(), data: bytes::Bytes::new(), end: None }
    }
}

impl Sender<'_> {
    fn at(&self) -> u64 {
        self.segment.offset + self.covered
    }

    /// Takes parts until there are no more; false when nobody listens, or the file has become shorter (and that is said).
    fn run(&mut self, mut matcher: Matcher<'_>, parts: &Receiver<Part>) -> Result<bool, Errno> {
        let mut pending: Vec<u8> = Vec::new();
        let mut data = Vec::new();
        loop {
            let (more, last) = match parts.recv() {
                Ok(Part::Bytes(bytes)) => (Some(bytes), false),
                Ok(Part::End) => (None, true),
                Ok(Part::Hole(len)) => {
                    matcher.skip_hole();
                    self.segment.pieces.push(Piece::Hole { len });
                    self.covered += len;
                    continue;
                }
                Ok(Part::Broken(None)) => {
                    end(self.entry, self.at(), SegmentEnd::Changed, self.to);
                    return Ok(false);
                }
                Ok(Part::Broken(Some(errno))) => return Err(errno),
                Err(_) => return Ok(self.flush(&mut data)),
            };
            match more {
                Some(bytes) if pending.is_empty() => pending = bytes,
                Some(bytes) => pending.extend_from_slice(&bytes),
                None => {}
            }
            let mut at = 0;
            while at < pending.len() && (last || pending.len() - at >= matcher.longest()) {
                let window = &pending[at..pending.len().min(at + matcher.longest())];
                let (piece, len) = matcher.next(window);
                if let Piece::Data(Block { .. }) = piece {
                    data.extend_from_slice(&window[..len]);
                }
                cut::push(&mut self.segment.pieces, piece);
                at += len;
                self.covered += len as u64;
                let full =
                    data.len() as u64 + matcher.longest() as u64 > SEGMENT_BYTES || self.covered >= SPAN;
                if full && !self.flush(&mut data) {
                    return Ok(false);
                }
            }
            pending.drain(..at);
        }
    }

    /// Sends the open segment and opens the next; false when nobody listens.
    fn flush(&mut self, data: &mut Vec<u8>) -> bool {
        if self.segment.pieces.is_empty() {
            return true;
        }
        let next = Segment::default_at(self.entry, self.at());
        let mut segment = std::mem::replace(&mut self.segment, next);
        segment.data = std::mem::take(data).into();
        self.covered = 0;
        self.to.blocking_send(Ok(segment)).is_ok()
    }

    fn finish(self, ended: SegmentEnd) {
        end(self.entry, self.at(), ended, self.to);
    }
}
