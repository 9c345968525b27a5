//! Appliances to move: an SQLite database and a file tree, the same for the same seed.

mod change;
mod content;
mod rows;
mod schema;
mod tree;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use change::Changed;
pub use content::{Content, seeded};
pub use rows::{Cell, wide_table};
pub use tree::TreeSpec;

/// What to make.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The same seed makes the same appliance.
    pub seed: u64,
    /// Rows of the database, over all its tables (a few more come from triggers).
    pub rows: u64,
    /// Whether the database is in write-ahead mode, as applications have it.
    pub wal: bool,
    /// The file tree.
    pub tree: TreeSpec,
}

impl Spec {
    /// Small, with everything odd in it: for a test.
    pub fn small(seed: u64) -> Self {
        let tree = TreeSpec { files: 120, bytes: 4 << 20, large: 9 << 20, oddities: true };
        Self { seed, rows: 6_000, wal: seed.is_multiple_of(2), tree }
    }
}

/// An appliance on disk.
#[derive(Debug, Clone)]
pub struct Appliance {
    /// The database file.
    pub database: PathBuf,
    /// The root of the file tree.
    pub files: PathBuf,
}

impl Appliance {
    /// The places an appliance has under `dir`; nothing is made.
    pub fn at(dir: &Path) -> Self {
        Self { database: dir.join("app.db"), files: dir.join("files") }
    }

    /// Makes an appliance under `dir`.
    pub fn make(dir: &Path, spec: &Spec) -> Result<Self> {
        let made = Self::at(dir);
        std::fs::create_dir_all(&made.files).with_context(|| format!("making {}", made.files.display()))?;
        rows::make(&made.database, spec).with_context(|| format!("making {}", made.database.display()))?;
        tree::make(&made.files, spec.seed, &spec.tree)
            .with_context(|| format!("making {}", made.files.display()))?;
        Ok(made)
    }

    /// Changes some rows and some files, and says which.
    pub fn change(&self, seed: u64) -> Result<Changed> {
        change::change(self, seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare;

    #[test]
    fn the_same_seed_makes_the_same_appliance() {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec::small(7);
        let [a, b] = ["a", "b"].map(|name| Appliance::make(&dir.path().join(name), &spec).unwrap());
        let mut found = compare::databases(&a.database, &b.database).unwrap();
        found.join(compare::trees(&a.files, &b.files).unwrap());
        assert_eq!(found.named, Vec::<String>::new());
        assert!(found.tables >= 12 && found.rows >= 6_000 && found.files >= 120, "{found:?}");
    }

    #[test]
    fn a_change_is_seen_and_repeats() {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec::small(8);
        let [a, b] = ["a", "b"].map(|name| Appliance::make(&dir.path().join(name), &spec).unwrap());
        let changed = a.change(1).unwrap();
        let rows = compare::databases(&a.database, &b.database).unwrap();
        let files = compare::trees(&a.files, &b.files).unwrap();
        assert!(rows.found > 10 && files.found > 5, "{rows:?} {files:?}");
        for path in changed.files.iter().filter(|path| b.files.join(path).exists()) {
            assert!(files.named.iter().any(|d| d.contains(path.as_str())), "{path} is missing in {files:?}");
        }
        assert_eq!(b.change(1).unwrap(), changed);
        assert_eq!(compare::databases(&a.database, &b.database).unwrap().found, 0);
    }
}
