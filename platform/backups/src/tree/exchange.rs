//! A tree in the place of another: one exchange of two names.

use std::collections::HashSet;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::beside::above;
use crate::contents::Tree;
use crate::shelf::sync;
use crate::work::{Work, blocking, io_failed};

/// A root that is a file system of its own cannot be exchanged.
pub fn refuse_mounts(item: &str, root: &Path) -> Result<()> {
    let device = |path: &Path| path.symlink_metadata().ok().map(|meta| meta.dev());
    match (device(root), device(above(root))) {
        (Some(own), Some(outside)) if own != outside => Err(Failure::operator(
            item,
            format!("{} is a mount point: it cannot be exchanged", root.display()),
        )
        .hint("unpack the backup's file by hand: docs/backups.md tells how")),
        _ => Ok(()),
    }
}

/// An empty directory, in place of what an earlier restore has left there; its number.
pub fn fresh_stage(stage: &Path) -> Result<u64> {
    let make = || {
        if stage.symlink_metadata().is_ok() {
            std::fs::remove_dir_all(stage)?;
        }
        DirBuilder::new().mode(0o700).create(stage)?;
        Ok(stage.symlink_metadata()?.ino())
    };
    make().map_err(io_failed(stage, "cannot be made"))
}

/// What the manifest leaves out of the tree stays where it is: it goes into the new one under the same names.
pub async fn carry_over(tree: &Tree, root: &Path, stage: &Path) -> Result<()> {
    let (mut scan, mut ours) = (tree.reader.scan(), HashSet::new());
    while let Some(batch) = scan.next().await {
        ours.extend(batch?.into_iter().map(|entry| entry.path.as_bytes().to_vec()));
    }
    let (root, stage) = (root.to_owned(), stage.to_owned());
    let item = root.display().to_string();
    blocking(&item.clone(), move || {
        let device = root.metadata().map_err(io_failed(&root, "cannot be looked at"))?.dev();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            let here = root.join(&directory);
            let entries = std::fs::read_dir(&here).map_err(io_failed(&here, "cannot be read"))?;
            for entry in entries {
                let entry = entry.map_err(io_failed(&here, "cannot be read"))?;
                let path = directory.join(entry.file_name());
                let meta = entry.metadata().map_err(io_failed(&entry.path(), "cannot be looked at"))?;
                if meta.dev() != device {
                    let what =
                        format!("{} is a mount point: the tree cannot be exchanged", entry.path().display());
                    return Err(Failure::operator(&item, what).hint("unmount it, and restore again"));
                }
                let is_ours = ours.contains(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
                let new = stage.join(&path);
                if !is_ours && !stays_within(&stage, &path) {
                    let what =
                        format!("{} is in a directory that is a link in the backup", entry.path().display());
                    return Err(Failure::operator(&item, what).hint("move it away, and restore again"));
                }
                if meta.is_dir() {
                    directories.push(path);
                    if !is_ours && new.symlink_metadata().is_err() {
                        make_like(&new, &meta).map_err(io_failed(&new, "cannot be made"))?;
                    }
                } else if !is_ours && new.symlink_metadata().is_err() {
                    link(&entry.path(), &new).map_err(io_failed(&new, "cannot be made"))?;
                }
            }
        }
        Ok(())
    })
    .await
}

/// Whether the directories on a path's way are that in the new tree: one that is a link there would lead out of it.
fn stays_within(stage: &Path, path: &Path) -> bool {
    let mut at = stage.to_owned();
    path.parent().into_iter().flat_map(Path::components).all(|part| {
        at.push(part);
        at.symlink_metadata().map_or(true, |meta| meta.is_dir())
    })
}

fn make_like(new: &Path, meta: &std::fs::Metadata) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(new)?;
    chown(new, Some(meta.uid()), Some(meta.gid()))?;
    std::fs::set_permissions(new, Permissions::from_mode(meta.mode() & 0o7777))
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    // The directory may be younger than the backup.
    std::fs::create_dir_all(above(to))?;
    std::fs::hard_link(from, to)
}

/// Puts the new tree in place. First it gets the name that the old one is to have: then one step exchanges both, and whatever a crash falls
/// between, one of them is in place and the other under that name.
pub fn put_in_place(stage: &Path, root: &Path, before: Option<&Path>, work: &Work) -> Result<()> {
    let failed = |what: &'static str| io_failed(root, what);
    let file = std::fs::File::open(stage).map_err(failed("the new tree cannot be opened"))?;
    rustix::fs::syncfs(&file).map_err(|e| failed("the new tree cannot be made durable")(e.into()))?;
    let (from, how) = match before {
        None => (stage, RenameFlags::NOREPLACE),
        Some(before) => {
            work.step("give it the name of the old one")?;
            renameat_with(CWD, stage, CWD, before, RenameFlags::NOREPLACE)
                .map_err(|e| failed("cannot be put in place")(e.into()))?;
            (before, RenameFlags::EXCHANGE)
        }
    };
    work.step("put in place")?;
    renameat_with(CWD, from, CWD, root, how).map_err(|e| failed("cannot be put in place")(e.into()))?;
    sync(above(root)).map_err(failed("cannot be made durable"))?;
    work.step("in place")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_on_the_way_leads_out() {
        let stage = tempfile::tempdir().unwrap();
        std::fs::create_dir(stage.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("/etc", stage.path().join("link")).unwrap();
        for (path, expected) in [
            ("file", true),
            ("directory/file", true),
            ("new/new/file", true),
            ("link", true),
            ("link/file", false),
            ("link/new/file", false),
        ] {
            assert_eq!(stays_within(stage.path(), Path::new(path)), expected, "{path}");
        }
    }
}
