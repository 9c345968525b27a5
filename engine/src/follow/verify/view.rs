//! The snapshot of the source that is compared with. A young one leaves fewer rows to be looked at again, and holds up less at the
//! source; but opening one may cost its writers something.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Check;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::name::LeaseId;
use crate::pass::database::refuse_altered;
use crate::ports::{Parts, Result};
use crate::rows::SnapshotId;

/// A snapshot is replaced when it is older…
const FRESH: Duration = Duration::from_secs(30);
/// …and so many times older than it took to open it.
const WORTH: u32 = 100;

/// A snapshot that is open.
pub struct View {
    pub lease: LeaseId,
    pub snapshot: SnapshotId,
    opened: Instant,
    took: Duration,
}

impl Check<'_> {
    /// A snapshot that is young enough.
    pub(super) async fn fresh<'v>(&self, view: &'v mut Option<View>) -> Result<&'v View> {
        let is_old = |view: &mut View| view.opened.elapsed() > FRESH.max(view.took * WORTH);
        if let Some(old) = view.take_if(is_old) {
            self.close(old).await;
        }
        if view.is_none() {
            *view = Some(self.open().await?);
        }
        view.as_ref().ok_or_else(crate::pass::stopped)
    }

    async fn open(&self) -> Result<View> {
        let (work, dataset) = (&self.follower.work, &self.follower.dataset);
        let number = self.views.fetch_add(1, Ordering::Relaxed);
        let digest = Digest::of(format!("{}/{dataset} verified {number}", work.migration).as_bytes());
        let lease = format!("l-{}", digest.short())
            .parse()
            .map_err(|e| Failure::permanent("lease", "cannot be named").because(e))?;
        let began = Instant::now();
        let opened = work.source.host.open(&lease, dataset, Parts::Whole).await?;
        refuse_altered(work, dataset, &opened.schema).await?;
        Ok(View { lease, snapshot: opened.snapshot, opened: Instant::now(), took: began.elapsed() })
    }

    /// Lets a snapshot go. The source does so by itself as well.
    pub(super) async fn close(&self, view: View) {
        if let Err(failure) = self.follower.work.source.host.close(&view.lease).await {
            tracing::debug!(dataset = %self.follower.dataset, %failure, "the source did not end a lease");
        }
    }
}
