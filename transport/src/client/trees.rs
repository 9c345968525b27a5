//! The trees of a source on another host.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::chunk::Chunk;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Answers, Result, TreeSource};
use handover_engine::tree::{Changed, Cursor, Entry, FileRequest, PackChunk, PackRequest, Segment, Spots};
use handover_proto::v1;

use super::RemoteSource;
use crate::failure::from_status;
use crate::wire::{FromWire, IntoWire};

/// Blocks of a basis in one message.
const BASIS_BATCH: usize = 16 << 10;

impl RemoteSource {
    async fn entries(&self, request: v1::ScanRequest) -> Result<Answers<Vec<Entry>>> {
        let replies = self.client().scan(request).await.map_err(|s| self.failed(s))?.into_inner();
        let peer = self.peer.clone();
        let batches = replies.map(move |reply| {
            let reply = reply.map_err(|status| from_status(&peer, status))?;
            let entries =
                reply.entries.into_iter().map(|entry| Entry::from_wire(entry).map_err(Failure::from));
            entries.collect()
        });
        Ok(batches.boxed())
    }
}

#[async_trait]
impl TreeSource for RemoteSource {
    async fn scan(&self, dataset: &DatasetName) -> Result<Answers<Vec<Entry>>> {
        self.entries(v1::ScanRequest { dataset: dataset.to_string(), spots: Vec::new() }).await
    }

    async fn scan_at(&self, dataset: &DatasetName, spots: &Spots) -> Result<Answers<Vec<Entry>>> {
        let spots = spots.clone().into_wire();
        self.entries(v1::ScanRequest { dataset: dataset.to_string(), spots }).await
    }

    async fn changed(&self, dataset: &DatasetName, since: Option<Cursor>, wait: Duration) -> Result<Changed> {
        let cursor = since.map(|cursor| cursor.0).unwrap_or_default();
        // No time limit: every directory of a large tree is looked at when it is first watched.
        let request =
            v1::ChangedRequest { dataset: dataset.to_string(), cursor, wait_ms: wait.as_millis() as u64 };
        match self.client().changed(request).await {
            Ok(reply) => Ok(Changed::from_wire(reply.into_inner())?),
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                let untold = "the source agent is of a release that does not tell".to_owned();
                Ok(Changed { cursor: Cursor(String::new()), spots: None, untold })
            }
            Err(status) => Err(self.failed(status)),
        }
    }

    async fn pack(&self, request: PackRequest) -> Result<PackChunk> {
        let frames = self.client().pack(request.into_wire()).await.map_err(|s| self.failed(s))?;
        let mut packs = self.chunks(frames.into_inner(), |chunk| match chunk {
            Chunk::Pack(pack) => Some(pack),
            _ => None,
        });
        packs
            .next()
            .await
            .unwrap_or_else(|| Err(Failure::transient(&self.peer, "a stream ended without its pack")))
    }

    async fn file(&self, request: FileRequest) -> Result<Answers<Segment>> {
        let FileRequest { dataset, path, offset, begun_as, basis } = request;
        let head = v1::FileHead {
            dataset: dataset.to_string(),
            path: Vec::from(path).into(),
            offset,
            begun_as: begun_as.map(IntoWire::into_wire),
        };
        let mut messages = vec![v1::FileRequest { head: Some(head), basis: Vec::new() }];
        messages.extend(basis.chunks(BASIS_BATCH).map(|blocks| {
            let basis = blocks.iter().map(|block| block.into_wire()).collect();
            v1::FileRequest { head: None, basis }
        }));
        let frames = self.client().file(futures::stream::iter(messages)).await.map_err(|s| self.failed(s))?;
        Ok(self.chunks(frames.into_inner(), |chunk| match chunk {
            Chunk::Segment(segment) => Some(segment),
            _ => None,
        }))
    }
}
