//! Access below a root, and nowhere else.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::tree::RelPath;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::error::failed;

/// A tree's root.
#[derive(Debug)]
pub struct Root {
    pub dataset: DatasetName,
    fd: OwnedFd,
}

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Flags of a directory that is read or used as a starting point.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

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

    /// Opens something below the root; a symbolic link anywhere on the way is refused.
    pub fn open_at(&self, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let place = if path.is_root() { b"." } else { path.as_bytes() };
        loop {
            match openat2(&self.fd, place, flags | OFlags::CLOEXEC, mode, BENEATH) {
                // Something was renamed meanwhile: openat2(2) asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Opens a directory below the root.
    pub fn directory(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        self.open_at(path, DIRECTORY, Mode::empty())
    }

    /// Opens a regular file for reading, leaving its access time alone where that is allowed. Never blocks on a pipe.
    pub fn file(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match self.open_at(path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => self.open_at(path, flags, Mode::empty()),
            other => other,
        }
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
