//! Telling what changes in a tree, for those who follow it.
//!
//! The directories are watched as long as somebody asks. What was told is kept until the cursor that came with it comes back, so that
//! an answer that was lost is given again. Whatever is not known for sure is told as: anywhere.

mod marks;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::time::Clock;
use handover_engine::tree::{Changed, Cursor, Spots};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::marks::{Lost, Marks};
use super::filter::Filter;
use super::reader::blocking;

/// Directories are no longer watched when nobody has asked for so long.
const IDLE: Duration = Duration::from_secs(600);
/// A tree that could not be watched is tried again after so long.
const AGAIN: Duration = Duration::from_secs(900);
/// Events are taken from the kernel so often at most: many come together.
const GATHER: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// It is looked so often whether the tree is still watched.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Watches one tree.
pub struct Watcher {
    shared: Arc<Shared>,
    /// Answers are given one after another.
    turn: tokio::sync::Mutex<()>,
}

struct Shared {
    dataset: DatasetName,
    root: PathBuf,
    filter: Arc<Filter>,
    state: Mutex<State>,
    happened: Notify,
}

#[derive(Default)]
struct State {
    watch: Option<Watch>,
    /// Why the tree cannot be watched, since when.
    untold: Option<(String, Instant)>,
}

/// A tree being watched.
struct Watch {
    /// Names this watch among all of all agents.
    name: String,
    marks: Marks,
    /// What has happened and was not told; `None` when that may be anything.
    fresh: Option<Spots>,
    /// What was told with the last answer, and may not have arrived.
    told: Option<Spots>,
    /// Number of the last answer, and of the one from which `told` goes on.
    last: u64,
    base: Option<u64>,
    asked: Instant,
}

impl Watcher {
    pub fn new(dataset: DatasetName, root: PathBuf, filter: Arc<Filter>) -> Self {
        let (state, happened) = (Mutex::default(), Notify::new());
        Self { shared: Arc::new(Shared { dataset, root, filter, state, happened }), turn: Default::default() }
    }

    /// As `TreeSource::changed`.
    pub async fn changed(&self, since: Option<Cursor>, wait: Duration) -> Result<Changed> {
        let _turn = self.turn.lock().await;
        let until = Instant::now() + wait;
        loop {
            let happened = self.shared.happened.notified();
            tokio::pin!(happened);
            happened.as_mut().enable();
            let (shared, since) = (self.shared.clone(), since.clone());
            let is_last = Instant::now() >= until;
            let answer =
                blocking(&self.shared.dataset, move || Ok(shared.answer(since.as_ref(), is_last))).await?;
            if let Some(changed) = answer {
                return Ok(changed);
            }
            tokio::select! {
                () = happened => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to answer; `None` when nothing has happened and there is time to wait.
    fn answer(self: &Arc<Self>, since: Option<&Cursor>, is_last: bool) -> Option<Changed> {
        let mut state = self.state();
        state.untold.take_if(|(_, at)| at.elapsed() > AGAIN);
        if let Some((why, _)) = &state.untold {
            return Some(anywhere(why));
        }
        state.watch.take_if(|watch| !watch.marks.is_at(&self.root) || !watch.gather(&self.filter));
        let watch = match &mut state.watch {
            Some(watch) => watch,
            None => match self.begin() {
                Ok(watch) => state.watch.insert(watch),
                Err(Lost::UpToNow) => return Some(anywhere("")),
                Err(Lost::Always(why)) => {
                    let changed = anywhere(&why);
                    tracing::warn!(dataset = %self.dataset, why, "the tree cannot be watched: it is scanned");
                    state.untold = Some((why, Instant::now()));
                    return Some(changed);
                }
            },
        };
        watch.answer(since, is_last)
    }

    fn begin(self: &Arc<Self>) -> Result<Watch, Lost> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let marks = Marks::new(&self.dataset, &self.root, &self.filter)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:x}-{:x}-{number:x}", crate::SystemClock.now().millis(), std::process::id());
        let (weak, inotify, own) = (Arc::downgrade(self), marks.inotify(), name.clone());
        let spawned = std::thread::Builder::new()
            .name("watch-tree".to_owned())
            .spawn(move || gather_until(&weak, &inotify, &own));
        spawned.map_err(|error| Lost::Always(format!("no thread: {error}")))?;
        tracing::info!(dataset = %self.dataset, "the tree is watched");
        Ok(Watch { name, marks, fresh: None, told: None, last: 0, base: None, asked: Instant::now() })
    }

    /// Takes what the kernel tells the watch of this name; false when it is over: nobody asks any more, or it is lost.
    fn gather(&self, name: &str) -> bool {
        let mut state = self.state();
        if state.watch.as_ref().is_none_or(|watch| watch.name != name) {
            return false;
        }
        let filter = &self.filter;
        let is_lost = |watch: &mut Watch| watch.asked.elapsed() > IDLE || !watch.gather(filter);
        if state.watch.take_if(is_lost).is_some() {
            tracing::info!(dataset = %self.dataset, "the tree is no longer watched");
        }
        state.watch.is_some()
    }
}

impl Watch {
    /// Takes what has happened; false when that cannot be told.
    fn gather(&mut self, filter: &Filter) -> bool {
        let mut spots = self.fresh.take();
        let mut ignored = Spots::default();
        let drained = self.marks.drain(filter, spots.as_mut().unwrap_or(&mut ignored));
        self.fresh = spots.filter(|spots| !spots.are_too_many());
        drained.is_ok()
    }

    fn cursor(&self) -> Cursor {
        Cursor(format!("{}/{}", self.name, self.last))
    }

    /// The number of an answer of this watch.
    fn number(&self, cursor: &Cursor) -> Option<u64> {
        cursor.0.strip_prefix(&self.name)?.strip_prefix('/')?.parse().ok()
    }

    fn answer(&mut self, since: Option<&Cursor>, is_last: bool) -> Option<Changed> {
        self.asked = Instant::now();
        let number = since.and_then(|cursor| self.number(cursor));
        if number == Some(self.last) {
            if self.fresh.as_ref().is_some_and(Spots::is_empty) {
                let spots = Some(Spots::default());
                return is_last.then(|| Changed { cursor: self.cursor(), spots, untold: String::new() });
            }
            self.base = number;
            self.told = self.fresh.replace(Spots::default());
        } else if number.is_some() && number == self.base {
            // The last answer was lost, or what it led to has failed.
            let fresh = self.fresh.replace(Spots::default());
            self.told = match (self.told.take(), fresh) {
                (Some(mut told), Some(fresh)) => {
                    told.join(&fresh);
                    Some(told).filter(|told| !told.are_too_many())
                }
                _ => None,
            };
        } else {
            (self.base, self.told, self.fresh) = (None, None, Some(Spots::default()));
        }
        self.last += 1;
        Some(Changed { cursor: self.cursor(), spots: self.told.clone(), untold: String::new() })
    }
}

/// It may be anywhere, and nobody will know where.
fn anywhere(why: &str) -> Changed {
    Changed { cursor: Cursor(String::new()), spots: None, untold: why.to_owned() }
}

/// Takes what the kernel tells before its queue is full, as long as the watch of this name goes on.
fn gather_until(shared: &Weak<Shared>, inotify: &OwnedFd, name: &str) {
    loop {
        match poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let Some(shared) = shared.upgrade() else { return };
        let goes_on = shared.gather(name);
        shared.happened.notify_waiters();
        drop(shared);
        if !goes_on {
            return;
        }
        // Nothing but a rest.
        let _ = poll(&mut [], Some(&GATHER));
    }
}
