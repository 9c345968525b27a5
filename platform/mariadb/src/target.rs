//! The target's side: a database built beside its final place, put there in one step, taken back from there.
//!
//! For a final place `db`: `db__handover_<id>` is being built and holds the migration's state; `db__handover_<id>_undo` keeps
//! what stood there before; `db__handover_<id>_gone` is about to be dropped; `db__handover_<id>_kept` was published by a migration that was aborted.

pub mod build;
mod kept;
mod keyed;
pub mod late;
pub mod place;
mod publish;
pub mod rows;

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::change::LogPosition;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::{CaptureId, DatasetName, MigrationId};
use handover_engine::ports::{DatabaseTarget, KeyedTarget, Result};
use handover_engine::rows::{Fresh, Key, KeyRange, KeyedRows, RowsChunk, Schema, TableName};
use tokio::sync::Mutex;

use self::place::{Names, State};
use self::rows::{Rows, Where};
use crate::catalog;
use crate::cursor::{self, Place, Plan};
use crate::load;
use crate::session::Session;
use crate::settings::Settings;
use crate::{accounts, database, live, sql};

/// How often a transaction that others stood in the way of is tried at once.
const ATTEMPTS: usize = 5;
/// Rows that are read again at once, where only a part of a range is asked for: what is not wanted is read all the same.
const PART_ROWS: u64 = 20_000;

/// A database to be built.
pub struct MariaTarget {
    rows: Rows,
    migration: MigrationId,
    names: Names,
    fresh: Mutex<Fresh>,
}

impl MariaTarget {
    /// The database that the settings name, to be filled by this migration. The database need not exist.
    pub fn new(dataset: DatasetName, settings: Settings, migration: &MigrationId) -> Self {
        let names = Names::new(&settings.database, migration);
        let rows = Rows::new(dataset, settings, Where::Beside(names.clone()));
        Self { rows, migration: migration.clone(), names, fresh: Mutex::default() }
    }

    async fn forget_current(&self) {
        self.rows.forget().await;
        self.fresh.lock().await.clear();
    }

    /// Accounts are made for the source only where this side names them too: it is this server that they get into.
    fn check_accounts(&self, schema: &Schema) -> Result<()> {
        let item = format!("{}, {}", self.rows.dataset, self.rows.settings.location());
        accounts::check(&item, &schema.after_load, &self.rows.settings.accounts)
    }

    async fn publish_built(&self, session: &mut Session, state: &mut State) -> Result<()> {
        if let Some(schema) = &state.schema {
            self.check_accounts(schema)?;
        }
        publish::publish(session, &self.names, state).await
    }

    async fn try_apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        let mut session = self.rows.session().await?;
        let current = self.rows.current(&mut session).await?;
        session.run("no transaction can begin", "START TRANSACTION").await?;
        for chunk in chunks {
            let shape = current.catalog.shape(&chunk.header.table)?;
            let is_fresh = self.fresh.lock().await.take(&chunk.header.table, &chunk.header.range);
            let done =
                load::apply(&mut session, &current.database, &shape, current.way, chunk, is_fresh).await;
            if let Err(failure) = done {
                let _ = session.run("rows cannot be taken back", "ROLLBACK").await;
                return Err(failure);
            }
        }
        session.run("rows cannot be committed", "COMMIT").await?;
        self.rows.keep(session).await;
        Ok(())
    }

    /// Notes which tables are empty. Their ranges are not asked for rows: while the first load into an empty table is under way,
    /// a server (10.11.19) was seen to stand still for good, that `LOAD DATA` and the queries that estimate ranges of
    /// the same table each waiting for the other inside InnoDB.
    async fn look_for_rows(&self, session: &mut Session, schema: &Schema) -> Result<()> {
        let mut fresh = self.fresh.lock().await;
        for table in &schema.tables {
            let name = format!("{}.{}", sql::quote(&self.names.build), sql::quote(&table.name.name));
            let query = format!("SELECT 1 FROM {name} LIMIT 1");
            if session.records("tables cannot be looked at", &query).await?.is_empty() {
                fresh.empty(&table.name);
            }
        }
        Ok(())
    }

    /// Connections that indexes are made on.
    async fn helpers(&self, session: Session) -> Result<Vec<Session>> {
        let mut helpers = vec![session];
        for _ in 1..self.rows.settings.connections.min(2) {
            helpers.push(self.rows.session().await?);
        }
        Ok(helpers)
    }

    /// Takes everything back since `prepare`.
    async fn take_back(&self, fate: publish::Fate) -> Result<()> {
        self.forget_current().await;
        let (mut session, state) = self.open().await?;
        publish::undo(&mut session, &self.names, state, fate).await?;
        self.rows.keep(session).await;
        Ok(())
    }

    /// The state, and a connection.
    async fn open(&self) -> Result<(Session, Option<State>)> {
        let mut session = self.rows.fresh_session().await?;
        let state = place::state(&mut session, &self.names).await?;
        Ok((session, state))
    }
}

#[async_trait]
impl KeyedTarget for MariaTarget {
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        self.rows.apply_keys(rows).await
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        self.rows.clear(table).await
    }

    async fn children(&self, table: &TableName, columns: &[u32], values: &[Key]) -> Result<Vec<Key>> {
        self.rows.children(table, columns, values).await
    }
}

#[async_trait]
impl DatabaseTarget for MariaTarget {
    async fn occupied(&self) -> Result<Option<DatabaseFacts>> {
        let mut session = self.rows.session().await?;
        let database = &self.rows.settings.database;
        if !place::exists(&mut session, database).await? {
            return Ok(None);
        }
        let has_tables = !place::tables(&mut session, database).await?.is_empty();
        if !has_tables && !late::any(&mut session, database).await? {
            return Ok(None);
        }
        session.enter(database).await?;
        let catalog = catalog::read(&mut session, database, &[]).await?;
        self.rows.keep(session).await;
        Ok(Some(database::facts(&catalog, &self.rows.settings)))
    }

    async fn is_prepared(&self) -> Result<bool> {
        let (session, state) = self.open().await?;
        self.rows.keep(session).await;
        Ok(state.is_some())
    }

    async fn prepare(&self, schema: &Schema) -> Result<()> {
        self.check_accounts(schema)?;
        self.forget_current().await;
        let mut session = self.rows.fresh_session().await?;
        let mut state = place::begin(&mut session, &self.names, &self.migration, schema).await?;
        if state.publishing {
            // The last publication was interrupted: it is ended first.
            self.publish_built(&mut session, &mut state).await?;
        }
        if !state.building {
            (state.building, state.schema) = (true, None);
            place::write(&mut session, &self.names, &state).await?;
        }
        build::prepare(&mut session, &self.names, &state, schema).await?;
        self.look_for_rows(&mut session, schema).await?;
        self.rows.keep(session).await;
        Ok(())
    }

    async fn discard(&self) -> Result<()> {
        self.forget_current().await;
        let (mut session, state) = self.open().await?;
        let Some(mut state) = state else { return Ok(()) };
        state.continues = false;
        place::write(&mut session, &self.names, &state).await?;
        build::discard(&mut session, &self.names).await?;
        self.rows.keep(session).await;
        Ok(())
    }

    async fn apply(&self, chunks: &[RowsChunk]) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.try_apply(chunks).await {
                Err(failure) if failure.is_transient() && attempt < ATTEMPTS && is_conflict(&failure) => {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn finish(&self, schema: &Schema) -> Result<()> {
        self.check_accounts(schema)?;
        let (mut session, state) = self.open().await?;
        let mut state = state.filter(|state| state.building).ok_or_else(|| self.rows.unprepared())?;
        state.schema = Some(schema.clone());
        place::write(&mut session, &self.names, &state).await?;
        self.forget_current().await;
        let mut helpers = self.helpers(session).await?;
        build::finish(&mut helpers, &self.names, schema).await?;
        for session in helpers {
            self.rows.keep(session).await;
        }
        self.forget_current().await;
        Ok(())
    }

    async fn index(&self, schema: &Schema) -> Result<()> {
        let (session, state) = self.open().await?;
        state.filter(|state| state.building).ok_or_else(|| self.rows.unprepared())?;
        self.forget_current().await;
        let mut helpers = self.helpers(session).await?;
        build::index(&mut helpers, &self.names, schema).await?;
        for session in helpers {
            self.rows.keep(session).await;
        }
        self.forget_current().await;
        Ok(())
    }

    async fn keep(&self, _capture: &CaptureId) -> Result<LogPosition> {
        let mut session = self.rows.session().await?;
        // What the log tells of our own putting in place is passed over by who follows.
        let position = live::begin(&mut session, &self.rows.settings.database).await?;
        self.rows.keep(session).await;
        Ok(position)
    }

    async fn keep_none(&self, _capture: &CaptureId) -> Result<()> {
        // The server keeps its log by itself.
        Ok(())
    }

    async fn reread(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk> {
        let mut session = self.rows.session().await?;
        let current = self.rows.current(&mut session).await?;
        let shape = current.catalog.shape(table)?;
        let aside = if shape.in_pieces().is_empty() {
            None
        } else {
            Some(Arc::new(Mutex::new(self.rows.session().await?)))
        };
        let positioned = current.positioned.contains(&table.name);
        let place = Place { database: &current.database, positioned, aside: aside.clone() };
        let chunk = cursor::read_whole(&mut session, &Plan::new(table, range, shape, place)?).await?;
        if let Some(aside) = aside.and_then(Arc::into_inner) {
            self.rows.keep(aside.into_inner()).await;
        }
        self.rows.keep(session).await;
        Ok(chunk)
    }

    async fn reread_part(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        let mut session = self.rows.session().await?;
        let current = self.rows.current(&mut session).await?;
        let shape = current.catalog.shape(table)?;
        let rows = current.catalog.schema.table(table).map_or(1, |spec| {
            let average = spec.estimated_bytes / spec.estimated_rows.max(1);
            (budget / average.max(1)).clamp(1, PART_ROWS)
        });
        let aside = if shape.in_pieces().is_empty() {
            None
        } else {
            Some(Arc::new(Mutex::new(self.rows.session().await?)))
        };
        let place = Place { database: &current.database, positioned: false, aside: aside.clone() };
        let plan = Plan::new(table, range, shape, place)?.at_most(rows);
        let chunk = cursor::read_part(&mut session, &plan, budget, rows).await?;
        drop(plan);
        if let Some(aside) = aside.and_then(Arc::into_inner) {
            self.rows.keep(aside.into_inner()).await;
        }
        self.rows.keep(session).await;
        Ok(chunk)
    }

    async fn reread_schema(&self) -> Result<Schema> {
        let (mut session, state) = self.open().await?;
        let state = state.ok_or_else(|| self.rows.unprepared())?;
        self.forget_current().await;
        let mut schema = self.rows.current(&mut session).await?.catalog.schema.clone();
        if let Some(intended) = &state.schema {
            if state.building {
                build::as_intended(&mut schema, intended);
            }
            let accounts = publish::accounts(&mut session, &self.names, &state, intended).await?;
            schema.after_load.extend(accounts);
        }
        self.rows.keep(session).await;
        Ok(schema)
    }

    async fn publish(&self) -> Result<()> {
        self.forget_current().await;
        let (mut session, state) = self.open().await?;
        let mut state = state.ok_or_else(|| self.rows.unprepared())?;
        self.publish_built(&mut session, &mut state).await?;
        self.rows.keep(session).await;
        Ok(())
    }

    async fn undo(&self) -> Result<()> {
        self.take_back(publish::Fate::Dropped).await
    }

    async fn forget(&self) -> Result<()> {
        self.forget_current().await;
        let mut session = self.rows.session().await?;
        for database in [&self.names.gone, &self.names.kept, &self.names.build] {
            place::drop_database(&mut session, database).await?;
        }
        self.rows.keep(session).await;
        Ok(())
    }
}

/// Two transactions stood in each other's way: worth another try at once. A lock that was waited for in vain is not.
fn is_conflict(failure: &Failure) -> bool {
    failure.causes.iter().any(|cause| cause.contains("(error 1213)"))
}
