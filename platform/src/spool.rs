//! The spool: changes on their way, in segments of checksummed records.
//!
//! A directory for each database of a migration holds `00000001.log`, `00000002.log`, …, appended to in turn and removed once
//! all that is in them has been carried out, and `head`, which says how far that is. A record is its length (32 bits, little endian),
//! the digest of its contents, and those. A record that a crash has cut off at the very end was never acknowledged, so it
//! is cut away; any other damage is an error.

mod directory;
mod frame;
mod record;
mod recover;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Backlog, Result, Spool, SpoolMark, Window};
use handover_engine::time::Timestamp;

pub use self::directory::SpoolDirectory;
use self::frame::Framed;
use crate::tree::blocking;

/// A segment is left once it is larger than this.
const SEGMENT: u64 = 16 << 20;
/// Bytes of records that are taken at once.
const WINDOW_BYTES: u64 = 16 << 20;

/// One database's spool.
#[derive(Clone)]
pub struct FileSpool {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: DatasetName,
    dir: PathBuf,
    limit: u64,
    state: Mutex<State>,
    /// Held by whoever writes a record: one that a caller no longer waits for is written to its end all the same.
    writing: Mutex<()>,
}

/// What is known without reading the files.
#[derive(Default)]
struct State {
    position: Option<LogPosition>,
    /// Where the next record goes.
    tail: SpoolMark,
    /// The records that wait.
    waiting: VecDeque<Waiting>,
    known_at: Timestamp,
}

struct Waiting {
    start: SpoolMark,
    end: SpoolMark,
    changes: u64,
    at: Timestamp,
}

impl FileSpool {
    /// Opens the spool in a directory, or begins an empty one when there is none.
    pub fn open(dataset: DatasetName, dir: PathBuf, limit: u64) -> Result<Self> {
        let shared = Shared { dataset, dir, limit, state: Mutex::default(), writing: Mutex::default() };
        shared.recover()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(&self.shared.dataset, move || work(&shared)).await
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{segment:08}.log"))
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Failure {
        let hint = match error.kind() {
            std::io::ErrorKind::StorageFull => {
                "free space on the file system that holds the state directory, then resume"
            }
            _ => "is the state directory writable, and its file system sound?",
        };
        Failure::operator(format!("{}, spool {}", self.dataset, self.dir.display()), what)
            .because(error)
            .hint(hint)
    }

    fn unreadable(&self, error: std::io::Error) -> Failure {
        self.failed("it cannot be read", error)
    }

    fn damaged(&self, segment: u64) -> Failure {
        let item = format!("{}, spool {}", self.dataset, self.path(segment).display());
        Failure::permanent(item, "a record is damaged")
            .begin_anew("changes are missing: abort, and start again; look after the disk")
    }

    /// The segments that are there, in order.
    fn segments(&self) -> std::io::Result<Vec<u64>> {
        let mut out = Vec::new();
        match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(out),
            entries => {
                for entry in entries? {
                    let name = entry?.file_name();
                    let number: Option<u64> =
                        name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
                    out.extend(number);
                }
            }
        }
        out.sort_unstable();
        Ok(out)
    }

    fn begin(&self, at: &LogPosition) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|error| self.failed("it cannot be made", error))?;
        let part = Changes {
            tables: Vec::new(),
            changes: Vec::new(),
            until: at.clone(),
            at: Timestamp::default(),
            is_end: false,
        };
        self.write(&part)?;
        self.lock().position = Some(at.clone());
        Ok(())
    }

    fn append(&self, part: &Changes) -> Result<()> {
        let is_news = !part.changes.is_empty() || self.lock().position.as_ref() != Some(&part.until);
        let written = if is_news { Some(self.write(part)?) } else { None };
        let mut state = self.lock();
        state.known_at = part.at;
        if let Some((start, end)) = written {
            state.position = Some(part.until.clone());
            if !part.changes.is_empty() {
                let changes = part.changes.len() as u64;
                state.waiting.push_back(Waiting { start, end, changes, at: part.at });
            }
        }
        Ok(())
    }

    /// Writes a record, durably; where it lies.
    fn write(&self, part: &Changes) -> Result<(SpoolMark, SpoolMark)> {
        let contents = record::print(part);
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = self.lock().tail;
        let is_new = start.segment == 0 || start.offset > SEGMENT;
        if is_new {
            start = SpoolMark { segment: start.segment + 1, offset: 0 };
        }
        if self.bytes() + contents.len() as u64 > self.limit {
            let item = format!("{}, spool {}", self.dataset, self.dir.display());
            let what = format!("more changes wait than may ({} bytes)", self.limit);
            return Err(Failure::operator(item, what).hint(
                "raise [limits] spool_bytes in the target's configuration, or wait until it has caught up, then resume",
            ));
        }
        let frame = frame::around(&contents);
        self.put(start, &frame, is_new).map_err(|error| self.failed("changes cannot be kept", error))?;
        let end = SpoolMark { segment: start.segment, offset: start.offset + frame.len() as u64 };
        self.lock().tail = end;
        Ok((start, end))
    }

    /// Writes at a place, and cuts the file back when that fails.
    fn put(&self, at: SpoolMark, frame: &[u8], is_new: bool) -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(self.path(at.segment))?;
        // What a failed try has left.
        file.set_len(at.offset)?;
        file.write_all(frame)?;
        file.sync_data()?;
        if is_new {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    fn oldest(&self, most: usize) -> Result<Option<Window>> {
        let mut wanted = Vec::new();
        {
            let state = self.lock();
            let (mut count, mut bytes) = (0, 0);
            for waiting in &state.waiting {
                count += waiting.changes;
                bytes += waiting.end.offset - waiting.start.offset;
                if !wanted.is_empty() && (count > most as u64 || bytes > WINDOW_BYTES) {
                    break;
                }
                wanted.push((waiting.start, waiting.end));
            }
        }
        let Some((_, end)) = wanted.last().copied() else { return Ok(None) };
        let mut window = Window { tables: Vec::new(), changes: Vec::new(), end };
        for (start, end) in wanted {
            let contents = self.read(start, end).map_err(|error| self.unreadable(error))?;
            let Framed::Whole(contents) = contents else { return Err(self.damaged(start.segment)) };
            record::add(&contents, &mut window).ok_or_else(|| self.damaged(start.segment))?;
        }
        Ok(Some(window))
    }

    fn read(&self, start: SpoolMark, end: SpoolMark) -> std::io::Result<Framed> {
        let mut file = File::open(self.path(start.segment))?;
        file.seek(SeekFrom::Start(start.offset))?;
        frame::read(&mut file, end.offset - start.offset)
    }

    fn done(&self, mark: SpoolMark) -> Result<()> {
        let keep = {
            let mut state = self.lock();
            while state.waiting.front().is_some_and(|waiting| waiting.end <= mark) {
                state.waiting.pop_front();
            }
            state.waiting.front().map_or(state.tail.segment, |waiting| waiting.start.segment)
        };
        let failed = |error| self.failed("what was carried out cannot be forgotten", error);
        fs::write(self.dir.join("head"), format!("{} {}\n", mark.segment, mark.offset)).map_err(failed)?;
        for segment in self.segments().map_err(failed)?.into_iter().filter(|segment| *segment < keep) {
            fs::remove_file(self.path(segment)).map_err(failed)?;
        }
        Ok(())
    }

    /// Bytes on disk, of what waits and a part of a segment more.
    fn bytes(&self) -> u64 {
        let state = self.lock();
        let Some(first) = state.waiting.front() else { return 0 };
        let between = state.tail.segment - first.start.segment;
        (between * SEGMENT + state.tail.offset).saturating_sub(first.start.offset)
    }

    fn backlog(&self) -> Backlog {
        let bytes = self.bytes();
        let state = self.lock();
        Backlog {
            changes: state.waiting.iter().map(|waiting| waiting.changes).sum(),
            bytes,
            known_at: state.known_at,
            oldest_at: state.waiting.front().map_or(state.known_at, |waiting| waiting.at),
        }
    }

    fn remove(&self) -> Result<()> {
        *self.lock() = State::default();
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.failed("it cannot be removed", error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Spool for FileSpool {
    async fn position(&self) -> Result<Option<LogPosition>> {
        Ok(self.shared.lock().position.clone())
    }

    async fn begin(&self, at: &LogPosition) -> Result<()> {
        let at = at.clone();
        self.run(move |shared| shared.begin(&at)).await
    }

    async fn append(&self, part: &Changes) -> Result<()> {
        let part = part.clone();
        self.run(move |shared| shared.append(&part)).await
    }

    async fn oldest(&self, most: usize) -> Result<Option<Window>> {
        self.run(move |shared| shared.oldest(most)).await
    }

    async fn done(&self, mark: SpoolMark) -> Result<()> {
        self.run(move |shared| shared.done(mark)).await
    }

    fn backlog(&self) -> Backlog {
        self.shared.backlog()
    }

    fn limit(&self) -> u64 {
        self.shared.limit
    }

    fn end(&self) -> SpoolMark {
        self.shared.lock().tail
    }

    async fn remove(&self) -> Result<()> {
        self.run(Shared::remove).await
    }
}

#[cfg(test)]
mod tests;
