//! Everything arrives as it was, and again after changes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;

use handover_engine::ports::{TreeReader, TreeTarget};
use handover_engine::tree::EntryKind;
use handover_platform::tree::Filter;

use super::support::*;

async fn assert_equal(pair: &Pair) {
    let (from, to) = (list(pair.reader().scan()).await, list(pair.target().scan()).await);
    assert_eq!(from.keys().collect::<Vec<_>>(), to.keys().collect::<Vec<_>>());
    for (path, entry) in &from {
        assert_eq!(entry, &to[path]);
    }
    assert_eq!(contents(&pair.source), contents(&pair.target));
}

#[tokio::test]
async fn every_kind_and_property() {
    let mut pair = Pair::new();
    plant(&pair.source);
    pair.copy().await.unwrap();
    assert_equal(&pair).await;
    let sparse = fs::metadata(pair.target.join("sparse")).unwrap();
    assert_eq!(sparse.blocks(), fs::metadata(pair.source.join("sparse")).unwrap().blocks());
    assert_eq!(fs::metadata(pair.target.join("only a hole")).unwrap().blocks(), 0);
    assert_eq!(fs::metadata(pair.target.join("a/x")).unwrap().nlink(), 3);
    // Again: nothing differs.
    pair.copy().await.unwrap();
    assert_equal(&pair).await;
}

#[tokio::test]
async fn changes_deletions_and_other_kinds() {
    let mut pair = Pair::new();
    plant(&pair.source);
    pair.copy().await.unwrap();
    let at = |name: &str| pair.source.join(name);
    fs::remove_file(at("link")).unwrap();
    fs::create_dir(at("link")).unwrap();
    fs::write(at("link/inside"), "now a directory").unwrap();
    fs::remove_dir_all(at("empty")).unwrap();
    fs::write(at("empty"), "now a file").unwrap();
    fs::remove_dir_all(at("a-b")).unwrap();
    symlink("a", at("a-b")).unwrap();
    fs::remove_file(at("pipe")).unwrap();
    fs::remove_file(at("large")).unwrap();
    fs::write(at("large"), &noise(5 << 20, 1)[..3 << 20]).unwrap();
    fs::OpenOptions::new().write(true).open(at("sparse")).unwrap().set_len(9 << 20).unwrap();
    fs::write(at("nothing"), "something").unwrap();
    pair.copy().await.unwrap();
    assert_equal(&pair).await;
}

#[tokio::test]
async fn what_the_filter_hides_stays_on_both_sides() {
    let mut pair = Pair::new();
    pair.filter = Filter::new(&[], &["*.log".into(), "cache".into()]).unwrap();
    for (root, extra) in [(&pair.source, "s"), (&pair.target, "t")] {
        fs::create_dir_all(root.join("dir/cache")).unwrap();
        fs::write(root.join("dir/cache/x"), extra).unwrap();
        fs::write(root.join("dir/a.log"), extra).unwrap();
        fs::write(root.join(format!("dir/{extra}")), extra).unwrap();
    }
    fs::create_dir_all(pair.target.join("gone")).unwrap();
    fs::write(pair.target.join("gone/b.log"), "kept").unwrap();
    fs::write(pair.target.join("gone/b"), "removed").unwrap();
    pair.copy().await.unwrap();
    let read = |name: &str| fs::read_to_string(pair.target.join(name)).ok();
    assert_eq!(read("dir/cache/x").as_deref(), Some("t"));
    assert_eq!(read("dir/a.log").as_deref(), Some("t"));
    assert_eq!(read("gone/b.log").as_deref(), Some("kept"));
    assert_eq!((read("gone/b"), read("dir/t"), read("dir/s").as_deref()), (None, None, Some("s")));
    pair.target().undo().await.unwrap();
    assert_eq!(
        (read("gone/b").as_deref(), read("dir/t").as_deref(), read("dir/s")),
        (Some("removed"), Some("t"), None)
    );
}

#[tokio::test]
async fn facts_count_and_note() {
    let pair = Pair::new();
    plant(&pair.source);
    let _socket = UnixListener::bind(pair.source.join("socket")).unwrap();
    assert!(fs::symlink_metadata(pair.source.join("socket")).unwrap().file_type().is_socket());
    let facts = pair.reader().facts().await.unwrap();
    let listing = list(pair.reader().scan()).await;
    let files = listing.values().filter(|e| e.size().is_some()).count() as u64;
    let directories = listing.values().filter(|e| e.kind == EntryKind::Directory).count() as u64;
    assert_eq!((facts.files, facts.directories), (files, directories));
    assert_eq!(facts.others, listing.len() as u64 - files - directories);
    assert!(facts.notes.iter().any(|note| note.contains("socket")), "{:?}", facts.notes);
    assert!(!listing.contains_key(&path("socket")));
}

#[tokio::test]
async fn a_missing_root_is_named() {
    let mut pair = Pair::new();
    pair.source.push("none");
    let failure = pair.reader().facts().await.unwrap_err();
    assert!(failure.to_string().contains("none") && !failure.hint.is_empty(), "{failure}");
}
