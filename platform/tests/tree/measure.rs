//! Figures, not run by default: `HANDOVER_MEASURE_TREE=… HANDOVER_MEASURE_FILE=… HANDOVER_MEASURE_SCRATCH=… cargo test
//! --release -p handover-platform --test tree -- --ignored --nocapture --test-threads 1`. The tree and the file (of
//! about 1 GiB) are only read; the scratch directory is made, written to and removed.

use std::path::PathBuf;
use std::time::Instant;

use futures::StreamExt;
use handover_engine::ports::{TreeOp, TreeReader, TreeTarget};
use handover_engine::tree::{Block, Entry, EntryKind, FileRequest, PACK_BYTES, PackItem, Piece, SegmentEnd};
use handover_platform::tree::{FileTree, Reader, Target};

use super::support::*;

fn place(name: &str) -> Option<PathBuf> {
    std::env::var_os(format!("HANDOVER_MEASURE_{name}")).map(PathBuf::from)
}

fn reader(root: PathBuf) -> Reader {
    FileTree::reader("www".parse().unwrap(), root, Default::default())
}

fn target(root: PathBuf) -> Target {
    FileTree::target("www".parse().unwrap(), root, Default::default(), &"m-1".parse().unwrap())
}

fn rate(bytes: u64, since: Instant) -> String {
    let seconds = since.elapsed().as_secs_f64();
    format!("{:.1} ms, {:.2} GB/s", seconds * 1e3, bytes as f64 / seconds / 1e9)
}

/// Packs of a tree's small files, as the driver makes them.
fn packs(entries: &[Entry]) -> Vec<Vec<PackItem>> {
    let (mut packs, mut bytes) = (vec![Vec::new()], 0);
    for entry in entries.iter().filter(|e| e.size().is_some() && !e.is_large()) {
        let size = entry.size().unwrap();
        if bytes + size > PACK_BYTES || packs.last().is_some_and(|pack| pack.len() == 1024) {
            packs.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        packs.last_mut().unwrap().push(PackItem { path: entry.path.clone(), held: None });
    }
    packs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn tree() {
    let (Some(root), Some(scratch)) = (place("TREE"), place("SCRATCH")) else { return };
    let from = reader(root);
    let mut entries = Vec::new();
    for _ in 0..4 {
        let since = Instant::now();
        entries = from.scan().try_concat_all().await.unwrap();
        println!("scan: {} entries in {:.1} ms", entries.len(), since.elapsed().as_secs_f64() * 1e3);
    }
    let packs = packs(&entries);
    for _ in 0..3 {
        let (since, mut bytes, mut files) = (Instant::now(), 0, 0);
        for pack in &packs {
            let pack = from.pack(pack.clone()).await.unwrap();
            bytes += pack.data.len() as u64;
            files += pack.files.len();
        }
        println!("pack, one at a time: {files} files, {bytes} bytes in {}", rate(bytes, since));
    }
    let to = target(scratch.clone());
    let since = Instant::now();
    to.prepare().await.unwrap();
    let directories =
        entries.iter().filter(|e| !matches!(e.kind, EntryKind::File { .. } | EntryKind::HardLink { .. }));
    to.change(&directories.clone().cloned().map(TreeOp::Make).collect::<Vec<_>>()).await.unwrap();
    println!("directories and links made after {:.1} ms", since.elapsed().as_secs_f64() * 1e3);
    let (mut landing, mut bytes, mut stage) = (Vec::new(), 0, 0.0);
    for pack in &packs {
        let pack = from.pack(pack.clone()).await.unwrap();
        bytes += pack.data.len() as u64;
        landing.extend(pack.files.iter().filter_map(|file| match file {
            handover_engine::tree::PackedFile::Contents { entry, .. } => Some(entry.clone()),
            _ => None,
        }));
        let begun = Instant::now();
        to.stage(pack).await.unwrap();
        stage += begun.elapsed().as_secs_f64();
    }
    println!("read and staged after {} ({:.1} ms of it staging)", rate(bytes, since), stage * 1e3);
    for entry in entries.iter().filter(|e| e.is_large()) {
        for segment in segments(&from, &entry.path, 0, None, &[]).await.unwrap() {
            bytes += segment.data.len() as u64;
            to.write(segment, &[]).await.unwrap();
        }
        landing.push(entry.clone());
    }
    println!("large ones written after {}", rate(bytes, since));
    for batch in landing.chunks(4096) {
        to.land(batch).await.unwrap();
    }
    println!("landed after {}", rate(bytes, since));
    to.change(&directories.rev().cloned().map(TreeOp::Settle).collect::<Vec<_>>()).await.unwrap();
    println!("settled after {}", rate(bytes, since));
    let since = Instant::now();
    to.undo().await.unwrap();
    println!("undone in {:.1} ms", since.elapsed().as_secs_f64() * 1e3);
}

async fn read(from: &Reader, name: &str, basis: &[Block]) -> (u64, u64, Vec<Block>) {
    let request = FileRequest {
        dataset: "www".parse().unwrap(),
        path: path(name),
        offset: 0,
        begun_as: None,
        basis: basis.to_vec(),
    };
    let (mut stream, mut sent, mut covered, mut blocks) = (from.file(request), 0, 0, Vec::new());
    while let Some(segment) = stream.next().await {
        let segment = segment.unwrap();
        sent += segment.data.len() as u64;
        covered += end_of(&segment, basis) - segment.offset;
        blocks.extend(segment.pieces.iter().filter_map(|piece| match piece {
            Piece::Data(block) => Some(*block),
            _ => None,
        }));
    }
    (sent, covered, blocks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn large() {
    let (Some(file), Some(scratch)) = (place("FILE"), place("SCRATCH")) else { return };
    let name = file.file_name().unwrap().to_str().unwrap();
    let from = reader(file.parent().unwrap().to_owned());
    read(&from, name, &[]).await;
    let mut blocks = Vec::new();
    for _ in 0..3 {
        let since = Instant::now();
        let read = read(&from, name, &[]).await;
        println!("new file: {} bytes sent in {}", read.0, rate(read.1, since));
        blocks = read.2;
    }
    for _ in 0..3 {
        let since = Instant::now();
        let read = read(&from, name, &blocks).await;
        println!("unchanged file: {} bytes sent in {}", read.0, rate(read.1, since));
    }
    let to = target(scratch.clone());
    to.prepare().await.unwrap();
    // New, unchanged, and the whole basis behind one inserted byte.
    for (what, basis) in [("new", Vec::new()), ("unchanged", blocks.clone()), ("moved", blocks.clone())] {
        let since = Instant::now();
        let request = FileRequest {
            dataset: "www".parse().unwrap(),
            path: path(name),
            offset: 0,
            begun_as: None,
            basis: basis.clone(),
        };
        let mut stream = from.file(request);
        let (mut whole, mut bytes) = (None, 0);
        let mut first = true;
        while let Some(segment) = stream.next().await {
            let mut segment = segment.unwrap();
            bytes = end_of(&segment, &basis);
            if what == "moved" {
                segment.entry.stamp.size += 1;
                if first {
                    let block = Block { len: 1, digest: Some(handover_engine::digest::Digest::of(b"x")) };
                    segment.pieces.insert(0, Piece::Data(block));
                    segment.data = [b"x", &segment.data[..]].concat().into();
                } else {
                    segment.offset += 1;
                }
            }
            first = false;
            if let Some(SegmentEnd::Whole(entry)) = &mut segment.end {
                if let (EntryKind::File { size, .. }, "moved") = (&mut entry.kind, what) {
                    *size += 1;
                }
                whole = Some(entry.clone());
            }
            to.write(segment, &basis).await.unwrap();
        }
        println!("{what}: written after {}", rate(bytes, since));
        to.land(&[whole.unwrap()]).await.unwrap();
        println!("{what}: landed after {}", rate(bytes, since));
    }
    to.undo().await.unwrap();
}
