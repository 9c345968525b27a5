//! Databases that the target builds, publishes and takes back.

use async_trait::async_trait;
use handover_engine::change::LogPosition;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::kept::Kept;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{DatabaseTarget, Keeper, KeyedTarget, Result};
use handover_engine::rows::{Key, KeyRange, KeyedRows, RowsChunk, Schema, TableName};

use super::base::Base;
use super::planted::Planted;
use super::world::{Port, Side, World};
use crate::model;

/// The place of a database.
#[derive(Debug, Clone, Default)]
pub struct Place {
    pub building: Option<Building>,
    /// What stood there before the migration, once that has begun.
    pub before: Option<Option<Base>>,
    /// What an abort has kept.
    pub kept: Option<Base>,
}

/// A database that nobody finds yet.
#[derive(Debug, Clone)]
pub struct Building {
    base: Base,
    is_indexed: bool,
    /// Triggers are there.
    is_finished: bool,
}

/// The way to a place.
pub struct PlacePort {
    pub port: Port,
    pub dataset: DatasetName,
}

impl PlacePort {
    async fn call<T: Send>(&self, what: &str, act: impl FnOnce(&mut World) -> Result<T> + Send) -> Result<T> {
        self.port.call(Side::Target, &format!("{what} {}", self.dataset), act).await
    }

    async fn change(
        &self,
        what: &str,
        act: impl FnOnce(&mut Place, &mut Option<Base>) -> Result<()> + Send,
    ) -> Result<()> {
        self.call(what, |world| {
            let mut published = world.target.bases.remove(&self.dataset);
            let place = world.places.get_mut(&self.dataset).expect("a place");
            let done = act(place, &mut published);
            if let Some(base) = published {
                world.target.bases.insert(self.dataset.clone(), base);
            }
            done
        })
        .await
    }

    /// Changes rows of what is being built.
    async fn load(&self, what: &str, act: impl FnOnce(&mut Building) -> Result<()> + Send) -> Result<()> {
        self.change(what, |place, _| {
            let building = place.building.as_mut().ok_or_else(|| flaw("there is nothing to write to"))?;
            if building.is_finished {
                return Err(flaw("triggers would see what is written"));
            }
            act(building)
        })
        .await
    }

    async fn read<T: Send>(&self, what: &str, act: impl FnOnce(&Base) -> T + Send) -> Result<T> {
        self.call(what, |world| {
            let building = world.places[&self.dataset].building.as_ref().map(|building| &building.base);
            let base = building.or(world.target.bases.get(&self.dataset));
            base.map(act).ok_or_else(|| flaw("there is nothing to read"))
        })
        .await
    }
}

/// Something that a driver must not ask for.
fn flaw(what: &str) -> Failure {
    Failure::permanent("database", what)
}

#[async_trait]
impl KeyedTarget for PlacePort {
    async fn apply_keys(&self, all: &[KeyedRows]) -> Result<()> {
        self.load("apply keys to", |building| {
            if !building.is_indexed {
                return Err(flaw("it has no indexes yet"));
            }
            for rows in all {
                building.base.put(&rows.chunk.header.table, &rows.keys, &rows.chunk.block);
            }
            Ok(())
        })
        .await
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        self.load("clear a table of", |building| {
            building.base.rows.get_mut(table).expect("a table").clear();
            Ok(())
        })
        .await
    }

    async fn flush(&self) -> Result<bool> {
        self.call("flush", |_| Ok(true)).await
    }

    async fn children(&self, _: &TableName, _: &[u32], _: &[Key]) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Keeper for PlacePort {
    async fn undo_and_keep(&self) -> Result<()> {
        let act = |place: &mut Place, published: &mut Option<Base>| {
            if let Some(before) = place.before.take() {
                place.kept = std::mem::replace(published, before);
                place.building = None;
            }
            Ok(())
        };
        if self.port.with(|world| world.planted) == Some(Planted::LiftsFirst) {
            self.port.with(|world| [Side::Source, Side::Target].map(|side| world.let_in(side)));
        }
        self.change("take back, and keep,", act).await
    }

    async fn kept(&self) -> Result<Option<Kept>> {
        let kept = self.port.with(|world| world.places[&self.dataset].kept.is_some());
        Ok(kept.then(|| Kept { place: "aside".to_owned(), bytes: 1 }))
    }

    async fn remove_kept(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl DatabaseTarget for PlacePort {
    async fn occupied(&self) -> Result<Option<DatabaseFacts>> {
        let is_there = self.port.with(|world| world.target.bases.contains_key(&self.dataset));
        Ok(is_there.then(DatabaseFacts::default))
    }

    async fn is_prepared(&self) -> Result<bool> {
        self.call("look for", |world| Ok(world.places[&self.dataset].before.is_some())).await
    }

    async fn prepare(&self, _: &Schema) -> Result<()> {
        self.change("prepare", |place, published| {
            if place.before.is_some() && place.building.is_none() {
                return Err(flaw("it is built anew though it was published"));
            }
            place.before.get_or_insert_with(|| published.clone());
            let fresh = Building { base: Base::empty(), is_indexed: false, is_finished: false };
            place.building.get_or_insert(fresh).is_finished = false;
            Ok(())
        })
        .await
    }

    async fn discard(&self) -> Result<()> {
        self.change("discard", |place, _| {
            place.building = None;
            Ok(())
        })
        .await
    }

    async fn apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        self.load("apply to", |building| {
            for chunk in chunks {
                let table = building.base.rows.get_mut(&chunk.header.table).expect("a table");
                table.retain(|key, _| !model::is_in(&chunk.header.range, *key));
                table.extend(model::parse(&chunk.block));
            }
            Ok(())
        })
        .await
    }

    async fn index(&self, _: &Schema) -> Result<()> {
        self.load("index", |building| {
            building.is_indexed = true;
            Ok(())
        })
        .await
    }

    async fn keep(&self, capture: &CaptureId) -> Result<LogPosition> {
        self.call("keep changes of", |world| {
            let place = world.places.get_mut(&self.dataset).expect("a place");
            let building = place.building.as_mut().filter(|building| building.is_finished);
            let base = &mut building.ok_or_else(|| flaw("it is not finished"))?.base;
            let end = base.end();
            base.captures.insert(capture.clone(), end);
            Ok(LogPosition(end.to_string()))
        })
        .await
    }

    async fn keep_none(&self, capture: &CaptureId) -> Result<()> {
        self.change("keep no changes of", |place, _| {
            if let Some(building) = &mut place.building {
                building.base.captures.remove(capture);
            }
            Ok(())
        })
        .await
    }

    async fn finish(&self, schema: &Schema) -> Result<()> {
        self.change("finish", |place, _| {
            let building = place.building.as_mut().ok_or_else(|| flaw("there is nothing to finish"))?;
            building.is_finished = true;
            building.base.set_positions(schema);
            Ok(())
        })
        .await
    }

    async fn reread(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk> {
        self.reread_part(table, range, u64::MAX).await
    }

    async fn reread_part(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        self.read("reread", |base| model::read(table, &base.rows[table], range, budget)).await
    }

    async fn reread_schema(&self) -> Result<Schema> {
        self.read("reread the schema of", Base::schema).await
    }

    async fn publish(&self) -> Result<()> {
        if self.port.with(|world| world.planted) == Some(Planted::PublishesFirst) {
            self.port.with(|world| world.let_in(Side::Source));
        }
        self.change("publish", |place, published| {
            let Some(building) = place.building.take() else { return Ok(()) };
            if !building.is_finished || building.base.captures.is_empty() {
                return Err(flaw("it is published before all is done"));
            }
            *published = Some(building.base);
            Ok(())
        })
        .await
    }

    async fn undo(&self) -> Result<()> {
        self.change("take back", |place, published| {
            place.building = None;
            if let Some(before) = place.before.take() {
                *published = before;
            }
            Ok(())
        })
        .await
    }

    async fn forget(&self) -> Result<()> {
        self.change("forget what was before", |place, _| {
            place.before = None;
            Ok(())
        })
        .await
    }
}
