use std::collections::BTreeMap;

use futures::StreamExt;

use super::*;
use crate::digest::Digest;
use crate::time::Timestamp;
use crate::tree::Meta;

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// What stands at a path since a time; its inode is that of its host.
fn entry(path: &str, kind: EntryKind, inode: u64, since: i64) -> Entry {
    let size = if let EntryKind::File { size, .. } = kind { size } else { 0 };
    Entry {
        path: RelPath::new(path).unwrap(),
        kind,
        meta: Meta { mode: 0o644, uid: 0, gid: 0, mtime: at(since), xattrs: BTreeMap::new() },
        stamp: Stamp { inode, size, mtime: at(since), ctime: at(since) },
    }
}

fn file(path: &str, inode: u64, since: i64) -> Entry {
    entry(path, EntryKind::File { size: 3, sparse: false, linked: false }, inode, since)
}

fn linked(path: &str, inode: u64, since: i64) -> Entry {
    entry(path, EntryKind::File { size: 3, sparse: false, linked: true }, inode, since)
}

fn name_of(path: &str, to: &str, inode: u64, since: i64) -> Entry {
    entry(path, EntryKind::HardLink { to: RelPath::new(to).unwrap() }, inode, since)
}

fn directory(path: &str) -> Entry {
    entry(path, EntryKind::Directory, 9, 5)
}

/// Copied from `there`, and landed as `here`.
fn held(there: &Entry, here: &Entry) -> IndexEntry {
    IndexEntry { source: there.clone(), landed: here.stamp, digest: Digest::of(b"abc"), pass: 1 }
}

fn stream<T: Send + 'static>(items: Vec<T>) -> Answers<Vec<T>> {
    futures::stream::iter([Ok(items)]).boxed()
}

fn walk_of(here: &[Entry], index: &[IndexEntry], there: &[Entry], mounts: &[&str]) -> Walk {
    let mounts = mounts.iter().map(|mount| path(mount)).collect();
    let (here, index, there) = (here.to_vec(), index.to_vec(), there.to_vec());
    Walk::new(stream(here), stream(index), stream(there), mounts, Landed::default())
}

/// What is done, as far as properties tell what was touched.
async fn walk(here: &[Entry], index: &[IndexEntry], there: &[Entry]) -> Vec<Decision> {
    // A source in which there is nothing at all is not believed.
    let rest = file("~", 1, 5);
    let [here, there] = [here, there].map(|tree| [tree, std::slice::from_ref(&rest)].concat());
    let index = [index, &[held(&rest, &rest)]].concat();
    let mut walk = walk_of(&here, &index, &there, &[]);
    let mut out = Vec::new();
    while let Some(place) = walk.next().await.unwrap() {
        let touched =
            place.here.as_ref().map_or(Touched::Contents, |here| walk.touched(here, place.held.as_ref()));
        out.extend(walk.decide(place, touched));
    }
    out
}

fn path(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn fetch(entry: &Entry) -> Decision {
    Decision::Fetch { entry: entry.clone(), clear: false }
}

#[tokio::test]
async fn what_nobody_touched_stays() {
    let (there, here) = (file("a", 1, 5), file("a", 2, 5));
    let index = [held(&there, &here)];
    assert_eq!(walk(std::slice::from_ref(&here), &index, &[there]).await, []);
    // Nor does the source's own change matter then.
    assert_eq!(walk(&[here], &index, &[file("a", 7, 8)]).await, []);
}

#[tokio::test]
async fn what_was_written_at_the_target_goes_home_once() {
    let (there, here) = (file("a", 1, 5), file("a", 2, 5));
    let index = [held(&there, &here)];
    let (written, new) = (file("a", 3, 7), file("b", 4, 7));
    let now = [written.clone(), new.clone()];
    assert_eq!(walk(&now, &index, std::slice::from_ref(&there)).await, [fetch(&written), fetch(&new)]);
    // Home already: with the target's time, and an inode of the source's.
    assert_eq!(walk(&now, &index, &[file("a", 11, 7), file("b", 12, 7)]).await, []);
    // A file that replaces another one and is as old and as long as that.
    let restored = file("a", 3, 5);
    assert_eq!(walk(std::slice::from_ref(&restored), &index, &[there]).await, [fetch(&restored)]);
}

#[tokio::test]
async fn what_was_changed_at_both_stays_as_it_is_at_the_source() {
    let (there, here) = (file("a", 1, 5), file("a", 2, 5));
    let index = [held(&there, &here)];
    let theirs = [file("a", 1, 6)];
    assert_eq!(walk(&[file("a", 2, 7)], &index, &theirs).await, [Decision::Clash(path("a"))]);
    // Removed here, changed there; made at both.
    assert_eq!(walk(&[], &index, &theirs).await, [Decision::Clash(path("a"))]);
    assert_eq!(walk(&[file("n", 2, 7)], &[], &[file("n", 1, 6)]).await, [Decision::Clash(path("n"))]);
    // Changed here, removed there: the target's is the only one.
    let changed = file("a", 2, 7);
    assert_eq!(walk(std::slice::from_ref(&changed), &index, &[]).await, [fetch(&changed)]);
}

#[tokio::test]
async fn what_was_removed_at_the_target_goes() {
    let (d, a, other) = (directory("d"), file("d/a", 1, 5), file("d/own", 8, 5));
    let index = [held(&d, &d), held(&a, &file("d/a", 2, 5))];
    let removed = walk(&[], &index, &[d.clone(), a.clone(), other]).await;
    let [gone, a_gone, own] = ["d", "d/a", "d/own"].map(path);
    assert_eq!(removed, [Decision::Remove(gone), Decision::Remove(a_gone), Decision::Own(own)]);
    assert_eq!(walk(&[], &index, &[]).await, []);
}

#[tokio::test]
async fn properties_go_home_without_contents() {
    let (there, here) = (file("a", 1, 5), file("a", 2, 5));
    let mut opened = here.clone();
    opened.meta.mode = 0o666;
    let index = [held(&there, &here)];
    let settle = [Decision::Settle(opened.clone())];
    assert_eq!(walk(std::slice::from_ref(&opened), &index, &[there]).await, settle);
    assert_eq!(walk(std::slice::from_ref(&opened), &index, &[]).await, [fetch(&opened)]);
    let (mut d, was) = (directory("d"), directory("d"));
    d.meta.mode = 0o700;
    let index = [held(&was, &was)];
    assert_eq!(walk(std::slice::from_ref(&d), &index, &[was]).await, [Decision::Settle(d.clone())]);
    assert_eq!(walk(std::slice::from_ref(&d), &index, std::slice::from_ref(&d)).await, []);
}

#[tokio::test]
async fn a_directory_makes_way_for_a_file_once_it_is_empty() {
    let (d, a) = (directory("d"), file("d/a", 1, 5));
    let index = [held(&d, &d), held(&a, &file("d/a", 2, 5))];
    let now = file("d", 3, 7);
    let [clears, removes] =
        [Decision::Fetch { entry: now.clone(), clear: true }, Decision::Remove(path("d/a"))];
    assert_eq!(walk(std::slice::from_ref(&now), &index, &[d, a]).await, [clears, removes]);
    // The other way about: whatever stands there goes.
    let (there, here) = (file("x", 1, 5), file("x", 2, 5));
    let made = directory("x");
    let index = [held(&there, &here)];
    let makes = Decision::Make { entry: made.clone(), clear: false };
    assert_eq!(walk(std::slice::from_ref(&made), &index, &[there]).await, [makes]);
    assert_eq!(walk(&[made], &index, &[file("x", 1, 6)]).await, [Decision::Clash(path("x"))]);
}

#[tokio::test]
async fn names_of_one_file_go_home_together() {
    let (a, b) = (linked("a", 1, 5), name_of("b", "a", 1, 5));
    let index = [held(&a, &linked("a", 2, 5)), held(&b, &name_of("b", "a", 2, 5))];
    let now = [linked("a", 3, 7), name_of("b", "a", 3, 7)];
    let all = [fetch(&now[0]), Decision::Link(now[1].clone())];
    assert_eq!(walk(&now, &index, &[a.clone(), b.clone()]).await, all);
    // Interrupted after the first: the second has what the source had, and is no name of it any more.
    let there = [linked("a", 12, 7), linked("b", 1, 5)];
    assert_eq!(walk(&now, &index, &there).await, all);
    // The source's own change of the file keeps both names.
    let theirs = [linked("a", 1, 6), name_of("b", "a", 1, 6)];
    assert_eq!(walk(&now, &index, &theirs).await, [Decision::Clash(path("a"))]);
    let another = [now[0].clone(), now[1].clone(), name_of("c", "a", 3, 7)];
    let clashes = ["a", "c"].map(|name| Decision::Clash(path(name)));
    assert_eq!(walk(&another, &index, &theirs).await, clashes);
    assert_eq!(walk(&[linked("a", 2, 5), name_of("b", "a", 2, 5)], &index, &[a, b]).await, []);
}

#[tokio::test]
async fn directories_that_the_source_has_removed_are_made_for_what_goes_into_them() {
    let (d, e, a) = (directory("d"), directory("d/e"), file("d/e/a", 1, 5));
    let index = [held(&d, &d), held(&e, &e), held(&a, &file("d/e/a", 2, 5))];
    let changed = file("d/e/a", 2, 7);
    let made = |entry: &Entry| Decision::Make { entry: entry.clone(), clear: false };
    let now = [d.clone(), e.clone(), changed.clone()];
    assert_eq!(walk(&now, &index, &[]).await, [made(&d), made(&e), fetch(&changed)]);
    // For nothing, nothing is made.
    assert_eq!(walk(&[d.clone(), e.clone(), file("d/e/a", 2, 5)], &index, &[]).await, []);
    // Where the source has put something else, that stays, and nothing goes below it.
    let theirs = [file("d", 7, 8)];
    assert_eq!(walk(&now, &index, &theirs).await, [Decision::Clash(path("d/e/a"))]);
    // A directory in which something goes home gets its time back.
    let settled = [Decision::Settle(e.clone()), fetch(&changed)];
    assert_eq!(walk(&now, &index, &[d, e, a]).await, settled);
}

#[tokio::test]
async fn a_new_name_of_a_file_that_the_source_has_changed_stays_out() {
    let a = linked("a", 1, 5);
    let index = [held(&file("a", 1, 5), &file("a", 2, 5))];
    let now = [linked("a", 2, 5), name_of("b", "a", 2, 5)];
    let link = Decision::Link(now[1].clone());
    assert_eq!(walk(&now, &index, std::slice::from_ref(&a)).await, [link]);
    let clash = [Decision::Clash(path("b"))];
    assert_eq!(walk(&now, &index, &[file("a", 1, 6)]).await, clash);
    assert_eq!(walk(&now, &index, &[]).await, clash);
}

#[tokio::test]
async fn an_earlier_attempts_work_is_not_the_sources_own() {
    let (there, here) = (file("a", 1, 5), file("a", 2, 5));
    let index = [held(&there, &here)];
    let (first, second) = (file("a", 2, 7), file("a", 2, 9));
    let landed = Landed::default();
    landed.add(std::slice::from_ref(&first));
    let home = file("a", 11, 7);
    let mut judge = Judge { landed, ..Judge::default() };
    let place = Place {
        path: path("a"),
        here: Some(second.clone()),
        held: Some(index[0].clone()),
        there: Some(home.clone()),
    };
    assert_eq!(judge.decide(place.clone(), Touched::Contents), [fetch(&second)]);
    assert_eq!(Judge::default().decide(place, Touched::Contents), [Decision::Clash(path("a"))]);
}

#[tokio::test]
async fn what_is_mounted_over_the_target_or_not_mounted_at_the_source_removes_nothing() {
    let (root, d, a) = (directory(""), directory("d"), file("d/a", 1, 5));
    let index = [held(&root, &root), held(&d, &d), held(&a, &file("d/a", 2, 5))];
    let mut mounted = walk_of(&[root.clone(), d.clone()], &index, &[root.clone(), d.clone(), a], &["d"]);
    let mut out = Vec::new();
    while let Some(place) = mounted.next().await.unwrap() {
        let touched = place.here.as_ref().map(|here| mounted.touched(here, place.held.as_ref()));
        out.extend(mounted.decide(place, touched.unwrap_or(Touched::Contents)));
    }
    assert_eq!(out, [Decision::Mounted(path("d"))]);
    let mut empty = walk_of(&[root.clone(), d], &index, std::slice::from_ref(&root), &[]);
    assert!(empty.next().await.is_ok(), "its root is there");
    let refused = empty.next().await.unwrap_err();
    assert!(refused.hint.contains("mounted"), "{refused}");
}
