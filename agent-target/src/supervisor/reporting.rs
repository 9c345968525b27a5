//! Reports: what has become of a migration, signed.

use handover_engine::journal::{Holdings, Journal, Logged};
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::report::{Made, Report};
use handover_engine::time::Clock;
use handover_platform::SystemClock;
use handover_transport::control::Control;

use super::Supervisor;

/// Events that are read at once.
const EVENTS: u32 = 256;

impl Supervisor {
    /// Signs the last report of a migration and keeps it. One that cannot be kept now is when the agent starts.
    pub(super) async fn keep_report(&self, id: &MigrationId) {
        let kept = self.signed_report(id).await.and_then(|document| self.notary.keep(id, &document));
        if let Err(failure) = kept {
            tracing::warn!(migration = %id, %failure, "its signed report is not kept");
        }
    }

    /// All that has happened.
    async fn history(&self, id: &MigrationId) -> Result<Vec<Logged>> {
        let mut all: Vec<Logged> = Vec::new();
        loop {
            let after = all.last().map_or(0, |logged| logged.seq);
            let more = self.store.events(id, after, EVENTS).await?;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// What has become of a migration so far.
    pub(super) async fn report_now(&self, id: &MigrationId) -> Result<Report> {
        let migration = self.migration(id).await?;
        let mut sums = std::collections::BTreeMap::new();
        for dataset in migration.plan.datasets() {
            sums.insert(dataset.clone(), self.store.sums(id, dataset).await?);
        }
        // Events first: what is in them has been written down.
        let events = self.history(id).await?;
        let (by, at) = (self.notary.identity(), SystemClock.now());
        let audit = self.store.audit_head().await?;
        Ok(Report::of(&migration, sums).with_history(events).made(Made { by, at, audit }))
    }
}
