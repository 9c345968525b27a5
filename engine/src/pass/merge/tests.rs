use std::collections::BTreeMap;

use futures::StreamExt;

use super::*;
use crate::time::Timestamp;
use crate::tree::{Meta, Stamp};

fn entry(path: &str, kind: EntryKind, inode: u64) -> Entry {
    let size = if let EntryKind::File { size, .. } = kind { size } else { 0 };
    let time = Timestamp { seconds: 5, nanos: 0 };
    Entry {
        path: RelPath::new(path).unwrap(),
        kind,
        meta: Meta { mode: 0o644, uid: 0, gid: 0, mtime: time, xattrs: BTreeMap::new() },
        stamp: Stamp { inode, size, mtime: time, ctime: time },
    }
}

fn small(path: &str, inode: u64) -> Entry {
    entry(path, EntryKind::File { size: 3, sparse: false, linked: false }, inode)
}

fn directory(path: &str) -> Entry {
    entry(path, EntryKind::Directory, 9)
}

fn landed(source: &Entry, here: &Entry) -> IndexEntry {
    IndexEntry { source: source.clone(), landed: here.stamp, digest: Digest::of(b"abc"), pass: 1 }
}

fn stream<T: Send + 'static>(items: Vec<T>) -> Answers<Vec<T>> {
    futures::stream::iter([Ok(items)]).boxed()
}

async fn walk(source: Vec<Entry>, index: Vec<IndexEntry>, here: Vec<Entry>) -> Vec<Decision> {
    let mut merge = Merge::new(stream(source), stream(index), stream(here));
    let mut out = Vec::new();
    while let Some(decision) = merge.next().await.unwrap() {
        out.push(decision);
    }
    out
}

#[tokio::test]
async fn an_untouched_file_is_kept() {
    let (there, here) = (small("a", 1), small("a", 2));
    let decisions = walk(vec![there.clone()], vec![landed(&there, &here)], vec![here]).await;
    assert_eq!(decisions, [Decision::Keep(there)]);
}

#[tokio::test]
async fn a_file_changed_on_either_side_is_fetched() {
    let (then, here) = (small("a", 1), small("a", 2));
    let mut now = then.clone();
    now.stamp.ctime.seconds = 9;
    let held = landed(&then, &here);
    let decisions = walk(vec![now.clone()], vec![held.clone()], vec![here.clone()]).await;
    assert_eq!(decisions, [Decision::Fetch { entry: now, held: Some(held.clone()), clear: false }]);
    let mut meddled = here;
    meddled.stamp.mtime.seconds = 7;
    let decisions = walk(vec![then.clone()], vec![held], vec![meddled]).await;
    assert_eq!(decisions, [Decision::Fetch { entry: then, held: None, clear: false }]);
}

#[tokio::test]
async fn properties_alone_are_settled() {
    let (there, mut here) = (small("a", 1), small("a", 2));
    let held = landed(&there, &here);
    here.meta.mode = 0o600;
    assert_eq!(walk(vec![there.clone()], vec![held], vec![here]).await, [Decision::Settle(there)]);
}

#[tokio::test]
async fn what_is_gone_at_the_source_goes_with_all_it_holds() {
    let here = vec![directory("d"), small("d/x", 2), small("e", 3)];
    let index = vec![landed(&small("d/x", 1), &here[1])];
    let decisions = walk(vec![], index, here).await;
    let path = |p| RelPath::new(p).unwrap();
    assert_eq!(
        decisions,
        [Decision::Remove(path("d")), Decision::Forget(path("d/x")), Decision::Remove(path("e"))]
    );
}

#[tokio::test]
async fn a_file_in_place_of_a_directory_clears_it() {
    let file = small("d", 1);
    let decisions = walk(vec![file.clone()], vec![], vec![directory("d"), small("d/x", 2)]).await;
    assert_eq!(decisions, [Decision::Fetch { entry: file, held: None, clear: true }]);
}

#[tokio::test]
async fn further_names_follow_a_renewed_file() {
    let leader = entry("a", EntryKind::File { size: 3, sparse: false, linked: true }, 1);
    let link = entry("b", EntryKind::HardLink { to: leader.path.clone() }, 1);
    let here = vec![leader.clone(), link.clone()];
    let fetched = walk(vec![leader.clone(), link.clone()], vec![], here.clone()).await;
    assert_eq!(fetched[1], Decision::Link(link.clone()));
    let index = vec![landed(&leader, &leader), landed(&link, &link)];
    let kept = walk(vec![leader.clone(), link.clone()], index, here).await;
    assert_eq!(kept[1], Decision::Keep(link));
}

#[tokio::test]
async fn what_has_other_names_is_told_of_when_it_differs() {
    let linked = entry("a", EntryKind::File { size: 3, sparse: false, linked: true }, 1);
    let here = small("a", 2);
    let held = landed(&linked, &here);
    for (source, tangled) in [
        (Some(linked.clone()), false),
        (Some(small("a", 5)), true),
        (None, true),
        (Some(small("a", 1)), false),
    ] {
        let source = stream(source.into_iter().collect());
        let mut merge = Merge::new(source, stream(vec![held.clone()]), stream(vec![here.clone()]));
        while merge.next().await.unwrap().is_some() {}
        assert_eq!(merge.is_tangled(), tangled);
    }
}

#[tokio::test]
async fn what_was_made_but_not_journaled_is_journaled_now() {
    let leader = entry("a", EntryKind::File { size: 3, sparse: false, linked: true }, 1);
    let link = entry("b", EntryKind::HardLink { to: leader.path.clone() }, 1);
    let symlink = entry("c", EntryKind::Symlink { target: b"x".to_vec() }, 3);
    let here = vec![leader.clone(), link.clone(), symlink.clone()];
    // The index still has what stood there before.
    let before = small("c", 7);
    let index = vec![landed(&leader, &leader), landed(&before, &before)];
    let decisions = walk(here.clone(), index, here).await;
    assert_eq!(decisions[1..], [Decision::Link(link), Decision::Settle(symlink)]);
}

#[tokio::test]
async fn a_peer_that_does_not_sort_is_refused() {
    let mut merge = Merge::new(stream(vec![small("b", 1), small("a", 2)]), stream(vec![]), stream(vec![]));
    merge.next().await.unwrap();
    assert!(merge.next().await.unwrap_err().what.contains("not in tree order"));
}
