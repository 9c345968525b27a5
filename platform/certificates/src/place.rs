//! Files in their places: there as a whole, or not at all, and never open to more than they are meant for.

mod list;

use std::fs::{File, Permissions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags};
use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::material::LARGEST;

/// A key that nobody had before.
pub const KEY_MODE: u32 = 0o600;
/// A chain that nobody had before.
pub const CHAIN_MODE: u32 = 0o644;
/// What a file with a key in it may allow: nothing to everybody, whatever the one before it did.
const NOT_FOR_ALL: u32 = 0o770;
/// Links that lead to links are followed so far.
const LINKS: usize = 8;

/// A file's contents, whose it is, and who may use it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub contents: Vec<u8>,
    /// User and group.
    pub owner: (u32, u32),
    pub mode: u32,
    /// Its access list, as the kernel keeps it (acl(5)): who else may use it. None where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<u8>>,
}

impl Stored {
    /// New contents for a place where `before` lies: owner, mode and access list stay. A key is not for everybody, even if the one
    /// before it was.
    pub fn in_place_of(before: Option<&Stored>, contents: Vec<u8>, is_key: bool) -> Self {
        let own = (geteuid().as_raw(), getegid().as_raw());
        let fresh = if is_key { KEY_MODE } else { CHAIN_MODE };
        let (owner, mode) = before.map_or((own, fresh), |before| (before.owner, before.mode));
        let list = before.and_then(|before| before.list.clone());
        if is_key {
            return Self { contents, owner, mode: mode & NOT_FOR_ALL, list: list.map(list::not_for_all) };
        }
        Self { contents, owner, mode, list }
    }

    /// Whether others than its owner and its group may read it.
    pub fn is_for_all(&self) -> bool {
        self.mode & 0o004 != 0
    }
}

/// Where a path leads: links are followed, and stay as they are. certbot's `live/` must stay links into its `archive/`.
///
/// A link that somebody else has put there than root, the agent's user, or the owner of what it leads to, is not followed: whoever may
/// write to a directory must not choose what the agent replaces.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let mut place = path.to_owned();
    let mut owners = Vec::new();
    for _ in 0..=LINKS {
        let found = match place.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound && owners.is_empty() => return Ok(place),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::other(format!("{} is a link that leads nowhere", path.display())));
            }
            Err(error) => return Err(error),
        };
        if !found.is_symlink() {
            let trusted = [0, geteuid().as_raw(), found.uid()];
            if owners.iter().all(|owner| trusted.contains(owner)) {
                return Ok(place);
            }
            return Err(Error::other(format!("{} is a link of somebody else's", path.display())));
        }
        owners.push(found.uid());
        place = directory(&place).join(place.read_link()?);
    }
    Err(Error::other(format!("{} is a link to too many links", path.display())))
}

/// What lies there; none when there is nothing. Links must have been followed.
pub fn read(place: &Path) -> Result<Option<Stored>> {
    // A pipe must not be waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match File::options().read(true).custom_flags(flags.cast_signed()).open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(place, error)),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Error::other(format!("{} is no regular file", place.display())));
    }
    let list = list::of(&file)?;
    let mut contents = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut contents)?;
    if contents.len() > LARGEST {
        return Err(Error::other(format!("{} is larger than {LARGEST} bytes", place.display())));
    }
    Ok(Some(Stored { contents, owner: (meta.uid(), meta.gid()), mode: meta.mode() & 0o7777, list }))
}

fn named(place: &Path, error: Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", place.display()))
}

/// Writes it beside its place, durably, with its owner and its mode. Nobody else can have opened it by then: it is made for its
/// writer alone. When that fails, nothing is left of it.
pub fn stage(place: &Path, stored: &Stored) -> Result<()> {
    let partial = partial(place);
    unstage(place)?;
    let filled = fill(&partial, stored);
    if filled.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    filled.map_err(|error| named(place, error))
}

fn fill(partial: &Path, stored: &Stored) -> Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(partial)?;
    file.write_all(&stored.contents)?;
    fchown(&file, Some(stored.owner.0), Some(stored.owner.1))?;
    // What the directory hands on to new files is not for this one: the mode would make it count.
    list::take(&file)?;
    file.set_permissions(Permissions::from_mode(stored.mode))?;
    if let Some(list) = &stored.list {
        list::give(&file, list)?;
    }
    file.sync_all()
}

/// Puts in place what is staged.
pub fn land(place: &Path) -> Result<()> {
    std::fs::rename(partial(place), place).map_err(|error| named(place, error))
}

/// Takes away what may be staged.
pub fn unstage(place: &Path) -> Result<()> {
    match std::fs::remove_file(partial(place)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(named(place, error)),
        _ => Ok(()),
    }
}

/// Takes away what lies there. Idempotent.
pub fn remove(place: &Path) -> Result<()> {
    match std::fs::remove_file(place) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(named(place, error)),
        _ => Ok(()),
    }
}

/// Makes durable what was put in place, or taken away.
pub fn settle(place: &Path) -> Result<()> {
    File::open(directory(place))?.sync_all()
}

/// Whether files can be put there.
pub fn may_write(place: &Path) -> Result<()> {
    let directory = directory(place);
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| named(directory, error.into()))
}

/// Makes a directory, and those above it, for the agent alone. Durable when it returns.
pub fn make_directory(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    settle(path)
}

pub fn directory(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"))
}

fn partial(place: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(place.file_name().unwrap_or_default());
    name.push(".handover");
    directory(place).join(name)
}

#[cfg(test)]
mod tests;
