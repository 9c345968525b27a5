//! Leases of the snapshots that the source holds open while they are copied.

use std::time::Duration;

use super::task::Runner;
use crate::name::DatasetName;
use crate::pass::{self, TargetDataset};
use crate::ports::{Parts, Result};

/// A lease is renewed this often while its database is not being read.
const RENEW_EVERY: Duration = Duration::from_secs(10);

impl Runner {
    /// Keeps a database's lease alive while `work` goes on: a long build between two reads must not lose the snapshot.
    pub(super) async fn renewing(
        &self,
        dataset: &DatasetName,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let lease = pass::database::lease(&self.work, dataset)?;
        let renew = async {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                if let Err(failure) = self.work.source.host.open(&lease, dataset, Parts::Cut).await {
                    tracing::debug!(%dataset, %failure, "the lease was not renewed");
                }
            }
        };
        tokio::select! {
            biased;
            result = work => result,
            () = renew => Ok(()),
        }
    }

    /// Everything was read: the source need not hold its snapshots open any longer. It lets go by itself as well.
    pub(super) async fn close_leases(&self) {
        for (dataset, target) in self.chosen() {
            if matches!(target, TargetDataset::Database(_))
                && let Ok(lease) = pass::database::lease(&self.work, &dataset)
                && let Err(failure) = self.work.source.host.close(&lease).await
            {
                tracing::debug!(%dataset, %failure, "the source did not end a lease");
            }
        }
    }
}
