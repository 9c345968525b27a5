//! Databases that this process keeps open while their writers are fenced off.
//!
//! The last of the writers to leave would bring the whole log into the database otherwise, and keep everybody from reading for as long: the longer, the
//! larger the database is (SQLite manual, "Write-Ahead Logging", 4). What is kept open cannot be had alone: whoever needs that lets go first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

static HELD: Mutex<BTreeMap<PathBuf, Connection>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<PathBuf, Connection>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the database at `path` open, by a connection that has read it. In place of the one that was held before.
pub fn hold(path: &Path, db: Connection) {
    held().insert(path.to_owned(), db);
}

/// Lets go of it. Idempotent.
pub fn let_go(path: &Path) {
    let db = held().remove(path);
    // Closing the last one takes a while: not with the lock held.
    drop(db);
}
