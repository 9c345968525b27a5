//! The source's side of the way back: rows are written to the database behind its fence.

use async_trait::async_trait;
use handover_engine::name::DatasetName;
use handover_engine::ports::{FencedDatabase, KeyedTarget, Result};
use handover_engine::rows::{Key, KeyedRows, RowsChunk, Schema, TableName};

use super::{Live, aside};
use crate::settings::Settings;
use crate::target::build;
use crate::target::rows::{Rows, Where};

/// A database that is written to where it stands, past its fence.
pub struct MariaFenced {
    live: Live,
    rows: Rows,
}

impl MariaFenced {
    /// The database that the settings name.
    pub fn new(dataset: DatasetName, settings: Settings) -> Self {
        let live = Live { dataset: dataset.clone(), settings: settings.clone(), exclude: Vec::new() };
        Self { live, rows: Rows::new(dataset, settings, Where::InPlace) }
    }
}

#[async_trait]
impl KeyedTarget for MariaFenced {
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
impl FencedDatabase for MariaFenced {
    async fn make_ready(&self) -> Result<()> {
        self.rows.forget().await;
        aside::put(&self.live).await
    }

    async fn fill(&self, chunk: &RowsChunk) -> Result<()> {
        self.rows.fill(chunk).await
    }

    async fn stand_down(&self) -> Result<()> {
        aside::put_back(&self.live).await
    }

    async fn set_positions(&self, schema: &Schema) -> Result<()> {
        let mut session = self.rows.fresh_session().await?;
        session.enter(&self.live.settings.database).await?;
        build::counters(&mut session, schema).await?;
        self.rows.keep(session).await;
        Ok(())
    }
}
