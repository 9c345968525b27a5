//! Nothing outside the root is touched; a full disk, a mount point and a half-landed batch are told apart.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use handover_engine::failure::Class;
use handover_engine::ports::{TreeOp, TreeReader, TreeTarget};
use handover_engine::tree::{Entry, EntryKind, PackChunk, PackItem, PackedFile};
use handover_platform::tree::Filter;

use super::support::*;

#[tokio::test]
async fn planted_links_lead_nowhere() {
    let mut pair = Pair::new();
    fs::create_dir(pair.source.join("dir")).unwrap();
    fs::write(pair.source.join("dir/file"), "new").unwrap();
    fs::write(pair.source.join("big"), noise(2 << 20, 1)).unwrap();
    let outside = pair.outside();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "outside").unwrap();
    fs::write(outside.join("other"), "outside").unwrap();
    let as_it_was = (snapshot(&outside), contents(&outside));
    let target = pair.target();
    target.prepare().await.unwrap();
    // A link to a directory where the source has a directory, and links where it has files.
    symlink(&outside, pair.target.join("dir")).unwrap();
    symlink(outside.join("file"), pair.target.join("big")).unwrap();
    let pack =
        pair.reader().pack(vec![PackItem { path: path("dir/file"), held: None, held_len: 0 }]).await.unwrap();
    let PackedFile::Contents { entry, .. } = pack.files[0].clone() else { panic!("{pack:?}") };
    target.stage(pack).await.unwrap();
    let failure = target.land(std::slice::from_ref(&entry)).await.unwrap_err();
    assert_eq!(failure.class, Class::NeedsOperator, "{failure}");
    assert!(failure.to_string().contains("dir/file"), "{failure}");
    let named = |name: &str| Entry { path: path(name), ..entry.clone() };
    target.change(&[TreeOp::Settle(named("dir/file"))]).await.unwrap_err();
    target.change(&[TreeOp::Link { path: path("dir/link"), to: path("big") }]).await.unwrap_err();
    target.change(&[TreeOp::Settle(named("big"))]).await.unwrap_err();
    target.change(&[TreeOp::Remove(path("dir/file"))]).await.unwrap();
    assert!(!fs::read(outside.join("file")).unwrap().is_empty());
    // The copy replaces the links by what the source has.
    pair.copy().await.unwrap();
    assert_eq!(contents(&pair.source), contents(&pair.target));
    assert_eq!((snapshot(&outside), contents(&outside)), as_it_was);
    assert!(!pair.target.join("dir").is_symlink());
}

/// Everything `stat` says of a directory's children.
fn snapshot(directory: &Path) -> Vec<(std::ffi::OsString, u32, i64, i64, u64)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        (entry.file_name(), meta.mode(), meta.mtime(), meta.ctime_nsec(), meta.ino())
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

#[tokio::test]
async fn a_staging_area_that_is_a_link_is_refused() {
    let pair = Pair::new();
    fs::create_dir_all(pair.outside()).unwrap();
    fs::create_dir_all(&pair.target).unwrap();
    symlink(pair.outside(), pair.target.join(".handover")).unwrap();
    pair.target().prepare().await.unwrap_err();
    assert_eq!(fs::read_dir(pair.outside()).unwrap().count(), 0);
}

#[tokio::test]
async fn landing_is_all_or_nothing_for_each_file() {
    let pair = Pair::new();
    for n in 0..10 {
        fs::write(pair.source.join(format!("f{n}")), noise(50_000, n)).unwrap();
    }
    fs::create_dir_all(&pair.target).unwrap();
    fs::write(pair.target.join("f3"), "old").unwrap();
    let target = pair.target();
    target.prepare().await.unwrap();
    let items = (0..10).map(|n| PackItem { path: path(format!("f{n}")), held: None, held_len: 0 }).collect();
    let pack = pair.reader().pack(items).await.unwrap();
    let entries: Vec<Entry> = pack
        .files
        .iter()
        .map(|file| match file {
            PackedFile::Contents { entry, .. } => entry.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    target.stage(pack).await.unwrap();
    // Staged is not visible.
    assert_eq!(contents(&pair.target).len(), 1);
    // A crash after some names: landing again lands the rest, and says what each looks like.
    let first = target.land(&entries[..4]).await.unwrap();
    let stamps = pair.target().land(&entries).await.unwrap();
    assert_eq!(first, stamps[..4]);
    assert_eq!(contents(&pair.source), contents(&pair.target));
    let listing = pair.target().scan().try_concat_all().await.unwrap();
    for (entry, stamp) in entries.iter().zip(stamps) {
        assert_eq!(listing.iter().find(|e| e.path == entry.path).unwrap().stamp, stamp);
    }
    // Nothing is staged, and something else stands there.
    fs::write(pair.target.join("f5"), "somebody else's").unwrap();
    assert!(target.land(&entries[5..6]).await.unwrap_err().is_transient());
    // The parent is missing.
    let lost = Entry { path: path("no/such/dir"), ..entries[0].clone() };
    target.land(&[lost]).await.unwrap_err();
    target.undo().await.unwrap();
    assert_eq!(fs::read_to_string(pair.target.join("f3")).unwrap(), "old");
}

#[tokio::test]
async fn changes_may_be_carried_out_twice() {
    let pair = Pair::new();
    plant(&pair.source);
    let target = pair.target();
    target.prepare().await.unwrap();
    let entries = pair.reader().scan().try_concat_all().await.unwrap();
    let made = entries.iter().filter(|e| e.size().is_none() && !matches!(e.kind, EntryKind::HardLink { .. }));
    let mut ops: Vec<TreeOp> = made.clone().cloned().map(TreeOp::Make).collect();
    ops.push(TreeOp::Link { path: path("empty/x"), to: path("pipe") });
    ops.extend(made.rev().cloned().map(TreeOp::Settle));
    for _ in 0..2 {
        target.change(&ops).await.unwrap();
    }
    let inode = |name: &str| fs::symlink_metadata(pair.target.join(name)).unwrap().ino();
    let root = fs::symlink_metadata(pair.target.join("empty")).unwrap();
    // What is right already is not touched.
    let settle: Vec<TreeOp> =
        entries.iter().filter(|e| e.path == path("a")).cloned().map(TreeOp::Settle).collect();
    let changed =
        || fs::symlink_metadata(pair.target.join("a")).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    let before = changed();
    target.change(&settle).await.unwrap();
    assert_eq!(changed(), before);
    assert_eq!(inode("pipe"), inode("empty/x"));
    assert!(root.is_dir());
    for _ in 0..2 {
        target.change(&[TreeOp::Remove(path("empty")), TreeOp::Remove(path("none/at/all"))]).await.unwrap();
    }
    assert!(!pair.target.join("empty").exists());
}

/// A small file system, unmounted in the end. Only root can make one.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(place: &'a Path, size: &str) -> Option<Self> {
        let size = format!("size={size}");
        let args = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted =
            is_root() && std::process::Command::new("mount").args(args).arg(place).status().ok()?.success();
        mounted.then_some(Self(place))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_can_be_resumed() {
    let mut pair = Pair::new();
    fs::create_dir_all(&pair.target).unwrap();
    let place = pair.target.clone();
    let Some(_mounted) = Mounted::new(&place, "8m") else { return };
    fs::write(pair.source.join("large"), noise(12 << 20, 1)).unwrap();
    let failure = pair.copy().await.unwrap_err();
    assert_eq!(failure.class, Class::NeedsOperator);
    assert!(failure.item.contains("large") && failure.hint.contains("free space"), "{failure}");
    fs::write(pair.source.join("large"), noise(3 << 20, 1)).unwrap();
    pair.target().discard_staged(&[]).await.unwrap();
    pair.copy().await.unwrap();
    assert_eq!(contents(&pair.source), contents(&pair.target));
    pair.target().undo().await.unwrap();
    assert_eq!(fs::read_dir(&pair.target).unwrap().count(), 0);
}

#[tokio::test]
async fn mount_points_are_not_entered_nor_emptied() {
    let mut pair = Pair::new();
    let inside = pair.target.join("dir/mounted");
    fs::create_dir_all(&inside).unwrap();
    let Some(_mounted) = Mounted::new(&inside, "1m") else { return };
    fs::write(inside.join("precious"), "precious").unwrap();
    fs::create_dir(pair.source.join("dir")).unwrap();
    let facts = handover_platform::tree::FileTree::reader(
        "www".parse().unwrap(),
        pair.target.clone(),
        Default::default(),
    );
    let facts = facts.facts().await.unwrap();
    assert_eq!((facts.directories, facts.files), (3, 0));
    assert!(facts.notes[0].contains("dir/mounted"), "{:?}", facts.notes);
    pair.copy().await.unwrap();
    pair.target().change(&[TreeOp::Remove(path("dir"))]).await.unwrap();
    pair.target().undo().await.unwrap();
    assert_eq!(fs::read_to_string(inside.join("precious")).unwrap(), "precious");
}

#[tokio::test]
async fn neither_side_goes_beyond_its_own_manifest() {
    let mut pair = Pair::new();
    fs::write(pair.source.join("secret.key"), "secret").unwrap();
    fs::create_dir(pair.source.join("private")).unwrap();
    fs::write(pair.source.join("private/f"), "secret").unwrap();
    fs::write(pair.source.join("f"), "open").unwrap();
    pair.copy().await.unwrap();
    pair.filter = Filter::new(&[], &["*.key".to_owned(), "private".to_owned()]).unwrap();
    let (reader, target) = (pair.reader(), pair.target());
    let items =
        ["secret.key", "private/f", "f"].map(|name| PackItem { path: path(name), held: None, held_len: 0 });
    let pack = reader.pack(items.to_vec()).await.unwrap();
    assert!(matches!(
        &pack.files[..],
        [PackedFile::Gone { .. }, PackedFile::Gone { .. }, PackedFile::Contents { .. }]
    ));
    let PackedFile::Contents { entry, len, digest } = &pack.files[2] else { unreachable!() };
    for bad in ["secret.key", "private/f", ".handover/before", ".handover/undo/x"] {
        let entry = Entry { path: path(bad), ..entry.clone() };
        let files = vec![PackedFile::Contents { entry: entry.clone(), len: *len, digest: *digest }];
        let refused = target.stage(PackChunk { files, data: pack.data.clone() }).await.unwrap_err();
        assert!(refused.to_string().contains(bad) && refused.to_string().contains("manifest"), "{refused}");
        target.land(std::slice::from_ref(&entry)).await.unwrap_err();
        target.change(&[TreeOp::Make(entry.clone())]).await.unwrap_err();
        assert!(!target.admits(&entry.path, false));
    }
}
