//! Files on disk: there as a whole or not at all, with their owner, mode and extended attributes.

use std::fs::{File, Permissions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, FlockOperation, OFlags, XattrFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::section::LARGEST;

/// A file with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub bytes: Vec<u8>,
    /// User and group.
    pub owner: (u32, u32),
    pub mode: u32,
    /// Extended attributes, by name; access lists are among them.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// What is asked before each change of the disk.
type Step = Arc<dyn Fn(&'static str) -> Result<()> + Send + Sync>;

/// The disk. Each change of it is a step; tests end the world at one.
#[derive(Clone, Default)]
pub struct Disk {
    step: Option<Step>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// A disk on which every step is asked for.
    #[cfg(test)]
    pub fn stepping(step: Step) -> Self {
        Self { step: Some(step) }
    }

    fn step(&self, what: &'static str) -> Result<()> {
        self.step.as_ref().map_or(Ok(()), |step| step(what))
    }

    /// Puts it there, in place of what may be there. Durable when it returns.
    pub fn write(&self, place: &Path, held: &Held) -> Result<()> {
        let partial = partial(place);
        self.remove(&partial)?;
        self.step("make")?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
        self.step("write")?;
        file.write_all(&held.bytes)?;
        if owner(&file)? != held.owner {
            fchown(&file, Some(held.owner.0), Some(held.owner.1))?;
        }
        file.set_permissions(Permissions::from_mode(held.mode))?;
        set_attributes(&file, &held.attributes)?;
        self.step("sync")?;
        file.sync_all()?;
        self.step("rename")?;
        std::fs::rename(&partial, place)?;
        self.step("sync the directory")?;
        sync_directory(place)
    }

    /// Takes it away. Durable when it returns. Idempotent.
    pub fn remove(&self, place: &Path) -> Result<()> {
        if !place.try_exists()? && std::fs::symlink_metadata(place).is_err() {
            return Ok(());
        }
        self.step("remove")?;
        match std::fs::remove_file(place) {
            Ok(()) => sync_directory(place),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes away what a cut left beside a place.
    pub fn tidy(&self, place: &Path) -> Result<()> {
        self.remove(&partial(place))
    }

    /// Writes a record of ours. Durable when it returns.
    pub fn record<T: Serialize>(&self, place: &Path, record: &T) -> Result<()> {
        let directory = directory(place);
        self.step("make the directory")?;
        make_directory(directory)?;
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let bytes = serde_json::to_vec(record)?;
        self.write(place, &Held { bytes, owner, mode: 0o600, attributes: Vec::new() })
    }
}

fn owner(file: &File) -> Result<(u32, u32)> {
    let meta = file.metadata()?;
    Ok((meta.uid(), meta.gid()))
}

/// Makes a directory, for its owner alone. Durable when it returns.
pub fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_directory(above)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(path),
    }
}

/// A record of ours; none when there is none.
pub fn read_record<T: DeserializeOwned>(place: &Path) -> Result<Option<T>> {
    match std::fs::read(place) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The lock of a file, until dropped. Waits for whoever has it. Blocks the thread.
pub fn lock(place: &Path) -> Result<File> {
    make_directory(directory(place))?;
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(place)?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            other => return other.map(|()| file).map_err(Error::from),
        }
    }
}

/// The directory that something lies in.
pub fn directory(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"))
}

fn sync_directory(place: &Path) -> Result<()> {
    File::open(directory(place))?.sync_all()
}

fn partial(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    directory(place).join(format!(".{name}.handover"))
}

/// Where a file really is: behind the links that its name may be.
pub fn resolve(file: &Path) -> Result<PathBuf> {
    let mut place = file.to_owned();
    for _ in 0..40 {
        match std::fs::read_link(&place) {
            Ok(to) => place = directory(&place).join(to),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                return Ok(place);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::LOOP.into())
}

/// Whether files can be put there and taken away.
pub fn may_write(place: &Path) -> Result<()> {
    Ok(rustix::fs::access(directory(place), Access::WRITE_OK | Access::EXEC_OK)?)
}

/// What lies there; none when there is nothing.
pub fn read(place: &Path) -> Result<Option<Held>> {
    let flags = OFlags::NONBLOCK.bits().cast_signed(); // A pipe must not be waited for.
    let mut file = match File::options().read(true).custom_flags(flags).open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    (&mut file).take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST {
        return Err(Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    let (owner, mode) = ((meta.uid(), meta.gid()), meta.mode() & 0o7777);
    Ok(Some(Held { bytes, owner, mode, attributes: attributes(&file)? }))
}

fn attributes(file: &File) -> Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut out = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let mut value = vec![0_u8; 64 * 1024];
        match rustix::fs::fgetxattr(file, name, &mut value[..]) {
            Ok(length) => out.push((name.to_owned(), value[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(out)
}

fn set_attributes(file: &File, attributes: &[(String, Vec<u8>)]) -> Result<()> {
    for (name, value) in attributes {
        match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            Ok(()) => {}
            // A label that the kernel gives to new files by itself, and that only it may give.
            Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS) if name.starts_with("security.") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A directory for tests, in memory where that can be: they make much durable.
#[cfg(test)]
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
