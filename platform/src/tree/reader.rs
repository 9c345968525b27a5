//! The source's side of a tree.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::inventory::TreeFacts;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Answers, Result, TreeReader};
use handover_engine::tree::{Entry, EntryKind, FileRequest, PackChunk, PackItem, Segment};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::filter::Filter;
use super::root::Root;
use super::scan::{self, Walk};
use super::{large, pack};

/// A tree to be read.
#[derive(Clone)]
pub struct Reader {
    dataset: DatasetName,
    root: PathBuf,
    filter: Arc<Filter>,
}

/// Runs blocking work; a panic in it is a failure of the dataset.
pub async fn blocking<T: Send + 'static>(
    dataset: &DatasetName,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|e| {
        Err(Failure::permanent(dataset.to_string(), "a worker ended unexpectedly").because(e))
    })
}

impl Reader {
    pub(super) fn new(dataset: DatasetName, root: PathBuf, filter: Filter) -> Self {
        Self { dataset, root, filter: Arc::new(filter) }
    }

    fn open(&self) -> Result<Root> {
        Root::open(&self.dataset, &self.root)
    }
}

#[async_trait]
impl TreeReader for Reader {
    async fn facts(&self) -> Result<TreeFacts> {
        let this = self.clone();
        blocking(&self.dataset, move || {
            let root = this.open()?;
            let mut walk = Walk::new(&root, &this.filter);
            let mut facts = TreeFacts { root: this.root.display().to_string(), ..TreeFacts::default() };
            while let Some(entry) = walk.next()? {
                match entry.kind {
                    EntryKind::File { size, .. } => {
                        facts.files += 1;
                        facts.bytes += size;
                    }
                    EntryKind::Directory => facts.directories += 1,
                    _ => facts.others += 1,
                }
            }
            facts.notes = walk.notes;
            Ok(facts)
        })
        .await
    }

    fn scan(&self) -> Answers<Vec<Entry>> {
        let this = self.clone();
        scan::stream(move || this.open(), self.filter.clone())
    }

    async fn pack(&self, files: Vec<PackItem>) -> Result<PackChunk> {
        let this = self.clone();
        blocking(&self.dataset, move || pack::read(&this.open()?, &this.filter, &files)).await
    }

    fn file(&self, request: FileRequest) -> Answers<Segment> {
        let this = self.clone();
        let (to, segments) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let read = |root: Root| {
                if this.filter.admits(&request.path, false) {
                    large::read(&root, &request, &to)
                } else {
                    large::say_gone(&request, &to);
                    Ok(())
                }
            };
            if let Err(failure) = this.open().and_then(read) {
                // Nobody may be listening any more.
                let _ = to.blocking_send(Err(failure));
            }
        });
        ReceiverStream::new(segments).boxed()
    }
}
