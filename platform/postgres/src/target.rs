//! The target's side: a database that is built beside its final place.

pub mod build;
mod chunks;
mod clear;
pub mod finish;
mod keyed;
mod large;
mod load;
pub mod place;
mod second;
mod session;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use handover_engine::change::LogPosition;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::{CaptureId, DatasetName, MigrationId};
use handover_engine::ports::{DatabaseTarget, Result};
use handover_engine::rows::{Fresh, KeyRange, RowsChunk, Schema, TableName};

use self::build::Builder;
use self::place::Place;
use crate::Settings;
use crate::catalog::Reader;
use crate::connect::Conn;
use crate::error::failed;
use crate::live;

/// A database to be built.
pub struct PostgresTarget {
    place: Place,
    /// It is written to where it stands, past its fence.
    in_place: bool,
    open: Mutex<Open>,
}

/// What is known of the database that is being built (or, when nothing is, of what was published).
#[derive(Default)]
struct Open {
    at: Option<(Settings, Arc<Schema>)>,
    idle: Vec<Conn>,
    /// Older than any commit that may not be durable yet.
    witness: Option<keyed::Witness>,
    fresh: Fresh,
}

impl PostgresTarget {
    /// The database whose final place is that of `settings`.
    pub fn new(dataset: DatasetName, settings: &Settings, migration: &MigrationId) -> Self {
        let place = Place::new(dataset, settings.clone(), migration.clone());
        Self { place, in_place: false, open: Mutex::default() }
    }

    /// The database of `settings` itself, whose rows are written past its fence.
    pub fn in_place(dataset: DatasetName, settings: &Settings) -> Self {
        Self { in_place: true, ..Self::new(dataset, settings, &MigrationId::nobody()) }
    }

    /// Which dataset it is.
    pub fn dataset(&self) -> &DatasetName {
        &self.place.dataset
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        *self.lock() = Open::default();
    }

    fn item(&self, table: Option<&TableName>) -> String {
        let Place { dataset, settings, .. } = &self.place;
        match table {
            Some(table) => format!("{dataset}, table {table} of {}", settings.location()),
            None => format!("{dataset}, {}", settings.location()),
        }
    }

    /// The database to work on and its schema.
    async fn at(&self) -> Result<(Settings, Arc<Schema>)> {
        if let Some(at) = self.lock().at.clone() {
            return Ok(at);
        }
        let (settings, schema) = if self.in_place { self.standing().await? } else { self.built().await? };
        let at = (settings, Arc::new(schema));
        self.lock().at = Some(at.clone());
        Ok(at)
    }

    /// The database that stands at the final place, and its tables.
    async fn standing(&self) -> Result<(Settings, Schema)> {
        let settings = self.place.settings.clone();
        let conn = self.conn(&settings).await?;
        let (schema, _) = self.reader(&conn, &settings).tables_only().await?;
        Ok((settings, schema))
    }

    /// The database that was built last, and the schema that was kept in it.
    async fn built(&self) -> Result<(Settings, Schema)> {
        let settings = self.place.newest().await?;
        let conn = self.conn(&settings).await?;
        let json = conn.text("SELECT json FROM handover_state.schema").await;
        let json = json.map_err(|e| failed(self.item(None), "its schema was not kept", &e))?;
        let schema = serde_json::from_str(&json.unwrap_or_default())
            .map_err(|e| Failure::permanent(self.item(None), "its schema was not kept").because(e))?;
        Ok((settings, schema))
    }

    /// Runs something with a builder on the database that is worked on.
    async fn build<T>(
        &self,
        settings: &Settings,
        work: impl AsyncFnOnce(&Builder<'_>, &Conn) -> Result<T>,
    ) -> Result<T> {
        let conn = self.conn(settings).await?;
        let open = || self.conn(settings).boxed();
        let builder = Builder { item: self.item(None), conn: &conn, open: &open };
        work(&builder, &conn).await
    }

    /// Keys that are ordered by a collation must be ordered alike here.
    async fn check_collations(&self, conn: &Conn, schema: &Schema) -> Result<()> {
        let reader = self.reader(conn, &self.place.settings);
        for (key, version) in &schema.state {
            let Some(name) = key.strip_prefix("key_collation/") else { continue };
            let here = reader.collation_version(name).await?;
            if here != *version {
                let shown = |version: &str| if version.is_empty() { "none" } else { version }.to_owned();
                let what = format!(
                    "keys are ordered by the collation {name}, which is of version {} here and {} at the source",
                    shown(&here),
                    shown(version)
                );
                return Err(Failure::operator(self.item(None), what)
                    .hint("add `key_order=bytes` to the source's `url`, or run the same release of the system on both hosts"));
            }
        }
        Ok(())
    }

    fn reader<'a>(&'a self, conn: &'a Conn, settings: &'a Settings) -> Reader<'a> {
        Reader { dataset: &self.place.dataset, settings, conn, exclude: &[] }
    }
}

#[async_trait]
impl DatabaseTarget for PostgresTarget {
    async fn occupied(&self) -> Result<Option<DatabaseFacts>> {
        if !self.place.stands().await? {
            return Ok(None);
        }
        let settings = &self.place.settings;
        let look = async {
            let conn = Conn::open(&self.place.dataset, settings).await?;
            let reader = self.reader(&conn, settings);
            let schema = reader.schema(None).await?;
            reader.facts(&schema).await
        };
        // Whatever it is, it stands there.
        Ok(Some(look.await.unwrap_or_else(|failure: Failure| DatabaseFacts {
            engine: "postgres".to_owned(),
            location: settings.location(),
            bytes: 1,
            notes: vec![failure.to_string()],
            ..DatabaseFacts::default()
        })))
    }

    async fn is_prepared(&self) -> Result<bool> {
        self.place.is_prepared().await
    }

    async fn prepare(&self, schema: &Schema) -> Result<()> {
        self.close();
        build::guard(&self.item(None), schema)?;
        let settings = self.place.begin(schema).await?;
        self.place.make_accounts(schema).await?;
        let empty = self
            .build(&settings, async |builder, conn| {
                builder.first_half(schema).await?;
                // Collations of the schema's own are there by now.
                self.check_collations(conn, schema).await?;
                builder.index_filled(schema).await
            })
            .await?;
        let mut open = self.lock();
        for at in empty {
            open.fresh.empty(&schema.tables[at].name);
        }
        open.at = Some((settings, Arc::new(schema.clone())));
        Ok(())
    }

    async fn discard(&self) -> Result<()> {
        self.close();
        self.place.discard().await
    }

    async fn apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        self.put_chunks(chunks).await
    }

    async fn index(&self, schema: &Schema) -> Result<()> {
        let (settings, _) = self.at().await?;
        build::guard(&self.item(None), schema)?;
        self.build(&settings, async |builder, _| builder.indexes(schema).await).await?;
        // Rows come by key from now on, whatever their range.
        let mut open = self.lock();
        open.fresh.clear();
        Ok(())
    }

    async fn keep(&self, capture: &CaptureId) -> Result<LogPosition> {
        let (settings, _) = self.at().await?;
        live::begin_as(&self.place.dataset, &settings, &self.place.settings.database, capture).await
    }

    async fn keep_none(&self, capture: &CaptureId) -> Result<()> {
        let (settings, _) = self.at().await?;
        live::end_as(&self.place.dataset, &settings, &self.place.settings.database, capture).await
    }

    async fn finish(&self, schema: &Schema) -> Result<()> {
        let (settings, _) = self.at().await?;
        self.lock().idle.clear();
        build::guard(&self.item(None), schema)?;
        self.build(&settings, async |builder, conn| {
            builder.second_half(schema).await?;
            let analyze = !builder.is_followed().await?;
            finish::state(&builder.item, conn, &self.place.settings, schema, analyze).await
        })
        .await
    }

    async fn reread(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk> {
        self.read_again(table, range).await
    }

    async fn reread_part(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        self.read_part_again(table, range, budget).await
    }

    async fn reread_schema(&self) -> Result<Schema> {
        let (settings, intended) = self.at().await?;
        let conn = self.conn(&settings).await?;
        let mut schema = self.reader(&conn, &settings).schema(None).await?;
        self.place.reread_accounts(&intended, &mut schema).await?;
        if !settings.owners {
            // Everything is to belong to the role of the URL.
            schema.state.retain(|key, _| !Schema::is_ownership(key));
            schema.state.extend(intended.ownership());
        }
        Ok(schema)
    }

    async fn publish(&self) -> Result<()> {
        self.close();
        self.place.publish().await
    }

    async fn settle(&self) -> Result<()> {
        let settings = self.place.newest().await?;
        self.build(&settings, async |builder, _| {
            // Nothing is left of our own where the migration was finalized.
            if !builder.is_followed().await? {
                return Ok(());
            }
            let (_, schema) = self.at().await?;
            builder.settle(&schema).await
        })
        .await
    }

    async fn undo(&self) -> Result<()> {
        self.close();
        self.place.undo().await
    }

    async fn forget(&self) -> Result<()> {
        self.close();
        if self.place.forget().await? {
            let conn = self.conn(&self.place.settings).await?;
            conn.batch_execute("DROP SCHEMA IF EXISTS handover_state CASCADE")
                .await
                .map_err(|e| failed(self.item(None), "our own tables cannot be dropped", &e))?;
            drop(conn);
            self.place.unmark().await?;
        }
        Ok(())
    }
}
