//! Staging contents, and reading them again.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::tree::{Block, IndexEntry, PackChunk, PackedFile, RelPath, Segment, SegmentEnd, Stamp};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::assemble::{Assembly, Basis, Patch, Stage, Trouble, consists_of};
use super::super::meta;
use super::super::pack::is_gone;
use super::super::root::Root;
use super::Shared;
use super::staging::Staging;

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl Shared {
    pub(super) fn stage(&self, pack: &PackChunk) -> Result<()> {
        let root = self.root()?;
        let staging = Staging::open(&root)?;
        let contents = pack
            .contents()
            .ok_or_else(|| Failure::permanent(self.dataset.to_string(), "a pack's lengths do not add up"))?;
        for (file, bytes) in contents {
            let (entry, bytes) = match file {
                PackedFile::Contents { entry, .. } => (entry, bytes),
                PackedFile::Tail { entry, from, digest, .. } => {
                    self.refuse_excluded(&entry.path, false)?;
                    let whole = self.continued(&root, &staging, &entry.path, (*from, &bytes), digest)?;
                    (entry, whole.into())
                }
                _ => continue,
            };
            self.refuse_excluded(&entry.path, false)?;
            let write = || -> Result<(), Errno> {
                let naming = self.naming();
                let file = staging.create(&entry.path)?;
                drop(naming);
                file.write_all_at(&bytes, 0).map_err(|e| errno(&e))?;
                meta::settle(file.as_fd(), entry)
            };
            write().map_err(root.failed(&entry.path, "cannot be written"))?;
        }
        Ok(())
    }

    pub(super) fn write(&self, segment: &Segment, blocks: &[Block]) -> Result<Vec<Block>> {
        let root = self.root()?;
        let path = &segment.entry.path;
        self.refuse_excluded(path, false)?;
        let staging = Staging::open(&root)?;
        let failure = |trouble| self.trouble(&root, path, "cannot be written", trouble);
        let held = self.assemblies().remove(path);
        let mut assembly = match held {
            Some(assembly) if segment.offset > 0 && assembly.end() >= segment.offset => assembly,
            _ => self.assembly(&root, &staging, segment, blocks)?,
        };
        assembly.rewind(segment.offset).map_err(failure)?;
        let stage = Place { staging: &staging, path };
        let made = assembly.take(segment, blocks, &stage).map_err(failure)?;
        if let Some(SegmentEnd::Whole(_)) = segment.end {
            assembly.finish(&stage).map_err(failure)?;
        }
        self.assemblies().insert(path.clone(), assembly);
        Ok(made)
    }

    fn trouble(&self, root: &Root, path: &RelPath, what: &str, trouble: Trouble) -> Failure {
        trouble.into_failure(root.failed(path, what), format!("{}, {path}", self.dataset))
    }

    /// Begins a large file, or takes up one that an earlier run of the agent has begun.
    fn assembly(
        &self,
        root: &Root,
        staging: &Staging,
        segment: &Segment,
        blocks: &[Block],
    ) -> Result<Assembly> {
        let path = &segment.entry.path;
        let failed = root.failed(path, "what is staged of it cannot be taken up");
        let basis = if blocks.is_empty() { None } else { self.basis(root, staging, path, blocks)? };
        if segment.offset == 0 {
            staging.discard(path).map_err(&failed)?;
            return Ok(Assembly::new(basis));
        }
        if let Some(counted) = staging.counted(path).filter(|counted| counted.end >= segment.offset) {
            let Some(basis) = basis.filter(|basis| is_same(basis.stamp(), counted.basis)) else {
                return Err(self.trouble(root, path, "", Trouble::Basis));
            };
            // What an interrupted attempt to write it as a whole has left.
            staging.discard_whole(path).map_err(&failed)?;
            let patch = counted.patch.map(|ranges| Ok(Patch::resumed(staging.patch(path)?, ranges)));
            let patch = patch.transpose().map_err(&failed)?;
            return Ok(Assembly::counted_so_far(basis, segment.offset, patch));
        }
        match staging.staged(path) {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.len() >= segment.offset) => {
                Assembly::resumed(basis, file, segment.offset).map_err(|e| failed(errno(&e)))
            }
            Ok(_) | Err(Errno::NOENT) => Err(self.trouble(root, path, "", Trouble::Basis)),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// What was set aside for the path, or else stands under it.
    fn basis(
        &self,
        root: &Root,
        staging: &Staging,
        path: &RelPath,
        blocks: &[Block],
    ) -> Result<Option<Basis>> {
        if let Some(aside) = staging.aside(path) {
            return Ok(Basis::new(aside.into(), blocks, false).map(Basis::elsewhere));
        }
        let is_ours = !self.before(root)?.had_other_than_directory(path)
            && root.open_at(path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).is_ok();
        Ok(root.file(path).ok().and_then(|fd| Basis::new(fd, blocks, is_ours)))
    }

    pub(super) fn sync(&self, paths: &[RelPath]) -> Result<()> {
        let root = self.root()?;
        let staging = Staging::open(&root)?;
        for path in paths {
            let Some(mut assembly) = self.assemblies().remove(path) else { continue };
            let synced = sync_one(&staging, path, &mut assembly);
            self.assemblies().insert(path.clone(), assembly);
            synced.map_err(|trouble| self.trouble(&root, path, "cannot be made durable", trouble))?;
        }
        // The names of the staged files too.
        staging.sync().map_err(root.failed(&RelPath::root(), "the staging area cannot be made durable"))
    }

    pub(super) fn reread(&self, file: &IndexEntry, blocks: &[Block]) -> Result<bool> {
        let root = self.root()?;
        let path = &file.source.path;
        let fd = match root.file(path) {
            Ok(fd) => fd,
            Err(errno) if is_gone(errno) => return Ok(false),
            Err(errno) => return Err(root.failed(path, "cannot be read")(errno)),
        };
        let regular = rustix::fs::fstat(&fd).map(|stat| meta::is_regular(&stat));
        let right = regular.and_then(|regular| Ok(regular && read_again(File::from(fd), file, blocks)?));
        right.map_err(root.failed(path, "cannot be read"))
    }
}

/// The same file with the same contents: the time of its last change of state may differ.
pub(super) fn is_same(a: Stamp, b: Stamp) -> bool {
    (a.size, a.mtime, a.inode) == (b.size, b.mtime, b.inode)
}

/// Where an assembly puts what it stages.
struct Place<'a> {
    staging: &'a Staging,
    path: &'a RelPath,
}

impl Stage for Place<'_> {
    fn whole(&self) -> Result<File, Errno> {
        self.staging.create(self.path)
    }

    fn patch(&self) -> Result<File, Errno> {
        self.staging.create_patch(self.path)
    }
}

/// Makes what is staged durable. What is not staged as a whole is remembered.
pub fn sync_one(staging: &Staging, path: &RelPath, assembly: &mut Assembly) -> Result<(), Trouble> {
    assembly.sync()?;
    match assembly.counted() {
        Some(counted) => Ok(staging.remember_counted(path, &counted)?),
        None => Ok(staging.forget_counted(path)?),
    }
}

/// Whether an open file has the contents that the journal says.
fn read_again(opened: File, file: &IndexEntry, blocks: &[Block]) -> Result<bool, Errno> {
    if !blocks.is_empty() {
        return consists_of(&opened, blocks);
    }
    let size = file.landed.size.max(file.source.stamp.size);
    let mut contents = Vec::with_capacity(usize::try_from(size + 1).unwrap_or(0));
    // A file that has grown is not the same, however large it is by now.
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, size + 1), &mut contents)
        .map_err(|e| errno(&e))?;
    Ok(Digest::of(&contents) == file.digest)
}
