//! An abort keeps what was migrated and worked on, beside what comes back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use handover_engine::digest::Digest;
use handover_engine::ports::{Keeper, TreeReader, TreeTarget};
use handover_platform::tree::{FileTree, Filter};

use super::support::*;
use super::undo::furnish;

/// Everything that can be told of a tree.
type State = (Listing, BTreeMap<PathBuf, Digest>);

async fn state(root: &Path) -> State {
    let reader = FileTree::reader("www".parse().unwrap(), root.to_owned(), Filter::default());
    (list(reader.scan()).await, contents(root))
}

fn assert_same(found: &State, expected: &State, when: &str) {
    for (path, entry) in &expected.0 {
        assert_eq!(found.0.get(path), Some(entry), "{when}: {path}");
    }
    assert_eq!(found, expected, "{when}");
}

/// What users do to a copy that serves.
fn work_on(root: &Path) {
    fs::write(root.join("on trial"), "written by a user").unwrap();
    fs::write(root.join("nothing"), "no more").unwrap();
    fs::create_dir_all(root.join("new/deep")).unwrap();
    fs::write(root.join("new/deep/file"), "written by a user").unwrap();
    fs::remove_file(root.join(" spaces ")).unwrap();
    set_mtime(&root.join("new"), 1_111_111_111, 7);
    set_mtime(root, 1_222_222_222, 8);
}

fn kept_at(pair: &Pair) -> PathBuf {
    pair.target.join(format!(".handover/kept-{}", pair.migration))
}

#[tokio::test]
async fn what_was_worked_on_is_kept() {
    let mut pair = Pair::new();
    plant(&pair.source);
    furnish(&pair);
    let before = state(&pair.target).await;
    pair.copy().await.unwrap();
    work_on(&pair.target);
    let served = state(&pair.target).await;
    assert_eq!(pair.target().kept().await.unwrap(), None);
    for again in 0..3 {
        pair.target().undo_and_keep().await.unwrap();
        pair.target().undo().await.unwrap();
        assert_same(&state(&pair.target).await, &before, "what stood here before");
        assert_same(&state(&kept_at(&pair)).await, &served, "what is kept");
        let kept = pair.target().kept().await.unwrap().unwrap();
        assert_eq!(kept.place, kept_at(&pair).display().to_string());
        assert!(kept.bytes > 5 << 20 && kept.bytes < 30 << 20, "{again}: {kept}");
    }
    assert!(!pair.target().is_prepared().await.unwrap());
    // Others come and go, and keep theirs.
    pair.migration = "m-2".parse().unwrap();
    pair.blocks.clear();
    pair.copy().await.unwrap();
    pair.target().undo_and_keep().await.unwrap();
    assert_same(&state(&pair.target).await, &before, "after a second abort");
    pair.migration = "m-3".parse().unwrap();
    pair.blocks.clear();
    pair.copy().await.unwrap();
    pair.target().forget().await.unwrap();
    let standing = state(&pair.target).await;
    pair.migration = "m-1".parse().unwrap();
    assert_same(&state(&kept_at(&pair)).await, &served, "after another was finalized");
    for _ in 0..2 {
        pair.target().remove_kept().await.unwrap();
        assert_eq!(pair.target().kept().await.unwrap(), None);
    }
    pair.migration = "m-2".parse().unwrap();
    assert!(pair.target().kept().await.unwrap().is_some());
    pair.target().remove_kept().await.unwrap();
    assert!(!pair.target.join(".handover").exists());
    assert_same(&state(&pair.target).await, &standing, "after what was kept was removed");
}

#[tokio::test]
async fn an_abort_cut_short_is_begun_again() {
    for stop in 0..4 {
        let mut pair = Pair::new();
        plant(&pair.source);
        furnish(&pair);
        let before = state(&pair.target).await;
        pair.copy().await.unwrap();
        work_on(&pair.target);
        let served = contents(&pair.target);
        let (area, target) = (pair.target.join(".handover"), pair.target.clone());
        let gathering = area.join("keeping");
        if stop > 0 {
            // Gathered in part.
            fs::create_dir_all(gathering.join("new/deep")).unwrap();
            for name in ["on trial", "new/deep/file", "large"] {
                fs::rename(target.join(name), gathering.join(name)).unwrap();
            }
        }
        if stop > 1 {
            // All of it, and named.
            for entry in fs::read_dir(&target).unwrap() {
                let name = entry.unwrap().file_name();
                if name == "new" {
                    fs::remove_dir_all(target.join(name)).unwrap();
                } else if name != ".handover" {
                    fs::rename(target.join(&name), gathering.join(&name)).unwrap();
                }
            }
            fs::rename(&gathering, kept_at(&pair)).unwrap();
        }
        if stop > 2 {
            // Something stands here again.
            fs::rename(area.join("undo/nothing"), target.join("nothing")).unwrap();
            fs::create_dir(target.join("a")).unwrap();
            fs::rename(area.join("undo/a/x"), target.join("a/x")).unwrap();
        }
        pair.target().undo_and_keep().await.unwrap();
        let after = state(&pair.target).await;
        assert_eq!(after.1, before.1, "{stop}");
        assert_same(&after, &before, &format!("cut at {stop}"));
        assert_eq!(contents(&kept_at(&pair)), served, "{stop}");
        assert!(!gathering.exists(), "{stop}");
        pair.target().remove_kept().await.unwrap();
        assert!(!area.exists(), "{stop}");
    }
}

#[tokio::test]
async fn a_root_that_was_made_goes_with_what_is_kept() {
    let mut pair = Pair::new();
    plant(&pair.source);
    pair.copy().await.unwrap();
    work_on(&pair.target);
    let served = state(&pair.target).await;
    pair.target().undo_and_keep().await.unwrap();
    assert!(!pair.target().occupied().await.unwrap());
    assert_same(&state(&kept_at(&pair)).await, &served, "what is kept");
    pair.target().remove_kept().await.unwrap();
    assert!(!pair.target.exists());
    // Nothing to keep, and nothing to remove.
    pair.target().undo_and_keep().await.unwrap();
    pair.target().remove_kept().await.unwrap();
    assert_eq!(pair.target().kept().await.unwrap(), None);
    assert!(!pair.target.exists());
}

#[tokio::test]
async fn what_is_kept_goes_while_another_migration_prepares() {
    let mut pair = Pair::new();
    for round in 0..200 {
        let _ = fs::remove_dir_all(&pair.target);
        pair.migration = "m-1".parse().unwrap();
        let aside = kept_at(&pair);
        // As an abort leaves a root that its migration has made.
        fs::create_dir_all(&aside).unwrap();
        fs::write(aside.with_added_extension("root"), "").unwrap();
        fs::write(aside.join("file"), "written by a user").unwrap();
        let before = pair.target();
        pair.migration = "m-2".parse().unwrap();
        let target = pair.target();
        let prepared = async {
            // A little later each time: at every step of the other.
            for _ in 0..round * 100 {
                std::hint::spin_loop();
            }
            target.prepare().await
        };
        let (removed, prepared) = tokio::join!(before.remove_kept(), prepared);
        removed.unwrap_or_else(|failure| panic!("{round}: {failure}"));
        prepared.unwrap_or_else(|failure| panic!("{round}: {failure}"));
        assert!(target.is_prepared().await.unwrap() && !aside.exists(), "{round}");
        target.undo().await.unwrap();
        assert!(!pair.target.join(".handover").exists(), "{round}");
    }
}

#[tokio::test]
async fn what_the_migration_had_no_part_in_stays_where_it_is() {
    let mut pair = Pair::new();
    fs::write(pair.source.join("moved"), "moved").unwrap();
    fs::create_dir(&pair.target).unwrap();
    fs::write(pair.target.join("mine"), "stood here").unwrap();
    fs::create_dir(pair.target.join("private")).unwrap();
    fs::write(pair.target.join("private/key"), "hidden").unwrap();
    pair.filter = Filter::new(&[], &["private/key".to_owned()]).unwrap();
    let target = pair.target();
    target.prepare().await.unwrap();
    fs::write(pair.target.join("on trial"), "written by a user").unwrap();
    target.undo_and_keep().await.unwrap();
    let at = |name: &str| fs::metadata(pair.target.join(name));
    let aside = |name: &str| fs::metadata(kept_at(&pair).join(name));
    assert!(at("on trial").is_err() && aside("on trial").is_ok());
    assert!(at("private/key").is_ok() && aside("private").is_ok() && aside("private/key").is_err());
    // It is one file in both places, and frees nothing when it goes from one.
    assert_eq!(at("mine").unwrap().ino(), aside("mine").unwrap().ino());
    let kept = target.kept().await.unwrap().unwrap();
    let own = (aside("on trial").unwrap().blocks() + aside("private").unwrap().blocks()) * 512;
    assert_eq!(kept.bytes, own);
    target.remove_kept().await.unwrap();
    assert_eq!(fs::read_to_string(pair.target.join("mine")).unwrap(), "stood here");
    assert!(!pair.target.join(".handover").exists());
}
