//! Writing to a source on another host, once it has been replaced.

use async_trait::async_trait;
use handover_engine::chunk::Chunk;
use handover_engine::failure::Failure;
use handover_engine::ports::{Fence, FencedSource, Result};
use handover_engine::rows::{Key, KeyedRows, RowsChunk, Schema, TableName};
use handover_proto::v1;

use super::follow::batches;
use super::{RemoteSource, quick};
use crate::frames::{Compressor, frames};
use crate::wire::IntoWire;

fn capture_request(fence: &Fence) -> v1::CaptureRequest {
    v1::CaptureRequest { dataset: fence.dataset.to_string(), capture: fence.capture.to_string() }
}

fn table_request(fence: &Fence, table: &TableName) -> v1::TableRequest {
    v1::TableRequest {
        dataset: fence.dataset.to_string(),
        capture: fence.capture.to_string(),
        table: Some(table.clone().into_wire()),
    }
}

/// The messages of one request to write.
async fn messages(
    fence: &Fence,
    fill: bool,
    keys: Vec<Key>,
    chunk: RowsChunk,
) -> Result<Vec<v1::WriteRequest>> {
    let head = v1::WriteHead { dataset: fence.dataset.to_string(), capture: fence.capture.to_string(), fill };
    let mut out = vec![v1::WriteRequest { head: Some(head), ..v1::WriteRequest::default() }];
    let keys = batches(keys).into_iter().map(|keys| v1::WriteRequest { keys, ..v1::WriteRequest::default() });
    out.extend(keys);
    let compress = move || frames(Chunk::Rows(chunk), &mut Compressor::default());
    let frames = tokio::task::spawn_blocking(compress).await;
    let frames = frames.map_err(|e| Failure::transient("rows", "they were not compressed").because(e))?;
    let rows = |frame| v1::WriteRequest { frame: Some(frame), ..v1::WriteRequest::default() };
    out.extend(frames.into_iter().map(rows));
    Ok(out)
}

#[async_trait]
impl FencedSource for RemoteSource {
    async fn make_ready(&self, fence: &Fence) -> Result<()> {
        let request = quick(capture_request(fence));
        self.client().make_ready(request).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn apply_keys(&self, fence: &Fence, rows: KeyedRows) -> Result<()> {
        let messages = messages(fence, false, rows.keys, rows.chunk).await?;
        self.client().write(futures::stream::iter(messages)).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn clear(&self, fence: &Fence, table: &TableName) -> Result<()> {
        // No time limit: a large table takes long.
        let request = table_request(fence, table);
        self.client().clear(request).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn children(
        &self,
        fence: &Fence,
        table: &TableName,
        columns: &[u32],
        values: &[Key],
    ) -> Result<Vec<Key>> {
        let mut out = Vec::new();
        for values in batches(values.to_vec()) {
            let request = v1::ChildrenRequest {
                table: Some(table_request(fence, table)),
                columns: columns.to_vec(),
                values,
            };
            let replies = self.client().find_children(request).await;
            let mut replies = replies.map_err(|s| self.failed(s))?.into_inner();
            while let Some(reply) = replies.message().await.map_err(|s| self.failed(s))? {
                out.extend(reply.keys.into_iter().map(Key));
            }
        }
        Ok(out)
    }

    async fn fill(&self, fence: &Fence, chunk: RowsChunk) -> Result<()> {
        let messages = messages(fence, true, Vec::new(), chunk).await?;
        self.client().write(futures::stream::iter(messages)).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn stand_down(&self, fence: &Fence) -> Result<()> {
        let request = quick(capture_request(fence));
        self.client().stand_down(request).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn set_positions(&self, fence: &Fence, schema: &Schema) -> Result<()> {
        let v1::CaptureRequest { dataset, capture } = capture_request(fence);
        let schema_json = crate::source::document(schema).map_err(|s| self.failed(s))?;
        let request = v1::PositionsRequest { dataset, capture, schema_json };
        self.client().set_positions(request).await.map_err(|s| self.failed(s))?;
        Ok(())
    }
}
