//! Making a backup: every dataset by its engine's tool, read again, and only then named.

use std::path::Path;

use handover_engine::backup::{Backup, FORMAT, Kept, Occasion};
use handover_engine::failure::Failure;
use handover_engine::name::{BackupId, MigrationId};
use handover_engine::ports::Result;
use handover_engine::time::Timestamp;

use crate::contents::{Contents, Dataset};
use crate::shelf::Directory;
use crate::work::Work;
use crate::{archive, mariadb, postgres, room, sqlite, tree};

/// What is to be made.
pub struct Wanted<'a> {
    /// Its name.
    pub id: &'a BackupId,
    /// What it is made before.
    pub occasion: Occasion,
    /// For which migration.
    pub migration: Option<&'a MigrationId>,
    /// When it is begun.
    pub now: Timestamp,
    /// The host's name.
    pub host: String,
}

/// Makes a backup of these datasets. Whatever goes wrong, nothing is left of it.
pub async fn make(
    directory: &Directory,
    datasets: &[&Dataset],
    wanted: Wanted<'_>,
    work: &Work,
) -> Result<Backup> {
    let made = fill(directory, datasets, &wanted, work).await;
    if made.is_err() {
        directory.give_up(wanted.id);
    }
    made
}

async fn fill(
    directory: &Directory,
    datasets: &[&Dataset],
    wanted: &Wanted<'_>,
    work: &Work,
) -> Result<Backup> {
    let mut needed: u64 = 0;
    for dataset in datasets {
        needed = needed.saturating_add(size(dataset, work).await?.unwrap_or(0));
    }
    let item = format!("backup {}", wanted.id);
    room::check(&item, directory.path(), needed)?;
    let place = directory.begin(wanted.id)?;
    let mut backup = Backup {
        format: FORMAT,
        id: wanted.id.clone(),
        made_at: wanted.now,
        occasion: wanted.occasion,
        migration: wanted.migration.cloned(),
        host: wanted.host.clone(),
        datasets: Vec::new(),
        absent: Vec::new(),
    };
    for dataset in datasets {
        match one(dataset, &place, work).await? {
            Some(kept) => {
                verify(&kept, &place, work).await?;
                backup.datasets.push(kept);
            }
            None => backup.absent.push(dataset.name.clone()),
        }
    }
    if backup.datasets.is_empty() && wanted.migration.is_none() {
        return Err(Failure::operator(item, "there is nothing on this host that could be backed up")
            .hint("`handover inspect` shows what both hosts have"));
    }
    directory.finish(&backup)?;
    Ok(backup)
}

/// Bytes that the dataset needs, about; none where it is not there.
async fn size(dataset: &Dataset, work: &Work) -> Result<Option<u64>> {
    match &dataset.contents {
        Contents::Sqlite(path) => Ok(sqlite::size(path)),
        Contents::Mariadb(server) => mariadb::size(dataset, server, work).await,
        Contents::Postgres(server) => postgres::size(dataset, server, work).await,
        Contents::Tree(tree) => tree::size(tree).await,
    }
}

async fn one(dataset: &Dataset, place: &Path, work: &Work) -> Result<Option<Kept>> {
    match &dataset.contents {
        Contents::Sqlite(path) => sqlite::make(dataset, path, place, work).await,
        Contents::Mariadb(server) => mariadb::make(dataset, server, place, work).await,
        Contents::Postgres(server) => postgres::make(dataset, server, place, work).await,
        Contents::Tree(tree) => tree::make(dataset, tree, place, work).await,
    }
}

/// Reads a dataset's file again: it is what was written, and its tool can read it.
pub async fn verify(kept: &Kept, place: &Path, work: &Work) -> Result<()> {
    let (item, file) = (format!("dataset {}", kept.dataset), place.join(&kept.file));
    let (bytes, digest) = archive::digest(file.clone(), work).await?;
    if (bytes, digest) != (kept.bytes, kept.digest) {
        let what = format!(
            "{} is not what was written: {bytes} bytes with digest {}, where {} with {} were",
            file.display(),
            digest.short(),
            kept.bytes,
            kept.digest.short()
        );
        return Err(
            Failure::operator(item, what).hint("do not use it: make another backup, or restore an older one")
        );
    }
    match kept.engine.as_str() {
        "sqlite" => sqlite::test(&item, &file, work).await,
        "mariadb" => mariadb::test(&item, &file, work).await,
        "postgres" => postgres::test(&item, &file, work).await,
        "files" => tree::test(&item, kept, &file, work).await,
        other => Err(Failure::operator(item, format!("this release knows no engine `{other}`"))),
    }
}
