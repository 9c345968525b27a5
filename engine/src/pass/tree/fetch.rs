//! Getting files' contents from the source and staging them.

use futures::TryStreamExt;

use super::{Pass, moved};
use crate::digest::Digest;
use crate::failure::Failure;
use crate::journal::{PartialFile, Record};
use crate::pass::Message;
use crate::ports::Result;
use crate::ports::tree::is_no_help;
use crate::throttle::gate::Kind;
use crate::tree::{
    Block, Entry, FileRequest, IndexEntry, PackChunk, PackItem, PackRequest, PackedFile, Piece, RelPath,
    Segment, SegmentEnd, Stamp, digest_of_blocks,
};

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;
/// What arrived of a large file is made durable and journaled each time this much has come together.
const DURABLE_EVERY: u64 = 32 << 20;

/// Contents to get.
#[expect(clippy::large_enum_variant, reason = "a few thousand live at a time: not worth an allocation each")]
pub enum Job {
    /// Several small files.
    Pack {
        /// The files.
        items: Vec<PackItem>,
        /// Their inodes at the source, as the scan saw them.
        inodes: Vec<u64>,
        /// Their bytes.
        bytes: u64,
    },
    /// One large file.
    Large {
        /// The file as the scan saw it.
        entry: Entry,
        /// What the target has of it.
        held: Option<IndexEntry>,
        /// The blocks of a file that was set aside for it.
        moved: Option<Vec<Block>>,
    },
}

/// A file that is staged and may land.
pub struct Ready {
    /// The file as it was read.
    pub entry: Entry,
    /// Digest of its contents.
    pub digest: Digest,
    /// Its blocks, if it is large.
    pub blocks: Vec<Block>,
    /// If it is large: where the segments began that brought contents and are not journaled yet.
    pub segments: Vec<u64>,
}

pub struct Fetcher<'a> {
    pub pass: &'a Pass,
}

/// How one reading of a large file ended.
#[expect(clippy::large_enum_variant, reason = "one lives at a time")]
enum Read {
    Ready(Ready),
    Changed,
    Gone,
    /// The file here does not have the contents that the index says.
    BadBasis,
}

impl Fetcher<'_> {
    pub async fn run(&self, job: Job) -> Result<Vec<Ready>> {
        match job {
            Job::Pack { items, bytes, .. } => self.pack(items, bytes).await,
            Job::Large { entry, held, moved } => {
                let basis = match (moved, &held) {
                    (Some(moved), _) => moved,
                    (None, Some(held)) => self.pass.blocks(held).await?,
                    (None, None) => Vec::new(),
                };
                Ok(self.large(&entry.path, basis, held.is_some()).await?.into_iter().collect())
            }
        }
    }

    async fn pack(&self, items: Vec<PackItem>, bytes: u64) -> Result<Vec<Ready>> {
        match self.pack_once(items.clone(), bytes).await {
            // What is here does not help: all of it, then.
            Err(failure) if is_no_help(&failure) => {
                let bare = |item| PackItem { held: None, held_len: 0, ..item };
                self.pack_once(items.into_iter().map(bare).collect(), bytes).await
            }
            other => other,
        }
    }

    async fn pack_once(&self, items: Vec<PackItem>, bytes: u64) -> Result<Vec<Ready>> {
        let pass = self.pass;
        let request = PackRequest { dataset: pass.dataset.clone(), files: items.clone() };
        // Files that are found to be as they are held are read too.
        pass.work.throttle.take(Kind::Bulk, bytes, &pass.work.desk).await?;
        let mut pack = pass.work.source.trees.pack(request).await?;
        pass.work.throttle.settle(Kind::Bulk, bytes, bytes);
        let answers_request = pack.files.len() == items.len()
            && pack.files.iter().zip(&items).all(|(file, item)| *path_of(file) == item.path);
        if !answers_request || !pack.is_whole() {
            return Err(Failure::transient(
                format!("{}, {} files from {}", pass.dataset, items.len(), items[0].path),
                "a pack arrived damaged: its digests are not those of its files",
            ));
        }
        self.pass.moved.made_of(&mut pack, &items);
        let resent = pack.files.iter().zip(&items).any(
            |(file, item)| matches!(file, PackedFile::Contents { digest, .. } if Some(*digest) == item.held),
        );
        let bytes = pack.data.len() as u64;
        let mut ready = self.stage(pack, &items).await?;
        pass.work.desk.send(Message::Applied { bytes, resent }).await?;
        for item in ready.1 {
            let basis = item.held.map_or_else(Vec::new, |held| moved::one_block(held, item.held_len));
            ready.0.extend(self.large(&item.path, basis, item.held.is_some()).await?);
        }
        Ok(ready.0)
    }

    /// Stages a pack; returns what may land, and what must be asked for alone.
    async fn stage(&self, pack: PackChunk, items: &[PackItem]) -> Result<(Vec<Ready>, Vec<PackItem>)> {
        let mut ready = Vec::with_capacity(pack.files.len());
        let mut unfit = Vec::new();
        for (file, item) in pack.files.iter().zip(items) {
            match file {
                PackedFile::Contents { entry, digest, .. } | PackedFile::Tail { entry, digest, .. } => {
                    ready.push(Ready {
                        entry: entry.clone(),
                        digest: *digest,
                        blocks: Vec::new(),
                        segments: Vec::new(),
                    });
                }
                PackedFile::Same { entry } => {
                    let digest = item.held.ok_or_else(|| {
                        Failure::permanent(
                            item.path.to_string(),
                            "the source says `same` of a file that is not held",
                        )
                    })?;
                    ready.push(Ready {
                        entry: entry.clone(),
                        digest,
                        blocks: Vec::new(),
                        segments: Vec::new(),
                    });
                }
                PackedFile::Gone { path } => self.gone(path),
                PackedFile::Unfit { .. } => unfit.push(item.clone()),
            }
        }
        self.pass.target.stage(pack).await?;
        Ok((ready, unfit))
    }

    /// The next scan will tell what has become of it.
    fn gone(&self, path: &RelPath) {
        if let Ok(mut gone) = self.pass.gone.lock() {
            gone.insert(path.clone());
        }
    }

    /// `basis` is what is here of it; `is_held` says whether an earlier state of it is here, and in the index.
    async fn large(&self, path: &RelPath, mut basis: Vec<Block>, is_held: bool) -> Result<Option<Ready>> {
        let pass = self.pass;
        let mut partial = pass.partials.lock().ok().and_then(|mut partials| partials.remove(path));
        let mut journaled = partial.as_ref().map(Journaled::of).unwrap_or_default();
        // It may have landed without its record, by a run that ended there: then it is what stands here.
        let mut landed = match &partial {
            Some(partial) if !is_held => Some(partial.blocks.clone()),
            _ => None,
        };
        let mut changed = 0;
        while changed < TRIES {
            match self.read(path, partial.take(), &basis, &mut journaled).await? {
                Read::Ready(ready) => return Ok(Some(ready)),
                Read::Gone => {
                    self.gone(path);
                    return Ok(None);
                }
                Read::Changed => changed += 1,
                // Each is tried once: what stood here, what may have landed, nothing.
                Read::BadBasis => basis = landed.take().unwrap_or_default(),
            }
        }
        if !is_held {
            // What stands here under its name is not of the source, nor can anything be linked to it.
            self.gone(path);
        }
        let what = format!("it changed each of the {TRIES} times it was read; sync again when it is quiet");
        pass.leave_out(path.to_string(), what).await?;
        Ok(None)
    }

    /// Reads a large file once, from where the journal holds it to its end.
    async fn read(
        &self,
        path: &RelPath,
        partial: Option<PartialFile>,
        basis: &[Block],
        journaled: &mut Journaled,
    ) -> Result<Read> {
        let pass = self.pass;
        let request = FileRequest {
            dataset: pass.dataset.clone(),
            path: path.clone(),
            offset: partial.as_ref().map_or(0, PartialFile::end),
            begun_as: partial.as_ref().map(|p| p.entry.clone()),
            basis: basis.to_vec(),
        };
        let helped = !basis.is_empty() || request.offset > 0;
        let mut arrived = Arrived { at: request.offset, ..Arrived::default() };
        arrived.blocks = partial.map(|p| p.blocks).unwrap_or_default();
        let segments = pass.work.source.trees.file(request).await?;
        let mut segments = pass.work.throttle.held(segments, Kind::Bulk, &pass.work.desk, bytes_read(basis));
        while let Some(segment) = segments.try_next().await? {
            self.check(path, &segment, arrived.at)?;
            let (end, entry) = (segment.end.clone(), segment.entry.clone());
            if end == Some(SegmentEnd::Changed) {
                return Ok(Read::Changed);
            }
            if end == Some(SegmentEnd::Gone) {
                return Ok(Read::Gone);
            }
            let bytes = segment.data.len() as u64;
            let resent = bytes > 0 && journaled.has(&entry, segment.offset);
            if bytes > 0 {
                arrived.segments.push(segment.offset);
            }
            let blocks = match pass.target.write(segment, basis).await {
                Ok(blocks) => blocks,
                // What is here does not help: neither the file under the path nor the part that was staged.
                Err(failure) if is_no_help(&failure) && helped => return Ok(Read::BadBasis),
                Err(failure) => return Err(failure),
            };
            pass.work.desk.send(Message::Applied { bytes, resent }).await?;
            arrived.add(blocks);
            if let Some(SegmentEnd::Whole(entry)) = end {
                if arrived.is_journaled_in_part() {
                    // To the end: should landing be journaled no more, all that is known of it stands here by then.
                    self.keep(path, &mut arrived, &entry, journaled).await?;
                }
                let digest = digest_of_blocks(&arrived.blocks);
                return Ok(Read::Ready(Ready {
                    entry,
                    digest,
                    blocks: arrived.blocks,
                    segments: arrived.segments,
                }));
            }
            if arrived.loose_bytes >= DURABLE_EVERY {
                self.keep(path, &mut arrived, &entry, journaled).await?;
                pass.work.desk.checkpoint()?;
            }
        }
        Err(Failure::transient(format!("{}, {path}", pass.dataset), "its stream ended before the file did"))
    }

    /// Makes durable, then journals, what has arrived since the last record.
    async fn keep(
        &self,
        path: &RelPath,
        arrived: &mut Arrived,
        entry: &Entry,
        journaled: &mut Journaled,
    ) -> Result<()> {
        self.pass.target.sync(std::slice::from_ref(path)).await?;
        self.pass.work.desk.record(vec![arrived.record(&self.pass.dataset, entry.clone())]).await?;
        journaled.add(entry, arrived.at);
        Ok(())
    }

    fn check(&self, path: &RelPath, segment: &Segment, at: u64) -> Result<()> {
        if segment.entry.path == *path && segment.offset == at && segment.is_whole() {
            return Ok(());
        }
        Err(Failure::transient(
            format!("{}, {path} at {at}", self.pass.dataset),
            "a segment arrived damaged: its digests are not those of its blocks",
        ))
    }
}

/// How much the source has read for a segment: blocks that are held already are read too.
fn bytes_read(basis: &[Block]) -> impl Fn(&Segment) -> u64 + use<> {
    let lens: Vec<u64> = basis.iter().map(|block| u64::from(block.len)).collect();
    move |segment| {
        let held = segment.pieces.iter().map(|piece| match piece {
            Piece::Basis { first, count } => {
                lens.iter().skip(*first as usize).take(*count as usize).sum::<u64>()
            }
            Piece::Data(_) | Piece::Hole { .. } => 0,
        });
        segment.data.len() as u64 + held.sum::<u64>()
    }
}

/// How much of one state of a large file the journal has been seen to hold.
#[derive(Default)]
struct Journaled {
    stamp: Stamp,
    end: u64,
}

impl Journaled {
    fn of(partial: &PartialFile) -> Self {
        Self { stamp: partial.entry.stamp, end: partial.end() }
    }

    /// The file up to `end` is journaled, too.
    fn add(&mut self, entry: &Entry, end: u64) {
        let before = if self.stamp == entry.stamp { self.end } else { 0 };
        *self = Self { stamp: entry.stamp, end: before.max(end) };
    }

    /// What comes from `offset` on was held already: the file has not changed since.
    fn has(&self, entry: &Entry, offset: u64) -> bool {
        self.stamp == entry.stamp && offset < self.end
    }
}

/// What has arrived of a large file.
#[derive(Default)]
struct Arrived {
    /// Where the next segment begins.
    at: u64,
    blocks: Vec<Block>,
    /// Where segments with contents began, since the last record.
    segments: Vec<u64>,
    /// Of `blocks`, how many at the end are not journaled yet.
    loose: usize,
    loose_bytes: u64,
}

impl Arrived {
    /// Some is in the journal, and some is not.
    fn is_journaled_in_part(&self) -> bool {
        0 < self.loose && self.loose < self.blocks.len()
    }

    fn add(&mut self, blocks: Vec<Block>) {
        let bytes: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
        self.at += bytes;
        self.loose_bytes += bytes;
        self.loose += blocks.len();
        self.blocks.extend(blocks);
    }

    fn record(&mut self, dataset: &crate::name::DatasetName, entry: Entry) -> Record {
        let blocks = self.blocks[self.blocks.len() - self.loose..].to_vec();
        let offset = self.at - self.loose_bytes;
        (self.loose, self.loose_bytes) = (0, 0);
        let segments = std::mem::take(&mut self.segments);
        Record::Partial { dataset: dataset.clone(), entry, offset, blocks, segments }
    }
}

fn path_of(file: &PackedFile) -> &RelPath {
    match file {
        PackedFile::Contents { entry, .. } | PackedFile::Tail { entry, .. } | PackedFile::Same { entry } => {
            &entry.path
        }
        PackedFile::Gone { path } | PackedFile::Unfit { path } => path,
    }
}
