//! Finds the programs under test beside the running executable, and builds them when they are missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Which build of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The profile the running executable was built with.
    Same,
    /// `--release`.
    Release,
}

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `handover`.
    pub cli: PathBuf,
    /// `handover-source`.
    pub source: PathBuf,
    /// `handover-target`.
    pub target: PathBuf,
}

impl Binaries {
    /// The programs of a profile; builds them when one is missing. (A build that is there is taken as it is:
    /// `cargo xtask test` builds before it tests.)
    pub fn find(profile: Profile) -> Result<Self> {
        if let Some(given) = Self::given() {
            return given;
        }
        let dir = profile_dir(profile)?;
        Self::within(&dir).or_else(|_| Self::build(profile))
    }

    /// The programs in the directory that the environment's `HANDOVER_BIN_DIR` names, if it names one.
    fn given() -> Option<Result<Self>> {
        std::env::var_os("HANDOVER_BIN_DIR").map(|dir| Self::within(Path::new(&dir)))
    }

    /// Builds the programs of a profile, whatever is there.
    pub fn build(profile: Profile) -> Result<Self> {
        if let Some(given) = Self::given() {
            return given;
        }
        let dir = profile_dir(profile)?;
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(workspace_root());
        cargo.args([
            "build",
            "-p",
            "handover-cli",
            "-p",
            "handover-agent-source",
            "-p",
            "handover-agent-target",
        ]);
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.env("CARGO_TARGET_DIR", target_dir()?);
        let status = cargo.status().context("cargo does not run")?;
        ensure!(status.success(), "the programs under test do not build: `{cargo:?}` says why");
        Self::within(&dir)
    }

    fn within(dir: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = dir.join(name);
            ensure!(
                path.is_file(),
                "{} is missing: run `cargo build --workspace --bins` first",
                path.display()
            );
            Ok(path)
        };
        Ok(Self {
            cli: find("handover")?,
            source: find("handover-source")?,
            target: find("handover-target")?,
        })
    }
}

/// The root of the workspace.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in its workspace")
}

/// Cargo's target directory, found from where the running executable lies.
pub fn target_dir() -> Result<PathBuf> {
    Ok(own_profile_dir()?.parent().context("an executable outside of a target directory")?.to_owned())
}

fn profile_dir(profile: Profile) -> Result<PathBuf> {
    match profile {
        Profile::Same => own_profile_dir(),
        Profile::Release => Ok(target_dir()?.join("release")),
    }
}

/// `target/debug` for both `target/debug/xtask` and `target/debug/deps/e2e-…`.
pub(crate) fn own_profile_dir() -> Result<PathBuf> {
    let executable = std::env::current_exe().context("where the running executable lies")?;
    let dir = executable.parent().context("an executable without a directory")?;
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_target_directory() {
        assert!(target_dir().unwrap().join("CACHEDIR.TAG").is_file());
        assert!(workspace_root().join("Cargo.lock").is_file());
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Binaries::within(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/handover is missing"), "{error}");
    }
}
