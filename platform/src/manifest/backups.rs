//! `[backups]`: what this host backs up by itself, and where.

use std::path::PathBuf;

use handover_engine::backup::Occasion;
use serde::Deserialize;

/// `[backups]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupsSection {
    /// The directory that they lie in, absolute; `backups` in the state directory where nothing is said.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// What this host is backed up before.
    #[serde(default)]
    pub before: Vec<Occasion>,
    /// How many are kept; all of them where nothing is said.
    #[serde(default)]
    pub keep: Option<usize>,
}

impl BackupsSection {
    /// What makes no sense, as [`super::Manifest`] tells it.
    pub(super) fn check(&self, roots: &[PathBuf]) -> Result<(), (&'static str, String)> {
        if let Some(directory) = &self.directory {
            if !directory.is_absolute() {
                return Err(("directory", "write an absolute path".to_owned()));
            }
            if let Some(root) = roots.iter().find(|root| directory.starts_with(root)) {
                return Err((
                    "directory",
                    format!("it lies in a tree that is backed up itself, {}", root.display()),
                ));
            }
        }
        if self.before.contains(&Occasion::Manual) {
            return Err(("before", "write \"start\", \"accept\", or both".to_owned()));
        }
        if (1..self.before.len()).any(|at| self.before[..at].contains(&self.before[at])) {
            return Err(("before", "name each once".to_owned()));
        }
        match self.keep {
            Some(0) => Err(("keep", "write 1 or more, or leave it out to keep all".to_owned())),
            _ => Ok(()),
        }
    }
}
