//! A journal in memory: what a commit has made durable survives every crash.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::digest::Digest;
use handover_engine::journal::{Event, Holdings, Journal, Logged, Migration, PartialFile, Record, Sums};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::plan::Plan;
use handover_engine::ports::{Answers, Result};
use handover_engine::rows::{HeldChunk, Schema, SnapshotId, TableName};
use handover_engine::time::Timestamp;
use handover_engine::tree::{Block, IndexEntry, RelPath, Spots};

use super::world::{PerDataset, Port, Site};

/// Entries of the index in one batch.
const BATCH: usize = 3;

/// What the journal holds.
#[derive(Default)]
pub struct Books {
    pub migration: Option<Migration>,
    pub events: Vec<Logged>,
    /// Numbers of the events with which tasks began.
    pub begins: Vec<u64>,
    pub schemas: PerDataset<Schema>,
    pub chunks: BTreeMap<(DatasetName, TableName), Vec<(SnapshotId, HeldChunk)>>,
    pub index: PerDataset<BTreeMap<RelPath, IndexEntry>>,
    pub blocks: BTreeMap<(DatasetName, RelPath), Vec<Block>>,
    pub partials: BTreeMap<(DatasetName, RelPath), PartialFile>,
    pub partials_written: u64,
}

impl Books {
    pub fn commit(&mut self, at: Timestamp, records: &[Record]) {
        let begins = records.iter().any(|record| matches!(record, Record::TaskBegun { .. }));
        records.iter().for_each(|record| self.write(at, record));
        if begins {
            self.begins.push(self.events.len() as u64);
        }
    }

    fn hold(&mut self, dataset: &DatasetName, table: &TableName, held: (SnapshotId, HeldChunk)) {
        let chunks = self.chunks.entry((dataset.clone(), table.clone())).or_default();
        match chunks.iter_mut().find(|(_, other)| other.range.after == held.1.range.after) {
            Some(same) => *same = held,
            None => chunks.push(held),
        }
    }

    fn write(&mut self, at: Timestamp, record: &Record) {
        let migration = self.migration.as_mut().expect("a migration");
        match record {
            Record::State(state) => migration.state = state.clone(),
            Record::TaskBegun { pass } => {
                (migration.pass, migration.shown) = (*pass, 0.0);
                migration.steps_done.clear();
            }
            Record::StepDone(step) => migration.steps_done.push(step.clone()),
            Record::Event(event) => self.event(at, event),
            Record::Shown(shown) => migration.shown = *shown,
            Record::Outcome(outcome) => migration.outcome = (**outcome).clone(),
            Record::Database { dataset, schema } => {
                let before = self.schemas.insert(dataset.clone(), (**schema).clone());
                if before.is_some_and(|before| before.structure() != schema.structure()) {
                    self.chunks.retain(|(other, _), _| other != dataset);
                }
            }
            Record::Rows { dataset, table, snapshot, chunk } => {
                self.hold(dataset, table, (snapshot.clone(), chunk.clone()));
            }
            Record::Doubted { dataset, table, chunk } => self.hold(dataset, table, chunk.doubted()),
            Record::Landed { dataset, entries } => {
                for landing in entries {
                    let path = landing.entry.source.path.clone();
                    let key = (dataset.clone(), path.clone());
                    self.index.entry(dataset.clone()).or_default().insert(path, landing.entry.clone());
                    self.blocks.remove(&key);
                    if !landing.blocks.is_empty() {
                        self.partials.remove(&key);
                        self.blocks.insert(key, landing.blocks.clone());
                    }
                }
            }
            Record::Gone { dataset, paths } => self.gone(dataset, paths),
            Record::Partial { dataset, entry, offset, blocks, .. } => {
                self.partials_written += 1;
                let key = (dataset.clone(), entry.path.clone());
                if *offset == 0 {
                    self.partials.remove(&key);
                }
                let fresh = PartialFile { entry: entry.clone(), blocks: Vec::new() };
                self.partials.entry(key).or_insert(fresh).blocks.extend(blocks);
            }
        }
    }

    fn event(&mut self, at: Timestamp, event: &Event) {
        let seq = self.events.len() as u64 + 1;
        self.events.push(Logged { seq, at, event: event.clone() });
    }

    /// The events after one, up to so many.
    pub fn after(&self, seq: u64, limit: u32) -> Vec<Logged> {
        self.events.iter().filter(|event| event.seq > seq).take(limit as usize).cloned().collect()
    }

    fn gone(&mut self, dataset: &DatasetName, paths: &[RelPath]) {
        let stays = |other: &RelPath| !paths.iter().any(|path| other.is_within(path));
        self.index.entry(dataset.clone()).or_default().retain(|path, _| stays(path));
        self.blocks.retain(|(other, path), _| other != dataset || stays(path));
        self.partials.retain(|(other, path), _| other != dataset || stays(path));
    }

    /// What is held of a table.
    pub fn held(&self, dataset: &DatasetName, table: &TableName) -> Vec<(SnapshotId, HeldChunk)> {
        self.chunks.get(&(dataset.clone(), table.clone())).cloned().unwrap_or_default()
    }

    /// The digest that the index has of a path.
    pub fn indexed(&self, dataset: &DatasetName, path: &RelPath) -> Option<(&IndexEntry, Digest)> {
        self.index.get(dataset)?.get(path).map(|entry| (entry, entry.digest))
    }
}

#[async_trait]
impl Journal for Port {
    async fn keep_plan(&self, _: &Plan) -> Result<()> {
        Ok(())
    }

    async fn find_plans(&self, _: &str) -> Result<Vec<Plan>> {
        Ok(Vec::new())
    }

    async fn create(&self, migration: &Migration) -> Result<()> {
        self.with(|world| world.books.migration = Some(migration.clone()));
        Ok(())
    }

    async fn migrations(&self) -> Result<Vec<Migration>> {
        Ok(self.with(|world| world.books.migration.iter().cloned().collect()))
    }

    async fn commit(&self, _: &MigrationId, at: Timestamp, records: &[Record]) -> Result<()> {
        self.step(Site::Commit, "journal").await?;
        self.with(|world| world.books.commit(at, records));
        self.step(Site::Committed, "journal").await
    }

    async fn events(&self, _: &MigrationId, seq: u64, limit: u32) -> Result<Vec<Logged>> {
        Ok(self.with(|world| world.books.after(seq, limit)))
    }
}

#[async_trait]
impl Holdings for Port {
    async fn schema(&self, _: &MigrationId, dataset: &DatasetName) -> Result<Option<Schema>> {
        self.step(Site::Read, "held schema").await?;
        Ok(self.with(|world| world.books.schemas.get(dataset).cloned()))
    }

    async fn chunks(
        &self,
        _: &MigrationId,
        dataset: &DatasetName,
        table: &TableName,
    ) -> Result<Vec<(SnapshotId, HeldChunk)>> {
        self.step(Site::Read, "held chunks").await?;
        Ok(self.with(|world| world.books.held(dataset, table)))
    }

    fn index(&self, _: &MigrationId, dataset: &DatasetName) -> Answers<Vec<IndexEntry>> {
        let (port, dataset) = (self.clone(), dataset.clone());
        let pages = futures::stream::try_unfold(None::<RelPath>, move |after| {
            let (port, dataset) = (port.clone(), dataset.clone());
            async move {
                port.step(Site::Read, "index").await?;
                let page: Vec<IndexEntry> = port.with(|world| {
                    let index = world.books.index.get(&dataset).into_iter().flatten();
                    let rest = index.filter(|(path, _)| after.as_ref().is_none_or(|after| *path > after));
                    rest.take(BATCH).map(|(_, entry)| entry.clone()).collect()
                });
                let next = page.last().map(|entry| Some(entry.source.path.clone()));
                Ok(next.map(|next| (page, next)))
            }
        });
        pages.boxed()
    }

    fn index_at(&self, id: &MigrationId, dataset: &DatasetName, spots: &Spots) -> Answers<Vec<IndexEntry>> {
        let spots = spots.clone();
        let pages = self.index(id, dataset);
        pages
            .map(move |page| {
                page.map(|all| all.into_iter().filter(|e| spots.covers(&e.source.path)).collect())
            })
            .boxed()
    }

    async fn blocks(&self, _: &MigrationId, dataset: &DatasetName, path: &RelPath) -> Result<Vec<Block>> {
        self.step(Site::Read, "held blocks").await?;
        let key = (dataset.clone(), path.clone());
        Ok(self.with(|world| world.books.blocks.get(&key).cloned().unwrap_or_default()))
    }

    async fn partials(&self, _: &MigrationId, dataset: &DatasetName) -> Result<Vec<PartialFile>> {
        self.step(Site::Read, "partials").await?;
        let of = |world: &mut super::world::World| {
            let partials = world.books.partials.iter().filter(|((other, _), _)| other == dataset);
            partials.map(|(_, partial)| partial.clone()).collect()
        };
        Ok(self.with(of))
    }

    async fn sums(&self, _: &MigrationId, dataset: &DatasetName) -> Result<Sums> {
        let sums = |world: &mut super::world::World| {
            let mut sums = Sums::default();
            let held = world.books.chunks.iter().filter(|((other, _), _)| other == dataset);
            for (_, chunk) in held.flat_map(|(_, chunks)| chunks) {
                sums.rows += chunk.rows;
                sums.bytes += chunk.bytes;
            }
            for entry in world.books.index.get(dataset).into_iter().flat_map(BTreeMap::values) {
                sums.files += u64::from(entry.source.size().is_some());
                sums.bytes += entry.source.size().unwrap_or(0);
            }
            sums
        };
        Ok(self.with(sums))
    }
}
