//! Writing to the trees of a source on another host, once it has been replaced.

use async_trait::async_trait;
use handover_engine::chunk::Chunk;
use handover_engine::failure::Failure;
use handover_engine::ports::home::takes_no_files;
use handover_engine::ports::{HomeTree, HomeTrees, Result, TreeOp};
use handover_engine::tree::{Entry, RelPath};
use handover_proto::v1;
use prost::Message;
use tonic::Code;
use v1::BringHomeAct as Act;

use super::RemoteSource;
use crate::frames::{Compressor, frames};
use crate::wire::{self, IntoWire};

/// Bytes of entries or changes in one message.
const BATCH_BYTES: usize = 1 << 20;

impl RemoteSource {
    async fn bring(
        &self,
        tree: &HomeTree,
        act: Act,
        more: Vec<v1::BringHomeRequest>,
    ) -> Result<v1::BringHomeReply> {
        let head = v1::BringHomeHead {
            dataset: tree.dataset.to_string(),
            migration: tree.migration.to_string(),
            act: act.into(),
        };
        let mut messages = vec![v1::BringHomeRequest { head: Some(head), ..Default::default() }];
        messages.extend(more);
        // No time limit: all of a large tree is listed when it is made ready.
        match self.client().bring_home(futures::stream::iter(messages)).await {
            Ok(reply) => Ok(reply.into_inner()),
            // Of a release that takes no files: nothing is left of them.
            Err(status) if status.code() == Code::Unimplemented && act == Act::Keep => {
                Ok(v1::BringHomeReply::default())
            }
            Err(status) if status.code() == Code::Unimplemented => Err(takes_no_files(self.peer.clone())),
            Err(status) => Err(self.failed(status)),
        }
    }
}

/// Messages, cut into what one request message holds.
fn batches<T: Message>(items: Vec<T>) -> Vec<Vec<T>> {
    let (mut out, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let len = item.encoded_len();
        if bytes + len > BATCH_BYTES && !open.is_empty() {
            out.push(std::mem::take(&mut open));
            bytes = 0;
        }
        bytes += len;
        open.push(item);
    }
    out.push(open);
    out
}

fn of_entries(entries: Vec<Entry>) -> Vec<v1::BringHomeRequest> {
    let entries: Vec<v1::Entry> = entries.into_iter().map(IntoWire::into_wire).collect();
    let message = |entries| v1::BringHomeRequest { entries, ..Default::default() };
    batches(entries).into_iter().map(message).collect()
}

#[async_trait]
impl HomeTrees for RemoteSource {
    async fn begin(&self, tree: &HomeTree) -> Result<()> {
        self.bring(tree, Act::Begin, Vec::new()).await.map(drop)
    }

    async fn refused(&self, tree: &HomeTree, entries: Vec<Entry>) -> Result<Vec<RelPath>> {
        // Attributes do not matter for that.
        let bare = entries.into_iter().map(|mut entry| {
            entry.meta.xattrs.clear();
            entry
        });
        let reply = self.bring(tree, Act::Look, of_entries(bare.collect())).await?;
        reply.refused.into_iter().map(|path| Ok(wire::path("refused", path)?)).collect()
    }

    async fn stage(&self, tree: &HomeTree, contents: Chunk) -> Result<()> {
        let compress = move || frames(contents, &mut Compressor::default());
        let frames = tokio::task::spawn_blocking(compress).await;
        let frames =
            frames.map_err(|e| Failure::transient("files", "they were not compressed").because(e))?;
        let message = |frame| v1::BringHomeRequest { frame: Some(frame), ..Default::default() };
        self.bring(tree, Act::Stage, frames.into_iter().map(message).collect()).await.map(drop)
    }

    async fn land(&self, tree: &HomeTree, files: Vec<Entry>) -> Result<()> {
        self.bring(tree, Act::Land, of_entries(files)).await.map(drop)
    }

    async fn change(&self, tree: &HomeTree, ops: Vec<TreeOp>) -> Result<()> {
        let changes: Vec<v1::TreeChange> = ops.into_iter().map(IntoWire::into_wire).collect();
        let message = |changes| v1::BringHomeRequest { changes, ..Default::default() };
        let messages = batches(changes).into_iter().map(message).collect();
        self.bring(tree, Act::Change, messages).await.map(drop)
    }

    async fn keep(&self, tree: &HomeTree) -> Result<()> {
        self.bring(tree, Act::Keep, Vec::new()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_a_bounded_part_of_what_is_asked() {
        let change = |bytes: usize| v1::TreeChange {
            kind: Some(v1::tree_change::Kind::Remove(vec![b'a'; bytes].into())),
        };
        let sizes = |items: Vec<v1::TreeChange>| batches(items).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![change(10); 5]), [5]);
        assert_eq!(sizes(vec![change(600 << 10); 3]), [1, 1, 1]);
        assert_eq!(sizes(vec![change(3 << 20), change(1), change(1)]), [1, 2]);
        assert_eq!(sizes(Vec::new()), [0]);
    }
}
