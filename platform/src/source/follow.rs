//! Following the source's databases.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::follow::capture_id;
use handover_engine::name::{CaptureId, DatasetName, MigrationId};
use handover_engine::ports::{
    Answers, ChangeSource, ChangesRequest, Direction, KeysRequest, LiveDatabase, Result,
};
use handover_engine::rows::RowsChunk;
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::LocalSource;
use super::ahead::AHEAD;
use super::captures::Kept;

/// Held by the one who changes a database's fence, or what stands behind it.
pub(super) struct Turn {
    dataset: DatasetName,
    held: OwnedMutexGuard<()>,
}

impl Turn {
    /// Does it on a task of its own: a target may stop waiting for what comes about nevertheless, and calls it off. That has to wait.
    pub(super) async fn through(
        self,
        what_not: &'static str,
        act: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<()> {
        let Self { dataset, held } = self;
        let acting = tokio::spawn(async move {
            let _held = held;
            act.await
        });
        acting.await.map_err(|e| Failure::transient(format!("dataset {dataset}"), what_not).because(e))?
    }
}

impl LocalSource {
    fn live(&self, name: &DatasetName) -> Result<&Arc<dyn LiveDatabase>> {
        Ok(&self.database(name)?.live)
    }

    /// The turn to change a database's fence, or what stands behind it.
    pub(super) async fn turn(&self, name: &DatasetName) -> Result<Turn> {
        let fencing = self.database(name)?.fencing.clone();
        Ok(Turn { dataset: name.clone(), held: fencing.lock_owned().await })
    }

    /// Lets go of what is kept for targets that do not come back, or has grown too large, until dropped. A fence stays: the target may have
    /// taken over. Run it as long as the source serves.
    pub async fn end_stale_captures(&self) {
        loop {
            tokio::time::sleep(self.captures.look_every()).await;
            for kept in self.captures.all() {
                let (dataset, capture) = (kept.dataset.clone(), kept.capture.clone());
                if let Err(failure) = self.look_at(kept).await {
                    tracing::warn!(%dataset, %capture, %failure, "what it keeps cannot be looked at");
                }
            }
        }
    }

    /// Lets writers in again wherever they are fenced off for a migration: its maintenance is over.
    pub async fn lift_fences(&self, migration: &MigrationId) -> Result<()> {
        for (dataset, _) in self.databases() {
            let capture = capture_id(migration, dataset, Direction::Forth)?;
            if self.captures.is_fenced(dataset, &capture) {
                self.unfence(dataset, &capture).await?;
            }
        }
        Ok(())
    }

    async fn look_at(&self, kept: Kept) -> Result<()> {
        // A dataset that the manifest no longer names is none of ours any more.
        let Ok(live) = self.live(&kept.dataset) else { return Ok(()) };
        let Some(bytes) = live.kept(&kept.capture).await? else {
            // Nothing is kept for it; should somebody ask again, it is noted again.
            let is_over = kept.ended().is_none() && !kept.is_fenced() && self.captures.is_idle(&kept);
            return if is_over { self.captures.forget(&kept.dataset, &kept.capture) } else { Ok(()) };
        };
        // A fence that came up meanwhile would go with the rest; and somebody may have asked.
        let _turn = self.turn(&kept.dataset).await?;
        let Some(kept) = self.captures.again(&kept) else { return Ok(()) };
        let Some(why) = self.captures.too_much(&kept, bytes) else { return Ok(()) };
        // Noted first: what nobody keeps must not be asked for.
        self.captures.let_go(&kept, why.clone())?;
        let keep_fence = kept.is_fenced();
        tracing::warn!(dataset = %kept.dataset, capture = %kept.capture, why, keep_fence, "changes are no longer kept");
        live.end(&kept.capture, keep_fence).await
    }
}

#[async_trait]
impl ChangeSource for LocalSource {
    async fn begin(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<LogPosition> {
        let live = self.live(dataset)?;
        self.may_be_read()?;
        self.captures.begin(dataset, capture)?;
        let position = live.begin(capture).await?;
        tracing::info!(%dataset, %capture, position = position.0, "changes are kept");
        Ok(position)
    }

    async fn changes(&self, request: ChangesRequest) -> Result<Changes> {
        let live = self.live(&request.dataset)?;
        self.captures.asked(&request.dataset, &request.capture)?;
        live.changes(&request.capture, &request.after, request.wait).await
    }

    async fn confirm(&self, dataset: &DatasetName, capture: &CaptureId, until: &LogPosition) -> Result<()> {
        self.live(dataset)?.confirm(capture, until).await
    }

    async fn end(&self, dataset: &DatasetName, capture: &CaptureId, keep_fence: bool) -> Result<()> {
        let _turn = self.turn(dataset).await?;
        self.live(dataset)?.end(capture, keep_fence).await?;
        if keep_fence {
            self.captures.keep_fence(dataset, capture)?;
        } else {
            self.captures.forget(dataset, capture)?;
        }
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
        let live = self.live(dataset)?.clone();
        let turn = self.turn(dataset).await?;
        self.captures.fence(dataset, capture, true)?;
        let of = capture.clone();
        turn.through("its fence is not up", async move { live.fence(&of, wait).await }).await?;
        tracing::warn!(%dataset, %capture, "writers are fenced off");
        Ok(())
    }

    async fn may_fence(&self, dataset: &DatasetName) -> Result<()> {
        self.live(dataset)?.may_fence().await
    }

    async fn unfence(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        let _turn = self.turn(dataset).await?;
        self.live(dataset)?.unfence(capture).await?;
        self.captures.fence(dataset, capture, false)?;
        tracing::warn!(%dataset, %capture, "writers are let in again");
        Ok(())
    }
}
