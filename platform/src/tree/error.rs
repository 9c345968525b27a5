//! What the kernel refuses, in the operator's terms.

use handover_engine::failure::{Class, Failure};
use handover_engine::name::DatasetName;
use handover_engine::tree::RelPath;
use rustix::io::Errno;

/// A failure of a system call on `path` in a tree.
pub fn failed(dataset: &DatasetName, path: &RelPath, what: &str, errno: Errno) -> Failure {
    let (class, hint) = match errno {
        Errno::NOSPC | Errno::DQUOT => (Class::NeedsOperator, "free space on the file system, then resume"),
        Errno::ROFS => {
            (Class::NeedsOperator, "the file system is mounted read-only: remount it, then resume")
        }
        Errno::PERM | Errno::ACCESS => {
            (Class::NeedsOperator, "give the agent's user the right, or run it as root")
        }
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN | Errno::STALE => {
            (Class::Transient, "it is tried again")
        }
        Errno::IO => (Class::NeedsOperator, "the disk reports an error: see the kernel's log"),
        Errno::XDEV | Errno::LOOP => (
            Class::NeedsOperator,
            "a symbolic link or mount point stands where a directory belongs: remove it, then resume",
        ),
        Errno::OPNOTSUPP => {
            (Class::NeedsOperator, "the file system cannot hold this attribute: use one like the source's")
        }
        _ => (Class::NeedsOperator, ""),
    };
    Failure::new(class, format!("{dataset}, {path}"), what).because(std::io::Error::from(errno)).hint(hint)
}
