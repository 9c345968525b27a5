//! Databases at the target.

use async_trait::async_trait;
use handover_engine::change::LogPosition;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::CaptureId;
use handover_engine::ports::{DatabaseTarget, KeyedTarget, Result};
use handover_engine::rows::{Key, KeyRange, KeyedRows, RowsChunk, Schema, TableName};

use super::{Base, BasePort, Place};
use crate::model;
use crate::world::{Site, World};

impl BasePort {
    fn place<'a>(&self, world: &'a mut World) -> &'a mut Place {
        world.target.bases.get_mut(&self.dataset).expect("a database")
    }

    fn at<T>(&self, act: impl FnOnce(&mut Place) -> T) -> T {
        self.port.with(|world| act(self.place(world)))
    }

    async fn change(&self, what: &str, act: impl FnOnce(&mut Place) + Send) -> Result<()> {
        let act = |world: &mut World| {
            act(self.place(world));
            Ok(())
        };
        self.port.change(what, act).await
    }

    /// What is there to be read.
    fn standing(&self) -> Result<Base> {
        let base = self.at(|place| place.building.clone().or(place.published.clone()));
        base.ok_or_else(nothing_to_work_on)
    }
}

fn nothing_to_work_on() -> Failure {
    Failure::permanent("database", "there is no database to work on")
}

#[async_trait]
impl KeyedTarget for BasePort {
    async fn apply_keys(&self, _: &[KeyedRows]) -> Result<()> {
        Err(nothing_to_work_on())
    }

    async fn clear(&self, _: &TableName) -> Result<()> {
        Err(nothing_to_work_on())
    }

    async fn children(&self, _: &TableName, _: &[u32], _: &[Key]) -> Result<Vec<Key>> {
        Err(nothing_to_work_on())
    }
}

#[async_trait]
impl DatabaseTarget for BasePort {
    async fn occupied(&self) -> Result<Option<DatabaseFacts>> {
        self.port.step(Site::Read, "occupied").await?;
        Ok(self.at(|place| place.published.is_some().then(DatabaseFacts::default)))
    }

    async fn is_prepared(&self) -> Result<bool> {
        self.port.step(Site::Read, "is prepared").await?;
        Ok(self.at(|place| place.before.is_some()))
    }

    async fn prepare(&self, schema: &Schema) -> Result<()> {
        let empty = schema.tables.iter().map(|table| (table.name.clone(), model::Table::new())).collect();
        let base = Base { schema: schema.clone(), rows: empty, finished: false };
        self.change("prepare", |place| {
            place.before.get_or_insert_with(|| place.published.clone());
            let start = place.published.clone().filter(|_| place.is_ours);
            let building = place.building.get_or_insert_with(|| start.unwrap_or(base));
            (building.finished, building.schema) = (false, schema.clone());
        })
        .await
    }

    async fn discard(&self) -> Result<()> {
        self.change("discard", |place| (place.building, place.is_ours) = (None, false)).await
    }

    async fn apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        let act = |world: &mut World| chunks.iter().try_for_each(|chunk| apply(world, self, chunk));
        self.port.change("apply", act).await
    }

    async fn index(&self, _: &Schema) -> Result<()> {
        Err(nothing_to_work_on())
    }

    async fn keep(&self, _: &CaptureId) -> Result<LogPosition> {
        Err(nothing_to_work_on())
    }

    async fn keep_none(&self, _: &CaptureId) -> Result<()> {
        Err(nothing_to_work_on())
    }

    async fn finish(&self, _: &Schema) -> Result<()> {
        let finish = |place: &mut Place| {
            if let Some(base) = &mut place.building {
                base.finished = true;
            }
        };
        self.change("finish", finish).await?;
        self.port.with(|world| rot(world, self));
        Ok(())
    }

    async fn reread(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk> {
        self.reread_part(table, range, u64::MAX).await
    }

    async fn reread_part(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        self.port.step(Site::Read, "reread").await?;
        let rows = self.standing()?.rows.get(table).cloned().unwrap_or_default();
        Ok(model::read(table, &rows, range, budget))
    }

    async fn reread_schema(&self) -> Result<Schema> {
        self.port.step(Site::Read, "reread schema").await?;
        self.standing().map(|base| base.schema)
    }

    async fn publish(&self) -> Result<()> {
        self.port.with(|world| is_verified(world, self));
        self.change("publish", |place| {
            if let Some(base) = place.building.take() {
                (place.published, place.is_ours) = (Some(base), true);
            }
        })
        .await
    }

    async fn undo(&self) -> Result<()> {
        self.change("undo", |place| {
            (place.building, place.is_ours) = (None, false);
            if let Some(before) = place.before.take() {
                place.published = before;
            }
        })
        .await
    }

    async fn forget(&self) -> Result<()> {
        self.change("forget", |place| place.before = None).await
    }
}

/// Something that is no part of the migration changes a row before it is verified.
fn rot(world: &mut World, port: &BasePort) {
    if !world.strikes() {
        return;
    }
    let rows = port.place(world).building.iter_mut().flat_map(|base| base.rows.values_mut());
    if let Some(value) = rows.flat_map(|table| table.values_mut()).next() {
        value.push_str(" rotten");
        world.say(format!("a row of {} rots", port.dataset));
    }
}

fn apply(world: &mut World, port: &BasePort, chunk: &RowsChunk) -> Result<()> {
    if !chunk.is_whole() || !world.sent.contains(&Digest::of(&chunk.block)) {
        world.wrong(format!("{}.{}: a damaged chunk is applied", port.dataset, chunk.header.table));
        return Ok(());
    }
    let base = port.place(world).building.as_mut().ok_or_else(nothing_to_work_on)?;
    let table = base.rows.entry(chunk.header.table.clone()).or_default();
    table.retain(|key, _| !model::is_in(&chunk.header.range, *key));
    table.extend(model::parse(&chunk.block));
    Ok(())
}

/// Nothing is published before everything is verified, nor anything but one moment of the source.
fn is_verified(world: &mut World, port: &BasePort) {
    let migration = world.books.migration.clone().expect("a migration");
    for dataset in migration.plan.datasets() {
        if !migration.steps_done.contains(&format!("verify:{dataset}")) {
            world.wrong(format!("{} is published before {dataset} is verified", port.dataset));
        }
    }
    let building = world.target.bases[&port.dataset].building.clone();
    if let Some(building) = building {
        let shown = |(_, rows): &(Schema, model::Rows)| *rows == building.rows;
        if !building.finished || !world.source.history.values().any(shown) {
            world.wrong(format!("{}: what is published is no moment of the source", port.dataset));
        }
    }
}
