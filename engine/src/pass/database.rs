//! One pass over a database: every table's chunks, from one snapshot of the source.
//!
//! The first pass finds nothing held and copies everything. Any other (a later pass, a resumed one whose snapshot
//! died with the source agent) asks the source to check each held chunk against its new snapshot: those that are
//! still true are not sent. Either way the target holds, at the end, exactly the rows of one moment.

mod altered;
pub(crate) mod cover;

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, future};

pub(crate) use self::altered::{held_schema, refuse_altered};
use self::cover::{Course, Segment};
use super::{Message, Work};
use crate::failure::Failure;
use crate::journal::Record;
use crate::name::{DatasetName, LeaseId};
use crate::plan::StepKind;
use crate::ports::{DatabaseTarget, Opened, Parts, Result};
use crate::progress::Amount;
use crate::rows::{HeldChunk, Key, RowsChunk, RowsRequest, RowsWanted, SnapshotId, TableName};
use crate::throttle::gate::Kind;

/// Text bytes of a chunk.
pub const CHUNK_BYTES: u64 = 2 << 20;
/// Parts of tables that are under way or wait for a lane.
const SIDE_BY_SIDE: usize = 8;
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
    let (lease, step) = (lease(&work, &dataset)?, StepKind::Copy(dataset.clone()));
    copy_under(work, dataset, target, lease, &step).await
}

/// The same, under a lease of its own, as a part of a step.
pub async fn copy_under(
    work: Work,
    dataset: DatasetName,
    target: Arc<dyn DatabaseTarget>,
    lease: LeaseId,
    step: &StepKind,
) -> Result<()> {
    work.throttle.begin(&work.desk).await?;
    let mut opened = work.source.host.open(&lease, &dataset, Parts::Cut).await?;
    let held = work.holdings.schema(&work.migration, &dataset).await?;
    let (same, other): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|held| held.structure() == opened.schema.structure());
    if let Some(held) = same.first() {
        // The chunks that are held lie between the cuts of that time.
        for table in &mut opened.schema.tables {
            table.cuts = held.table(&table.name).map(|held| held.cuts.clone()).unwrap_or_default();
        }
    }
    if !other.is_empty() {
        // What is held has another shape: it cannot be brought up to date row by row.
        let text = "its schema has changed since the last pass; it is copied from the start".to_owned();
        work.desk.send(Message::Note { item: dataset.to_string(), text }).await?;
        target.discard().await?;
    }
    let schema = Box::new(opened.schema.clone());
    // Not counted as getting on: every try records it, also of a step that never gets any further.
    let record = Record::Database { dataset: dataset.clone(), schema };
    work.desk.send(Message::Records(vec![record])).await?;
    work.desk.flush().await?;
    target.prepare(&opened.schema).await?;
    let step = step.id();
    let mut tables: Vec<_> = opened.schema.tables.iter().collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.estimated_bytes));
    let tables: Vec<(TableName, Vec<Key>)> =
        tables.into_iter().map(|table| (table.name.clone(), table.cuts.clone())).collect();
    let copier = Copier { work, dataset, target, lease, opened, step };
    copier.tables(tables).await
}

/// Copies again, from a snapshot of now, the tables whose changes cannot be followed, and takes over what changes with the
/// data. For a copy that is finished otherwise, with the source behind a fence.
pub async fn recopy(work: Work, dataset: DatasetName, target: Arc<dyn DatabaseTarget>) -> Result<()> {
    let lease = lease(&work, &dataset)?;
    let mut opened = work.source.host.open(&lease, &dataset, Parts::Whole).await?;
    let held = refuse_altered(&work, &dataset, &opened.schema).await?;
    for table in &mut opened.schema.tables {
        table.cuts = held.table(&table.name).map(|held| held.cuts.clone()).unwrap_or_default();
    }
    let schema = Box::new(opened.schema.clone());
    work.desk.send(Message::Records(vec![Record::Database { dataset: dataset.clone(), schema }])).await?;
    work.desk.flush().await?;
    let step = StepKind::CatchUp(dataset.clone()).id();
    let tables = opened.schema.tables.iter().filter(|table| !table.followed);
    let tables: Vec<(TableName, Vec<Key>)> =
        tables.map(|table| (table.name.clone(), table.cuts.clone())).collect();
    let copier = Copier { work, dataset, target, lease, opened, step };
    copier.tables(tables).await
}

/// A part of a table.
struct Part {
    table: TableName,
    segment: Segment<(SnapshotId, HeldChunk)>,
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
    /// Copies tables in their order: the bound keeps a thousand of them from waiting as a thousand futures, the lanes decide how
    /// many run.
    async fn tables(&self, tables: Vec<(TableName, Vec<Key>)>) -> Result<()> {
        let mut copies = futures::stream::iter(tables)
            .map(|(table, cuts)| self.parts(table, cuts))
            .buffered(1)
            .try_flatten()
            .map_ok(|part| self.part(part))
            .try_buffer_unordered(SIDE_BY_SIDE);
        while copies.try_next().await?.is_some() {}
        Ok(())
    }

    /// The parts of a table that are copied side by side.
    async fn parts(&self, table: TableName, cuts: Vec<Key>) -> Result<impl Stream<Item = Result<Part>>> {
        let held = self.work.holdings.chunks(&self.work.migration, &self.dataset, &table).await?;
        let segments = cover::segments(held, |(_, chunk)| chunk, &cuts).ok_or_else(|| {
            Failure::permanent(
                format!("{}, table {table}", self.dataset),
                "the journal holds chunks with several gaps between them",
            )
            .begin_anew("abort, and plan again")
        })?;
        Ok(futures::stream::iter(segments).map(move |segment| Ok(Part { table: table.clone(), segment })))
    }

    async fn part(&self, Part { table, segment }: Part) -> Result<()> {
        let _lane = self.work.lanes.acquire().await.map_err(|_| super::stopped())?;
        self.work.desk.checkpoint()?;
        let (now, stale): (Vec<_>, Vec<_>) =
            segment.held.into_iter().partition(|(snapshot, _)| *snapshot == self.opened.snapshot);
        for (_, chunk) in &now {
            self.got_on(chunk).await?;
        }
        // Before anything is rechecked: a recheck that is interrupted may leave a gap, and there must never be two.
        if let Some(range) = segment.missing {
            self.take(&table, RowsWanted::Range(range), &[]).await?;
        }
        let stale: Vec<HeldChunk> = stale.into_iter().map(|(_, chunk)| chunk).collect();
        for batch in stale.chunks(RECHECK) {
            self.take(&table, RowsWanted::Recheck(batch.to_vec()), batch).await?;
        }
        Ok(())
    }

    /// Takes chunks from the source until all that is wanted has come.
    async fn take(&self, table: &TableName, wanted: RowsWanted, held: &[HeldChunk]) -> Result<()> {
        let mut course = Course::new(&wanted);
        let request = RowsRequest {
            lease: self.lease.clone(),
            snapshot: self.opened.snapshot.clone(),
            table: table.clone(),
            wanted,
            budget: self.work.throttle.portion(CHUNK_BYTES),
        };
        let Work { source, throttle, desk, .. } = &self.work;
        let chunks = source.rows.rows(request).await?;
        // What is found unchanged was read too.
        let chunks = throttle.held(chunks, Kind::Bulk, desk, |chunk| chunk.header.bytes);
        let mut batches = chunks.ready_chunks(TOGETHER);
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<RowsChunk>>>()?;
            if !batch.iter().all(|chunk| course.take(&chunk.header.range)) {
                return Err(self.broken(table, "a chunk arrived out of turn"));
            }
            self.apply(table, batch, held).await?;
            self.work.desk.checkpoint()?;
        }
        if course.is_over() {
            Ok(())
        } else {
            Err(self.broken(table, "its stream ended before all chunks had arrived"))
        }
    }

    async fn apply(&self, table: &TableName, batch: Vec<RowsChunk>, held: &[HeldChunk]) -> Result<()> {
        for chunk in &batch {
            if chunk.header.table != *table || !chunk.is_whole() {
                return Err(self.broken(table, "a chunk arrived damaged: its digest is not that of its rows"));
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
            self.doubt(&fresh, held).await?;
            self.target.apply(&fresh).await?;
        }
        self.work.desk.record(records).await?;
        for (bytes, resent) in arrived {
            self.work.desk.send(Message::Applied { bytes, resent }).await?;
        }
        future::try_join_all(amounts.iter().map(|chunk| self.got_on(chunk))).await?;
        Ok(())
    }

    /// Journals, before chunks replace what is held, that it may no longer be what stands here: should this run end in between
    /// and the source's rows be again what they were, a recheck would find them unchanged.
    async fn doubt(&self, fresh: &[RowsChunk], held: &[HeldChunk]) -> Result<()> {
        let replaced = held.iter().filter(|h| fresh.iter().any(|c| c.header.range.after == h.range.after));
        let records: Vec<Record> = replaced
            .map(|chunk| Record::Doubted {
                dataset: self.dataset.clone(),
                table: fresh[0].header.table.clone(),
                chunk: chunk.clone(),
            })
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        self.work.desk.send(Message::Records(records)).await?;
        self.work.desk.flush().await
    }

    fn broken(&self, table: &TableName, what: &str) -> Failure {
        Failure::transient(format!("{}, table {table}", self.dataset), what)
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
