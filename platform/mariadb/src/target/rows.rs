//! Rows in a database's tables, whether it is being built, was published, or is written to where it stands.

use std::collections::BTreeSet;
use std::sync::Arc;

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyedRows, RowsChunk, TableName};
use tokio::sync::Mutex;

use super::place::{self, Names};
use super::{ATTEMPTS, is_conflict, keyed};
use crate::catalog::{self, Catalog};
use crate::live::APPLYING;
use crate::load::{self, Way};
use crate::session::{Role, Session};
use crate::settings::Settings;
use crate::shape::POSITION;
use crate::sql;

/// Where the tables are.
pub enum Where {
    /// In what is being built or, when nothing is, in what was published.
    Beside(Names),
    /// In the database itself, behind its fence.
    InPlace,
}

/// Tables that rows are written to.
pub struct Rows {
    pub dataset: DatasetName,
    pub settings: Settings,
    place: Where,
    idle: Mutex<Vec<Session>>,
    current: Mutex<Option<Arc<Current>>>,
}

/// The database that is written to, as its server told last.
pub struct Current {
    pub database: String,
    pub catalog: Catalog,
    /// Tables that have a column of positions now.
    pub positioned: BTreeSet<String>,
    pub way: Way,
}

impl Rows {
    /// Tables of a dataset. Nothing is asked yet.
    pub fn new(dataset: DatasetName, settings: Settings, place: Where) -> Self {
        Self { dataset, settings, place, idle: Mutex::default(), current: Mutex::default() }
    }

    /// A connection.
    pub async fn session(&self) -> Result<Session> {
        if let Some(session) = self.idle.lock().await.pop() {
            return Ok(session);
        }
        let mut session = Session::open(&self.dataset, &self.settings, Role::Loader).await?;
        if matches!(self.place, Where::InPlace) {
            session.run("cannot be set up", &format!("SET {APPLYING} = 1")).await?;
        }
        Ok(session)
    }

    /// A new connection, and no old ones: privileges that were given since do not reach those.
    pub async fn fresh_session(&self) -> Result<Session> {
        self.idle.lock().await.clear();
        self.session().await
    }

    /// Keeps a connection for the next one. Only after success: a failed one may be broken, or in a transaction.
    pub async fn keep(&self, session: Session) {
        let mut idle = self.idle.lock().await;
        if idle.len() < self.settings.connections {
            idle.push(session);
        }
    }

    /// What is known of the tables is no longer true.
    pub async fn forget(&self) {
        *self.current.lock().await = None;
    }

    /// The failure of a database that is not there.
    pub fn unprepared(&self) -> Failure {
        Failure::permanent(
            format!("{}, {}", self.dataset, self.settings.database),
            "the database was not prepared for this migration",
        )
    }

    /// The database that is written to.
    pub async fn current(&self, session: &mut Session) -> Result<Arc<Current>> {
        let mut current = self.current.lock().await;
        if let Some(current) = &*current {
            return Ok(current.clone());
        }
        let database = match &self.place {
            Where::InPlace => &self.settings.database,
            Where::Beside(names) => {
                let state = place::state(session, names).await?.ok_or_else(|| self.unprepared())?;
                if state.building { &names.build } else { &names.last }
            }
        };
        session.enter(database).await?;
        let catalog = catalog::read(session, database, &[]).await?;
        let query = format!(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = {} AND column_name = '{POSITION}'",
            sql::text(database)
        );
        let positioned = session.records("tables cannot be listed", &query).await?;
        let positioned = positioned.iter().map(|row| row.text(0)).collect();
        let way = load::way(session).await?;
        let new = Arc::new(Current { database: database.clone(), catalog, positioned, way });
        *current = Some(new.clone());
        Ok(new)
    }

    /// Makes keys hold exactly their rows, or none.
    pub async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        let mut attempt = 1;
        loop {
            match keyed::apply(self, rows).await {
                Err(failure) if is_conflict(&failure) && attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// Empties a table.
    pub async fn clear(&self, table: &TableName) -> Result<()> {
        keyed::clear(self, table).await
    }

    /// The keys of rows that have one of these lists of values.
    pub async fn children(&self, table: &TableName, columns: &[u32], values: &[Key]) -> Result<Vec<Key>> {
        keyed::children(self, table, columns, values).await
    }

    /// Adds rows to a table, wherever its own order puts them.
    pub async fn fill(&self, chunk: &RowsChunk) -> Result<()> {
        let mut session = self.session().await?;
        let current = self.current(&mut session).await?;
        let shape = current.catalog.shape(&chunk.header.table)?;
        load::fill(&mut session, &current.database, &shape.without_positions(), current.way, chunk).await?;
        self.keep(session).await;
        Ok(())
    }
}
