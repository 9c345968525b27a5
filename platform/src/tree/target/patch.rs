//! Changing a large file where it is, out of sight: what is the same is not written again.
//!
//! The record of what is to be done is made durable; the file is renamed into the staging area; the patch is written into it;
//! it is renamed back. Under its name the file is whole at every moment, or absent. An interrupted change is carried on from
//! the record, which may be done any number of times.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;

use handover_engine::digest::Digest;
use handover_engine::ports::Result;
use handover_engine::tree::{Entry, RelPath};
use rustix::fs::{Mode, OFlags, fstat, fsync, openat, renameat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::super::assemble::{Counted, Patch, Range};
use super::super::meta;
use super::super::root::{Parents, Root};
use super::staging::Staging;

/// What is to be done to a hidden file.
#[derive(Serialize, Deserialize)]
struct Redo {
    /// The file as it will be.
    entry: Entry,
    ranges: Vec<Range>,
}

const HIDDEN: &str = "h-";
const REDO: &str = "r-";

/// Names that hold what cannot be fetched again.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with(HIDDEN) || name.starts_with(REDO)
}

fn name_of(kind: &str, path: &RelPath) -> String {
    format!("{kind}{}", &Digest::of(path.as_bytes()).to_string()[..32])
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Changes the file `name` in `parent` into `entry`, by what is counted of it.
pub fn put(
    staging: &Staging,
    parent: impl AsFd,
    name: &CStr,
    entry: &Entry,
    counted: Counted,
) -> Result<(), Errno> {
    let redo = Redo { entry: entry.clone(), ranges: counted.patch.unwrap_or_default() };
    let patch = Patch::resumed(staging.patch(&entry.path)?, redo.ranges.clone());
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(openat(&parent, name, flags, Mode::empty())?);
    if meta::stamp(&fstat(&file)?) != counted.basis || Some(counted.end) != entry.size() {
        // Not the file that it was compared with.
        return Err(Errno::STALE);
    }
    let reserved = patch.reserve(&file);
    // Making room counts as a change; the file must still be known as the basis when there is none.
    meta::set_time(file.as_fd(), counted.basis.mtime)?;
    reserved?;
    drop(file);
    begin(staging, &redo)?;
    let hidden = hide(staging, &parent, name, &redo).and_then(|()| open_hidden(staging, &redo));
    let hidden = match hidden {
        Ok(hidden) => hidden,
        Err(errno) => {
            give_back(staging, &parent, name, &redo)?;
            return Err(errno);
        }
    };
    // Once a byte is written there is no way back, only on: what fails once may do so for a moment.
    write(&hidden, &redo, &patch).or_else(|_| write(&hidden, &redo, &patch))?;
    show(staging, &parent, name, &redo)
}

/// Nothing has been written yet: the file gets its name back, as it was.
fn give_back(staging: &Staging, parent: impl AsFd, name: &CStr, redo: &Redo) -> Result<(), Errno> {
    match show(staging, &parent, name, redo) {
        // It had not lost its name.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    // The record goes last: without it a hidden file would not be found again.
    fsync(&parent)?;
    staging.sync()?;
    staging.drop(&name_of(REDO, &redo.entry.path))
}

fn begin(staging: &Staging, redo: &Redo) -> Result<(), Errno> {
    staging.record(&name_of(REDO, &redo.entry.path), redo).map_err(|e| errno(&e))
}

fn hide(staging: &Staging, parent: impl AsFd, name: &CStr, redo: &Redo) -> Result<(), Errno> {
    renameat(&parent, name, staging, name_of(HIDDEN, &redo.entry.path))?;
    // Else the file could be found half-changed under its name after a power failure.
    staging.sync()?;
    fsync(&parent)
}

fn show(staging: &Staging, parent: impl AsFd, name: &CStr, redo: &Redo) -> Result<(), Errno> {
    renameat(staging, name_of(HIDDEN, &redo.entry.path), parent, name)
}

/// Writes the patch into the hidden file.
fn carry_out(staging: &Staging, redo: &Redo, patch: &Patch) -> Result<(), Errno> {
    write(&open_hidden(staging, redo)?, redo, patch)
}

fn open_hidden(staging: &Staging, redo: &Redo) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(staging, name_of(HIDDEN, &redo.entry.path), flags, Mode::empty()).map(File::from)
}

fn write(file: &File, redo: &Redo, patch: &Patch) -> Result<(), Errno> {
    patch.apply(file).map_err(|e| errno(&e))?;
    file.set_len(redo.entry.size().ok_or(Errno::INVAL)?).map_err(|e| errno(&e))?;
    meta::settle(file.as_fd(), &redo.entry)?;
    fsync(file)
}

/// Drops the record of a change that is durable.
pub fn forget(staging: &Staging, path: &RelPath) -> Result<(), Errno> {
    staging.drop(&name_of(REDO, path))?;
    staging.forget_counted(path)
}

/// Carries on what a crash has interrupted: afterwards no file is hidden.
pub fn recover(root: &Root, staging: &Staging) -> Result<()> {
    let here = RelPath::root();
    let failed = root.failed(&here, "an interrupted change of a file cannot be carried on");
    for name in staging.names().map_err(&failed)? {
        let Some(name) = name.to_str().ok().filter(|name| name.starts_with(REDO) && !name.ends_with(".new"))
        else {
            continue;
        };
        let redo = staging.recorded::<Redo>(name).map_err(|e| failed(errno(&e)))?;
        let Some(redo) = redo else { continue };
        let path = &redo.entry.path;
        let what = "was being changed when the agent stopped, and that cannot be carried on";
        let failed = root.failed(path, what);
        if resume(root, staging, &redo).map_err(&failed)? {
            root.sync_all()?;
            forget(staging, path).map_err(&failed)?;
        } else {
            // Not begun, or finished but for this record: what is counted of the file may still be needed.
            staging.drop(name).map_err(&failed)?;
        }
    }
    Ok(())
}

/// False when nothing was hidden.
fn resume(root: &Root, staging: &Staging, redo: &Redo) -> Result<bool, Errno> {
    let path = &redo.entry.path;
    let hidden = name_of(HIDDEN, path);
    match openat(staging, &hidden, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let patch = Patch::resumed(staging.patch(path)?, redo.ranges.clone());
    carry_out(staging, redo, &patch)?;
    let mut parents = Parents::new(root);
    let (parent, name) = parents.of(path)?;
    show(staging, parent, &name, redo).map(|()| true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use handover_engine::tree::EntryKind;

    use super::super::super::before::inside;
    use super::super::super::pack;
    use super::*;

    const OLD: &[u8] = b"0123456789 the old contents";
    const NEW: &[u8] = b"01xx456789 the old co, and more";

    /// A tree with one file, and a patch for it in the staging area.
    fn tree(dir: &Path) -> (Root, Staging, Redo) {
        fs::create_dir_all(dir.join(".handover/staging")).unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), OLD).unwrap();
        let root = Root::open(&"www".parse().unwrap(), dir).unwrap();
        assert!(root.directory(&inside("staging", &RelPath::root())).is_ok());
        let staging = Staging::open(&root).unwrap();
        let path = RelPath::new(b"d/f".to_vec()).unwrap();
        let mut entry = pack::entry(&root.file(&path).unwrap(), &path).unwrap().unwrap();
        entry.kind = EntryKind::File { size: NEW.len() as u64, sparse: false, linked: false };
        let mut patch = Patch::new(staging.create_patch(&path).unwrap());
        patch.write(&NEW[2..4], 2).unwrap();
        patch.write(&NEW[21..25], 21).unwrap();
        patch.write(&NEW[25..], 25).unwrap();
        assert_eq!(patch.ranges().len(), 2);
        let ranges = patch.ranges().to_vec();
        (root, staging, Redo { entry, ranges })
    }

    #[test]
    fn an_interrupted_change_is_carried_on_or_never_was() {
        for steps in 0..=4 {
            let dir = tempfile::tempdir().unwrap();
            let (root, staging, redo) = tree(dir.path());
            let file = dir.path().join("d/f");
            let patch = Patch::resumed(staging.patch(&redo.entry.path).unwrap(), redo.ranges.clone());
            let directory = File::open(dir.path().join("d")).unwrap();
            let step = |step: usize| match step {
                0 => begin(&staging, &redo),
                1 => hide(&staging, &directory, c"f", &redo),
                2 => carry_out(&staging, &redo, &patch),
                _ => show(&staging, &directory, c"f", &redo),
            };
            (0..steps).try_for_each(step).unwrap();
            assert_eq!(file.exists(), steps < 2 || steps == 4, "visible after {steps} steps");
            recover(&root, &staging).unwrap();
            let expected = if steps < 2 { OLD } else { NEW };
            assert_eq!(fs::read(&file).unwrap(), expected, "after {steps} steps");
            assert_eq!(
                staging.patch(&redo.entry.path).is_ok(),
                steps < 2 || steps == 4,
                "after {steps} steps"
            );
            recover(&root, &staging).unwrap();
            assert!(staging.names().unwrap().iter().all(|name| !is_hidden(name.to_str().unwrap())));
        }
    }

    #[test]
    fn a_change_that_cannot_begin_gives_the_file_back() {
        for hidden in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (root, staging, redo) = tree(dir.path());
            let directory = File::open(dir.path().join("d")).unwrap();
            begin(&staging, &redo).unwrap();
            if hidden {
                hide(&staging, &directory, c"f", &redo).unwrap();
            }
            give_back(&staging, &directory, c"f", &redo).unwrap();
            assert_eq!(fs::read(dir.path().join("d/f")).unwrap(), OLD);
            recover(&root, &staging).unwrap();
            assert_eq!(fs::read(dir.path().join("d/f")).unwrap(), OLD);
        }
    }

    #[test]
    fn a_change_that_fails_on_the_way_is_carried_on_by_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let (root, staging, redo) = tree(dir.path());
        let path = redo.entry.path.clone();
        let basis = meta::stamp(&fstat(root.file(&path).unwrap()).unwrap());
        let patch_bytes = fs::read(patch_file(dir.path())).unwrap();
        // The kept contents end too early: the first range is written, the last cannot be.
        staging.patch(&path).unwrap().set_len(4).unwrap();
        let counted = Counted { end: NEW.len() as u64, basis, patch: Some(redo.ranges.clone()) };
        let directory = File::open(dir.path().join("d")).unwrap();
        put(&staging, &directory, c"f", &redo.entry, counted).unwrap_err();
        recover(&root, &staging).unwrap_err();
        fs::write(patch_file(dir.path()), patch_bytes).unwrap();
        recover(&root, &staging).unwrap();
        assert_eq!(fs::read(dir.path().join("d/f")).unwrap(), NEW);
    }

    /// The one patch in the staging area.
    fn patch_file(dir: &Path) -> std::path::PathBuf {
        let names = fs::read_dir(dir.join(".handover/staging")).unwrap().map(|entry| entry.unwrap().path());
        names.into_iter().find(|path| path.extension().is_some_and(|e| e == "patch")).unwrap()
    }

    #[test]
    fn making_room_leaves_the_basis_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (root, staging, mut redo) = tree(dir.path());
        let path = redo.entry.path.clone();
        let look = || meta::stamp(&fstat(root.file(&path).unwrap()).unwrap());
        let basis = look();
        // Beyond what any file system holds: the second range finds no room.
        redo.ranges.push(Range { start: 1 << 62, len: 1 << 62 });
        let counted = Counted { end: NEW.len() as u64, basis, patch: Some(redo.ranges.clone()) };
        let directory = File::open(dir.path().join("d")).unwrap();
        put(&staging, &directory, c"f", &redo.entry, counted).unwrap_err();
        let after = look();
        assert_eq!((after.size, after.mtime), (basis.size, basis.mtime));
        assert_eq!(fs::read(dir.path().join("d/f")).unwrap(), OLD);
    }

    #[test]
    fn a_file_that_is_not_the_basis_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (root, staging, redo) = tree(dir.path());
        let path = &redo.entry.path;
        let basis = meta::stamp(&fstat(root.file(path).unwrap()).unwrap());
        fs::write(dir.path().join("d/f"), b"somebody else's").unwrap();
        let counted = Counted { end: NEW.len() as u64, basis, patch: Some(redo.ranges.clone()) };
        let directory = File::open(dir.path().join("d")).unwrap();
        assert_eq!(put(&staging, &directory, c"f", &redo.entry, counted), Err(Errno::STALE));
        assert_eq!(fs::read(dir.path().join("d/f")).unwrap(), b"somebody else's");
    }
}
