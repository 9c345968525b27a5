//! What is told of changes in a tree, on a real file system.

use std::fs;
use std::path::Path;
use std::time::Duration;

use handover_engine::ports::TreeReader;
use handover_engine::tree::{Cursor, Entry, RelPath, Spots};
use handover_platform::tree::{FileTree, Filter, Reader};

use super::support::*;

/// One who follows a tree.
struct Following {
    reader: Reader,
    cursor: Option<Cursor>,
}

impl Following {
    /// Has asked for the first time.
    async fn new(reader: Reader) -> Self {
        let mut following = Self { reader, cursor: None };
        assert_eq!(following.told().await, None);
        following
    }

    /// What is told now.
    async fn told(&mut self) -> Option<Spots> {
        let changed = self.reader.changed(self.cursor.take(), Duration::ZERO).await.unwrap();
        assert_eq!(changed.untold, "");
        self.cursor = Some(changed.cursor);
        changed.spots
    }

    /// What is told now, as text: a directory that is meant with all it holds ends in a slash.
    async fn places(&mut self) -> Vec<String> {
        let spots = self.told().await.expect("places");
        spots.iter().map(|(path, deep)| format!("{path}{}", if deep { "/" } else { "" })).collect()
    }

    async fn scan(&self, spots: &Spots) -> Vec<Entry> {
        self.reader.scan_at(spots).try_concat_all().await.unwrap()
    }
}

fn write(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).unwrap();
}

async fn followed() -> (Pair, Following) {
    let pair = Pair::new();
    fs::create_dir_all(pair.source.join("a/b")).unwrap();
    write(pair.source.join("a/b/old"), "old");
    write(pair.source.join("top"), "top");
    let following = Following::new(pair.reader()).await;
    (pair, following)
}

#[tokio::test]
async fn what_is_made_changed_and_removed_is_told() {
    let (pair, mut following) = followed().await;
    let at = |name: &str| pair.source.join(name);
    assert!(following.places().await.is_empty());
    write(at("a/b/new"), "new");
    assert_eq!(following.places().await, ["a/b", "a/b/new"]);
    let appended = fs::OpenOptions::new().append(true).open(at("a/b/old")).unwrap();
    std::io::Write::write_all(&mut &appended, b"more").unwrap();
    assert_eq!(following.places().await, ["a/b/old"]);
    set_mtime(&at("top"), 5, 5);
    assert_eq!(following.places().await, ["top"]);
    set_mtime(&at("a/b"), 5, 5);
    assert_eq!(following.places().await, ["a/b"]);
    drop(appended);
    fs::remove_file(at("a/b/old")).unwrap();
    assert_eq!(following.places().await, ["a/b", "a/b/old"]);
    fs::rename(at("top"), at("a/top")).unwrap();
    assert_eq!(following.places().await, [".", "a", "a/top", "top"]);
    fs::remove_dir_all(at("a/b")).unwrap();
    assert_eq!(following.places().await, ["a", "a/b/"]);
    assert!(following.places().await.is_empty());
}

#[tokio::test]
async fn directories_that_come_and_move_are_watched_at_their_new_place() {
    let (pair, mut following) = followed().await;
    let at = |name: &str| pair.source.join(name);
    fs::create_dir_all(at("n/e/w")).unwrap();
    for name in 0..100 {
        write(at(&format!("n/e/w/{name}")), "quick");
    }
    assert_eq!(following.places().await, [".", "n/"]);
    write(at("n/e/w/5"), "again");
    assert_eq!(following.places().await, ["n/e/w/5"]);
    fs::rename(at("n/e"), at("a/e")).unwrap();
    write(at("a/e/w/7"), "moved");
    assert_eq!(following.places().await, ["a", "a/e/", "n", "n/e/"]);
    write(at("a/e/w/8"), "moved");
    assert_eq!(following.places().await, ["a/e/w/8"]);
    // Out of the tree: what happens there is none of it.
    let outside = pair.outside();
    fs::rename(at("a/e"), &outside).unwrap();
    write(outside.join("w/9"), "outside");
    assert_eq!(following.places().await, ["a", "a/e/"]);
    write(outside.join("w/9"), "still outside");
    assert!(following.places().await.is_empty());
    // And in again, under the name of another.
    fs::remove_dir_all(at("a/b")).unwrap();
    fs::rename(&outside, at("a/b")).unwrap();
    assert_eq!(following.places().await, ["a", "a/b/"]);
    write(at("a/b/w/1"), "in");
    assert_eq!(following.places().await, ["a/b/w/1"]);
}

#[tokio::test]
async fn a_scan_of_some_places_shows_what_a_scan_of_all_shows_there() {
    let pair = Pair::new();
    plant(&pair.source);
    let following = Following::new(pair.reader()).await;
    let all = following.reader.scan().try_concat_all().await.unwrap();
    let mut spots = Spots::default();
    for (place, deep) in [("a/x", false), ("modes", true), ("none", true), ("empty", false), ("link", false)]
    {
        spots.add(path(place), deep);
    }
    let spots = spots.with_parents();
    let some = following.scan(&spots).await;
    let expected: Vec<Entry> = all.into_iter().filter(|entry| spots.covers(&entry.path)).collect();
    assert_eq!(some, expected);
    // A further name is a file by itself.
    let mut spots = Spots::default();
    spots.add(path("z-hard"), false);
    assert!(following.scan(&spots).await[0].size().is_some());
    // What the globs hide is not shown, nor what lies below it, whoever asks.
    let filter = Filter::new(&[], &["a".into()]).unwrap();
    let hidden = FileTree::reader("www".parse().unwrap(), pair.source.clone(), filter);
    let mut spots = Spots::default();
    spots.add(path("a/x"), true);
    assert!(hidden.scan_at(&spots).try_concat_all().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_globs_hide_is_not_told() {
    let pair = Pair::new();
    fs::create_dir(pair.source.join("cache")).unwrap();
    let filter = Filter::new(&["*.txt".into()], &["cache".into()]).unwrap();
    let reader = FileTree::reader("www".parse().unwrap(), pair.source.clone(), filter);
    let mut following = Following::new(reader).await;
    write(pair.source.join("cache/x.txt"), "x");
    assert!(following.places().await.is_empty());
    write(pair.source.join("y.bin"), "y");
    write(pair.source.join("z.txt"), "z");
    assert_eq!(following.places().await, [".", "z.txt"]);
}

#[tokio::test]
async fn what_was_told_is_told_again_until_its_cursor_comes_back() {
    let (pair, mut following) = followed().await;
    let at = |name: &str| pair.source.join(name);
    following.places().await;
    let before = following.cursor.clone();
    write(at("top"), "1");
    assert_eq!(following.places().await, ["top"]);
    // The answer was lost.
    following.cursor = before.clone();
    write(at("a/b/old"), "2");
    assert_eq!(following.places().await, ["a/b/old", "top"]);
    assert!(following.places().await.is_empty());
    // What it led to has failed.
    following.cursor = before;
    assert_eq!(following.places().await, ["a/b/old", "top"]);
    assert!(following.places().await.is_empty());
}

#[tokio::test]
async fn what_is_not_known_for_sure_is_anywhere() {
    let (pair, mut following) = followed().await;
    // Another run of the agent.
    following.reader = pair.reader();
    assert_eq!(following.told().await, None);
    following.cursor = Some(Cursor("of somebody else".to_owned()));
    assert_eq!(following.told().await, None);
    // More than the kernel's queue holds, or than is told one by one.
    for name in 0..10_000 {
        write(pair.source.join(format!("a/{name}")), "x");
    }
    assert_eq!(following.told().await, None);
    write(pair.source.join("top"), "after");
    assert!(following.places().await.contains(&"top".to_owned()));
    // Another tree in the place of the root.
    fs::rename(&pair.source, pair.source.with_extension("away")).unwrap();
    fs::create_dir(&pair.source).unwrap();
    assert_eq!(following.told().await, None);
    write(pair.source.join("x"), "x");
    assert_eq!(following.places().await, [".", "x"]);
}

#[tokio::test]
async fn it_waits_for_something_to_happen() {
    let (pair, mut following) = followed().await;
    let cursor = following.cursor.take();
    let reader = following.reader.clone();
    let asked = tokio::spawn(async move { reader.changed(cursor, Duration::from_secs(60)).await });
    write(pair.source.join("top"), "now");
    let spots = asked.await.unwrap().unwrap().spots.unwrap();
    assert!(spots.covers(&RelPath::new("top").unwrap()));
}
