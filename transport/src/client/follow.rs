//! Following a source on another host.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::chunk::Chunk;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{Answers, ChangeSource, ChangesRequest, KeysRequest, Result};
use handover_engine::rows::{Key, RowsChunk};
use handover_proto::v1;
use tonic::Request;

use super::{CALL_TIMEOUT, RemoteSource, quick};
use crate::wire::{FromWire, IntoWire};

/// Keys in one message, and their bytes.
const KEYS_BATCH: usize = 10_000;
const KEYS_BYTES: usize = 1 << 20;

/// Keys, cut into what one message holds.
pub(crate) fn batches(keys: Vec<Key>) -> Vec<Vec<Bytes>> {
    let (mut out, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
    for key in keys {
        if open.len() == KEYS_BATCH || bytes > KEYS_BYTES {
            out.push(std::mem::take(&mut open));
            bytes = 0;
        }
        bytes += key.0.len();
        open.push(key.0);
    }
    out.push(open);
    out
}

/// A request that may take as long as it waits, and some more.
fn waiting<T>(message: T, wait: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT + wait);
    request
}

fn capture_request(dataset: &DatasetName, capture: &CaptureId) -> v1::CaptureRequest {
    v1::CaptureRequest { dataset: dataset.to_string(), capture: capture.to_string() }
}

#[async_trait]
impl ChangeSource for RemoteSource {
    async fn begin(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<LogPosition> {
        // No time limit: a slot waits for the transactions that are at work.
        let request = capture_request(dataset, capture);
        let reply = self.client().begin_capture(request).await.map_err(|s| self.failed(s))?;
        Ok(LogPosition(reply.into_inner().position))
    }

    async fn changes(&self, request: ChangesRequest) -> Result<Changes> {
        let request = waiting(request.clone().into_wire(), request.wait);
        let reply = self.client().changes(request).await.map_err(|s| self.failed(s))?;
        Ok(Changes::from_wire(reply.into_inner())?)
    }

    async fn confirm(&self, dataset: &DatasetName, capture: &CaptureId, until: &LogPosition) -> Result<()> {
        let request = v1::ConfirmRequest {
            dataset: dataset.to_string(),
            capture: capture.to_string(),
            until: until.0.clone(),
        };
        self.client().confirm(quick(request)).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn end(&self, dataset: &DatasetName, capture: &CaptureId, keep_fence: bool) -> Result<()> {
        let request =
            v1::EndCaptureRequest { dataset: dataset.to_string(), capture: capture.to_string(), keep_fence };
        self.client().end_capture(quick(request)).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn keys(&self, request: KeysRequest) -> Result<Answers<RowsChunk>> {
        let KeysRequest { dataset, table, keys, budget } = request;
        let head = v1::KeysHead { dataset: dataset.to_string(), table: Some(table.into_wire()), budget };
        let mut messages = vec![v1::KeysRequest { head: Some(head), keys: Vec::new() }];
        messages.extend(batches(keys).into_iter().map(|keys| v1::KeysRequest { head: None, keys }));
        let frames = self.client().keys(futures::stream::iter(messages)).await.map_err(|s| self.failed(s))?;
        Ok(self.chunks(frames.into_inner(), |chunk| match chunk {
            Chunk::Rows(rows) => Some(rows),
            _ => None,
        }))
    }

    async fn fence(&self, dataset: &DatasetName, capture: &CaptureId, wait: Duration) -> Result<()> {
        let message = v1::FenceRequest {
            dataset: dataset.to_string(),
            capture: capture.to_string(),
            wait_ms: wait.as_millis() as u64,
        };
        self.client().fence(waiting(message, wait)).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn may_fence(&self, dataset: &DatasetName) -> Result<()> {
        let request = quick(v1::MayFenceRequest { dataset: dataset.to_string() });
        self.client().may_fence(request).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn unfence(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        let request = quick(capture_request(dataset, capture));
        self.client().unfence(request).await.map_err(|s| self.failed(s))?;
        Ok(())
    }
}
