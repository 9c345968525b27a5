//! Large files: what they cost, resuming, the basis, holes.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use futures::TryStreamExt;
use handover_engine::ports::tree::is_no_help;
use handover_engine::ports::{TreeReader, TreeTarget};
use handover_engine::tree::{
    Block, FileRequest, Piece, SEGMENT_BYTES, Segment, SegmentEnd, digest_of_blocks,
};
use handover_engine::tree::{IndexEntry, Stamp};
use handover_platform::tree::FileTree;
use proptest::prelude::*;

use super::support::*;

/// A source and a target that both have `old` as `f`, and then `new` at the source.
async fn changed(old: &[u8], new: &[u8]) -> Pair {
    let mut pair = Pair::new();
    fs::write(pair.source.join("f"), old).unwrap();
    pair.copy().await.unwrap();
    fs::write(pair.source.join("f"), new).unwrap();
    pair.sent = 0;
    pair
}

#[tokio::test]
async fn a_byte_at_the_head_costs_little() {
    let old = noise(64 << 20, 1);
    let new = [b"x", &old[..]].concat();
    let mut pair = changed(&old, &new).await;
    pair.copy().await.unwrap();
    assert!(pair.sent < (64 << 20) / 50, "{} bytes", pair.sent);
    assert!(fs::read(pair.target.join("f")).unwrap() == new);
}

#[tokio::test]
async fn an_unchanged_file_is_neither_sent_nor_written() {
    let data = noise(20 << 20, 2);
    let mut pair = changed(&data, &data).await;
    let inode = fs::metadata(pair.target.join("f")).unwrap().ino();
    set_mtime(&pair.source.join("f"), 77, 88);
    pair.copy().await.unwrap();
    assert_eq!(pair.sent, 0);
    let landed = fs::metadata(pair.target.join("f")).unwrap();
    assert_eq!((landed.ino(), landed.mtime(), landed.mtime_nsec()), (inode, 77, 88));
}

#[tokio::test]
async fn few_changes_are_made_where_the_file_is() {
    let old = noise(24 << 20, 9);
    let mut changed_twice = old.clone();
    changed_twice[5 << 20..(5 << 20) + 4096].fill(1);
    changed_twice[17 << 20..(17 << 20) + 10].fill(2);
    let appended = [&old[..], &noise(1 << 20, 8)].concat();
    for new in [changed_twice, appended, old[..23 << 20].to_vec()] {
        let mut pair = changed(&old, &new).await;
        let file = pair.target.join("f");
        let inode = fs::metadata(&file).unwrap().ino();
        pair.copy().await.unwrap();
        assert!(fs::read(&file).unwrap() == new);
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
        let left: Vec<_> = fs::read_dir(pair.target.join(".handover/staging")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn what_stood_here_before_is_never_changed_in_place() {
    let old = noise(8 << 20, 9);
    let mut new = old.clone();
    new[4 << 20..(4 << 20) + 10].fill(0);
    let mut pair = Pair::new();
    fs::create_dir(&pair.target).unwrap();
    fs::write(pair.source.join("f"), &new).unwrap();
    fs::write(pair.target.join("f"), &old).unwrap();
    let inode = fs::metadata(pair.target.join("f")).unwrap().ino();
    let path = path("f");
    // As if an earlier pass knew the blocks of what stands here.
    let reader = FileTree::reader("www".parse().unwrap(), pair.target.clone(), pair.filter.clone());
    let dataset = "www".parse().unwrap();
    let request = FileRequest { dataset, path: path.clone(), offset: 0, begun_as: None, basis: Vec::new() };
    let segments: Vec<Segment> = reader.file(request).try_collect().await.unwrap();
    let data = |piece: &Piece| if let Piece::Data(block) = piece { Some(*block) } else { None };
    let blocks = segments.iter().flat_map(|s| s.pieces.iter().filter_map(data)).collect();
    pair.blocks.insert(path, blocks);
    pair.copy().await.unwrap();
    assert!(fs::read(pair.target.join("f")).unwrap() == new);
    assert!(pair.sent < 1 << 20);
    pair.target().undo().await.unwrap();
    assert!(fs::read(pair.target.join("f")).unwrap() == old);
    assert_eq!(fs::metadata(pair.target.join("f")).unwrap().ino(), inode);
}

#[tokio::test]
async fn cut_short_appended_and_changed_in_the_middle() {
    let old = noise(12 << 20, 3);
    let mut middle = old.clone();
    middle[6 << 20..(6 << 20) + 100].fill(0);
    let appended = [&old[..], &noise(1 << 20, 4)].concat();
    let blocks_swapped = [&old[6 << 20..], &old[..6 << 20]].concat();
    for (new, most) in [
        (old[..5 << 20].to_vec(), 1 << 19),
        (middle, 1 << 20),
        (appended, 3 << 20),
        (blocks_swapped, 1 << 20),
    ] {
        let mut pair = changed(&old, &new).await;
        pair.copy().await.unwrap();
        assert!(pair.sent <= most, "{} bytes", pair.sent);
        assert!(fs::read(pair.target.join("f")).unwrap() == new);
        pair.target().undo().await.unwrap();
    }
}

#[tokio::test]
async fn segments_are_bounded_and_their_digests_right() {
    let mut pair = Pair::new();
    fs::write(pair.source.join("f"), noise(30 << 20, 5)).unwrap();
    let made = segments(&pair.reader(), &path("f"), 0, None, &[]).await.unwrap();
    assert!(made.iter().all(|s| s.data.len() as u64 <= SEGMENT_BYTES && s.is_whole()));
    assert!(made.iter().rev().skip(1).all(|s| s.end.is_none()));
    pair.copy().await.unwrap();
    let (blocks, entry) = (pair.blocks[&path("f")].clone(), made[0].entry.clone());
    let digest = digest_of_blocks(&blocks);
    let mut file = IndexEntry { landed: Stamp { ..entry.stamp }, source: entry, digest, pass: 1 };
    assert!(pair.target().reread(&file, &blocks).await.unwrap());
    let landed = fs::OpenOptions::new().write(true).open(pair.target.join("f")).unwrap();
    landed.write_all_at(b"!", 20 << 20).unwrap();
    assert!(!pair.target().reread(&file, &blocks).await.unwrap());
    landed.write_all_at(&noise(30 << 20, 5)[20 << 20..21 << 20], 20 << 20).unwrap();
    assert!(pair.target().reread(&file, &blocks).await.unwrap());
    landed.set_len((30 << 20) + 1).unwrap();
    assert!(!pair.target().reread(&file, &blocks).await.unwrap());
    file.source.path = path("none");
    assert!(!pair.target().reread(&file, &blocks).await.unwrap());
}

/// Writes all segments, as an agent does that is killed after each: a new instance goes on, `synced` or not.
async fn resume_everywhere(old: &[u8], new: &[u8]) {
    let pair = changed(old, new).await;
    let basis = pair.blocks[&path("f")].clone();
    let f = path("f");
    let whole = segments(&pair.reader(), &f, 0, None, &basis).await.unwrap();
    let begun_as = Some(whole[0].entry.clone());
    let (mut at, mut blocks) = (0, Vec::<Block>::new());
    loop {
        let rest =
            segments(&pair.reader(), &f, at, begun_as.clone().filter(|_| at > 0), &basis).await.unwrap();
        let target = pair.target();
        let first = rest[0].clone();
        blocks.extend(target.write(first.clone(), &basis).await.unwrap());
        at = end_of(&first, &basis);
        if let Some(SegmentEnd::Whole(entry)) = first.end {
            target.land(&[entry]).await.unwrap();
            break;
        }
        // A segment may come twice, and more than the journal holds may have been written.
        assert_eq!(target.write(first.clone(), &basis).await.unwrap().len(), blocks_of(&first));
        target.sync(std::slice::from_ref(&f)).await.unwrap();
        if let Some(more) = rest.get(1).filter(|more| more.end.is_none()) {
            target.write(more.clone(), &basis).await.unwrap();
        }
        pair.target().discard_staged(std::slice::from_ref(&f)).await.unwrap();
    }
    assert!(fs::read(pair.target.join("f")).unwrap() == new);
    assert_eq!(blocks.iter().map(|b| u64::from(b.len)).sum::<u64>(), new.len() as u64);
    assert_eq!(fs::read_dir(pair.target.join(".handover/staging")).unwrap().count(), 0);
}

fn blocks_of(segment: &Segment) -> usize {
    let count = |piece: &Piece| match piece {
        Piece::Basis { count, .. } => *count as usize,
        _ => 1,
    };
    segment.pieces.iter().map(count).sum()
}

#[tokio::test]
async fn resumes_at_every_segment() {
    let old = noise(40 << 20, 6);
    let mut new = old.clone();
    // First a prefix that is only counted, then contents, then more of the basis.
    new.splice(20 << 20..20 << 20, noise(11 << 20, 8));
    resume_everywhere(&old, &new).await;
    resume_everywhere(&noise(2 << 20, 9), &noise(21 << 20, 10)).await;
}

#[tokio::test]
async fn a_counted_prefix_survives_only_while_the_basis_does() {
    // Large enough for several segments that carry nothing.
    let old = noise(200 << 20, 6);
    let mut pair = changed(&old, &old).await;
    let (f, basis) = (path("f"), pair.blocks[&path("f")].clone());
    for spoil in [false, true] {
        let made = segments(&pair.reader(), &f, 0, None, &basis).await.unwrap();
        assert!(made.len() > 1 && made.iter().all(|s| s.data.is_empty()));
        let target = pair.target();
        target.write(made[0].clone(), &basis).await.unwrap();
        target.sync(std::slice::from_ref(&f)).await.unwrap();
        let staging = pair.target.join(".handover/staging");
        let staged: u64 = fs::read_dir(&staging).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(staged < 1000, "{staged} bytes");
        drop(target);
        let at = end_of(&made[0], &basis);
        let target = pair.target();
        target.discard_staged(std::slice::from_ref(&f)).await.unwrap();
        if spoil {
            fs::OpenOptions::new()
                .write(true)
                .open(pair.target.join("f"))
                .unwrap()
                .write_all_at(b"!", 5)
                .unwrap();
        }
        for segment in segments(&pair.reader(), &f, at, Some(made[0].entry.clone()), &basis).await.unwrap() {
            let end = segment.end.clone();
            match target.write(segment, &basis).await {
                Err(failure) => {
                    assert!(spoil && is_no_help(&failure), "{failure}");
                    break;
                }
                Ok(_) => assert!(!spoil),
            }
            if let Some(SegmentEnd::Whole(entry)) = end {
                target.land(&[entry]).await.unwrap();
            }
        }
    }
    pair.blocks.clear();
    pair.copy().await.unwrap();
    assert!(fs::read(pair.target.join("f")).unwrap() == old);
}

#[tokio::test]
async fn a_corrupted_basis_is_noticed() {
    let old = noise(8 << 20, 7);
    let mut pair = changed(&old, &[b"x", &old[..]].concat()).await;
    let f = fs::OpenOptions::new().write(true).open(pair.target.join("f")).unwrap();
    f.write_all_at(b"!", 5 << 20).unwrap();
    let failure = pair.copy().await.unwrap_err();
    assert!(is_no_help(&failure), "{failure}");
    // Without a basis it works.
    pair.copy().await.unwrap();
    assert_eq!(contents(&pair.source), contents(&pair.target));
}

#[tokio::test]
async fn an_empty_file_asked_for_alone() {
    let pair = Pair::new();
    fs::write(pair.source.join("f"), "").unwrap();
    let target = pair.target();
    target.prepare().await.unwrap();
    let made = segments(&pair.reader(), &path("f"), 0, None, &[]).await.unwrap();
    let Some(SegmentEnd::Whole(entry)) = made[0].end.clone() else { panic!("{made:?}") };
    target.write(made[0].clone(), &[]).await.unwrap();
    target.land(&[entry]).await.unwrap();
    assert_eq!(fs::read(pair.target.join("f")).unwrap(), b"");
}

#[tokio::test]
async fn pieces_that_do_not_fit_are_refused() {
    let pair = Pair::new();
    fs::write(pair.source.join("f"), noise(2 << 20, 1)).unwrap();
    let target = pair.target();
    target.prepare().await.unwrap();
    let good = segments(&pair.reader(), &path("f"), 0, None, &[]).await.unwrap().remove(0);
    for pieces in [
        vec![Piece::Basis { first: 0, count: u32::MAX }],
        vec![Piece::Hole { len: u64::MAX }],
        vec![Piece::Hole { len: 1 << 40 }],
        vec![Piece::Data(Block { len: 3 << 20, digest: None })],
    ] {
        let bad = Segment { pieces, end: None, ..good.clone() };
        target.write(bad, &[]).await.unwrap_err();
    }
    target.write(Segment { offset: 1 << 20, ..good.clone() }, &[]).await.unwrap_err();
    target.write(good, &[]).await.unwrap();
}

#[tokio::test]
async fn nobody_listens_any_more() {
    let pair = Pair::new();
    fs::write(pair.source.join("f"), noise(30 << 20, 1)).unwrap();
    let request = FileRequest {
        dataset: "www".parse().unwrap(),
        path: path("f"),
        offset: 0,
        begun_as: None,
        basis: Vec::new(),
    };
    let mut stream = pair.reader().file(request);
    futures::StreamExt::next(&mut stream).await.unwrap().unwrap();
    // The test's runtime waits for its blocking tasks: that it ends is the test.
    drop(stream);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_edits_arrive(
        edits in proptest::collection::vec((0_usize..3 << 20, 0_usize..200_000, 0_usize..200_000, any::<bool>()), 0..5),
        hole in 0_u64..4 << 20,
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let old = noise(3 << 20, 4);
            let mut new = old.clone();
            for (n, (at, remove, insert, zero)) in edits.into_iter().enumerate() {
                let at = at.min(new.len());
                let end = (at + remove).min(new.len());
                let with = if zero { vec![0; insert] } else { noise(insert, 50 + n as u8) };
                new.splice(at..end, with);
            }
            let mut pair = changed(&old, &new).await;
            let end = new.len() as u64 + hole;
            fs::OpenOptions::new().write(true).open(pair.source.join("f")).unwrap().set_len(end).unwrap();
            pair.copy().await.unwrap();
            assert!(fs::read(pair.target.join("f")).unwrap() == fs::read(pair.source.join("f")).unwrap());
            pair.target().undo().await.unwrap();
        });
    }
}
