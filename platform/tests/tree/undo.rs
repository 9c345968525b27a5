//! Undo restores exactly what stood in the target, however often it is begun.

use std::fs;
use std::os::unix::fs::symlink;

use handover_engine::failure::Class;
use handover_engine::ports::{TreeOp, TreeReader, TreeTarget};

use super::support::*;

/// A target that holds something at nearly every path that the source uses, of other kinds too.
pub fn furnish(pair: &Pair) {
    let at = |name: &str| pair.target.join(name);
    fs::create_dir_all(&pair.target).unwrap();
    plant(&pair.target);
    fs::remove_file(at("link")).unwrap();
    fs::create_dir_all(at("link/deep")).unwrap();
    fs::write(at("link/deep/file"), "old").unwrap();
    fs::remove_file(at("large")).unwrap();
    fs::write(at("large"), noise(2 << 20, 9)).unwrap();
    fs::remove_dir_all(at("empty")).unwrap();
    symlink("nowhere", at("empty")).unwrap();
    fs::write(at("extra"), "extra").unwrap();
    fs::hard_link(at("extra"), at("extra 2")).unwrap();
    fs::create_dir(at("extra dir")).unwrap();
    fs::write(at("extra dir/x"), "x").unwrap();
    fs::write(at("a/x"), "other contents, three names").unwrap();
    for name in ["link/deep", "link", "extra dir", "a", ""] {
        set_mtime(&at(name), 1_234_567_890, 42);
    }
}

#[tokio::test]
async fn the_target_is_as_it_was() {
    let mut pair = Pair::new();
    plant(&pair.source);
    furnish(&pair);
    let before = (list(pair.target().scan()).await, contents(&pair.target));
    pair.copy().await.unwrap();
    assert_ne!(list(pair.target().scan()).await, before.0);
    // A second pass over changed files keeps the originals, not what the first pass made.
    fs::write(pair.source.join("a/x"), "changed again").unwrap();
    fs::remove_file(pair.source.join(" spaces ")).unwrap();
    pair.copy().await.unwrap();
    pair.target().undo().await.unwrap();
    let after = list(pair.target().scan()).await;
    for (path, entry) in &before.0 {
        assert_eq!(Some(entry), after.get(path), "{path}");
    }
    assert_eq!((after, contents(&pair.target)), before);
    assert!(!pair.target.join(".handover").exists());
    // Again, and on a target that was never prepared.
    pair.target().undo().await.unwrap();
    pair.target().forget().await.unwrap();
    assert_eq!((list(pair.target().scan()).await, contents(&pair.target)), before);
    // And a new copy begins with what is there, with no memory of the one before.
    pair.blocks.clear();
    pair.copy().await.unwrap();
    pair.target().undo().await.unwrap();
    assert_eq!((list(pair.target().scan()).await, contents(&pair.target)), before);
}

#[tokio::test]
async fn an_instance_that_lives_on_begins_anew() {
    let mut pair = Pair::new();
    plant(&pair.source);
    let target = pair.target();
    target.prepare().await.unwrap();
    target.undo().await.unwrap();
    assert!(!pair.target.exists());
    fs::create_dir(&pair.target).unwrap();
    fs::write(pair.target.join("nothing"), "came later").unwrap();
    target.prepare().await.unwrap();
    target.change(&[TreeOp::Remove(path("nothing"))]).await.unwrap();
    target.undo().await.unwrap();
    assert_eq!(fs::read_to_string(pair.target.join("nothing")).unwrap(), "came later");
    pair.copy().await.unwrap();
}

#[tokio::test]
async fn an_undo_cut_short_is_begun_again() {
    // Wherever a crash may have left it: originals put back, kept names still there, things of ours half removed.
    for stop in 0..4 {
        let mut pair = Pair::new();
        plant(&pair.source);
        furnish(&pair);
        let before = (list(pair.target().scan()).await, contents(&pair.target));
        pair.copy().await.unwrap();
        let (undo, target) = (pair.target.join(".handover/undo"), &pair.target);
        if stop > 0 {
            fs::rename(undo.join("nothing"), target.join("nothing")).unwrap();
        }
        if stop > 1 {
            fs::hard_link(undo.join("extra"), target.join("extra")).unwrap();
        }
        if stop > 2 {
            fs::remove_file(target.join("link")).unwrap();
            fs::remove_dir_all(pair.target.join(".handover/staging")).unwrap();
        }
        pair.target().undo().await.unwrap();
        assert_eq!((list(pair.target().scan()).await, contents(&pair.target)), before, "{stop}");
    }
}

#[tokio::test]
async fn a_root_that_was_made_goes() {
    let mut pair = Pair::new();
    plant(&pair.source);
    // Before there is anything to undo.
    pair.target().undo().await.unwrap();
    assert!(!pair.target.exists());
    assert!(!pair.target().is_prepared().await.unwrap());
    pair.copy().await.unwrap();
    assert!(pair.target().is_prepared().await.unwrap());
    assert!(pair.target().occupied().await.unwrap());
    pair.target().undo().await.unwrap();
    assert!(!pair.target.exists());
}

#[tokio::test]
async fn forget_keeps_what_arrived() {
    let mut pair = Pair::new();
    plant(&pair.source);
    pair.copy().await.unwrap();
    pair.target().forget().await.unwrap();
    assert!(!pair.target.join(".handover").exists());
    assert_eq!(list(pair.reader().scan()).await, list(pair.target().scan()).await);
    pair.target().undo().await.unwrap();
    assert_eq!(contents(&pair.source), contents(&pair.target));
}

#[tokio::test]
async fn another_migration_is_refused_and_a_damaged_list_too() {
    let mut pair = Pair::new();
    plant(&pair.source);
    pair.copy().await.unwrap();
    let other = Pair { migration: "m-2".parse().unwrap(), ..pair };
    for failure in [
        other.target().prepare().await.unwrap_err(),
        other.target().undo().await.unwrap_err(),
        other.target().forget().await.unwrap_err(),
    ] {
        assert_eq!(failure.class, Class::NeedsOperator);
        assert!(failure.to_string().contains("m-1") && !failure.hint.is_empty(), "{failure}");
    }
    let list = other.target.join(".handover/before");
    let mut bytes = fs::read(&list).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&list, bytes).unwrap();
    let first = Pair { migration: "m-1".parse().unwrap(), ..other };
    assert_eq!(first.target().undo().await.unwrap_err().class, Class::Permanent);
}
