//! What both agents need of the host as daemons: logging, one instance per state directory, the address they serve at,
//! and the signals that stop them.

mod environment;

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

pub use self::environment::complete_environment;

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made, opened or written.
    #[error("state directory {path}: {what}")]
    Unusable {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another agent uses it.
    #[error(
        "state directory {path}: another agent uses it (stop that one, or give this one a directory of its own)"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// Says that this agent may be upgraded.
pub fn allow_upgrade() -> ExitCode {
    println!("upgrade allowed: mode {}", handover_engine::mode::Mode::Operational);
    ExitCode::SUCCESS
}

/// Says why it may not.
pub fn refuse_upgrade(why: &str) -> ExitCode {
    eprintln!("upgrade refused: {why}");
    ExitCode::FAILURE
}

/// Of an agent's settings: where its files are. It may not be able to start, so that nothing else is asked of them.
#[derive(serde::Deserialize)]
struct Place {
    state: PathBuf,
}

impl Place {
    fn read(config: &Path) -> Result<Self, ExitCode> {
        crate::manifest::read_toml(config).map_err(|error| {
            tracing::error!("{}", with_causes(&error));
            ExitCode::FAILURE
        })
    }
}

/// Takes a swap of this host's settings back, by hand, and reboots.
pub async fn take_swap_back(config: &Path) -> ExitCode {
    let place = match Place::read(config) {
        Ok(place) => place,
        Err(code) => return code,
    };
    match crate::changeover::take_swap_back(&place.state).await {
        Ok(true) => tracing::info!("this host has its own settings again, and reboots"),
        Ok(false) => tracing::info!("this host has its own settings: nothing was done"),
        Err(failure) => {
            tracing::error!(%failure, "the swap is not taken back");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Watches over a swap of this host's settings until nothing is to be watched any more.
pub async fn watch_swap(config: &Path) -> ExitCode {
    let place = match Place::read(config) {
        Ok(place) => place,
        Err(code) => return code,
    };
    match crate::changeover::watch_swap(&place.state).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(%failure, "the swap is not watched");
            ExitCode::FAILURE
        }
    }
}

/// A state directory, this process's alone until dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes (mode 0700) and locks the directory. The lock ends with the process, however that ends.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        use std::os::unix::fs::DirBuilderExt;
        let unusable =
            |what| move |source: std::io::Error| StateError::Unusable { path: path.to_owned(), what, source };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable("cannot be made"))?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = rustix::fs::open(path.join("lock"), flags, Mode::from_raw_mode(0o600))
            .map_err(|e| unusable("its lock cannot be opened")(e.into()))?;
        let lock = File::from(lock);
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse { path: path.to_owned() }),
            Err(error) => Err(unusable("cannot be locked")(error.into())),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the address served at to the file `address`, whole or not at all: for those who gave port 0.
    pub fn publish_address(&self, address: SocketAddr) -> Result<(), StateError> {
        let write = || {
            let mut file = tempfile_in(&self.path)?;
            writeln!(file.1, "{address}")?;
            std::fs::rename(&file.0, self.path.join("address"))
        };
        write().map_err(|source| StateError::Unusable {
            path: self.path.join("address"),
            what: "cannot be written",
            source,
        })
    }
}

fn tempfile_in(directory: &Path) -> std::io::Result<(PathBuf, File)> {
    let path = directory.join("address.new");
    Ok((path.clone(), File::create(path)?))
}

/// Logs to standard error: `HANDOVER_LOG` is a filter (default `info`), `HANDOVER_LOG_FORMAT=json` one object a line.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("HANDOVER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second call (tests start several agents in one process) keeps the first one's settings.
    let _ = if std::env::var("HANDOVER_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}

/// An error with all its causes, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Cancels `stop` at SIGTERM or SIGINT. Never completes otherwise.
pub async fn stop_at_signals(stop: CancellationToken) {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    if let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
        state.publish_address("127.0.0.1:7".parse().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("address")).unwrap(), "127.0.0.1:7\n");
        drop(state);
        StateDir::open(&path).unwrap();
    }
}
