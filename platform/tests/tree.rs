//! The file-tree adapters, from one directory to another.

mod tree_support;

use std::os::unix::fs::PermissionsExt;

use handover_engine::ports::{TreeReader, TreeTarget};
use handover_platform::tree::FileTree;
use rustix::fs::{XattrFlags, lsetxattr};
use tree_support::{Trees, copy};

#[tokio::test]
async fn attributes_arrive() {
    let trees = Trees::new();
    let path = trees.source().join("with attributes");
    std::fs::write(&path, "x").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    lsetxattr(&path, "user.comment", b"binary \0 \xff", XattrFlags::empty()).unwrap();
    lsetxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    lsetxattr(&path, "security.capability", &capability, XattrFlags::empty()).unwrap();
    copy(&trees).await;
    trees.assert_equal().await;
}

#[tokio::test]
async fn undo_of_nothing_is_nothing() {
    let trees = Trees::new();
    let target = trees.target();
    target.undo().await.unwrap();
    assert!(!trees.target_path().exists());
    let _ =
        FileTree::reader("d".parse().unwrap(), trees.source(), handover_platform::tree::Filter::default())
            .facts()
            .await;
}
