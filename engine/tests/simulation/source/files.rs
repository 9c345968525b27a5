//! Answers with files.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use handover_engine::digest::Digest;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Answers, Result, TreeSource};
use handover_engine::tree::{
    Changed, Cursor, Entry, EntryKind, FileRequest, PackChunk, PackRequest, PackedFile, Piece, RelPath,
    Segment, SegmentEnd, Spots, Stamp,
};
use rand::Rng;

use crate::model::Node;
use crate::world::{Port, Site, World, tree};

/// Entries in one batch of a scan.
const BATCH: usize = 4;

/// How far a walk has come.
#[derive(Default)]
struct Walk {
    after: Option<RelPath>,
    /// Directories that it has met: it goes into no others.
    entered: BTreeSet<RelPath>,
}

impl Walk {
    fn next(&mut self, world: &World) -> Vec<Entry> {
        let mut batch = Vec::new();
        for (path, node) in &world.source.tree {
            let is_new = self.after.as_ref().is_none_or(|after| path > after);
            let reached = path.split().is_none_or(|(parent, _)| self.entered.contains(&parent));
            if !is_new || !reached || batch.len() == BATCH {
                continue;
            }
            if node.kind == EntryKind::Directory {
                self.entered.insert(path.clone());
            }
            batch.push(node.entry(path));
        }
        if let Some(last) = batch.last() {
            self.after = Some(last.path.clone());
        }
        batch
    }
}

#[async_trait]
impl TreeSource for Port {
    async fn scan(&self, _: &DatasetName) -> Result<Answers<Vec<Entry>>> {
        self.step(Site::Source, "scan").await?;
        let walk =
            futures::stream::unfold((self.clone(), Some(Walk::default())), |(port, walk)| async move {
                let mut walk = walk?;
                if let Err(lost) = port.step(Site::Source, "a batch of the scan").await {
                    return Some((Err(lost), (port, None)));
                }
                // An answer that ends before it began must not pass for an empty tree.
                if walk.after.is_none() && port.with(|world| world.strikes()) {
                    port.with(|world| world.say("the scan ends before it begins, without an error"));
                    return None;
                }
                let batch = port.with(|world| walk.next(world));
                (!batch.is_empty()).then_some((Ok(batch), (port, Some(walk))))
            });
        Ok(walk.boxed())
    }

    async fn scan_at(&self, dataset: &DatasetName, spots: &Spots) -> Result<Answers<Vec<Entry>>> {
        let spots = spots.clone();
        let scan = self.scan(dataset).await?;
        Ok(scan
            .map(move |batch| batch.map(|all| all.into_iter().filter(|e| spots.covers(&e.path)).collect()))
            .boxed())
    }

    async fn changed(&self, _: &DatasetName, _: Option<Cursor>, _: Duration) -> Result<Changed> {
        self.step(Site::Source, "changed").await?;
        Ok(Changed { cursor: Cursor(String::new()), spots: None, untold: "nobody watches".to_owned() })
    }

    async fn pack(&self, request: PackRequest) -> Result<PackChunk> {
        self.step(Site::Source, "pack").await?;
        let pack = self.with(|world| pack(world, &request));
        self.step(Site::Source, "packed").await?;
        Ok(pack)
    }

    async fn file(&self, request: FileRequest) -> Result<Answers<Segment>> {
        self.step(Site::Source, "file").await?;
        let begun = self.with(|world| {
            world.say(format!("large file {} from {}", request.path, request.offset));
            begin(world, &request)
        });
        let state = (self.clone(), request, begun);
        let stream = futures::stream::unfold(state, |(port, request, begun)| async move {
            let at = begun?;
            if let Err(lost) = port.step(Site::Source, "a segment").await {
                return Some((Err(lost), (port, request, None)));
            }
            let (segment, next) = port.with(|world| segment(world, &request, at))?;
            Some((Ok(segment), (port, request, next)))
        });
        Ok(stream.boxed())
    }
}

fn pack(world: &mut World, request: &PackRequest) -> PackChunk {
    let mut data = Vec::new();
    let mut files = Vec::new();
    for item in &request.files {
        let path = item.path.clone();
        let Some(node) = world.source.tree.get(&path).filter(|node| is_file(node)).cloned() else {
            files.push(PackedFile::Gone { path });
            continue;
        };
        if node.is_large() {
            files.push(PackedFile::Unfit { path });
            continue;
        }
        let (entry, bytes) = (node.entry(&path), node.bytes());
        let digest = Digest::of(&bytes);
        if item.held == Some(digest) {
            files.push(PackedFile::Same { entry });
            continue;
        }
        if let Some((held, held_digest)) = world.books.indexed(&tree(), &path)
            && held.source.stamp == entry.stamp
            && held_digest == digest
        {
            world.wrong(format!("{path}: its contents are asked for though held"));
        }
        world.sent.insert(digest);
        files.push(PackedFile::Contents { entry, len: bytes.len() as u64, digest });
        data.extend_from_slice(&bytes);
    }
    if !data.is_empty() && world.strikes() {
        world.say("a pack is damaged");
        data = super::damaged(&data, &mut world.rng).to_vec();
    }
    PackChunk { files, data: data.into() }
}

fn is_file(node: &Node) -> bool {
    matches!(node.kind, EntryKind::File { .. })
}

/// Where reading stands: the next part, its offset, and the file as it was when reading began.
type At = (usize, u64, Result<Entry, SegmentEnd>);

fn begin(world: &World, request: &FileRequest) -> Option<At> {
    let Some(node) = world.source.tree.get(&request.path).filter(|node| is_file(node)) else {
        return Some((0, request.offset, Err(SegmentEnd::Gone)));
    };
    let entry = node.entry(&request.path);
    let mut offset = 0;
    let first = node.parts.iter().take_while(|part| {
        offset += part.len;
        offset <= request.offset
    });
    let first = first.count();
    let begins: u64 = node.parts[..first].iter().map(|part| part.len).sum();
    let changed = request.begun_as.as_ref().is_some_and(|then| then.stamp != entry.stamp);
    let end = changed || begins != request.offset;
    Some((first, request.offset, if end { Err(SegmentEnd::Changed) } else { Ok(entry) }))
}

fn nothing(request: &FileRequest) -> Entry {
    let mut entry = Node::file(Vec::new(), 0, 0).entry(&request.path);
    entry.stamp = Stamp::default();
    entry
}

/// The next segment, one part of the file; `None` when the stream ends before it, as if it were whole.
fn segment(world: &mut World, request: &FileRequest, at: At) -> Option<(Segment, Option<At>)> {
    let (part, offset, entry) = at;
    let end = |end| {
        let entry = nothing(request);
        (Segment { entry, offset, pieces: Vec::new(), data: Bytes::new(), end: Some(end) }, None)
    };
    let entry = match entry {
        Err(reason) => return Some(end(reason)),
        Ok(entry) => entry,
    };
    let now = world.source.tree.get(&request.path).filter(|node| node.stamp == entry.stamp).cloned();
    let Some(node) = now else { return Some(end(SegmentEnd::Changed)) };
    let mut segment =
        Segment { entry: entry.clone(), offset, pieces: Vec::new(), data: Bytes::new(), end: None };
    let Some(this) = node.parts.get(part) else {
        segment.end = Some(SegmentEnd::Whole(entry));
        return Some((segment, None));
    };
    let block = this.block();
    let known = request.basis.iter().position(|other| block.digest.is_some() && *other == block);
    match (&this.data, known) {
        (None, _) => segment.pieces.push(Piece::Hole { len: this.len }),
        (_, Some(first)) => {
            segment.pieces.push(Piece::Basis { first: u32::try_from(first).unwrap_or(0), count: 1 });
        }
        (Some(data), None) => {
            world.sent.insert(Digest::of(data));
            segment.pieces.push(Piece::Data(block));
            segment.data = data.clone();
        }
    }
    let next = (part + 1, offset + this.len, Ok(entry));
    if world.strikes() {
        return spoil(world, segment, at_again(part, offset, &next), next);
    }
    Some((segment, Some(next)))
}

/// To send the same segment once more.
fn at_again(part: usize, offset: u64, next: &At) -> At {
    (part, offset, next.2.clone())
}

fn spoil(world: &mut World, mut segment: Segment, again: At, next: At) -> Option<(Segment, Option<At>)> {
    match world.rng.random_range(0..3) {
        0 => {
            world.say("a segment comes twice");
            return Some((segment, Some(again)));
        }
        1 if !segment.data.is_empty() => {
            world.say("a segment is damaged");
            segment.data = super::damaged(&segment.data, &mut world.rng);
        }
        1 => {}
        _ => {
            world.say("an answer with a file ends too early, without an error");
            return None;
        }
    }
    Some((segment, Some(next)))
}
