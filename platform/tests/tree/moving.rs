//! Files that change, grow, shrink and vanish while they are read.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use handover_engine::digest::Digest;
use handover_engine::ports::TreeReader;
use handover_engine::tree::{FileRequest, LARGE_FILE, PackItem, PackedFile, SegmentEnd};

use super::support::*;

fn item(name: &str) -> PackItem {
    PackItem { path: path(name), held: None, held_len: 0 }
}

fn request(name: &str) -> FileRequest {
    FileRequest {
        dataset: "www".parse().unwrap(),
        path: path(name),
        offset: 0,
        begun_as: None,
        basis: Vec::new(),
    }
}

#[tokio::test]
async fn a_pack_says_what_became_of_each_file() {
    let pair = Pair::new();
    let at = |name: &str| pair.source.join(name);
    fs::write(at("same"), "same").unwrap();
    fs::write(at("new"), "new").unwrap();
    fs::write(at("grown"), noise(LARGE_FILE as usize, 1)).unwrap();
    fs::File::create(at("sparse")).unwrap().set_len(500_000).unwrap();
    fs::create_dir(at("directory")).unwrap();
    std::os::unix::fs::symlink("new", at("link")).unwrap();
    std::os::unix::fs::symlink(".", at("loop")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let same = PackItem { held: Some(Digest::of(b"same")), ..item("same") };
    let names = ["new", "grown", "sparse", "directory", "link", "loop/new", "pipe", "none", "new/none"];
    let items = std::iter::once(same).chain(names.map(item)).collect();
    let pack = pair.reader().pack(items).await.unwrap();
    let told: Vec<&str> = pack
        .files
        .iter()
        .map(|file| match file {
            PackedFile::Contents { .. } => "contents",
            PackedFile::Tail { .. } => "tail",
            PackedFile::Same { .. } => "same",
            PackedFile::Gone { .. } => "gone",
            PackedFile::Unfit { .. } => "unfit",
        })
        .collect();
    let gone = "gone";
    assert_eq!(told, ["same", "contents", "unfit", "unfit", gone, gone, gone, gone, gone, gone]);
    assert!(pack.is_whole());
}

#[tokio::test]
async fn a_file_that_keeps_changing_is_never_half_old() {
    let pair = Pair::new();
    let place = pair.source.join("f");
    fs::write(&place, vec![0; 900_000]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, file) = (stop.clone(), fs::OpenOptions::new().write(true).open(&place).unwrap());
    let writer = std::thread::spawn(move || {
        let mut value = 0_u8;
        while !stopped.load(Ordering::Relaxed) {
            value = value.wrapping_add(1);
            file.write_all_at(&vec![value; 900_000], 0).unwrap();
        }
    });
    for _ in 0..50 {
        let pack = pair.reader().pack(vec![item("f")]).await.unwrap();
        // Time stamps are as coarse as the kernel's tick: a torn read must at least tell its stamp.
        match &pack.files[0] {
            PackedFile::Contents { entry, .. } => assert_eq!(entry.size(), Some(900_000)),
            other => assert!(matches!(other, PackedFile::Unfit { .. }), "{other:?}"),
        }
        assert!(pack.is_whole());
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[tokio::test]
async fn a_large_file_that_changes_shrinks_grows_or_vanishes() {
    type Change = fn(&std::path::Path);
    let change: [(&str, Change); 4] = [
        ("changes", |place| {
            fs::OpenOptions::new().write(true).open(place).unwrap().write_all_at(b"!", 100).unwrap();
        }),
        ("shrinks", |place| {
            fs::OpenOptions::new().write(true).open(place).unwrap().set_len(1 << 20).unwrap();
        }),
        ("grows", |place| {
            fs::OpenOptions::new().write(true).open(place).unwrap().set_len(100 << 20).unwrap();
        }),
        ("vanishes", |place| fs::remove_file(place).unwrap()),
    ];
    for (name, change) in change {
        let pair = Pair::new();
        let place = pair.source.join("f");
        fs::write(&place, noise(40 << 20, 1)).unwrap();
        let mut stream = pair.reader().file(request("f"));
        let first = stream.next().await.unwrap().unwrap();
        assert_eq!(first.end, None);
        // Past the tick of the file system's clock.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        change(&place);
        let (mut at, mut end) = (end_of(&first, &[]), None);
        while let Some(segment) = stream.next().await {
            let segment = segment.unwrap();
            assert_eq!(segment.offset, at, "{name}");
            at = end_of(&segment, &[]);
            end = segment.end;
        }
        assert_eq!(end, Some(SegmentEnd::Changed), "{name}");
    }
}

#[tokio::test]
async fn what_has_changed_since_it_was_begun_is_told_at_once() {
    let pair = Pair::new();
    let place = pair.source.join("f");
    fs::write(&place, noise(9 << 20, 1)).unwrap();
    let made = segments(&pair.reader(), &path("f"), 0, None, &[]).await.unwrap();
    let (entry, at) = (made[0].entry.clone(), end_of(&made[0], &[]));
    fs::write(&place, noise(9 << 20, 2)).unwrap();
    let rest = segments(&pair.reader(), &path("f"), at, Some(entry.clone()), &[]).await.unwrap();
    assert_eq!((rest.len(), &rest[0].end, rest[0].offset), (1, &Some(SegmentEnd::Changed), at));
    fs::remove_file(&place).unwrap();
    let rest = segments(&pair.reader(), &path("f"), at, Some(entry), &[]).await.unwrap();
    assert_eq!((rest.len(), &rest[0].end), (1, &Some(SegmentEnd::Gone)));
}
