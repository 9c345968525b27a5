//! Following the source's databases.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{Answers, ChangeSource, ChangesRequest, KeysRequest, LiveDatabase, Result};
use handover_engine::rows::RowsChunk;
use tokio::sync::mpsc;

use super::{AHEAD, LocalSource, Readable};

impl LocalSource {
    fn live(&self, name: &DatasetName) -> Result<&Arc<dyn LiveDatabase>> {
        match self.by_name.get(name).map(|at| &self.datasets[*at].1) {
            Some(Readable::Database(known)) => Ok(&known.live),
            _ => Err(Self::unknown(name)),
        }
    }
}

#[async_trait]
impl ChangeSource for LocalSource {
    async fn begin(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<LogPosition> {
        let position = self.live(dataset)?.begin(capture).await?;
        tracing::info!(%dataset, %capture, position = position.0, "changes are kept");
        Ok(position)
    }

    async fn changes(&self, request: ChangesRequest) -> Result<Changes> {
        self.live(&request.dataset)?.changes(&request.capture, &request.after, request.wait).await
    }

    async fn confirm(&self, dataset: &DatasetName, capture: &CaptureId, until: &LogPosition) -> Result<()> {
        self.live(dataset)?.confirm(capture, until).await
    }

    async fn end(&self, dataset: &DatasetName, capture: &CaptureId, keep_fence: bool) -> Result<()> {
        self.live(dataset)?.end(capture, keep_fence).await?;
        tracing::info!(%dataset, %capture, keep_fence, "changes are no longer kept");
        Ok(())
    }

    async fn keys(&self, request: KeysRequest) -> Result<Answers<RowsChunk>> {
        let live = self.live(&request.dataset)?.clone();
        let (to, chunks) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let mut rest = request.keys.as_slice();
            while !rest.is_empty() {
                let answer = live.rows(&request.table, rest, request.budget.max(1)).await;
                let until = answer.as_ref().ok().and_then(|chunk| chunk.header.range.until.clone());
                let done = rest.iter().position(|key| Some(key) == until.as_ref());
                // A receiver that has gone wants no more; a failure ends the stream; so does an adapter that gets nowhere.
                let (true, Some(at)) = (to.send(answer).await.is_ok(), done) else { return };
                rest = &rest[at + 1..];
            }
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(chunks).boxed())
    }

    async fn fence(&self, dataset: &DatasetName, capture: &CaptureId, wait: Duration) -> Result<()> {
        self.live(dataset)?.fence(capture, wait).await?;
        tracing::warn!(%dataset, %capture, "writers are fenced off");
        Ok(())
    }

    async fn unfence(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        self.live(dataset)?.unfence(capture).await?;
        tracing::warn!(%dataset, %capture, "writers are let in again");
        Ok(())
    }
}
