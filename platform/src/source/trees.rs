//! Reading trees.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Answers, Result, TreeSource};
use handover_engine::tree::{
    Changed, Cursor, Entry, FileRequest, PackChunk, PackRequest, PackedFile, Segment, Spots,
};

use super::{LocalSource, served};

#[async_trait]
impl TreeSource for LocalSource {
    async fn scan(&self, dataset: &DatasetName) -> Result<Answers<Vec<Entry>>> {
        self.may_be_read()?;
        Ok(self.tree(dataset)?.scan())
    }

    async fn scan_at(&self, dataset: &DatasetName, spots: &Spots) -> Result<Answers<Vec<Entry>>> {
        self.may_be_read()?;
        Ok(self.tree(dataset)?.scan_at(spots))
    }

    async fn changed(&self, dataset: &DatasetName, since: Option<Cursor>, wait: Duration) -> Result<Changed> {
        self.tree(dataset)?.changed(since, wait).await
    }

    async fn pack(&self, request: PackRequest) -> Result<PackChunk> {
        let pack = self.tree(&request.dataset)?.pack(request.files.clone()).await?;
        for file in &pack.files {
            if let PackedFile::Contents { entry, len, .. } | PackedFile::Tail { entry, len, .. } = file {
                served(&request.dataset, &format!("file/{}", entry.path), *len);
            }
        }
        Ok(pack)
    }

    async fn file(&self, request: FileRequest) -> Result<Answers<Segment>> {
        let (dataset, path) = (request.dataset.clone(), request.path.clone());
        let segments = self.tree(&dataset)?.file(request);
        let segments = self.ahead.held(segments, |segment| segment.data.len() as u64);
        let logged = segments.inspect(move |segment| {
            if let Ok(segment) = segment
                && !segment.data.is_empty()
            {
                served(&dataset, &format!("file/{path}@{}", segment.offset), segment.data.len() as u64);
            }
        });
        Ok(logged.boxed())
    }
}
