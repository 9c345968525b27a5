//! The target's side of a tree.

mod land;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::{Answers, Result, TreeOp, TreeTarget};
use handover_engine::tree::{Block, Entry, IndexEntry, PackChunk, PackedFile, RelPath, Segment, Stamp};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, unlinkat};
use rustix::io::Errno;

use super::assemble::{Assembly, consists_of};
use super::filter::Filter;
use super::reader::blocking;
use super::root::{Parents, Root};
use super::scan::{self, Walk, names};
use super::undo::{self, Before};
use super::{STAGING, meta};

/// A tree to be made equal to the source's.
#[derive(Clone)]
pub struct Target {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: DatasetName,
    path: PathBuf,
    filter: Arc<Filter>,
    migration: MigrationId,
    before: OnceLock<Before>,
    assemblies: Mutex<HashMap<RelPath, Assembly>>,
}

/// Name of a file in the staging area.
fn staged_name(path: &RelPath) -> String {
    format!("s-{}", &Digest::of(path.as_bytes()).to_string()[..32])
}

impl Target {
    pub(super) fn new(dataset: DatasetName, path: PathBuf, filter: Filter, migration: MigrationId) -> Self {
        let (filter, before, assemblies) = (Arc::new(filter), OnceLock::new(), Mutex::default());
        Self { shared: Arc::new(Shared { dataset, path, filter, migration, before, assemblies }) }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(&self.shared.dataset, move || work(&shared)).await
    }
}

impl Shared {
    fn root(&self) -> Result<Root> {
        Root::open(&self.dataset, &self.path)
    }

    fn assemblies(&self) -> MutexGuard<'_, HashMap<RelPath, Assembly>> {
        self.assemblies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn before(&self, root: &Root) -> Result<&Before> {
        if let Some(before) = self.before.get() {
            return Ok(before);
        }
        let before = Before::read(root, self.migration.as_str(), |_| Ok(()))?.ok_or_else(|| {
            Failure::permanent(self.dataset.to_string(), "the tree was not prepared for this migration")
        })?;
        Ok(self.before.get_or_init(|| before))
    }

    /// Makes the root (with its parents) if it is not there; true when it was made.
    fn make_root(&self) -> Result<bool> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = std::fs::create_dir_all(&self.path);
                made.map(|()| true).map_err(|error| {
                    Failure::operator(
                        format!("{}, {}", self.dataset, self.path.display()),
                        "the root cannot be made",
                    )
                    .because(error)
                    .hint("make it, or correct `root` in appliance.toml")
                })
            }
            Err(_) => Ok(false),
        }
    }

    fn prepare(&self) -> Result<()> {
        let made_root = self.make_root()?;
        let root = self.root()?;
        let staging =
            RelPath::new(STAGING).map_err(|e| Failure::permanent(STAGING, "is no name").because(e))?;
        let failed = root.failed(&staging, "the staging area cannot be made");
        let mtime = rustix::fs::fstat(root.fd()).map(|stat| meta::stamp(&stat).mtime).map_err(&failed)?;
        match mkdirat(root.fd(), STAGING, Mode::from_raw_mode(0o700)) {
            Err(errno) if errno != Errno::EXIST => return Err(failed(errno)),
            made => {
                if made.is_ok() {
                    // The list below must show the root as it was.
                    meta::set_time(root.fd(), c".", mtime).map_err(&failed)?;
                }
            }
        }
        let area = undo::area(&root)?;
        for name in ["staging", "undo"] {
            match mkdirat(&area, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Before::record(&root, &self.filter, self.migration.as_str(), made_root)?;
        self.before(&root).map(drop)
    }

    fn staging(&self, root: &Root) -> Result<std::os::fd::OwnedFd> {
        let path = RelPath::new(format!("{STAGING}/staging"))
            .map_err(|e| Failure::permanent(STAGING, "").because(e))?;
        root.directory(&path).map_err(root.failed(&path, "the staging area cannot be opened"))
    }

    fn stage(&self, pack: &PackChunk) -> Result<()> {
        let root = self.root()?;
        let staging = self.staging(&root)?;
        let contents = pack
            .contents()
            .ok_or_else(|| Failure::permanent(self.dataset.to_string(), "a pack's lengths do not add up"))?;
        for (file, bytes) in contents {
            let PackedFile::Contents { entry, .. } = file else { continue };
            let write = || -> Result<(), Errno> {
                let name = staged_name(&entry.path);
                let file = create(&staging, &name)?;
                file.write_all_at(&bytes, 0).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
                let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
                meta::settle(std::os::fd::AsFd::as_fd(&staging), &name, entry)
            };
            write().map_err(root.failed(&entry.path, "cannot be written"))?;
        }
        Ok(())
    }

    fn write(&self, segment: &Segment, blocks: &[Block]) -> Result<Vec<Block>> {
        let root = self.root()?;
        let path = &segment.entry.path;
        let staging = self.staging(&root)?;
        let name = staged_name(path);
        let held = self.assemblies().remove(path);
        let mut assembly = match held {
            Some(assembly) if segment.offset > 0 && assembly.end() == segment.offset => assembly,
            _ => self.assembly(&root, &staging, segment, blocks)?,
        };
        let failure = |trouble: super::assemble::Trouble| {
            trouble.into_failure(root.failed(path, "cannot be written"), format!("{}, {path}", self.dataset))
        };
        let made = assembly.take(segment, blocks, || create(&staging, &name)).map_err(failure)?;
        if segment.end.is_some() {
            assembly.trim().map_err(failure)?;
        }
        self.assemblies().insert(path.clone(), assembly);
        Ok(made)
    }

    /// Begins a large file, or takes up one that an earlier run of the agent has begun.
    fn assembly(
        &self,
        root: &Root,
        staging: &std::os::fd::OwnedFd,
        segment: &Segment,
        blocks: &[Block],
    ) -> Result<Assembly> {
        let path = &segment.entry.path;
        let basis = if blocks.is_empty() { None } else { root.file(path).ok() };
        let name = staged_name(path);
        if segment.offset == 0 {
            // What an earlier attempt has left would be taken for what was identical so far.
            match unlinkat(staging, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(root.failed(path, "what is staged of it cannot be removed")(errno)),
            }
            return Ok(Assembly::new(basis, blocks));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(staging, &name, flags, Mode::empty()).map(File::from);
        match opened {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.len() >= segment.offset) => {
                Ok(Assembly::resumed(basis, blocks, file, segment.offset))
            }
            _ => Err(Failure::transient(
                format!("{}, {path}", self.dataset),
                "the part of it that the journal holds is gone from the staging area",
            )
            .hint("it is copied from the start")),
        }
    }

    fn sync(&self, paths: &[RelPath]) -> Result<()> {
        let root = self.root()?;
        let staging = self.staging(&root)?;
        for path in paths {
            let Some(mut assembly) = self.assemblies().remove(path) else { continue };
            let name = staged_name(path);
            let synced = assembly.sync(|| create(&staging, &name));
            self.assemblies().insert(path.clone(), assembly);
            synced.map_err(|trouble| {
                trouble.into_failure(
                    root.failed(path, "cannot be made durable"),
                    format!("{}, {path}", self.dataset),
                )
            })?;
        }
        // The names of the staged files too.
        rustix::fs::fsync(&staging)
            .map_err(root.failed(&RelPath::root(), "the staging area cannot be made durable"))
    }

    fn reread(&self, file: &IndexEntry, blocks: &[Block]) -> Result<bool> {
        let root = self.root()?;
        let path = &file.source.path;
        let fd = match root.file(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(root.failed(path, "cannot be read")(errno)),
        };
        read_again(&mut File::from(fd), file, blocks)
            .map_err(|e| root.failed(path, "cannot be read")(Errno::from_io_error(&e).unwrap_or(Errno::IO)))
    }

    fn discard_staged(&self, keep: &[RelPath]) -> Result<()> {
        self.assemblies().clear();
        let root = self.root()?;
        let staging = self.staging(&root)?;
        let keep: Vec<String> = keep.iter().map(staged_name).collect();
        let failed = |errno| root.failed(&RelPath::root(), "the staging area cannot be cleared")(errno);
        for name in names(&staging).map_err(failed)? {
            if !keep.iter().any(|keep| keep.as_bytes() == name.as_bytes()) {
                unlinkat(&staging, &name, AtFlags::empty()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn undo(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let root = self.root()?;
        let Some(before) = undo::restore(&root, &self.filter, self.migration.as_str())? else {
            return Ok(());
        };
        rustix::fs::syncfs(root.fd()).map_err(root.failed(&RelPath::root(), "cannot be made durable"))?;
        self.clear(&root)?;
        if before.made_root {
            // Not when something has been put into it meanwhile that is not ours.
            let _ = std::fs::remove_dir(&self.path);
        }
        Ok(())
    }

    /// Removes the staging area; the list of what stood here goes last but one, so that an interrupted undo finds it.
    fn clear(&self, root: &Root) -> Result<()> {
        self.assemblies().clear();
        let here = RelPath::root();
        let failed = root.failed(&here, "the staging area cannot be removed");
        let mtime = rustix::fs::fstat(root.fd()).map(|stat| meta::stamp(&stat).mtime).map_err(&failed)?;
        let all = Filter::default();
        for below in ["staging", "undo", "before.new", "before"] {
            let path = RelPath::new(format!("{STAGING}/{below}"));
            let path = path.map_err(|e| Failure::permanent(STAGING, "is no name").because(e))?;
            undo::remove(root, &all, None, &path).map_err(&failed)?;
        }
        match unlinkat(root.fd(), STAGING, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        meta::set_time(root.fd(), c".", mtime).map_err(&failed)
    }
}

/// Whether an open file has the contents that the journal says.
fn read_again(opened: &mut File, file: &IndexEntry, blocks: &[Block]) -> std::io::Result<bool> {
    if !blocks.is_empty() {
        return consists_of(opened, blocks);
    }
    let mut contents = Vec::new();
    std::io::Read::read_to_end(opened, &mut contents)?;
    Ok(Digest::of(&contents) == file.digest)
}

/// Makes an empty file in the staging area.
fn create(staging: &std::os::fd::OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(staging, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

#[async_trait]
impl TreeTarget for Target {
    async fn prepare(&self) -> Result<()> {
        self.run(Shared::prepare).await
    }

    async fn is_prepared(&self) -> Result<bool> {
        self.run(|shared| {
            if !shared.path.exists() {
                return Ok(false);
            }
            Ok(Before::read(&shared.root()?, shared.migration.as_str(), |_| Ok(()))?.is_some())
        })
        .await
    }

    async fn occupied(&self) -> Result<bool> {
        self.run(|shared| {
            if !shared.path.exists() {
                return Ok(false);
            }
            let root = shared.root()?;
            let mut walk = Walk::new(&root, &shared.filter);
            walk.next()?;
            Ok(walk.next()?.is_some())
        })
        .await
    }

    fn scan(&self) -> Answers<Vec<Entry>> {
        let shared = self.shared.clone();
        scan::stream(move || shared.root().map(Some), self.shared.filter.clone())
    }

    async fn stage(&self, pack: PackChunk) -> Result<()> {
        self.run(move |shared| shared.stage(&pack)).await
    }

    async fn write(&self, segment: Segment, basis: &[Block]) -> Result<Vec<Block>> {
        let basis = basis.to_vec();
        self.run(move |shared| shared.write(&segment, &basis)).await
    }

    async fn sync(&self, paths: &[RelPath]) -> Result<()> {
        let paths = paths.to_vec();
        self.run(move |shared| shared.sync(&paths)).await
    }

    async fn land(&self, files: &[Entry]) -> Result<Vec<Stamp>> {
        let files = files.to_vec();
        self.run(move |shared| shared.land(&files)).await
    }

    async fn change(&self, ops: &[TreeOp]) -> Result<()> {
        let ops = ops.to_vec();
        self.run(move |shared| shared.change(&ops)).await
    }

    async fn reread(&self, file: &IndexEntry, blocks: &[Block]) -> Result<bool> {
        let (file, blocks) = (file.clone(), blocks.to_vec());
        self.run(move |shared| shared.reread(&file, &blocks)).await
    }

    async fn discard_staged(&self, keep: &[RelPath]) -> Result<()> {
        let keep = keep.to_vec();
        self.run(move |shared| shared.discard_staged(&keep)).await
    }

    async fn undo(&self) -> Result<()> {
        self.run(Shared::undo).await
    }

    async fn forget(&self) -> Result<()> {
        self.run(|shared| if shared.path.exists() { shared.clear(&shared.root()?) } else { Ok(()) }).await
    }
}

/// Parents of paths in this tree; used by the parts of this module.
fn parents(root: &Root) -> Parents<'_> {
    Parents::new(root)
}
