//! The real host behind the engine's ports: databases, file trees, host facts, state store.

pub mod access;
pub mod backups;
pub mod changeover;
pub mod checks;
pub mod contract;
pub mod daemon;
pub mod database;
pub mod disk;
pub mod fitted;
pub mod hooks;
pub mod host;
pub mod label;
pub mod licence;
pub mod load;
pub mod manifest;
pub mod replicas;
pub mod source;
pub mod spool;
pub mod sqlite;
pub mod store;
pub mod tree;
pub mod trials;

use handover_engine::time::{Clock, Timestamp};

/// The host's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the host's clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }
}

/// Whether agents name every chunk that they send or apply, for those who look into what was sent: with the log filter
/// `handover::served=debug` the source logs them, and the target journals them.
fn names_chunks() -> bool {
    tracing::enabled!(target: "handover::served", tracing::Level::DEBUG)
}
