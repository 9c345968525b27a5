//! The Debian packages, put together by `dpkg-deb` from `packaging/` and the programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bed::Output;
use crate::locate::{Binaries, workspace_root};

/// Packages that were made.
#[derive(Debug)]
pub struct Packages {
    /// `handover-agent-source`.
    pub source: PathBuf,
    /// `handover-agent-target`.
    pub target: PathBuf,
    /// `handover`, the command line.
    pub cli: PathBuf,
}

impl Packages {
    /// All of them.
    pub fn all(&self) -> [&Path; 3] {
        [&self.source, &self.target, &self.cli]
    }
}

/// Packs these programs into `out`.
pub fn build(binaries: &Binaries, out: &Path) -> Result<Packages> {
    fs::create_dir_all(out)?;
    Ok(Packages {
        source: pack("source", &binaries.source, out)?,
        target: pack("target", &binaries.target, out)?,
        cli: pack("cli", &binaries.cli, out)?,
    })
}

fn pack(part: &str, program: &Path, out: &Path) -> Result<PathBuf> {
    let from = workspace_root().join("packaging").join(part);
    let tree = tempfile::Builder::new().prefix(part).tempdir_in(out)?;
    let root = tree.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    let name = program.file_name().map(PathBuf::from).unwrap_or_default();
    place(program, &root.join("usr/bin").join(name), 0o755)?;
    for entry in fs::read_dir(&from)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "control" => {}
            "conffiles" => place(&path, &root.join("DEBIAN/conffiles"), 0o644)?,
            _ if name.ends_with(".toml") => place(&path, &root.join("etc/handover").join(name), 0o640)?,
            _ if name.ends_with(".service") || name.ends_with(".path") => {
                place(&path, &root.join("lib/systemd/system").join(name), 0o644)?;
            }
            _ => place(&path, &root.join("DEBIAN").join(name), 0o755)?,
        }
    }
    let architecture = Output::of(Command::new("dpkg").arg("--print-architecture"))?.success()?.stdout;
    let control = fs::read_to_string(from.join("control"))?;
    let control = control.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(root.join("DEBIAN"))?;
    fs::write(root.join("DEBIAN/control"), control.replace("@ARCHITECTURE@", architecture.trim()))?;
    let package = out.join(format!("handover-{part}_{}.deb", env!("CARGO_PKG_VERSION")));
    // Programs with their debugging information are large, and the fastest compression is enough for them.
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]).arg(root).arg(&package);
    Output::of(&mut build)?.success()?;
    Ok(package)
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}
