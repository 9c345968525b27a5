//! One thing in a tree: what it is and what `stat` and the extended attributes say of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RelPath;
use crate::time::Timestamp;

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lies.
    pub path: RelPath,
    /// What it is.
    pub kind: EntryKind,
    /// What must arrive besides contents.
    pub meta: Meta,
    /// Tells whether it was changed; never restored.
    pub stamp: Stamp,
}

/// What a thing in a tree is. Sockets are not among them: they belong to a process and are left out of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file (of several hard links: the first in tree order).
    File {
        /// Bytes.
        size: u64,
        /// It takes up fewer blocks than its size needs.
        sparse: bool,
        /// It has other names too; those inside the tree come later as `HardLink`.
        linked: bool,
    },
    /// Another name of a regular file that came earlier in tree order.
    HardLink {
        /// The first name.
        to: RelPath,
    },
    /// A directory.
    Directory,
    /// A symbolic link; its target is carried as it stands and never followed.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device {
        /// A block device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What must arrive besides contents. POSIX ACLs and file capabilities are extended attributes
/// (`system.posix_acl_access`, `security.capability`: xattr(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits, set-id and sticky bits: `st_mode & 07777`. Symbolic links have none of their own.
    pub mode: u32,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Time of last modification.
    pub mtime: Timestamp,
    /// Extended attributes, by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Tells whether a file was changed, cheaply: equal stamps, equal contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Time of last modification.
    pub mtime: Timestamp,
    /// Time of last change of the inode.
    pub ctime: Timestamp,
}

impl Meta {
    /// Bytes of the extended attributes: what makes an entry large.
    pub fn xattr_bytes(&self) -> u64 {
        self.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
    }
}

impl Entry {
    /// Bytes of a regular file; `None` for all else.
    pub fn size(&self) -> Option<u64> {
        match self.kind {
            EntryKind::File { size, .. } => Some(size),
            _ => None,
        }
    }

    /// True for a regular file whose contents travel alone, cut by content.
    pub fn is_large(&self) -> bool {
        matches!(self.kind, EntryKind::File { size, sparse, .. } if sparse || size >= super::LARGE_FILE)
    }

    /// True when `other` is the same kind of thing with the same properties (contents aside).
    pub fn is_like(&self, other: &Entry) -> bool {
        let same_kind = match (&self.kind, &other.kind) {
            (EntryKind::File { size: a, .. }, EntryKind::File { size: b, .. }) => a == b,
            (a, b) => a == b,
        };
        same_kind && self.meta == other.meta
    }
}
