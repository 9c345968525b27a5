//! Looking at both hosts: inventories, clocks, the way between them.

use handover_engine::check::{Finding, compare};
use handover_engine::inventory::Inventory;
use handover_engine::plan::{Options, Rates};
use handover_engine::ports::{Result, SourceHost};
use handover_engine::time::Clock;
use handover_platform::SystemClock;

use super::Supervisor;

/// Bytes that are sent to measure the way to the source before a plan is made.
const PROBE: u64 = 16 << 20;
/// Bytes per second that readers and loaders reach where the link is faster.
const HOST_RATE: f64 = 150e6;
/// Bytes per second at which a target's data is read again.
const REREAD_RATE: f64 = 600e6;

impl Supervisor {
    /// Both inventories; the source is greeted first, so that another protocol version is refused by name.
    pub(super) async fn both(&self) -> Result<(Inventory, Inventory)> {
        self.source.hello().await?;
        let (source, target) = tokio::join!(self.source.inspect(), self.datasets.inspect(&SystemClock));
        Ok((source?, target?))
    }

    pub(super) async fn findings(&self, options: &Options) -> Result<Vec<Finding>> {
        // Asked before the walks, which take as long as they take.
        let skew_ms = self.skew().await?;
        let (source, target) = self.both().await?;
        Ok(compare(&source, &target, skew_ms, options))
    }

    /// How far the source's clock is ahead of this host's, in milliseconds: its answer is taken to be of the middle of the question's
    /// way there and back (RFC 5905, section 8, with one of the two times).
    pub(super) async fn skew(&self) -> Result<i64> {
        self.source.hello().await?;
        // The connection stands now: its making does not count.
        let asked = SystemClock.now().millis();
        let (_, there) = self.source.hello().await?;
        let answered = SystemClock.now().millis();
        Ok(there - (asked + answered) / 2)
    }

    /// The way to the source, rounded down to a power of two, so that the same hosts make the same plan.
    pub(super) async fn rates(&self) -> Result<Rates> {
        let (bytes, time) = self.source.probe(PROBE).await?;
        let link = (bytes as f64 / time.as_secs_f64().max(1e-6)).max(1.0);
        Ok(Rates { copy: 2_f64.powf(link.log2().floor()).min(HOST_RATE), reread: REREAD_RATE })
    }
}
