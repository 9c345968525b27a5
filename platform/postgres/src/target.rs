//! The target's side: a database that is built beside its final place.

pub mod build;
mod clear;
pub mod finish;
mod keyed;
mod large;
mod load;
pub mod place;
mod second;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use handover_engine::change::LogPosition;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::{CaptureId, DatasetName, MigrationId};
use handover_engine::ports::{DatabaseTarget, KeyedTarget, Result};
use handover_engine::rows::{Fresh, Key, KeyRange, KeyedRows, RowsChunk, Schema, TableName};

use self::build::Builder;
use self::load::{Part, Refused, places};
use self::place::Place;
use crate::Settings;
use crate::catalog::Reader;
use crate::connect::Conn;
use crate::error::failed;
use crate::read::Cursor;
use crate::shape::{BadShape, Shape};
use crate::{fenced, live};

/// Connections that are kept for the next chunk.
const KEPT: usize = 8;
/// Rows that are read again at once, where only a part of a range is asked for.
const PART_ROWS: u64 = 20_000;
/// Sessions that load and build. Triggers and foreign keys are not there while rows are loaded, but a former pass's
/// functions may be.
const LOADING: &str = "SET lock_timeout = 0; SET maintenance_work_mem = '256MB'; SET synchronous_commit = on";

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

    /// Looks at the database anew; a connection that writes past the fence.
    pub async fn begin_in_place(&self) -> Result<Conn> {
        self.close();
        self.conn(&self.place.settings).await
    }

    /// Adds rows to a table that was cleared.
    pub async fn fill(&self, chunk: &RowsChunk) -> Result<()> {
        let (settings, schema) = self.at().await?;
        let table = &chunk.header.table;
        let bad = |e: BadShape| Failure::permanent(self.item(Some(table)), e.to_string());
        let shape = Shape::of(&schema, table).map_err(bad)?;
        let conn = self.rows_conn(&settings, &schema).await?;
        let done = load::fill(&conn, &shape, &chunk.block).await;
        done.map_err(|e| failed(self.item(Some(table)), "rows cannot be written", &e))?;
        self.keep_conn(conn);
        Ok(())
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

    async fn conn(&self, settings: &Settings) -> Result<Conn> {
        let conn = Conn::open(&self.place.dataset, settings).await?;
        let failed = |e| failed(self.item(None), "its session cannot be set up", &e);
        conn.batch_execute(LOADING).await.map_err(failed)?;
        if self.in_place {
            let user = &self.place.settings.user;
            let done = conn.batch_execute(fenced::PASS).await;
            done.map_err(|e| fenced::refused(&self.item(None), user, &e))?;
        } else {
            // Only where allowed; nothing depends on it.
            let _ = conn.batch_execute("SET session_replication_role = replica").await;
        }
        Ok(conn)
    }

    /// The database to work on and its schema.
    async fn at(&self) -> Result<(Settings, Arc<Schema>)> {
        if let Some(at) = self.lock().at.clone() {
            return Ok(at);
        }
        if self.in_place {
            let settings = self.place.settings.clone();
            let conn = self.conn(&settings).await?;
            let (schema, _) = self.reader(&conn, &settings).tables_only().await?;
            let at = (settings, Arc::new(schema));
            self.lock().at = Some(at.clone());
            return Ok(at);
        }
        let settings = self.place.newest().await?;
        let conn = self.conn(&settings).await?;
        let json = conn.text("SELECT json FROM handover_state.schema").await;
        let json = json.map_err(|e| failed(self.item(None), "its schema was not kept", &e))?;
        let schema: Schema = serde_json::from_str(&json.unwrap_or_default())
            .map_err(|e| Failure::permanent(self.item(None), "its schema was not kept").because(e))?;
        let at = (settings, Arc::new(schema));
        self.lock().at = Some(at.clone());
        Ok(at)
    }

    /// A connection for rows: text is the database's own.
    async fn rows_conn(&self, settings: &Settings, schema: &Schema) -> Result<Conn> {
        let idle = self.lock().idle.pop();
        if let Some(conn) = idle.filter(|conn| !conn.is_closed()) {
            return Ok(conn);
        }
        let conn = self.conn(settings).await?;
        let encoding = schema.settings.get("encoding").map_or("UTF8", String::as_str);
        // Indexes and keys that are built side by side wait for each other as long as it takes; rows wait for strangers.
        let set_up = async {
            conn.batch_execute("SET lock_timeout = '30s'").await?;
            conn.raw_text(encoding).await
        };
        set_up.await.map_err(|e| failed(self.item(None), "its session cannot be set up", &e))?;
        Ok(conn)
    }

    fn keep_conn(&self, conn: Conn) {
        let mut open = self.lock();
        if open.at.is_some() && open.idle.len() < KEPT {
            open.idle.push(conn);
        }
    }

    fn part<'c>(&self, schema: &Schema, chunk: &'c RowsChunk) -> Result<Part<'c>> {
        let table = &chunk.header.table;
        let bad = |e: BadShape| Failure::permanent(self.item(Some(table)), e.to_string());
        let shape = Shape::of(schema, table).map_err(bad)?;
        let condition = if shape.hidden {
            shape.with_places("place").condition(&chunk.header.range)
        } else {
            shape.condition(&chunk.header.range)
        };
        let fresh = self.lock().fresh.take(table, &chunk.header.range);
        Ok(Part { chunk, shape, fresh, condition: condition.map_err(bad)? })
    }

    fn refused(&self, refused: Refused) -> Failure {
        match refused {
            Refused::Server(table, error) => {
                failed(self.item(Some(&table)), "rows cannot be written", &error)
            }
            Refused::Moved(table) => {
                let what = "rows were changed or moved at the target since they were loaded";
                Failure::operator(self.item(Some(&table)), what)
                    .hint("nothing else may write there before the change-over: abort, and start anew")
            }
        }
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
impl KeyedTarget for PostgresTarget {
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        self.put_keys(rows).await
    }

    async fn make_durable(&self) -> Result<()> {
        self.flush_log().await
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        let (settings, schema) = self.at().await?;
        let bad = |e: BadShape| Failure::permanent(self.item(Some(table)), e.to_string());
        let shape = Shape::of(&schema, table).map_err(bad)?;
        let conn = self.rows_conn(&settings, &schema).await?;
        // Where foreign keys are, the server empties no table alone.
        let verb = if self.in_place { "DELETE FROM" } else { "TRUNCATE" };
        let done = conn.batch_execute(&format!("{verb} ONLY {}", shape.table)).await;
        done.map_err(|e| failed(self.item(Some(table)), "it cannot be emptied", &e))?;
        self.keep_conn(conn);
        Ok(())
    }

    /// The server logs what a foreign key's action does to each row.
    async fn children(&self, _table: &TableName, _columns: &[u32], _values: &[Key]) -> Result<Vec<Key>> {
        Ok(Vec::new())
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
        let (settings, schema) = self.at().await?;
        let parts = chunks.iter().map(|chunk| self.part(&schema, chunk)).collect::<Result<Vec<_>>>()?;
        let conn = self.rows_conn(&settings, &schema).await?;
        load::apply(&conn, &parts).await.map_err(|e| self.refused(e))?;
        self.keep_conn(conn);
        Ok(())
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
        let (settings, schema) = self.at().await?;
        let bad = |e: BadShape| Failure::permanent(self.item(Some(table)), e.to_string());
        let shape = Shape::of(&schema, table).map_err(bad)?;
        let sql = if shape.hidden {
            let placed = shape.with_places("p.place");
            let columns: Vec<String> = shape.columns.iter().map(|column| format!(", t.{column}")).collect();
            format!(
                "COPY (SELECT p.place{} FROM {} p JOIN ONLY {} t ON t.ctid = p.at{} ORDER BY p.place) TO STDOUT",
                columns.concat(),
                places(table),
                shape.table,
                placed.condition(range).map_err(bad)?
            )
        } else {
            shape.read(range).map_err(bad)?
        };
        let conn = self.rows_conn(&settings, &schema).await?;
        let refused = |e| failed(self.item(Some(table)), "its rows cannot be read again", &e);
        let mut cursor = Cursor::open(conn, table, shape, range, &sql).await.map_err(refused)?;
        let chunk = cursor.chunk(u64::MAX).await.map_err(refused)?;
        self.keep_conn(cursor.into_conn());
        Ok(chunk)
    }

    async fn reread_part(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        let (settings, schema) = self.at().await?;
        let bad = |e: BadShape| Failure::permanent(self.item(Some(table)), e.to_string());
        let shape = Shape::of(&schema, table).map_err(bad)?;
        // Bounded, so that the rows are found by their index, and not all sorted for the first of them.
        let sql = shape.read_first(range, PART_ROWS).map_err(bad)?;
        let conn = self.rows_conn(&settings, &schema).await?;
        let refused = |e| failed(self.item(Some(table)), "its rows cannot be read again", &e);
        let key_of = shape.clone();
        let mut cursor = Cursor::open(conn, table, shape, range, &sql).await.map_err(refused)?;
        let mut chunk = cursor.chunk(budget).await.map_err(refused)?;
        if cursor.is_done() {
            // What is left of any other is not waited for.
            self.keep_conn(cursor.into_conn());
            if chunk.header.rows == PART_ROWS {
                let rows = chunk.block.strip_suffix(b"\n").unwrap_or(&chunk.block);
                let last = rows.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                chunk.header.range.until = Some(Key(key_of.key_of(last).into()));
            }
        }
        Ok(chunk)
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
