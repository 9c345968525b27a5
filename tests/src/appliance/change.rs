//! What happens to an appliance between two passes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rusqlite::Connection;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use walkdir::WalkDir;

use super::Appliance;
use super::content::seeded;

/// What was changed, so that a pass can be asked to send nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Tables; a name that ends in `*` stands for all that begin like it.
    pub tables: BTreeSet<String>,
    /// Files, relative to the tree's root: rewritten, new or gone.
    pub files: BTreeSet<String>,
}

impl Changed {
    /// True when the table was changed.
    pub fn has_table(&self, name: &str) -> bool {
        self.tables.iter().any(|t| t.strip_suffix('*').map_or(t == name, |start| name.starts_with(start)))
    }

    /// Adds what changed at another time.
    pub fn join(&mut self, other: Changed) {
        self.tables.extend(other.tables);
        self.files.extend(other.files);
    }
}

/// Changes some rows and some files.
pub fn change(appliance: &Appliance, seed: u64) -> Result<Changed> {
    let mut rng = seeded(seed, "change");
    let mut changed = Changed::default();
    change_rows(appliance, &mut rng, &mut changed)?;
    change_files(appliance, &mut rng, &mut changed)?;
    Ok(changed)
}

fn change_rows(appliance: &Appliance, rng: &mut StdRng, changed: &mut Changed) -> Result<()> {
    let db = Connection::open(&appliance.database)?;
    let n = rng.random_range(3..50);
    db.execute_batch(&format!(
        "BEGIN;
         UPDATE invoice SET cents = cents + {n} WHERE id % 997 = {n};
         DELETE FROM invoice_line WHERE invoice_id % 499 = {n};
         INSERT INTO invoice_line SELECT -invoice_id - 1, {n}, article, 1.5 FROM invoice_line
           WHERE invoice_id % 503 = {n} AND invoice_id > 0 AND position = 1
           ON CONFLICT DO NOTHING;
         UPDATE word SET key = key || '{n}' WHERE key IN (SELECT key FROM word ORDER BY key LIMIT 5 OFFSET {n});
         DELETE FROM event WHERE rowid % 101 = {n};
         INSERT INTO event SELECT at + 1, 'late', message || {n} FROM event WHERE at % 89 = {n};
         COMMIT;"
    ))?;
    changed.tables.extend(["invoice", "invoice_line", "word", "event", "sqlite_*"].map(str::to_owned));
    Ok(())
}

fn change_files(appliance: &Appliance, rng: &mut StdRng, changed: &mut Changed) -> Result<()> {
    let root = &appliance.files;
    let mut files = Vec::new();
    for entry in WalkDir::new(root.join("data")).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            files.push(entry.path().strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    for (n, path) in files.iter().choose_multiple(rng, 12).into_iter().enumerate() {
        let at = root.join(path);
        match n % 4 {
            0 => fs::write(&at, format!("rewritten {}", rng.random::<u64>()))?,
            1 => fs::OpenOptions::new().write(true).open(&at)?.write_all_at(b"in its middle", 100)?,
            2 => fs::remove_file(&at)?,
            _ => {
                let new = format!("{path}.renamed{:04x}", rng.random::<u16>());
                fs::rename(&at, root.join(&new))?;
                changed.files.insert(new);
            }
        }
        if n % 4 < 2 {
            settle_time(&at, rng)?;
        }
        changed.files.insert(path.clone());
    }
    Ok(())
}

/// The same time in every appliance that is changed so.
fn settle_time(path: &std::path::Path, rng: &mut StdRng) -> Result<()> {
    let time = Timespec {
        tv_sec: rng.random_range(1_750_000_000..1_760_000_000),
        tv_nsec: rng.random_range(0..1_000_000_000),
    };
    utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::empty())?;
    Ok(())
}
