//! The tree that every host is an overlay of: made once by mmdebstrap, named after what it is made from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::root;
use crate::bed::Output;

const SUITE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libpam-systemd,mariadb-server,openssl,iproute2,iputils-ping,\
                        procps,ca-certificates";
/// Where the machine says where its packages come from; the first that exists counts.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/// The base tree; makes it if this recipe's is not there.
pub fn tree() -> Result<PathBuf> {
    let sources = SOURCES.iter().map(Path::new).find(|path| path.is_file()).context("no sources for apt")?;
    let recipe = format!("{SUITE}\n{PACKAGES}\n{}", fs::read_to_string(sources)?);
    let digest = blake3::hash(recipe.as_bytes()).to_hex();
    let tree = root()?.join(format!("base-{}", &digest[..16]));
    if tree.is_dir() {
        return Ok(tree);
    }
    fs::create_dir_all(root()?)?;
    // Whoever comes second waits for the first.
    let lock = fs::File::create(root()?.join("base.lock"))?;
    lock.lock().context("waiting for the base tree")?;
    if tree.is_dir() {
        return Ok(tree);
    }
    // Built beside its place: a tree that was begun and not finished is never taken for one.
    let partial = tempfile::Builder::new().prefix("base-partial-").tempdir_in(root()?)?;
    let inside = partial.path().join("tree");
    eprintln!("making the lab's base tree {} (once)", tree.display());
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase"]).arg(format!("--include={PACKAGES}"));
    Output::of(make.arg(SUITE).arg(&inside).arg(sources))?.success()?;
    fs::rename(&inside, &tree).map(|()| tree).context("putting the base tree in place")
}
