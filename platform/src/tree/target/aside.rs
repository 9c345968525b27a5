//! What was set aside: a second name, out of sight, for a file that another is made of.

use std::fs::File;
use std::os::unix::fs::FileExt;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::ports::tree::no_help;
use handover_engine::tree::{PACK_BYTES, RelPath, Stamp};
use rustix::fs::{AtFlags, linkat, statat};
use rustix::io::Errno;

use super::super::meta;
use super::super::pack::is_gone;
use super::super::root::{Parents, Root};
use super::Shared;
use super::contents::is_same;
use super::staging::Staging;

impl Shared {
    pub(super) fn set_aside(&self, from: &RelPath, landed: Stamp, to: &RelPath) -> Result<bool> {
        let root = self.root()?;
        let staging = Staging::open(&root)?;
        let link = || -> Result<bool, Errno> {
            let mut parents = Parents::new(&root);
            let (parent, name) = parents.of(from)?;
            let stat = statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if !meta::is_regular(&stat) || !is_same(meta::stamp(&stat), landed) {
                return Ok(false);
            }
            let aside = staging.fresh_aside(to)?;
            linkat(parent, &name, &staging, &aside, AtFlags::empty())?;
            // It may have been replaced between the two.
            let kept = statat(&staging, &aside, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(is_same(meta::stamp(&kept), landed))
        };
        match link() {
            Ok(is_kept) => Ok(is_kept),
            Err(errno) if is_gone(errno) => Ok(false),
            // No hard links here.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => Ok(false),
            Err(errno) => Err(root.failed(from, "cannot be set aside")(errno)),
        }
    }

    /// The contents of a file that begins with the first `from` bytes of what is here and ends in `tail`.
    pub(super) fn continued(
        &self,
        root: &Root,
        staging: &Staging,
        path: &RelPath,
        (from, tail): (u64, &[u8]),
        digest: &Digest,
    ) -> Result<Vec<u8>> {
        let item = format!("{}, {path}", self.dataset);
        if from > 2 * PACK_BYTES {
            return Err(Failure::permanent(item, "the source says more of it is held than a small file has"));
        }
        let held = staging.aside(path).map(Ok).unwrap_or_else(|| root.file(path).map(File::from));
        let held = match held {
            Ok(held) => held,
            Err(errno) if is_gone(errno) => return Err(no_help(item)),
            Err(errno) => return Err(root.failed(path, "cannot be read")(errno)),
        };
        let mut contents = vec![0; usize::try_from(from).unwrap_or(0)];
        if held.read_exact_at(&mut contents, 0).is_err() {
            return Err(no_help(item));
        }
        contents.extend_from_slice(tail);
        if Digest::of(&contents) == *digest { Ok(contents) } else { Err(no_help(item)) }
    }
}
