//! Reading rows from snapshots that are held open.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Answers, DatabaseSnapshot, Result, RowSource};
use handover_engine::rows::{HeldChunk, KeyRange, RowsChunk, RowsRequest, RowsWanted, Schema, TableName};
use tokio::sync::mpsc;

use super::ahead::AHEAD;
use super::{LocalSource, served};

/// A table of more than this is cut into parts of about this size, which are copied side by side…
const PART_BYTES: u64 = 32 << 20;
/// …but into no more than this many.
const MOST_PARTS: usize = 64;

/// Notes in `schema` where the snapshot's large tables are cut.
pub(super) async fn cut(snapshot: &dyn DatabaseSnapshot, schema: &mut Schema) -> Result<()> {
    for table in &mut schema.tables {
        let parts = usize::try_from(table.estimated_bytes / PART_BYTES).unwrap_or(MOST_PARTS).min(MOST_PARTS);
        if parts > 1 {
            table.cuts = snapshot.split(&table.name, parts).await?;
        }
    }
    Ok(())
}

#[async_trait]
impl RowSource for LocalSource {
    async fn rows(&self, request: RowsRequest) -> Result<Answers<RowsChunk>> {
        let lease = self.leases.renewed(&request.lease);
        let Some((dataset, snapshot)) = lease.filter(|(_, snapshot)| snapshot.id() == request.snapshot)
        else {
            return Err(Failure::transient(
                format!("snapshot {}", request.snapshot.0),
                "the source no longer holds it (its lease has ended, or the agent was restarted)",
            )
            .hint("the copy goes on from a new snapshot by itself"));
        };
        let (to, chunks) = mpsc::channel(AHEAD);
        let leases = self.leases.clone();
        tokio::spawn(async move {
            let reading =
                Reading { dataset, snapshot, table: request.table, budget: request.budget.max(1), to };
            let renew = || drop(leases.renewed(&request.lease));
            let result = match request.wanted {
                RowsWanted::Range(range) => reading.range(range, renew).await,
                RowsWanted::Recheck(held) => reading.recheck(held, renew).await,
            };
            if let Err(failure) = result {
                // It may be lost with its connections: the next try is to find a new one, and to compare what is held.
                leases.give_up(&request.lease, &reading.snapshot.id());
                // The receiver may have gone: then nobody wants to know.
                let _ = reading.to.send(Err(failure)).await;
            }
        });
        let chunks = tokio_stream::wrappers::ReceiverStream::new(chunks).boxed();
        Ok(self.ahead.held(chunks, |chunk| chunk.header.bytes))
    }
}

/// One request for rows, being answered.
struct Reading {
    dataset: DatasetName,
    snapshot: Arc<dyn DatabaseSnapshot>,
    table: TableName,
    budget: u64,
    to: mpsc::Sender<Result<RowsChunk>>,
}

impl Reading {
    /// Sends a chunk; false when nobody wants more.
    async fn send(&self, chunk: RowsChunk) -> bool {
        let Some(name) = (!chunk.header.unchanged).then(|| chunk.header.range.after.clone()) else {
            return self.to.send(Ok(chunk)).await.is_ok();
        };
        let bytes = chunk.header.bytes;
        let key =
            name.map(|key| key.0.iter().map(|b| format!("{b:02x}")).collect::<String>()).unwrap_or_default();
        served(&self.dataset, &format!("table/{} after {key}", self.table.name), bytes);
        self.to.send(Ok(chunk)).await.is_ok()
    }

    async fn range(&self, mut range: KeyRange, renew: impl Fn()) -> Result<()> {
        loop {
            let chunk = self.snapshot.read(&self.table, &range, self.budget).await?;
            renew();
            let until = chunk.header.range.until.clone();
            let last = until == range.until;
            if !self.send(chunk).await || last {
                return Ok(());
            }
            range.after = until;
        }
    }

    /// Reads each held chunk again: one that is the same goes without its rows, one that is not goes as what is there
    /// now, cut anew where it has grown.
    async fn recheck(&self, held: Vec<HeldChunk>, renew: impl Fn() + Copy) -> Result<()> {
        for held in held {
            let budget = self.budget.max(held.bytes.saturating_add(1));
            let mut chunk = self.snapshot.read(&self.table, &held.range, budget).await?;
            renew();
            let whole = chunk.header.range == held.range;
            if whole && chunk.header.digest == held.digest {
                chunk.header.unchanged = true;
                chunk.block = bytes::Bytes::new();
            }
            let until = chunk.header.range.until.clone();
            if !self.send(chunk).await {
                return Ok(());
            }
            if !whole {
                self.range(KeyRange { after: until, until: held.range.until }, renew).await?;
            }
        }
        Ok(())
    }
}
