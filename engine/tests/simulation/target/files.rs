//! The tree at the target.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::tree::no_help;
use handover_engine::ports::{Answers, Result, TreeOp, TreeTarget};
use handover_engine::tree::{
    Block, Entry, EntryKind, IndexEntry, PackChunk, PackedFile, Piece, RelPath, Segment, Spots, Stamp,
};

use super::{Ground, GroundPort};
use crate::model::{self, Node, Part};
use crate::world::{Site, World};

/// Entries in one batch of a scan.
const BATCH: usize = 4;

impl GroundPort {
    fn at<T>(&self, act: impl FnOnce(&mut Ground, u64) -> T) -> T {
        self.port.with(|world| {
            let now = world.now();
            act(&mut world.target.ground, now)
        })
    }

    async fn change_one(&self, what: &str, act: impl FnOnce(&mut Ground) + Send) -> Result<()> {
        let act = |world: &mut World| {
            act(&mut world.target.ground);
            Ok(())
        };
        self.port.change(what, act).await
    }
}

#[async_trait]
impl TreeTarget for GroundPort {
    fn admits(&self, _: &RelPath, _: bool) -> bool {
        true
    }

    async fn prepare(&self) -> Result<()> {
        self.change_one("prepare tree", |ground| {
            ground.before.get_or_insert_with(|| ground.tree.clone());
        })
        .await
    }

    async fn is_prepared(&self) -> Result<bool> {
        self.port.step(Site::Read, "is prepared").await?;
        Ok(self.at(|ground, _| ground.before.is_some()))
    }

    async fn occupied(&self) -> Result<bool> {
        self.port.step(Site::Read, "tree occupied").await?;
        Ok(self.at(|ground, _| ground.tree.len() > 1))
    }

    fn scan(&self) -> Answers<Vec<Entry>> {
        let walk =
            futures::stream::try_unfold((self.port.clone(), None::<RelPath>), |(port, after)| async move {
                port.step(Site::Read, "scan of the target").await?;
                let batch: Vec<Entry> = port.with(|world| {
                    let nodes = world.target.ground.tree.iter();
                    let rest = nodes.filter(|(path, _)| after.as_ref().is_none_or(|after| *path > after));
                    rest.take(BATCH).map(|(path, node)| node.entry(path)).collect()
                });
                let last = batch.last().map(|entry| entry.path.clone());
                Ok(last.map(|last| (batch, (port, Some(last)))))
            });
        walk.boxed()
    }

    fn is_log(&self) -> bool {
        false
    }

    async fn set_aside(&self, _: &RelPath, _: &Stamp, _: &RelPath) -> Result<bool> {
        Ok(false)
    }

    fn scan_at(&self, spots: &Spots) -> Answers<Vec<Entry>> {
        let spots = spots.clone();
        let scan = self.scan();
        scan.map(move |batch| batch.map(|all| all.into_iter().filter(|e| spots.covers(&e.path)).collect()))
            .boxed()
    }

    async fn stage(&self, pack: PackChunk) -> Result<()> {
        let whole = pack.is_whole();
        let contents = pack.contents().unwrap_or_default();
        for (file, bytes) in contents {
            let PackedFile::Contents { entry, .. } = file else { continue };
            self.port.with(|world| arrived(world, &entry.path, &bytes, whole));
            let (path, entry) = (entry.path.clone(), entry.clone());
            self.change_one("stage", |ground| {
                ground.staged.insert(path, (entry, bytes));
            })
            .await?;
        }
        Ok(())
    }

    async fn write(&self, segment: Segment, basis: &[Block]) -> Result<Vec<Block>> {
        let act = |world: &mut World| {
            if !segment.data.is_empty() {
                arrived(world, &segment.entry.path, &segment.data, segment.is_whole());
            }
            write(&mut world.target.ground, &segment, basis)
        };
        self.port.change("write", act).await
    }

    async fn sync(&self, paths: &[RelPath]) -> Result<()> {
        self.change_one("sync", |ground| {
            for path in paths {
                if let Some(parts) = ground.making.get(path) {
                    ground.durable.insert(path.clone(), parts.clone());
                }
            }
        })
        .await
    }

    async fn land(&self, files: &[Entry]) -> Result<Vec<Stamp>> {
        let mut stamps = Vec::new();
        for entry in files {
            self.port.step(Site::Write, "land").await?;
            stamps.push(self.at(|ground, now| land(ground, entry, now))?);
        }
        self.port.step(Site::Written, "land").await?;
        Ok(stamps)
    }

    async fn change(&self, ops: &[TreeOp]) -> Result<()> {
        for op in ops {
            self.port.step(Site::Write, "change").await?;
            self.at(|ground, now| change(ground, op, now))?;
        }
        self.port.step(Site::Written, "change").await
    }

    async fn reread(&self, file: &IndexEntry, blocks: &[Block]) -> Result<bool> {
        self.port.step(Site::Read, "reread file").await?;
        let node = self.at(|ground, _| ground.tree.get(&file.source.path).cloned());
        Ok(node.is_some_and(|node| match blocks {
            [] => Digest::of(&node.bytes()) == file.digest,
            _ => node.parts.iter().map(Part::block).eq(blocks.iter().copied()),
        }))
    }

    async fn discard_staged(&self, keep: &[RelPath]) -> Result<()> {
        self.change_one("discard staged", |ground| {
            ground.staged.clear();
            ground.making.retain(|path, _| keep.contains(path));
            ground.durable.retain(|path, _| keep.contains(path));
        })
        .await
    }

    async fn recover(&self) -> Result<()> {
        // Here, too, nothing is ever hidden: files land at once.
        self.port.step(Site::Write, "recover tree").await
    }

    async fn undo(&self) -> Result<()> {
        self.change_one("undo tree", |ground| {
            if let Some(before) = ground.before.take() {
                ground.tree = before;
            }
            forget(ground);
        })
        .await
    }

    async fn forget(&self) -> Result<()> {
        self.change_one("forget tree", |ground| {
            ground.before = None;
            forget(ground);
        })
        .await
    }
}

fn forget(ground: &mut Ground) {
    ground.staged.clear();
    ground.making.clear();
    ground.durable.clear();
}

/// Nothing damaged gets as far as the disk.
fn arrived(world: &mut World, path: &RelPath, bytes: &Bytes, whole: bool) {
    if !whole || !world.sent.contains(&Digest::of(bytes)) {
        world.wrong(format!("{path}: damaged contents are staged"));
    }
}

fn write(ground: &mut Ground, segment: &Segment, basis: &[Block]) -> Result<Vec<Block>> {
    let path = &segment.entry.path;
    let mut parts = Vec::new();
    if segment.offset == 0 {
        ground.durable.remove(path);
    } else {
        for part in ground.making.remove(path).unwrap_or_default() {
            if model::size(&parts) < segment.offset {
                parts.push(part);
            }
        }
        if model::size(&parts) != segment.offset {
            return Err(no_help(path.to_string()));
        }
    }
    let (mut data, mut made) = (segment.data.clone(), Vec::new());
    for piece in &segment.pieces {
        match piece {
            Piece::Data(block) => made.push(Part::of(data.split_to(block.len as usize))),
            Piece::Hole { len } => made.push(Part::hole(*len)),
            Piece::Basis { first, count } => {
                let standing = ground.tree.get(path).map(|node| node.parts.clone()).unwrap_or_default();
                for at in *first as usize..(*first + *count) as usize {
                    let part = standing.get(at).filter(|part| basis.get(at) == Some(&part.block()));
                    made.push(part.cloned().ok_or_else(|| no_help(path.to_string()))?);
                }
            }
        }
    }
    let blocks = made.iter().map(Part::block).collect();
    parts.extend(made);
    ground.making.insert(path.clone(), parts);
    Ok(blocks)
}

fn land(ground: &mut Ground, entry: &Entry, now: u64) -> Result<Stamp> {
    let path = &entry.path;
    let small = ground.staged.remove(path).map(|(_, bytes)| match bytes.is_empty() {
        true => Vec::new(),
        false => vec![Part::of(bytes)],
    });
    let parts = small.or_else(|| ground.making.remove(path));
    ground.durable.remove(path);
    if let Some(parts) = parts {
        let mut node = Node::file(parts, 0, now);
        node.settle(&entry.meta, now);
        model::put(&mut ground.tree, path, node, now);
    }
    let standing = ground.tree.get_mut(path).filter(|node| node.entry(path).size() == entry.size());
    let node = standing.ok_or_else(|| Failure::transient(path.to_string(), "nothing is staged of it"))?;
    node.settle(&entry.meta, now);
    Ok(node.stamp)
}

fn change(ground: &mut Ground, op: &TreeOp, now: u64) -> Result<()> {
    match op {
        TreeOp::Make(entry) => {
            let stands = ground.tree.get(&entry.path).is_some_and(|node| node.kind == EntryKind::Directory);
            if entry.kind == EntryKind::Directory && stands {
                return Ok(());
            }
            let mut node = Node::new(entry.kind.clone(), Vec::new(), 0o700, now);
            if entry.kind != EntryKind::Directory {
                node.settle(&entry.meta, now);
            }
            model::put(&mut ground.tree, &entry.path, node, now);
        }
        TreeOp::Link { path, .. } => {
            return Err(Failure::permanent(path.to_string(), "there are no hard links here"));
        }
        TreeOp::Settle(entry) => {
            let node = ground.tree.get_mut(&entry.path);
            let gone = || Failure::operator(entry.path.to_string(), "no such file or directory");
            node.ok_or_else(gone)?.settle(&entry.meta, now);
        }
        TreeOp::Remove(path) => model::remove(&mut ground.tree, path, now),
    }
    Ok(())
}
