//! The way back: what has taken a database's place is followed by the database that it replaced.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;

use super::Follower;
use crate::failure::Failure;
use crate::name::LeaseId;
use crate::pass::database::CHUNK_BYTES;
use crate::ports::{Direction, Fence, FencedSource, KeyedTarget, Parts, Result};
use crate::rows::{Key, KeyRange, KeyedRows, RowsRequest, RowsWanted, TableName};

/// A source's database behind its fence, as a place for rows.
pub struct BehindFence {
    /// The source.
    pub source: Arc<dyn FencedSource>,
    /// The fence.
    pub fence: Fence,
}

#[async_trait]
impl KeyedTarget for BehindFence {
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        for rows in rows {
            self.source.apply_keys(&self.fence, rows.clone()).await?;
        }
        Ok(())
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        self.source.clear(&self.fence, table).await
    }

    async fn children(&self, table: &TableName, columns: &[u32], values: &[Key]) -> Result<Vec<Key>> {
        self.source.children(&self.fence, table, columns, values).await
    }
}

impl Follower {
    /// Brings home what is not followed: tables whose changes are not told of, and where sequences stand. `from` is the other
    /// side, whose writers are fenced off; `to` the place behind the fence. Idempotent.
    pub async fn bring_rest(&self, to: &BehindFence) -> Result<()> {
        debug_assert_eq!(self.direction, Direction::Back);
        let host = &self.work.source.host;
        let lease = self.lease()?;
        let opened = host.open(&lease, &self.dataset, Parts::Whole).await?;
        for table in opened.schema.tables.iter().filter(|table| !table.followed) {
            self.work.desk.checkpoint()?;
            to.clear(&table.name).await?;
            let request = RowsRequest {
                lease: lease.clone(),
                snapshot: opened.snapshot.clone(),
                table: table.name.clone(),
                budget: CHUNK_BYTES,
                wanted: RowsWanted::Range(KeyRange::default()),
            };
            let mut chunks = self.work.source.rows.rows(request).await?;
            while let Some(chunk) = chunks.try_next().await? {
                to.source.fill(&to.fence, chunk).await?;
            }
        }
        to.source.set_positions(&to.fence, &opened.schema).await?;
        host.close(&lease).await
    }

    fn lease(&self) -> Result<LeaseId> {
        let digest = crate::digest::Digest::of(format!("{} {}", self.capture, self.work.pass).as_bytes());
        format!("l-{}", digest.short())
            .parse()
            .map_err(|e| Failure::permanent("lease", "cannot be named").because(e))
    }
}
