//! The journal, with a crash before and after every commit.

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::journal::{Event, Holdings, Journal, Logged, Migration, PartialFile, Record, Sums};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::plan::Plan;
use handover_engine::ports::{Answers, Result};
use handover_engine::rows::{HeldChunk, Schema, SnapshotId, TableName};
use handover_engine::time::Timestamp;
use handover_engine::tree::{Block, IndexEntry, RelPath, Spots};

use super::planted::{self, Planted};
use super::world::{Port, Side};

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
        let what = format!("journal: {}", records.iter().map(name).collect::<Vec<_>>().join(", "));
        self.call(Side::Target, &what, |world| {
            world.books.commit(at, &planted::written(world.planted, records));
            if world.planted == Some(Planted::LeavesTargetOpen) && records.iter().any(planted::is_home) {
                world.let_in(Side::Target);
            }
            Ok(())
        })
        .await
    }

    async fn events(&self, _: &MigrationId, seq: u64, limit: u32) -> Result<Vec<Logged>> {
        Ok(self.with(|world| world.books.after(seq, limit)))
    }
}

/// What a trace shows of a record.
fn name(record: &Record) -> String {
    match record {
        Record::State(state) => format!("{:?}, {:?}", state.phase, state.task),
        Record::StepDone(step) => format!("{step} is done"),
        Record::Outcome(outcome) => match &outcome.cutover {
            Some(cutover) => format!(
                "cut-over {}{}{}{:?}",
                if cutover.fenced_at.is_some() { "fenced " } else { "" },
                if cutover.committed { "committed " } else { "" },
                if cutover.live_at.is_some() { "live " } else { "" },
                cutover.back
            ),
            None => "outcome".to_owned(),
        },
        Record::Event(Event::Note { text, .. }) => text.clone(),
        Record::Event(_) => "event".to_owned(),
        _ => "rows".to_owned(),
    }
}

#[async_trait]
impl Holdings for Port {
    async fn schema(&self, _: &MigrationId, dataset: &DatasetName) -> Result<Option<Schema>> {
        Ok(self.with(|world| world.books.schemas.get(dataset).cloned()))
    }

    async fn chunks(
        &self,
        _: &MigrationId,
        dataset: &DatasetName,
        table: &TableName,
    ) -> Result<Vec<(SnapshotId, HeldChunk)>> {
        Ok(self.with(|world| world.books.held(dataset, table)))
    }

    fn index(&self, _: &MigrationId, _: &DatasetName) -> Answers<Vec<IndexEntry>> {
        futures::stream::empty().boxed()
    }

    fn index_at(&self, _: &MigrationId, _: &DatasetName, _: &Spots) -> Answers<Vec<IndexEntry>> {
        futures::stream::empty().boxed()
    }

    async fn blocks(&self, _: &MigrationId, _: &DatasetName, _: &RelPath) -> Result<Vec<Block>> {
        Ok(Vec::new())
    }

    async fn partials(&self, _: &MigrationId, _: &DatasetName) -> Result<Vec<PartialFile>> {
        Ok(Vec::new())
    }

    async fn sums(&self, _: &MigrationId, dataset: &DatasetName) -> Result<Sums> {
        Ok(self.with(|world| {
            let held = world.books.chunks.iter().filter(|((other, _), _)| other == dataset);
            let rows = held.flat_map(|(_, chunks)| chunks).map(|(_, chunk)| chunk.rows).sum();
            Sums { rows, ..Sums::default() }
        }))
    }
}
