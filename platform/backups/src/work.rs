//! One piece of work: where it may write, how far it is, and whether it is to end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio_util::sync::CancellationToken;

use crate::tool::Tools;

/// What every step of a piece of work needs.
#[derive(Clone)]
pub struct Work {
    /// The engines' programs.
    pub tools: Tools,
    /// For files that are needed meanwhile, secrets among them. For the agent alone.
    pub scratch: PathBuf,
    /// Bytes that were read or written so far.
    pub bytes: Arc<AtomicU64>,
    /// It is to end.
    pub stop: CancellationToken,
    /// What tests end the world at.
    pub steps: Steps,
}

/// What is asked before each change of the disk; in tests alone.
#[derive(Clone, Default)]
pub struct Steps(Option<Step>);

/// Says whether a step is to be done.
type Step = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

impl Steps {
    /// Every step is asked for.
    #[cfg(test)]
    pub fn asked(step: Step) -> Self {
        Self(Some(step))
    }
}

impl Work {
    /// The disk is about to be changed.
    pub fn step(&self, what: &'static str) -> Result<()> {
        let Some(asked) = &self.steps.0 else { return Ok(()) };
        asked(what).map_err(|error| Failure::permanent("restore", what).because(error))
    }

    /// It got on by so many bytes; fails when it is to end.
    pub fn got_on(&self, bytes: usize) -> io::Result<()> {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.stop.is_cancelled() { Err(io::Error::other("it was stopped")) } else { Ok(()) }
    }
}

/// Runs blocking work; a panic in it is a failure of the item.
pub async fn blocking<T: Send + 'static>(
    item: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|error| {
        Err(Failure::permanent(item, "a worker ended unexpectedly")
            .because(error)
            .hint("report this as a bug"))
    })
}

/// A failure of a file that the agent writes or reads.
pub fn io_failed(path: &Path, what: &str) -> impl FnOnce(io::Error) -> Failure + use<> {
    let (item, what) = (path.display().to_string(), what.to_owned());
    move |error| {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free space there, or name another `directory` in [backups]"
            }
            io::ErrorKind::PermissionDenied => "give the agent's user the right to it",
            io::ErrorKind::ReadOnlyFilesystem => "mount its file system so that the agent may write there",
            _ => "put right what the operating system says of it, and try again",
        };
        Failure::operator(item, what).because(error).hint(hint)
    }
}
