//! How far following has got, for those who wait for it, and which of the keys that they look at are carried out meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::ports::{Spool, SpoolMark};
use crate::rows::{Key, TableName};

/// The course of one follower.
#[derive(Debug)]
pub struct Course {
    /// Requests for changes that were begun.
    asked: AtomicU64,
    /// The last request whose answer reached the log's end, and is in the spool.
    told: watch::Sender<u64>,
    /// Up to where the spool is carried out.
    done: watch::Sender<SpoolMark>,
    watched: Mutex<Option<Watched>>,
    /// Held by whoever adds to the spool.
    pub(super) appending: tokio::sync::Mutex<()>,
}

/// Keys of a table that are looked at, and whether they were carried out since.
#[derive(Debug)]
struct Watched {
    table: TableName,
    keys: HashMap<Key, bool>,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            asked: AtomicU64::new(0),
            told: watch::Sender::new(0),
            done: watch::Sender::new(SpoolMark::default()),
            watched: Mutex::default(),
            appending: tokio::sync::Mutex::default(),
        }
    }
}

impl Course {
    /// A request for changes begins; its number.
    pub fn asks(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Everything that was committed before this request began is in the spool.
    pub fn is_told(&self, request: u64) {
        self.told.send_if_modified(|told| {
            let is_news = request > *told;
            *told = request.max(*told);
            is_news
        });
    }

    /// Whether the log's end was ever reached.
    pub fn is_known(&self) -> bool {
        *self.told.borrow() > 0
    }

    /// Everything before this mark is carried out.
    pub fn is_done(&self, mark: SpoolMark) {
        self.done.send_replace(mark);
    }

    /// Waits until everything that was committed at the source before the call is carried out. As long as somebody follows.
    pub async fn caught_up(&self, spool: &dyn Spool) {
        let asked = self.asked.load(Ordering::SeqCst);
        // The senders live as long as this.
        let _ = self.told.subscribe().wait_for(|told| *told > asked).await;
        let end = spool.end();
        // What is added without a change is never carried out.
        let _ = self.done.subscribe().wait_for(|done| *done >= end || spool.backlog().changes == 0).await;
    }

    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is noted which of these keys are carried out.
    pub fn watch(&self, table: &TableName, keys: impl IntoIterator<Item = Key>) {
        let keys = keys.into_iter().map(|key| (key, false)).collect();
        *self.watched() = Some(Watched { table: table.clone(), keys });
    }

    /// Which keys were carried out since, and that no more need be noted.
    pub fn unwatch(&self) -> impl Fn(&Key) -> bool + use<> {
        let keys = self.watched().take().map(|watched| watched.keys).unwrap_or_default();
        move |key| keys.get(key).copied().unwrap_or(false)
    }

    /// These keys are about to be carried out.
    pub fn carries<'k>(&self, table: &TableName, keys: impl IntoIterator<Item = &'k Key>) {
        if let Some(watched) = self.watched().as_mut().filter(|watched| watched.table == *table) {
            for key in keys {
                if let Some(is_told) = watched.keys.get_mut(key) {
                    *is_told = true;
                }
            }
        }
    }

    /// A table is about to be emptied.
    pub fn clears(&self, table: &TableName) {
        if let Some(watched) = self.watched().as_mut().filter(|watched| watched.table == *table) {
            watched.keys.values_mut().for_each(|is_told| *is_told = true);
        }
    }
}
