//! Access lists of files (acl(5)), in the kernel's form: a version, then entries of a tag, what is allowed, and for whom.

use std::fs::File;
use std::io::Result;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

const NAME: &str = "system.posix_acl_access";
/// What the kernel takes at most for an attribute.
const LARGEST: usize = 64 * 1024;
const HEAD: usize = 4;
const ENTRY: usize = 8;
/// The tag of what is for everybody.
const OTHER: [u8; 2] = 0x20u16.to_le_bytes();

/// A file's list; none where it has none, or its file system knows of none.
pub fn of(file: &File) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; LARGEST];
    match fgetxattr(file, NAME, &mut bytes) {
        Ok(length) => {
            bytes.truncate(length);
            Ok(Some(bytes))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives it to a file, and with it the mode that it stands for.
pub fn give(file: &File, list: &[u8]) -> Result<()> {
    Ok(fsetxattr(file, NAME, list, XattrFlags::empty())?)
}

/// Takes it away from a file. Idempotent.
pub fn take(file: &File) -> Result<()> {
    match fremovexattr(file, NAME) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same, with nothing for everybody.
pub fn not_for_all(mut list: Vec<u8>) -> Vec<u8> {
    for entry in list.get_mut(HEAD..).unwrap_or_default().chunks_exact_mut(ENTRY) {
        if entry[..2] == OTHER {
            entry[2..4].fill(0);
        }
    }
    list
}
