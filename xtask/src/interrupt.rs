//! An end by a signal: nothing that was started stays behind.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use handover_tests::poll;
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A signal has come, and its thread ends the process.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// How often those that are left are told again, and how long each time is.
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// Rounds in which they may end by themselves.
const POLITE: u32 = 20;

/// From now on SIGINT, SIGTERM and SIGHUP end whatever this process has started, directly or not, and then itself.
pub fn guard() -> Result<()> {
    // What loses its parent becomes a child of ours, so that it is still found.
    set_child_subreaper(Some(getpid())).context("becoming the reaper")?;
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("listening for signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            INTERRUPTED.store(true, Ordering::Relaxed);
            end_descendants();
            handover_tests::server::remove_all();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// To be called before the process ends by itself: what failed because a signal ended it is not the end yet.
pub fn settle() {
    while INTERRUPTED.load(Ordering::Relaxed) {
        poll::pause(PAUSE);
    }
}

fn end_descendants() {
    for round in 0..ROUNDS {
        let left = descendants();
        if left.is_empty() {
            return;
        }
        // To a database server a quit is an end without delay, but not a crash.
        let signal = if round < POLITE { Signal::QUIT } else { Signal::KILL };
        if round == 0 || round >= POLITE {
            for pid in left {
                // It may have ended meanwhile.
                let _ = kill_process(pid, signal);
            }
        }
        poll::pause(PAUSE);
    }
}

/// All that come from this process and still run, in no order.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // proc(5): `pid (name) state ppid …`; the name may hold anything.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|field| field.parse().ok()));
        if let (Some(parent), false) = (parent, state == Some("Z")) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut look) = (Vec::new(), vec![getpid().as_raw_nonzero().get()]);
    while let Some(pid) = look.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            look.push(child);
            found.extend(Pid::from_raw(child));
        }
    }
    found
}
