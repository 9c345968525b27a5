//! Snapshots held open under leases. A lease that nobody renews ends by itself, so that a target that died does not keep
//! the source's log from being recycled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handover_engine::name::{DatasetName, LeaseId};
use handover_engine::ports::{DatabaseSnapshot, Result};
use handover_engine::rows::{Schema, SnapshotId};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

struct Held {
    dataset: DatasetName,
    snapshot: Arc<dyn DatabaseSnapshot>,
    renewed: Instant,
    /// What is told of the snapshot, once it is known.
    schema: Option<Arc<Schema>>,
}

type Table = HashMap<LeaseId, Held>;

/// The leases of a source.
#[derive(Clone)]
pub struct Leases {
    lasts: Duration,
    held: Arc<Mutex<Table>>,
    /// Two requests for the same lease must not open two snapshots; for others, nobody waits.
    opening: Arc<Mutex<HashMap<LeaseId, Arc<AsyncMutex<()>>>>>,
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
        let gate = self.gates().entry(lease.clone()).or_default().clone();
        let opened = {
            let _one = gate.lock().await;
            self.open_alone(lease, dataset, open).await
        };
        drop(gate);
        // Whoever still waits holds it too.
        self.gates().retain(|_, gate| Arc::strong_count(gate) > 1);
        opened
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<LeaseId, Arc<AsyncMutex<()>>>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_alone<F: Future<Output = Result<Arc<dyn DatabaseSnapshot>>>>(
        &self,
        lease: &LeaseId,
        dataset: &DatasetName,
        open: impl FnOnce() -> F,
    ) -> Result<Arc<dyn DatabaseSnapshot>> {
        if let Some((_, snapshot)) = self.renewed(lease).filter(|(of, _)| of == dataset) {
            return Ok(snapshot);
        }
        let snapshot = open().await?;
        let held = Held {
            dataset: dataset.clone(),
            snapshot: snapshot.clone(),
            renewed: Instant::now(),
            schema: None,
        };
        self.table().insert(lease.clone(), held);
        Ok(snapshot)
    }

    /// What is told of the snapshot under a lease, if it is known.
    pub fn schema(&self, lease: &LeaseId, snapshot: &SnapshotId) -> Option<Arc<Schema>> {
        self.table().get(lease).filter(|held| held.snapshot.id() == *snapshot)?.schema.clone()
    }

    /// Keeps what is told of it.
    pub fn keep_schema(&self, lease: &LeaseId, snapshot: &SnapshotId, schema: Arc<Schema>) {
        if let Some(held) = self.table().get_mut(lease).filter(|held| held.snapshot.id() == *snapshot) {
            held.schema = Some(schema);
        }
    }

    /// Ends a lease.
    pub fn close(&self, lease: &LeaseId) {
        self.table().remove(lease);
    }

    /// Ends a lease whose snapshot could not be read, unless another snapshot is under it by now: the next one who asks gets a new one.
    pub fn give_up(&self, lease: &LeaseId, snapshot: &SnapshotId) {
        let mut table = self.table();
        if table.get(lease).is_some_and(|held| held.snapshot.id() == *snapshot) {
            table.remove(lease);
        }
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
    use handover_engine::rows::{KeyRange, RowsChunk, TableName};

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

    #[tokio::test]
    async fn a_slow_opening_keeps_nobody_else_waiting() {
        let leases = Leases::new(Duration::from_secs(60));
        let (slow, quick): (LeaseId, LeaseId) = ("slow".parse().unwrap(), "quick".parse().unwrap());
        let dataset: DatasetName = "d".parse().unwrap();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let opening = leases.open(&slow, &dataset, || async {
            wait.await.unwrap();
            Ok(nothing())
        });
        let others = async {
            leases.open(&quick, &dataset, || async { Ok(nothing()) }).await.unwrap();
            go.send(()).unwrap();
        };
        let (opened, ()) = tokio::join!(opening, others);
        opened.unwrap();
        assert!(leases.gates().is_empty());
    }

    #[tokio::test]
    async fn a_snapshot_that_is_given_up_makes_room_for_another() {
        let leases = Leases::new(Duration::from_secs(60));
        let (lease, dataset): (LeaseId, DatasetName) = ("l".parse().unwrap(), "d".parse().unwrap());
        leases.open(&lease, &dataset, || async { Ok(nothing()) }).await.unwrap();
        leases.give_up(&lease, &SnapshotId("another".into()));
        assert!(leases.renewed(&lease).is_some());
        leases.give_up(&lease, &SnapshotId("s".into()));
        assert!(leases.renewed(&lease).is_none());
    }
}
