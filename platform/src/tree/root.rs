//! Access below a root, and nowhere else.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::tree::RelPath;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::error::failed;

/// A tree's root.
#[derive(Debug)]
pub struct Root {
    pub dataset: DatasetName,
    fd: OwnedFd,
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The kernel does not know openat2(2) (Linux before 5.6, or a sandbox that hides it).
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens `path` below `start`, never over a symbolic link and never into another file system.
pub fn open_below(start: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    while !NO_OPENAT2.load(Ordering::Relaxed) {
        match openat2(start, path, flags, mode, BENEATH) {
            // Something was renamed meanwhile: openat2(2) asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => NO_OPENAT2.store(true, Ordering::Relaxed),
            other => return other,
        }
    }
    open_step_by_step(start, path, flags, mode)
}

/// What `openat2` does, with one call for each component.
fn open_step_by_step(
    start: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let (parents, name) = match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    let device = rustix::fs::fstat(start)?.st_dev;
    let mut directory: Option<OwnedFd> = None;
    for parent in parents.split(|&b| b == b'/').filter(|parent| !parent.is_empty()) {
        let from = directory.as_ref().map_or(start, AsFd::as_fd);
        directory = Some(openat(from, parent, step, Mode::empty())?);
    }
    let from = directory.as_ref().map_or(start, AsFd::as_fd);
    let opened = openat(from, name, flags, mode)?;
    if rustix::fs::fstat(&opened)?.st_dev == device { Ok(opened) } else { Err(Errno::XDEV) }
}

/// Flags of a directory that is read or used as a starting point.
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl Root {
    /// Opens the root. It may itself be reached over symbolic links: the manifest names it.
    pub fn open(dataset: &DatasetName, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
            let hint = if errno == Errno::NOENT {
                "make the directory, or correct `root` in appliance.toml"
            } else {
                ""
            };
            Failure::operator(format!("{dataset}, {}", path.display()), "the tree's root cannot be opened")
                .because(std::io::Error::from(errno))
                .hint(hint)
        })?;
        Ok(Self { dataset: dataset.clone(), fd })
    }

    /// The root's descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens something below the root; a symbolic link or mount point on the way is refused.
    pub fn open_at(&self, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        open_below(self.fd(), if path.is_root() { b"." } else { path.as_bytes() }, flags, mode)
    }

    /// Opens a directory below the root.
    pub fn directory(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        self.open_at(path, DIRECTORY, Mode::empty())
    }

    /// Opens a regular file for reading, leaving its access time alone where that is allowed. Never blocks on a pipe.
    pub fn file(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match self.open_at(path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => self.open_at(path, flags, Mode::empty()),
            other => other,
        }
    }

    /// Makes all of the root's file system durable.
    pub fn sync_all(&self) -> Result<()> {
        rustix::fs::syncfs(&self.fd).map_err(self.failed(&RelPath::root(), "cannot be made durable"))
    }

    /// The failure of a call on `path`.
    pub fn failed<'a>(&'a self, path: &'a RelPath, what: &'a str) -> impl Fn(Errno) -> Failure + 'a {
        move |errno| failed(&self.dataset, path, what, errno)
    }
}

/// Finds parents: keeps the last one open, since neighbours come one after the other.
pub struct Parents<'a> {
    root: &'a Root,
    last: Option<(RelPath, OwnedFd)>,
}

impl<'a> Parents<'a> {
    pub fn new(root: &'a Root) -> Self {
        Self { root, last: None }
    }

    /// The parent's descriptor and the name in it. For the root itself: the root and `.`.
    pub fn of(&mut self, path: &RelPath) -> Result<(BorrowedFd<'_>, CString), Errno> {
        let Some((parent, name)) = path.split() else { return Ok((self.root.fd(), c".".to_owned())) };
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        if self.last.as_ref().is_none_or(|(of, _)| *of != parent) {
            let fd = self.root.directory(&parent)?;
            self.last = Some((parent, fd));
        }
        self.last.as_ref().map(|(_, fd)| (fd.as_fd(), name)).ok_or(Errno::NOENT)
    }

    /// Forgets the open parent: a directory has been removed or replaced.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_openat2_nothing_leads_out_either() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/c"), "c").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a/out")).unwrap();
        let start = std::fs::File::open(dir.path()).unwrap();
        for (path, expected) in [
            ("a/b/c", None),
            (".", None),
            ("out/passwd", Some(Errno::NOTDIR)),
            ("a/out", Some(Errno::LOOP)),
            ("a/none", Some(Errno::NOENT)),
        ] {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let opened = open_step_by_step(start.as_fd(), path.as_bytes(), flags, Mode::empty());
            assert_eq!(opened.err(), expected, "{path}");
            let opened = open_below(start.as_fd(), path.as_bytes(), OFlags::RDONLY, Mode::empty());
            assert_eq!(opened.is_err(), expected.is_some(), "{path}");
        }
    }
}
