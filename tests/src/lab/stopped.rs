//! Lets commands that were on a host when it went down come to their end.
//!
//! A host that goes down stops its processes before it kills them, and nsenter stops itself when its child was stopped: neither would
//! be waited for, and the host would not go down before they are.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::poll;

const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// Lets go on, until it is dropped, what was stopped of this process's nsenters.
#[derive(Debug)]
pub struct Continuing(Arc<AtomicBool>);

impl Continuing {
    /// Begins.
    pub fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                children().iter().filter(is_stopped).for_each(|pid| {
                    if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                        // It may have ended meanwhile.
                        let _ = kill_process(pid, Signal::CONT);
                    }
                });
                poll::pause(LOOKS_EVERY);
            }
        });
        Self(over)
    }
}

impl Drop for Continuing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn children() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn is_stopped(pid: &&String) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(nsenter) T ")
}
