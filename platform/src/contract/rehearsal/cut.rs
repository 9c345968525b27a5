//! A scratch database and a record that fail at some call, before or after they have done what was asked: as a crash leaves them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{
    Batch, Change, ForeignKey, Made, Refusal, Scratch, TrialLedger, TriedChunk, TriedRow,
};
use handover_engine::rehearsal::quarantine::Entry;
use handover_engine::rows::{ColumnSpec, Schema, TableName};

/// Calls that are still done.
#[derive(Debug)]
pub struct Calls(AtomicU32);

impl Calls {
    /// Half of a call is to fail before it, half after it: 2n of them are n calls.
    pub fn halves(left: u32) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(left)))
    }

    fn pass(&self) -> Result<()> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| Failure::transient("test", "cut short"))
    }

    async fn around<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.pass()?;
        let done = call.await?;
        self.pass()?;
        Ok(done)
    }
}

/// What is cut short.
pub struct Cut<T: ?Sized> {
    /// What does the work.
    pub inner: Arc<T>,
    /// How long it does.
    pub calls: Arc<Calls>,
}

#[async_trait]
impl Scratch for Cut<dyn Scratch> {
    async fn make(&self, source: &Schema, fresh: &str) -> Result<Made> {
        self.calls.around(self.inner.make(source, fresh)).await
    }

    async fn load(&self, batch: &Batch) -> Result<Vec<(u64, Refusal)>> {
        self.calls.around(self.inner.load(batch)).await
    }

    async fn remove(&self, table: &TableName, numbers: &[RangeInclusive<u64>]) -> Result<()> {
        self.calls.around(self.inner.remove(table, numbers)).await
    }

    async fn read(
        &self,
        table: &TableName,
        columns: &[ColumnSpec],
        numbers: &[u64],
    ) -> Result<Vec<TriedRow>> {
        self.calls.around(self.inner.read(table, columns, numbers)).await
    }

    async fn orphans(&self, key: &ForeignKey, limit: usize) -> Result<Vec<u64>> {
        self.calls.around(self.inner.orphans(key, limit)).await
    }

    async fn drop_scratch(&self) -> Result<()> {
        self.calls.around(self.inner.drop_scratch()).await
    }
}

#[async_trait]
impl TrialLedger for Cut<dyn TrialLedger> {
    async fn begin(&self, dataset: &DatasetName, token: &str) -> Result<bool> {
        self.calls.around(self.inner.begin(dataset, token)).await
    }

    async fn chunks(&self, dataset: &DatasetName, table: &TableName) -> Result<Vec<TriedChunk>> {
        self.calls.around(self.inner.chunks(dataset, table)).await
    }

    async fn entries(
        &self,
        dataset: &DatasetName,
        table: &TableName,
        only: Option<&[u64]>,
    ) -> Result<Vec<Entry>> {
        self.calls.around(self.inner.entries(dataset, table, only)).await
    }

    async fn allot(&self, dataset: &DatasetName, table: &TableName) -> Result<u64> {
        self.calls.around(self.inner.allot(dataset, table)).await
    }

    async fn change(&self, dataset: &DatasetName, table: &TableName, changes: Vec<Change>) -> Result<()> {
        self.calls.around(self.inner.change(dataset, table, changes)).await
    }

    async fn clear(&self, dataset: &DatasetName) -> Result<()> {
        self.calls.around(self.inner.clear(dataset)).await
    }
}
