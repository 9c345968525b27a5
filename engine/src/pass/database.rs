//! One pass over a database: every table's chunks, from one snapshot of the source.
//!
//! The first pass finds nothing held and copies everything. Any other (a later pass, a resumed one whose snapshot
//! died with the source agent) asks the source to check each held chunk against its new snapshot: those that are
//! still true are not sent. Either way the target holds, at the end, exactly the rows of one moment.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, future};

use super::{Message, Work};
use crate::failure::Failure;
use crate::journal::Record;
use crate::name::{DatasetName, LeaseId};
use crate::plan::StepKind;
use crate::ports::{DatabaseTarget, Opened, Result};
use crate::progress::Amount;
use crate::rows::{HeldChunk, KeyRange, RowsChunk, RowsRequest, RowsWanted, TableName};

/// Text bytes of a chunk.
pub const CHUNK_BYTES: u64 = 2 << 20;
/// Held chunks that are checked with one request.
const RECHECK: usize = 256;
/// Chunks that are applied in one transaction when they have arrived together.
const TOGETHER: usize = 4;

/// The lease that holds a pass's snapshot of a database open. Stable, so that a restarted target finds it again.
pub fn lease(work: &Work, dataset: &DatasetName) -> Result<LeaseId> {
    let digest = crate::digest::Digest::of(format!("{}/{}/{dataset}", work.migration, work.pass).as_bytes());
    format!("l-{}", digest.short())
        .parse()
        .map_err(|e| Failure::permanent("lease", "cannot be named").because(e))
}

/// Copies what has changed since the last pass, or everything.
pub async fn copy(work: Work, dataset: DatasetName, target: Arc<dyn DatabaseTarget>) -> Result<()> {
    let lease = lease(&work, &dataset)?;
    let opened = work.source.host.open(&lease, &dataset).await?;
    let held = work.holdings.schema(&work.migration, &dataset).await?;
    if held.is_some_and(|held| held.structure() != opened.schema.structure()) {
        // What is held has another shape: it cannot be brought up to date row by row.
        let text = "its schema has changed since the last pass; it is copied from the start".to_owned();
        work.desk.send(Message::Note { item: dataset.to_string(), text }).await?;
        target.discard().await?;
    }
    let schema = Box::new(opened.schema.clone());
    work.desk.record(vec![Record::Database { dataset: dataset.clone(), schema }]).await?;
    work.desk.flush().await?;
    target.prepare(&opened.schema).await?;
    let step = StepKind::Copy(dataset.clone()).id();
    let mut tables: Vec<_> = opened.schema.tables.iter().collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.estimated_bytes));
    let names: Vec<TableName> = tables.into_iter().map(|table| table.name.clone()).collect();
    let copier = Arc::new(Copier { work, dataset, target, lease, opened, step });
    // The bound keeps a thousand tables from waiting as a thousand futures; the lanes decide how many run.
    let mut copies =
        futures::stream::iter(names.into_iter().map(|table| copier.table(table))).buffer_unordered(8);
    while copies.try_next().await?.is_some() {}
    Ok(())
}

struct Copier {
    work: Work,
    dataset: DatasetName,
    target: Arc<dyn DatabaseTarget>,
    lease: LeaseId,
    opened: Opened,
    step: String,
}

impl Copier {
    async fn table(&self, table: TableName) -> Result<()> {
        let _lane = self.work.lanes.acquire().await.map_err(|_| super::stopped())?;
        self.work.desk.checkpoint()?;
        let held = self.work.holdings.chunks(&self.work.migration, &self.dataset, &table).await?;
        let (now, stale): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|(snapshot, _)| *snapshot == self.opened.snapshot);
        for (_, chunk) in &now {
            self.got_on(chunk).await?;
        }
        let stale: Vec<HeldChunk> = stale.into_iter().map(|(_, chunk)| chunk).collect();
        for batch in stale.chunks(RECHECK) {
            self.take(&table, RowsWanted::Recheck(batch.to_vec()), batch).await?;
        }
        let all = now.iter().map(|(_, chunk)| chunk).chain(&stale);
        match rest(all) {
            Some(range) => self.take(&table, RowsWanted::Range(range), &[]).await,
            None => Ok(()),
        }
    }

    /// Takes chunks from the source until it has no more of what is wanted.
    async fn take(&self, table: &TableName, wanted: RowsWanted, held: &[HeldChunk]) -> Result<()> {
        let request = RowsRequest {
            lease: self.lease.clone(),
            snapshot: self.opened.snapshot.clone(),
            table: table.clone(),
            wanted,
            budget: CHUNK_BYTES,
        };
        let chunks = self.work.source.rows.rows(request).await?;
        let mut batches = chunks.ready_chunks(TOGETHER);
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<RowsChunk>>>()?;
            self.apply(table, batch, held).await?;
            self.work.desk.checkpoint()?;
        }
        Ok(())
    }

    async fn apply(&self, table: &TableName, batch: Vec<RowsChunk>, held: &[HeldChunk]) -> Result<()> {
        for chunk in &batch {
            if chunk.header.table != *table || !chunk.is_whole() {
                return Err(Failure::transient(
                    format!("{}, table {table}", self.dataset),
                    "a chunk arrived damaged: its digest is not that of its rows",
                ));
            }
        }
        let records = batch.iter().map(|chunk| self.record(chunk)).collect();
        let arrived: Vec<(u64, bool)> = batch
            .iter()
            .filter(|c| !c.header.unchanged)
            .map(|c| (c.header.bytes, was_held(c, held)))
            .collect();
        let amounts: Vec<HeldChunk> = batch.iter().map(RowsChunk::held).collect();
        let fresh: Vec<RowsChunk> = batch.into_iter().filter(|c| !c.header.unchanged).collect();
        if !fresh.is_empty() {
            self.target.apply(&fresh).await?;
        }
        self.work.desk.record(records).await?;
        for (bytes, resent) in arrived {
            self.work.desk.send(Message::Applied { bytes, resent }).await?;
        }
        future::try_join_all(amounts.iter().map(|chunk| self.got_on(chunk))).await?;
        Ok(())
    }

    fn record(&self, chunk: &RowsChunk) -> Record {
        Record::Rows {
            dataset: self.dataset.clone(),
            table: chunk.header.table.clone(),
            snapshot: self.opened.snapshot.clone(),
            chunk: chunk.held(),
        }
    }

    async fn got_on(&self, chunk: &HeldChunk) -> Result<()> {
        let amount = Amount { rows: chunk.rows, files: 0, bytes: chunk.bytes };
        self.work.desk.send(Message::Progress { step: self.step.clone(), amount }).await
    }
}

/// The source sent contents that the target named as held.
fn was_held(chunk: &RowsChunk, held: &[HeldChunk]) -> bool {
    held.iter().any(|h| h.range == chunk.header.range && h.digest == chunk.header.digest)
}

/// What of a table lies beyond the held chunks; `None` when they reach its end.
fn rest<'a>(held: impl Iterator<Item = &'a HeldChunk>) -> Option<KeyRange> {
    let mut held: Vec<&HeldChunk> = held.collect();
    if held.is_empty() {
        return Some(KeyRange::default());
    }
    // Chunks are made one after the other: the last is the one that no other continues.
    let starts: std::collections::HashSet<_> = held.iter().filter_map(|c| c.range.after.clone()).collect();
    held.retain(|c| c.range.until.as_ref().is_none_or(|until| !starts.contains(until)));
    let last = held.pop()?;
    last.range.until.clone().map(|until| KeyRange { after: Some(until), until: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::rows::Key;

    fn chunk(after: Option<&'static str>, until: Option<&'static str>) -> HeldChunk {
        let key = |k: &'static str| Key(bytes::Bytes::from_static(k.as_bytes()));
        let range = KeyRange { after: after.map(key), until: until.map(key) };
        HeldChunk { range, rows: 1, bytes: 1, digest: Digest::of(b"") }
    }

    #[test]
    fn the_rest_begins_where_the_last_chunk_ends() {
        let table = [
            (vec![], Some(None)),
            (vec![chunk(None, Some("5"))], Some(Some("5"))),
            (vec![chunk(Some("5"), Some("9")), chunk(None, Some("5"))], Some(Some("9"))),
            (vec![chunk(None, Some("5")), chunk(Some("5"), None)], None),
            (vec![chunk(None, None)], None),
        ];
        for (held, expected) in table {
            let rest = rest(held.iter());
            let after = rest.map(|r| r.after.map(|k| String::from_utf8(k.0.to_vec()).unwrap()));
            assert_eq!(after, expected.map(|e| e.map(str::to_owned)));
        }
    }
}
