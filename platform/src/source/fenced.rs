//! Writing to the source's databases once they have been replaced: behind their fences alone.

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::ports::{Fence, FencedDatabase, FencedSource, Result};
use handover_engine::rows::{Key, KeyedRows, RowsChunk, Schema, TableName};

use super::LocalSource;

impl LocalSource {
    /// The database, as long as this fence stands. Its users write to it again once it is gone.
    fn behind(&self, fence: &Fence) -> Result<&Arc<dyn FencedDatabase>> {
        let known = self.database(&fence.dataset)?;
        if self.captures.is_fenced(&fence.dataset, &fence.capture) {
            return Ok(&known.fenced);
        }
        let what = "its writers are not fenced off: nothing is written to it";
        Err(Failure::operator(format!("dataset {}", fence.dataset), what)
            .hint("was the fence taken away by hand? `handover accept` keeps the target; `handover abort --discard` gives up what was written there"))
    }
}

#[async_trait]
impl FencedSource for LocalSource {
    async fn make_ready(&self, fence: &Fence) -> Result<()> {
        let turn = self.turn(&fence.dataset).await?;
        // Asked in turn: whoever has waited for the fence to be taken away does not come too late.
        let database = self.behind(fence)?.clone();
        turn.through("it is not made ready", async move { database.make_ready().await }).await
    }

    async fn apply_keys(&self, fence: &Fence, rows: KeyedRows) -> Result<()> {
        let database = self.behind(fence)?;
        database.apply_keys(&[rows]).await?;
        database.make_durable().await
    }

    async fn clear(&self, fence: &Fence, table: &TableName) -> Result<()> {
        self.behind(fence)?.clear(table).await
    }

    async fn children(
        &self,
        fence: &Fence,
        table: &TableName,
        columns: &[u32],
        values: &[Key],
    ) -> Result<Vec<Key>> {
        self.behind(fence)?.children(table, columns, values).await
    }

    async fn fill(&self, fence: &Fence, chunk: RowsChunk) -> Result<()> {
        self.behind(fence)?.fill(&chunk).await
    }

    async fn stand_down(&self, fence: &Fence) -> Result<()> {
        let turn = self.turn(&fence.dataset).await?;
        let database = self.behind(fence)?.clone();
        turn.through("what was put away is not back", async move { database.stand_down().await }).await
    }

    async fn set_positions(&self, fence: &Fence, schema: &Schema) -> Result<()> {
        self.behind(fence)?.set_positions(schema).await
    }
}
