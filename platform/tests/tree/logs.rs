//! Files that grow and are rotated.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use handover_engine::digest::Digest;
use handover_engine::ports::tree::is_no_help;
use handover_engine::ports::{TreeReader, TreeTarget};
use handover_engine::tree::{Block, PackItem, PackedFile, Piece, SegmentEnd};

use super::support::*;

fn append(path: &Path, data: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(data).unwrap();
}

/// `name`, of which `held` is held.
fn item(name: &str, held: &[u8]) -> PackItem {
    PackItem { path: path(name), held: Some(Digest::of(held)), held_len: held.len() as u64 }
}

#[tokio::test]
async fn only_what_was_appended_travels() {
    let mut pair = Pair::new();
    let log = pair.source.join("a.log");
    fs::write(&log, "begin, ").unwrap();
    pair.copy().await.unwrap();
    append(&log, b"more");
    let pack = pair.reader().pack(vec![item("a.log", b"begin, ")]).await.unwrap();
    assert_eq!(&pack.data[..], b"more");
    assert!(matches!(pack.files[0], PackedFile::Tail { from: 7, len: 4, .. }), "{:?}", pack.files);
    land_pack(&pair.target(), pack.clone()).await.unwrap();
    assert_eq!(fs::read(pair.target.join("a.log")).unwrap(), b"begin, more");
    // Of what has another beginning, nothing is kept; nor is a tail put behind anything else.
    fs::write(&log, "anew, and longer than it was").unwrap();
    let anew = pair.reader().pack(vec![item("a.log", b"begin, more")]).await.unwrap();
    assert!(matches!(anew.files[0], PackedFile::Contents { .. }), "{:?}", anew.files);
    fs::write(pair.target.join("a.log"), "BEGIN, more").unwrap();
    let refused = pair.target().stage(pack).await.unwrap_err();
    assert!(is_no_help(&refused), "{refused}");
}

#[tokio::test]
async fn a_small_file_that_becomes_large_is_not_sent_again() {
    let mut pair = Pair::new();
    let log = pair.source.join("a.log");
    let begin = noise(900_000, 1);
    fs::write(&log, &begin).unwrap();
    pair.copy().await.unwrap();
    let block = Block { len: 900_000, digest: Some(Digest::of(&begin)) };
    pair.blocks.insert(path("a.log"), vec![block]);
    append(&log, &noise(200_000, 2));
    pair.copy().await.unwrap();
    assert_eq!(pair.sent, 200_000);
    assert_eq!(contents(&pair.source), contents(&pair.target));
}

#[tokio::test]
async fn many_small_appends_do_not_become_many_blocks() {
    let mut pair = Pair::new();
    let log = pair.source.join("a.log");
    fs::write(&log, noise(2 << 20, 1)).unwrap();
    pair.copy().await.unwrap();
    let (first, appended) = (pair.sent, 150 * 200);
    for n in 0..150_u32 {
        append(&log, &noise(200, u8::try_from(n % 251).unwrap()));
        pair.copy().await.unwrap();
    }
    let blocks = pair.blocks[&path("a.log")].len();
    assert!(blocks < 32 + 2 * 64, "{blocks} blocks");
    assert!(pair.sent - first < 3 * appended, "{} bytes for {appended}", pair.sent - first);
    assert_eq!(contents(&pair.source), contents(&pair.target));
}

#[tokio::test]
async fn what_never_rests_is_taken_up_to_where_it_ended() {
    for len in [0, 3 << 20] {
        let pair = Pair::new();
        let log = pair.source.join("a.log");
        fs::write(&log, vec![b'.'; len]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, place) = (stop.clone(), log.clone());
        let writer = std::thread::spawn(move || {
            let mut n = 0_u64;
            while !stopped.load(Ordering::Relaxed)
                && fs::metadata(&place).unwrap().len() < (len as u64) + 900_000
            {
                append(&place, format!("{n}\n").as_bytes());
                n += 1;
            }
        });
        let reader = pair.reader().of_logs();
        for _ in 0..20 {
            let taken = if len == 0 {
                let pack = reader.pack(vec![item("a.log", b"")]).await.unwrap();
                assert!(pack.is_whole());
                assert!(matches!(pack.files[0], PackedFile::Contents { .. } | PackedFile::Same { .. }));
                pack.data.to_vec()
            } else {
                let segments = segments(&reader, &path("a.log"), 0, None, &[]).await.unwrap();
                let end = segments.last().unwrap().end.clone();
                let Some(SegmentEnd::Whole(entry)) = end else { panic!("{end:?}") };
                let taken: Vec<u8> = segments.iter().flat_map(|segment| segment.data.to_vec()).collect();
                assert_eq!(entry.size(), Some(taken.len() as u64));
                taken
            };
            assert!(fs::read(&log).unwrap().starts_with(&taken));
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}

#[tokio::test]
async fn what_is_truncated_and_grows_again_is_never_half_old() {
    let pair = Pair::new();
    let log = pair.source.join("a.log");
    fs::write(&log, vec![b'0'; 500_000]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, place) = (stop.clone(), log.clone());
    let writer = std::thread::spawn(move || {
        let mut n = 0_u8;
        while !stopped.load(Ordering::Relaxed) {
            n = (n + 1) % 10;
            fs::write(&place, "").unwrap();
            for _ in 0..50 {
                append(&place, &vec![b'0' + n; 10_000]);
            }
        }
    });
    let reader = pair.reader().of_logs();
    for _ in 0..200 {
        let pack = reader.pack(vec![item("a.log", b"")]).await.unwrap();
        let first = pack.data.first();
        assert!(pack.data.iter().all(|byte| Some(byte) == first), "{:?}", pack.files);
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[tokio::test]
async fn what_was_set_aside_is_what_another_is_made_of() {
    let mut pair = Pair::new();
    let at = |name: &str| pair.source.join(name);
    let (small, large) = (b"small".to_vec(), noise(3 << 20, 3));
    fs::write(at("s.log"), &small).unwrap();
    fs::write(at("l.log"), &large).unwrap();
    let (one, two, three) = (at("s.log"), at("l.log"), at("l.log.1"));
    pair.copy().await.unwrap();
    let target = pair.target();
    target.prepare().await.unwrap();
    let stamps = list_stamps(&target).await;
    for (from, to) in [("s.log", "s.log.1"), ("l.log", "l.log.1")] {
        assert!(target.set_aside(&path(from), &stamps[&path(from)], &path(to)).await.unwrap());
        assert!(!target.set_aside(&path(from), &Default::default(), &path("no.log")).await.unwrap());
        assert!(!target.set_aside(&path("none"), &stamps[&path(from)], &path("no.log")).await.unwrap());
    }
    fs::rename(&one, one.with_extension("log.1")).unwrap();
    fs::rename(&two, &three).unwrap();
    // What stood under the old names is another by now.
    fs::write(&one, "other").unwrap();
    land_pack(
        &target,
        pair.reader().pack(vec![PackItem { held: None, held_len: 0, ..item("s.log", b"") }]).await.unwrap(),
    )
    .await
    .unwrap();
    let mut pack = pair.reader().pack(vec![item("s.log.1", &small)]).await.unwrap();
    let PackedFile::Same { entry } = pack.files.remove(0) else { panic!("it is the same") };
    pack.files.push(PackedFile::Tail { entry, from: 5, len: 0, digest: Digest::of(&small) });
    land_pack(&target, pack).await.unwrap();
    assert_eq!(fs::read(pair.target.join("s.log.1")).unwrap(), small);
    let basis = pair.blocks[&path("l.log")].clone();
    let mut whole = None;
    for segment in segments(&pair.reader(), &path("l.log.1"), 0, None, &basis).await.unwrap() {
        assert!(segment.pieces.iter().all(|piece| matches!(piece, Piece::Basis { .. })));
        if let Some(SegmentEnd::Whole(entry)) = segment.end.clone() {
            whole = Some(entry);
        }
        target.write(segment, &basis).await.unwrap();
    }
    target.land(&[whole.unwrap()]).await.unwrap();
    assert_eq!(fs::read(pair.target.join("l.log.1")).unwrap(), large);
    assert_eq!(fs::read(pair.target.join("l.log")).unwrap(), large);
}

async fn list_stamps(
    target: &handover_platform::tree::Target,
) -> std::collections::BTreeMap<handover_engine::tree::RelPath, handover_engine::tree::Stamp> {
    let all = target.scan().try_concat_all().await.unwrap();
    all.into_iter().map(|entry| (entry.path, entry.stamp)).collect()
}
