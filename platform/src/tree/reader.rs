//! The source's side of a tree.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::inventory::TreeFacts;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Answers, Result, TreeReader};
use handover_engine::tree::{
    Changed, Cursor, Entry, EntryKind, FileRequest, PackChunk, PackItem, Segment, Spots,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::filter::Filter;
use super::root::Root;
use super::scan::{self, Walk};
use super::watch::Watcher;
use super::{large, pack};

/// A tree to be read.
#[derive(Clone)]
pub struct Reader {
    dataset: DatasetName,
    root: PathBuf,
    filter: Arc<Filter>,
    watcher: Arc<Watcher>,
    is_log: bool,
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
        let filter = Arc::new(filter);
        let watcher = Arc::new(Watcher::new(dataset.clone(), root.clone(), filter.clone()));
        Self { dataset, root, filter, watcher, is_log: false }
    }

    /// The same tree, of logs: a file may grow while it is read.
    pub fn of_logs(self) -> Self {
        Self { is_log: true, ..self }
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

    fn scan_at(&self, spots: &Spots) -> Answers<Vec<Entry>> {
        let this = self.clone();
        scan::stream_at(move || this.open(), self.filter.clone(), spots)
    }

    async fn changed(&self, since: Option<Cursor>, wait: Duration) -> Result<Changed> {
        self.watcher.changed(since, wait).await
    }

    async fn pack(&self, files: Vec<PackItem>) -> Result<PackChunk> {
        let this = self.clone();
        blocking(&self.dataset, move || pack::read(&this.open()?, &this.filter, &files, this.is_log)).await
    }

    fn file(&self, request: FileRequest) -> Answers<Segment> {
        let this = self.clone();
        let (to, segments) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let read = |root: Root| {
                if this.filter.admits(&request.path, false) {
                    large::read(&root, &request, &to, this.is_log)
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
