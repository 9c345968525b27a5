//! Snapshots held open under leases. A lease that nobody renews ends by itself, so that a target that died does not keep
//! the source's log from being recycled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handover_engine::name::{DatasetName, LeaseId};
use handover_engine::ports::{DatabaseSnapshot, Result};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

struct Held {
    dataset: DatasetName,
    snapshot: Arc<dyn DatabaseSnapshot>,
    renewed: Instant,
}

type Table = HashMap<LeaseId, Held>;

/// The leases of a source.
#[derive(Clone)]
pub struct Leases {
    lasts: Duration,
    held: Arc<Mutex<Table>>,
    /// Two requests for the same lease must not open two snapshots.
    opening: Arc<AsyncMutex<()>>,
}

impl Leases {
    /// Leases that end when they are not renewed for `lasts`.
    pub fn new(lasts: Duration) -> Self {
        Self { lasts, held: Arc::default(), opening: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is one insertion or removal: a panic elsewhere leaves the table sound.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot under a lease and whose it is, renewed; `None` when there is none.
    pub fn renewed(&self, lease: &LeaseId) -> Option<(DatasetName, Arc<dyn DatabaseSnapshot>)> {
        let mut table = self.table();
        let held = table.get_mut(lease)?;
        held.renewed = Instant::now();
        Some((held.dataset.clone(), held.snapshot.clone()))
    }

    /// The snapshot under a lease, opened if there is none.
    pub async fn open<F: Future<Output = Result<Arc<dyn DatabaseSnapshot>>>>(
        &self,
        lease: &LeaseId,
        dataset: &DatasetName,
        open: impl FnOnce() -> F,
    ) -> Result<Arc<dyn DatabaseSnapshot>> {
        let _one = self.opening.lock().await;
        if let Some((_, snapshot)) = self.renewed(lease).filter(|(of, _)| of == dataset) {
            return Ok(snapshot);
        }
        let snapshot = open().await?;
        let held = Held { dataset: dataset.clone(), snapshot: snapshot.clone(), renewed: Instant::now() };
        self.table().insert(lease.clone(), held);
        Ok(snapshot)
    }

    /// Ends a lease.
    pub fn close(&self, lease: &LeaseId) {
        self.table().remove(lease);
    }

    /// Ends stale leases, for ever.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(self.lasts / 4).await;
            let stale: Vec<(LeaseId, Held)> =
                self.table().extract_if(|_, held| held.renewed.elapsed() > self.lasts).collect();
            for (lease, _) in stale {
                tracing::info!(%lease, "a lease was not renewed and has ended");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use handover_engine::failure::Failure;
    use handover_engine::rows::{KeyRange, RowsChunk, Schema, SnapshotId, TableName};

    struct Nothing(Schema);

    #[async_trait]
    impl DatabaseSnapshot for Nothing {
        fn id(&self) -> SnapshotId {
            SnapshotId("s".into())
        }
        fn schema(&self) -> &Schema {
            &self.0
        }
        async fn read(&self, _: &TableName, _: &KeyRange, _: u64) -> Result<RowsChunk> {
            Err(Failure::permanent("nothing", "holds nothing"))
        }
    }

    fn nothing() -> Arc<dyn DatabaseSnapshot> {
        Arc::new(Nothing(Schema {
            engine: String::new(),
            version: String::new(),
            settings: std::collections::BTreeMap::new(),
            before_load: Vec::new(),
            after_load: Vec::new(),
            state: std::collections::BTreeMap::new(),
            tables: Vec::new(),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_renews_ends() {
        let leases = Leases::new(Duration::from_secs(60));
        let lease: LeaseId = "l".parse().unwrap();
        leases.open(&lease, &"d".parse().unwrap(), || async { Ok(nothing()) }).await.unwrap();
        let watch = leases.clone();
        let task = tokio::spawn(async move { watch.watch().await });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            assert!(leases.renewed(&lease).is_some());
        }
        tokio::time::sleep(Duration::from_secs(80)).await;
        assert!(leases.renewed(&lease).is_none());
        task.abort();
    }
}
