//! Looking at both hosts: inventories, clocks, the way between them.

use handover_engine::check::{Finding, compare};
use handover_engine::expiry;
use handover_engine::inventory::Inventory;
use handover_engine::journal::Journal;
use handover_engine::kept;
use handover_engine::plan::{Lasted, Options, Rates};
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
/// So many migrations tell what steps take.
const LOOKED_BACK: usize = 5;
/// So many events of each, from its beginning.
const EVENTS: u32 = 10_000;

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
        let mut findings = compare(&source, &target, skew_ms, options);
        let mut ending = self.ending(&expiry::of_plan(&source, &target, options));
        // A contract that has ended keeps the licence from moving: that is told already.
        ending.retain(|one| {
            !findings.iter().any(|other| (other.severity, &other.item) == (one.severity, &one.item))
        });
        findings.extend(ending);
        kept::tell(&mut findings, &target, &self.all_kept().await?);
        Ok(findings)
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

    /// What steps took in the last migrations.
    async fn lasted(&self) -> Result<Lasted> {
        let mut migrations = self.store.migrations().await?;
        migrations.sort_by_key(|migration| migration.started_at);
        let mut lasted = Lasted::default();
        for migration in &migrations[migrations.len().saturating_sub(LOOKED_BACK)..] {
            lasted.take(&self.store.events(&migration.id, 0, EVENTS).await?);
        }
        Ok(lasted)
    }

    /// The way to the source, rounded down to a power of two, so that the same hosts make the same plan.
    pub(super) async fn rates(&self) -> Result<Rates> {
        let (bytes, time) = self.source.probe(PROBE).await?;
        let link = (bytes as f64 / time.as_secs_f64().max(1e-6)).max(1.0);
        let copy = 2_f64.powf(link.log2().floor()).min(HOST_RATE);
        Ok(Rates { copy, reread: REREAD_RATE, lasted: self.lasted().await? })
    }
}
