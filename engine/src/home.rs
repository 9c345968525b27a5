//! Bringing the files home that were written at the target, when an abort puts the source back in its place.
//!
//! The journal's index says what every file at the target looked like when it landed: what looks otherwise by now was changed there, what
//! stands there and is not in it is new, and what is in it and stands there no more was removed. Only that goes home. The index says as
//! well what the source had then: where the source has something else by now, that stays, and the target's is told of. It is not lost, since an abort
//! keeps the target's tree.
//!
//! Whoever is interrupted begins anew: what is home already looks as it does at the target.

mod bring;
mod decide;
mod trip;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::bring::Homecoming;
pub use self::trip::Brought;
use crate::time::Timestamp;
use crate::tree::{Entry, RelPath};

/// What has landed at the source since this agent was started: whoever tries again must not take it for the source's own.
#[derive(Clone, Default)]
struct Landed(Arc<Mutex<HashMap<RelPath, (u64, Timestamp)>>>);

impl Landed {
    fn add(&self, files: &[Entry]) {
        let mut landed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        landed.extend(files.iter().map(|file| (file.path.clone(), (file.stamp.size, file.meta.mtime))));
    }

    /// Whether what stands there is that.
    fn has(&self, there: &Entry) -> bool {
        let landed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        landed.get(&there.path) == Some(&(there.stamp.size, there.meta.mtime))
    }
}
