//! A directory under `target/` that a command works in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use handover_tests::locate::target_dir;

/// A directory that is empty at first and gone at the end.
pub struct Workplace(PathBuf);

impl Workplace {
    /// `target/<name>`, emptied of what an earlier run may have left.
    pub fn fresh(name: &str) -> Result<Self> {
        let dir = target_dir()?.join(name);
        remove(&dir)?;
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Removes a directory with all it holds; one that is not there is no error.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_at_first_and_gone_at_the_end() {
        let left = target_dir().unwrap().join("workplace-test");
        fs::create_dir_all(left.join("old")).unwrap();
        let place = Workplace::fresh("workplace-test").unwrap();
        assert_eq!((place.path(), left.join("old").exists()), (left.as_path(), false));
        drop(place);
        assert!(!left.exists());
    }
}
