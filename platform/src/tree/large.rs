//! Reading a large file: read ahead on one thread, cut and match on another.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use handover_engine::ports::Result;
use handover_engine::time::Timestamp;
use handover_engine::tree::{
    Entry, EntryKind, FileRequest, Meta, Piece, SEGMENT_BYTES, Segment, SegmentEnd, Stamp,
};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::cut::{self, Matcher};
use super::pack;
use super::root::Root;

/// Bytes read at once.
const WINDOW: usize = 2 << 20;
/// Windows under way between the two threads.
const WINDOWS: usize = 3;
/// A segment ends when it covers this much of the file, even if it carries little.
const SPAN: u64 = 128 << 20;

/// What the reading thread hands over, in order.
enum Part {
    /// Bytes of a run of data. They end at `end` of the buffer; in front there is room for what is left of the window before.
    Bytes { buffer: Vec<u8>, end: usize, last: bool },
    /// A hole of so many bytes.
    Hole(u64),
    /// The file could not be read on; `None` when it is shorter than it was.
    Broken(Option<Errno>),
}

type To = mpsc::Sender<Result<Segment>>;

/// Why the stream is over before the file is.
enum Stop {
    /// A system call has failed.
    Errno(Errno),
    /// The file has become shorter.
    Shorter,
    /// Nobody listens any more.
    Unheard,
}

/// Says that there is no such file.
pub fn say_gone(request: &FileRequest, to: &To) {
    end(&nothing(request), request.offset, SegmentEnd::Gone, to);
}

/// Sends the segments of a file. An error is a failure to be sent; `Ok(())` also when nobody listens any more.
pub fn read(root: &Root, request: &FileRequest, to: &To, is_log: bool) -> Result<()> {
    let failed = |errno| root.failed(&request.path, "cannot be read")(errno);
    let gone = || say_gone(request, to);
    let fd = match root.file(&request.path) {
        Ok(fd) => fd,
        Err(errno) if pack::is_gone(errno) => {
            gone();
            return Ok(());
        }
        Err(errno) => return Err(failed(errno)),
    };
    let Some(entry) = pack::entry(&fd, &request.path).map_err(failed)? else {
        gone();
        return Ok(());
    };
    let changed = request.begun_as.as_ref().is_some_and(|then| then.stamp != entry.stamp);
    if changed || request.offset > entry.stamp.size {
        end(&entry, request.offset, SegmentEnd::Changed, to);
        return Ok(());
    }
    let average = cut::average(entry.stamp.size, &request.basis);
    let matcher = Matcher::new(&request.basis, average, request.offset);
    let mut sender = Sender::new(&entry, to, matcher, request.offset);
    sender.seen = (is_log && request.offset == 0).then(blake3::Hasher::new);
    let read = match std::thread::scope(|scope| sender.run_with(scope, &fd)) {
        Err(Stop::Unheard) => return Ok(()),
        Err(Stop::Errno(errno)) => return Err(failed(errno)),
        read => read,
    };
    let ended = match pack::entry(&fd, &request.path).map_err(failed)? {
        Some(after) if read.is_ok() && after.stamp == entry.stamp && sender.at() == entry.stamp.size => {
            SegmentEnd::Whole(after)
        }
        // A log that has only grown: what was read of it stands there still.
        Some(_)
            if read.is_ok()
                && sender.at() == entry.stamp.size
                && sender.stands_still(&fd).map_err(failed)? =>
        {
            SegmentEnd::Whole(entry.clone())
        }
        _ => SegmentEnd::Changed,
    };
    sender.finish(ended);
    Ok(())
}

/// The entry of a file that is not there.
fn nothing(request: &FileRequest) -> Entry {
    let xattrs = std::collections::BTreeMap::new();
    let meta = Meta { mode: 0, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs };
    let kind = EntryKind::File { size: 0, sparse: false, linked: false };
    Entry { path: request.path.clone(), kind, meta, stamp: Stamp::default() }
}

fn segment(entry: &Entry, offset: u64) -> Segment {
    Segment { entry: entry.clone(), offset, pieces: Vec::new(), data: bytes::Bytes::new(), end: None }
}

/// Ends a stream; nobody may be listening any more.
fn end(entry: &Entry, offset: u64, end: SegmentEnd, to: &To) {
    drop(to.blocking_send(Ok(Segment { end: Some(end), ..segment(entry, offset) })));
}

/// Reads a file from an offset to the size that its entry has, ahead of who takes it.
struct Ahead<'a> {
    fd: &'a OwnedFd,
    size: u64,
    sparse: bool,
    /// Room in front of each window.
    head: usize,
    to: SyncSender<Part>,
    /// Windows to be used again.
    free: Receiver<Vec<u8>>,
}

impl Ahead<'_> {
    /// `None` when nobody takes the parts any more, or there is nothing to go on with.
    fn run(&self, offset: u64) -> Option<()> {
        let mut at = offset;
        while at < self.size {
            let run = if self.sparse { next_run(self.fd, at, self.size) } else { Ok((at, self.size)) };
            let (start, stop) = match run {
                Ok(run) => run,
                Err(errno) => return self.to.send(Part::Broken(Some(errno))).ok(),
            };
            if start > at {
                self.to.send(Part::Hole(start - at)).ok()?;
            }
            at = start;
            while at < stop {
                let mut buffer = self.free.recv().ok()?;
                let want = WINDOW.min(usize::try_from(stop - at).unwrap_or(WINDOW));
                let end = self.head + want;
                let broken = match pread_full(self.fd, &mut buffer[self.head..end], at) {
                    Ok(read) if read == want => None,
                    Ok(_) => Some(Part::Broken(None)),
                    Err(errno) => Some(Part::Broken(Some(errno))),
                };
                if let Some(broken) = broken {
                    return self.to.send(broken).ok();
                }
                at += want as u64;
                self.to.send(Part::Bytes { buffer, end, last: at == stop }).ok()?;
            }
        }
        Some(())
    }
}

/// The next run of data at or after `at`; it begins at `size` when only a hole is left.
pub fn next_run(fd: impl AsFd, at: u64, size: u64) -> Result<(u64, u64), Errno> {
    let start = match seek(&fd, SeekFrom::Data(at)) {
        Ok(start) => start.min(size),
        Err(Errno::NXIO) => return Ok((size, size)),
        // The file system does not tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, size)),
        Err(errno) => return Err(errno),
    };
    let stop = if start < size { seek(&fd, SeekFrom::Hole(start))?.min(size) } else { size };
    Ok((start, stop))
}

fn pread_full(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut at = 0;
    while at < buffer.len() {
        match rustix::io::pread(fd.as_fd(), &mut buffer[at..], offset + at as u64) {
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
    matcher: Matcher<'a>,
    segment: Segment,
    /// Contents of the open segment.
    data: Vec<u8>,
    /// Bytes of the file that the open segment covers.
    covered: u64,
    /// Of a log that is read from its beginning, what was seen of it.
    seen: Option<blake3::Hasher>,
}

impl<'a> Sender<'a> {
    fn new(entry: &'a Entry, to: &'a To, matcher: Matcher<'a>, offset: u64) -> Self {
        Self { entry, to, matcher, segment: segment(entry, offset), data: Vec::new(), covered: 0, seen: None }
    }

    fn at(&self) -> u64 {
        self.segment.offset + self.covered
    }

    /// Reads on a thread of `scope`, which ends when this does.
    fn run_with<'s>(&mut self, scope: &'s std::thread::Scope<'s, '_>, fd: &'s OwnedFd) -> Result<(), Stop> {
        let (to, parts) = sync_channel(WINDOWS);
        let (give_back, free) = sync_channel(WINDOWS + 1);
        let sparse = matches!(self.entry.kind, EntryKind::File { sparse: true, .. });
        let (head, size, offset) = (self.matcher.longest(), self.entry.stamp.size, self.at());
        for _ in 0..WINDOWS {
            // There is room for all of them.
            let _ = give_back.try_send(vec![0; head + WINDOW]);
        }
        let ahead = Ahead { fd, size, sparse, head, to, free };
        let spawned =
            std::thread::Builder::new().name("read-ahead".to_owned()).spawn_scoped(scope, move || {
                ahead.run(offset);
            });
        spawned.map_err(|_| Stop::Errno(Errno::AGAIN))?;
        self.run(&parts, &give_back)
    }

    /// Takes parts until there are no more. Leaves the last segment open.
    fn run(&mut self, parts: &Receiver<Part>, give_back: &SyncSender<Vec<u8>>) -> Result<(), Stop> {
        // The window before, and what is left of it.
        let mut before: Option<(Vec<u8>, usize, usize)> = None;
        while let Ok(part) = parts.recv() {
            match part {
                Part::Bytes { mut buffer, end, last } => {
                    let mut start = self.matcher.longest();
                    if let Some((left, from, to)) = before.take() {
                        let carried = to - from;
                        buffer[start - carried..start].copy_from_slice(&left[from..to]);
                        start -= carried;
                        // The reader may have ended already.
                        let _ = give_back.try_send(left);
                    }
                    let done = start + self.blocks(&buffer[start..end], last)?;
                    before = Some((buffer, done, end));
                }
                Part::Hole(len) => {
                    self.matcher.skip_hole();
                    self.seen = None;
                    self.segment.pieces.push(Piece::Hole { len });
                    self.covered += len;
                }
                Part::Broken(None) => return Err(Stop::Shorter),
                Part::Broken(Some(errno)) => return Err(Stop::Errno(errno)),
            }
        }
        Ok(())
    }

    /// Cuts `bytes` as far as they can be cut before more is known: to their end if they are the `last` of a run of data.
    fn blocks(&mut self, bytes: &[u8], last: bool) -> Result<usize, Stop> {
        let longest = self.matcher.longest();
        let mut at = 0;
        while at < bytes.len() && (last || bytes.len() - at >= longest) {
            let window = &bytes[at..bytes.len().min(at + longest)];
            let (piece, len) = self.matcher.next(window);
            if let Some(seen) = &mut self.seen {
                seen.update(&window[..len]);
            }
            if let Piece::Data(_) = piece {
                if (self.data.len() + len) as u64 > SEGMENT_BYTES {
                    self.flush()?;
                }
                self.data.extend_from_slice(&window[..len]);
            }
            cut::push(&mut self.segment.pieces, piece);
            at += len;
            self.covered += len as u64;
            if self.covered >= SPAN {
                self.flush()?;
            }
        }
        Ok(at)
    }

    /// The file, up to the size that it had, is what was seen of it.
    fn stands_still(&self, fd: &OwnedFd) -> Result<bool, Errno> {
        let Some(seen) = &self.seen else { return Ok(false) };
        let (mut again, mut at, mut buffer) = (blake3::Hasher::new(), 0, vec![0; WINDOW]);
        while at < self.entry.stamp.size {
            let want = WINDOW.min(usize::try_from(self.entry.stamp.size - at).unwrap_or(WINDOW));
            if pread_full(fd, &mut buffer[..want], at)? < want {
                return Ok(false);
            }
            again.update(&buffer[..want]);
            at += want as u64;
        }
        Ok(again.finalize() == seen.finalize())
    }

    /// Sends the open segment and opens the next.
    fn flush(&mut self) -> Result<(), Stop> {
        let next = segment(self.entry, self.at());
        let mut whole = std::mem::replace(&mut self.segment, next);
        let room = Vec::with_capacity(self.data.len());
        whole.data = std::mem::replace(&mut self.data, room).into();
        self.covered = 0;
        self.to.blocking_send(Ok(whole)).map_err(|_| Stop::Unheard)
    }

    /// Sends the last segment; nobody may be listening any more.
    fn finish(self, ended: SegmentEnd) {
        if !matches!(ended, SegmentEnd::Whole(_)) {
            return end(self.entry, self.segment.offset, ended, self.to);
        }
        let whole = Segment { data: self.data.into(), end: Some(ended), ..self.segment };
        drop(self.to.blocking_send(Ok(whole)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_fits_into_a_segment() {
        let longest = Matcher::new(&[], cut::average(u64::MAX, &[]), 0).longest();
        assert!(longest as u64 <= SEGMENT_BYTES);
    }
}
