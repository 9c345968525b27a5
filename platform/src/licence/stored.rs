//! Documents on disk: there as a whole, or not at all.

use std::fs::{File, Metadata, Permissions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use handover_engine::licence::{Document, LARGEST};
use rustix::fs::{Access, OFlags};

/// The mode of a file that comes from another host.
const MODE: u32 = 0o640;

/// A document, and whose file it is.
pub struct Stored {
    pub document: Document,
    /// User and group.
    pub owner: (u32, u32),
    pub mode: u32,
}

impl Stored {
    /// One that is to lie at `place`: it belongs to whom the directory belongs.
    pub fn beside(place: &Path, document: Document) -> Result<Self> {
        let meta = std::fs::metadata(directory(place))?;
        Ok(Self { document, owner: (meta.uid(), meta.gid()), mode: MODE })
    }
}

/// Makes a directory. Durable when it returns.
pub fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)?;
    File::open(directory(path))?.sync_all()
}

/// Whether files can be put there and taken away.
pub fn may_write(place: &Path) -> Result<()> {
    Ok(rustix::fs::access(directory(place), Access::WRITE_OK | Access::EXEC_OK)?)
}

fn directory(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"))
}

/// What lies there; none when there is nothing.
pub fn read(place: &Path) -> Result<Option<Stored>> {
    // A pipe must not be waited for, and what a link leads to is not ours to take away.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match File::options().read(true).custom_flags(flags.cast_signed()).open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta: Metadata = file.metadata()?;
    if !meta.is_file() {
        return Err(Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST {
        return Err(Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    let (owner, mode) = ((meta.uid(), meta.gid()), meta.mode() & 0o7777);
    Ok(Some(Stored { document: Document(bytes.into()), owner, mode }))
}

/// Puts it there, in place of what may be there. Durable when it returns.
pub fn write(place: &Path, stored: &Stored) -> Result<()> {
    let partial = partial(place);
    remove(&partial)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(&stored.document.0)?;
    fchown(&file, Some(stored.owner.0), Some(stored.owner.1))?;
    file.set_permissions(Permissions::from_mode(stored.mode))?;
    file.sync_all()?;
    std::fs::rename(&partial, place)?;
    File::open(directory(place))?.sync_all()
}

fn partial(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    directory(place).join(format!(".{name}.handover"))
}

/// Takes it away. Durable when it returns. Idempotent.
pub fn remove(place: &Path) -> Result<()> {
    match std::fs::remove_file(place) {
        Ok(()) => File::open(directory(place))?.sync_all(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
