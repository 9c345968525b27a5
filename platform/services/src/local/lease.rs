//! The lease of a maintenance: over, the host brings its services back by itself.

use std::convert::Infallible;
use std::time::Duration;

use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use tokio::time::sleep;

use super::LocalServices;
use crate::record::{Record, Standing};

/// A lease that runs is looked at so often: its clock goes on while the host sleeps, a timer's does not.
const LOOKS_EVERY: Duration = Duration::from_millis(500);
/// What failed is tried again after so long.
const RETRIES_AFTER: Duration = Duration::from_secs(5);

/// What is to be done about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// A lease runs.
    Look,
    /// A lease has ended; just now, or before and not all is done.
    End {
        is_new: bool,
    },
}

impl LocalServices {
    /// Watches the leases for as long as it runs; run it as long as the agent does. Once one is over that nobody made permanent, this is
    /// noted durably, then `on_end` is called, then the services are put back; what fails is tried again until all is done, by the next
    /// run too. `on_end` may be called more than once for a migration. After a reboot a lease begins anew, when this is first run.
    /// It may be dropped at any time.
    pub async fn end_stale_leases<F, E>(&self, on_end: F) -> Infallible
    where
        F: Fn(MigrationId) -> E + Sync,
        E: Future<Output = Result<()>> + Send,
    {
        loop {
            let next = match self.end_those_over(&on_end).await {
                Ok(next) => next,
                Err(failure) => {
                    if failure.is_transient() {
                        tracing::warn!(%failure, "services are not back yet after the end of their lease");
                    } else {
                        tracing::error!(%failure, "services are not back yet after the end of their lease");
                    }
                    Some(RETRIES_AFTER)
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = async { sleep(next.unwrap_or_default()).await }, if next.is_some() => {}
            }
        }
    }

    /// Ends the leases that are over; when to look again, if a lease runs. Goes on past what fails, and tells the first failure.
    pub(super) async fn end_those_over<F, E>(&self, on_end: &F) -> Result<Option<Duration>>
    where
        F: Fn(MigrationId) -> E + Sync,
        E: Future<Output = Result<()>> + Send,
    {
        let (mut next, mut failure) = (None, None);
        for migration in self.records.migrations().await? {
            let done = match self.due(&migration).await {
                Ok(Due::Nothing) => Ok(()),
                Ok(Due::Look) => {
                    next = Some(LOOKS_EVERY);
                    Ok(())
                }
                Ok(Due::End { is_new }) => {
                    if is_new {
                        tracing::warn!(%migration, "the lease of the maintenance is over: this host puts itself back online");
                    }
                    self.end(&migration, on_end).await
                }
                Err(failure) => Err(failure),
            };
            failure = failure.or(done.err());
        }
        failure.map_or(Ok(next), Err)
    }

    /// What is due. The end of a lease is noted before this tells of it.
    async fn due(&self, migration: &MigrationId) -> Result<Due> {
        let clock = self.clock.clone();
        let due = move |record: &mut Option<Record>| {
            let Some(Record { standing, .. }) = record else { return Ok(Due::Nothing) };
            let now = clock.now();
            Ok(match standing {
                Standing::Taken { lease: Some(lease) } if lease.left(&now).is_none() => {
                    *standing = Standing::Ended { is_back: false };
                    Due::End { is_new: true }
                }
                Standing::Taken { lease: Some(lease) } => {
                    *lease = lease.renewed(&now);
                    Due::Look
                }
                Standing::Ended { is_back: false } => Due::End { is_new: false },
                Standing::Taken { lease: None } | Standing::Ended { is_back: true } | Standing::Back => {
                    Due::Nothing
                }
            })
        };
        self.records.with(migration, due).await
    }

    /// Puts back what an ended lease leaves, unless the services were taken once more before it was this one's turn.
    async fn end<F, E>(&self, migration: &MigrationId, on_end: &F) -> Result<()>
    where
        F: Fn(MigrationId) -> E + Sync,
        E: Future<Output = Result<()>> + Send,
    {
        let _turn = self.turn.lock().await;
        let record = self.records.with(migration, |record| Ok(record.clone())).await?;
        let Some(record @ Record { standing: Standing::Ended { is_back: false }, .. }) = record else {
            return Ok(());
        };
        on_end(migration.clone()).await?;
        self.restore(&record).await?;
        let back = |record: &mut Option<Record>| {
            if let Some(record) = record {
                record.standing = Standing::Ended { is_back: true };
            }
            Ok(())
        };
        self.records.with(migration, back).await?;
        tracing::warn!(%migration, "this host is back online after the end of its lease");
        Ok(())
    }
}
