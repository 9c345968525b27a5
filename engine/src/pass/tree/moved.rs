//! Logs that were rotated: a file is looked for under the name that it had, so that its contents are not sent again.
//!
//! The source's inode leads to what landed under another name; that is set aside before anything else lands in its place. Whether it
//! is the file after all, digests tell: an inode may have been given to another.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use futures::TryStreamExt;

use super::Pass;
use super::fetch::Job;
use crate::digest::Digest;
use crate::ports::Result;
use crate::tree::{Block, IndexEntry, LARGE_FILE, PackChunk, PackItem, PackedFile, RelPath};

/// Files of a tree of logs that are looked for at most.
const MOST: usize = 100_000;

/// What was set aside, under the path that it is for.
#[derive(Default)]
pub struct Moved(Mutex<HashSet<RelPath>>);

impl Moved {
    fn add(&self, path: &RelPath) {
        if let Ok(mut moved) = self.0.lock() {
            moved.insert(path.clone());
        }
    }

    /// What is the same as a file that was set aside is made of it, and of nothing else.
    pub fn made_of(&self, pack: &mut PackChunk, items: &[PackItem]) {
        let Ok(moved) = self.0.lock() else { return };
        for (file, item) in pack.files.iter_mut().zip(items) {
            if let (PackedFile::Same { entry }, Some(digest)) = (&*file, item.held)
                && moved.contains(&item.path)
            {
                *file = PackedFile::Tail { entry: entry.clone(), from: item.held_len, len: 0, digest };
            }
        }
    }
}

/// A small file as one block.
pub fn one_block(digest: Digest, len: u64) -> Vec<Block> {
    match u32::try_from(len) {
        Ok(len) if len > 0 && u64::from(len) < LARGE_FILE => vec![Block { len, digest: Some(digest) }],
        _ => Vec::new(),
    }
}

impl Pass {
    /// The blocks of what landed.
    pub(super) async fn blocks(&self, held: &IndexEntry) -> Result<Vec<Block>> {
        let holdings = &self.work.holdings;
        let blocks = holdings.blocks(&self.work.migration, &self.dataset, &held.source.path).await?;
        if !blocks.is_empty() {
            return Ok(blocks);
        }
        Ok(one_block(held.digest, held.source.size().unwrap_or(0)))
    }

    /// Sets aside, for the files of a log that are to be fetched, what landed of them under other names.
    pub(super) async fn find_moved(&self, jobs: &mut [Job]) -> Result<()> {
        if !self.target.is_log() || jobs.is_empty() {
            return Ok(());
        }
        let known = self.by_inode().await?;
        let (first, size) =
            (|inode: u64| known.get(&inode), |held: &IndexEntry| held.source.size().unwrap_or(0));
        for job in jobs {
            match job {
                Job::Large { entry, held, moved } => {
                    let other = first(entry.stamp.inode).filter(|o| o.source.path != entry.path);
                    let Some(other) = other.filter(|o| size(o) <= entry.stamp.size) else { continue };
                    if self.target.set_aside(&other.source.path, &other.landed, &entry.path).await? {
                        self.moved.add(&entry.path);
                        *moved = Some(self.blocks(other).await?);
                        held.get_or_insert_with(|| other.clone());
                    }
                }
                Job::Pack { items, inodes, .. } => {
                    for (item, inode) in items.iter_mut().zip(inodes) {
                        let Some(other) = first(*inode).filter(|o| o.source.path != item.path) else {
                            continue;
                        };
                        if self.target.set_aside(&other.source.path, &other.landed, &item.path).await? {
                            self.moved.add(&item.path);
                            (item.held, item.held_len) = (Some(other.digest), size(other));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What landed, by its inode at the source.
    async fn by_inode(&self) -> Result<HashMap<u64, IndexEntry>> {
        let mut known = HashMap::new();
        let mut index = self.work.holdings.index(&self.work.migration, &self.dataset);
        while let Some(page) = index.try_next().await? {
            let files = page.into_iter().filter(|held| held.source.size().is_some_and(|size| size > 0));
            known.extend(files.map(|held| (held.source.stamp.inode, held)));
            if known.len() > MOST {
                break;
            }
        }
        Ok(known)
    }
}
