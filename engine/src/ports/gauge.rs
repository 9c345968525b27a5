//! What a database tells of its load.

use std::time::Duration;

use async_trait::async_trait;

use super::Result;
use crate::change::LogPosition;
use crate::name::CaptureId;
use crate::reserve::LogKept;

/// The load of a database and its server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DatabaseLoad {
    /// How long it took to answer a question that costs nothing.
    pub latency: Duration,
    /// Statements that the server works on, ours left out, where it has a server that tells.
    pub threads: Option<u32>,
    /// How far the slowest known replica is behind, in seconds, where one is known.
    pub replica_lag: Option<f64>,
    /// The server's threads or processes that work for us, as its host's kernel numbers them.
    pub ours: Vec<u32>,
    /// Where the server keeps its data, where it tells.
    pub place: Option<String>,
}

/// Looks at a database's load. Cheap: it is asked about once a second.
#[async_trait]
pub trait Gauge: Send + Sync {
    /// The load now.
    async fn load(&self) -> Result<DatabaseLoad>;

    /// What the server keeps of its log behind a position, because `capture` has not taken it yet, as far as it tells.
    async fn log(&self, capture: &CaptureId, after: &LogPosition) -> Result<LogKept> {
        let _ = (capture, after);
        Ok(LogKept::default())
    }

    /// Nobody will ask for a while: what was kept open for it is closed.
    async fn rest(&self);
}
