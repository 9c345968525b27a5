//! Reading ahead: what is throttled at the target is not to be read at the source and wait in the windows of connections.

use std::sync::Arc;

use handover_engine::pass::Desk;
use handover_engine::ports::Answers;
use handover_engine::throttle::Throttle;
use handover_engine::throttle::gate::{Gate, Kind};
use handover_engine::time::Clock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Chunks read ahead of the one being sent.
pub(super) const AHEAD: usize = 1;

/// Holds streams to the rate that the target takes them at.
pub(super) struct Ahead {
    gate: Gate,
    /// Nobody asks a source to stop: streams are dropped.
    desk: Desk,
}

impl Ahead {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let desk = Desk::new(mpsc::channel(1).0, CancellationToken::new());
        Self { gate: Gate::new(Throttle::off(), clock), desk }
    }

    /// The target takes so many bytes per second; unbounded where `None`.
    pub fn set(&self, rate: Option<u64>) {
        if self.gate.shown().rate != rate {
            self.gate.set(Throttle { max_rate: rate, ..Throttle::off() });
        }
    }

    /// A stream that is read no faster.
    pub fn held<T: Send + 'static>(
        &self,
        items: Answers<T>,
        bytes: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Answers<T> {
        self.gate.held(items, Kind::Bulk, &self.desk, bytes)
    }
}
