//! Putting back what is in a backup: each dataset by its engine, beside its place first.
//!
//! Each is noted before it is begun. One that fails, or is cut short, is settled by its note: what is in place by then is ended, and what is not is
//! taken back. There is no other way out of a restore.

#[cfg(test)]
mod cuts;

use std::path::PathBuf;

use handover_engine::backup::{Backup, Kept, Restored};
use handover_engine::failure::Failure;
use handover_engine::name::{BackupId, DatasetName};
use handover_engine::ports::Result;

use crate::contents::{Contents, Dataset};
use crate::make;
use crate::note::{Begun, Note, Notes, Pen};
use crate::shelf::Directory;
use crate::work::Work;
use crate::{mariadb, postgres, sqlite, tree};

/// What is put back.
pub struct Restoring<'a> {
    /// The backup.
    pub id: &'a BackupId,
    /// The dataset in it.
    pub kept: &'a Kept,
    /// Its file.
    pub file: PathBuf,
    /// Where what cannot stay at its place is kept.
    pub aside: PathBuf,
    /// Notes how far it is.
    pub pen: Pen<'a>,
}

/// Where what stood there is now; none where nothing did.
pub type Before = Option<String>;

/// What has become of a restore that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// What was in the backup is in place, all of it.
    Ended(Before),
    /// What stood there is in place, as if nothing had been begun.
    TakenBack,
}

/// Puts back one dataset of a backup, or all of them. Each is verified before anything is changed.
pub async fn restore(
    directory: &Directory,
    datasets: &[Dataset],
    backup: &Backup,
    only: Option<&DatasetName>,
    work: &Work,
) -> Result<Vec<Restored>> {
    let wanted: Vec<&Kept> =
        backup.datasets.iter().filter(|kept| only.is_none_or(|only| kept.dataset == *only)).collect();
    if wanted.is_empty() {
        let name = only.map_or_else(String::new, ToString::to_string);
        return Err(Failure::operator(
            format!("backup {}", backup.id),
            format!("there is no dataset {name} in it"),
        )
        .hint("`handover backups` names those that there are"));
    }
    let mut chosen = Vec::new();
    for kept in wanted {
        chosen.push((kept, place(datasets, &kept.dataset, &kept.engine)?));
        make::verify(kept, &directory.place(&backup.id), work).await?;
    }
    let (aside, notes) = (directory.kept()?, directory.notes());
    let mut out = Vec::new();
    for (kept, dataset) in chosen {
        let file = directory.place(&backup.id).join(&kept.file);
        let pen = Pen { notes: &notes, dataset: &kept.dataset, backup: &backup.id };
        let at = Restoring { id: &backup.id, kept, file, aside: aside.clone(), pen };
        let before = one(dataset, &at, &notes, work).await.map_err(|failure| after(&out, failure))?;
        tracing::info!(backup = %backup.id, dataset = %dataset.name, ?before, "a dataset is restored");
        out.push(Restored { dataset: dataset.name.clone(), before });
    }
    Ok(out)
}

async fn one(dataset: &Dataset, at: &Restoring<'_>, notes: &Notes, work: &Work) -> Result<Before> {
    match begin(dataset, at, work).await {
        Ok(before) => notes.remove(&dataset.name).map(|()| before),
        Err(mut failure) => {
            let Some(note) = notes.of(&dataset.name)? else { return Err(failure) };
            match settle(dataset, &note, notes, work).await {
                Ok(Settled::Ended(before)) => Ok(before),
                Ok(Settled::TakenBack) => Err(failure),
                // The same once more is told once.
                Err(unsettled) if unsettled.what == failure.what => Err(failure),
                Err(unsettled) => {
                    failure.what += &format!(
                        "; nor can what was begun be ended or taken back now, which the agent tries again by itself: {}",
                        unsettled.what
                    );
                    Err(failure)
                }
            }
        }
    }
}

/// Whatever this ends with but success is to be settled.
async fn begin(dataset: &Dataset, at: &Restoring<'_>, work: &Work) -> Result<Before> {
    match &dataset.contents {
        Contents::Sqlite(path) => sqlite::restore::restore(dataset, path, at, work).await,
        Contents::Mariadb(server) => mariadb::restore::restore(dataset, server, at, work).await,
        Contents::Postgres(server) => postgres::restore::restore(dataset, server, at, work).await,
        Contents::Tree(tree) => tree::restore::restore(dataset, tree, at, work).await,
    }
}

/// Ends or takes back what was begun. Idempotent, and may be cut short itself.
async fn settle(dataset: &Dataset, note: &Note, notes: &Notes, work: &Work) -> Result<Settled> {
    let item = dataset.item();
    let pen = Pen { notes, dataset: &note.dataset, backup: &note.backup };
    let settled = match (&dataset.contents, &note.begun) {
        (Contents::Sqlite(_), Begun::Sqlite(begun)) => sqlite::restore::settle(&item, begun, work).await?,
        (Contents::Mariadb(server), Begun::Mariadb(begun)) => {
            mariadb::restore::settle(&item, server, begun, &pen, work).await?
        }
        (Contents::Postgres(server), Begun::Postgres(begun)) => {
            postgres::restore::settle(&item, server, begun, work).await?
        }
        (Contents::Tree(_), Begun::Files(begun)) => tree::restore::settle(&item, begun, work).await?,
        _ => {
            let what =
                format!("a restore of backup {} was cut short when it was of another engine", note.backup);
            return Err(Failure::operator(item, what)
                .hint("put its section back into appliance.toml as it was, and restart the agent"));
        }
    };
    notes.remove(&note.dataset)?;
    Ok(settled)
}

/// Settles what earlier restores have left of these datasets: each that can be, and the first failure of those that cannot.
pub async fn settle_all(datasets: &[&Dataset], notes: &Notes, work: &Work) -> Result<()> {
    let mut all = Ok(());
    for note in notes.all()? {
        let Some(dataset) = datasets.iter().find(|dataset| dataset.name == note.dataset) else { continue };
        let (backup, name) = (&note.backup, &note.dataset);
        match settle(dataset, &note, notes, work).await {
            Ok(Settled::Ended(before)) => {
                tracing::info!(%backup, dataset = %name, ?before, "a restore that was cut short is ended");
            }
            Ok(Settled::TakenBack) => {
                tracing::warn!(%backup, dataset = %name, "a restore that was cut short is taken back: give it again");
            }
            Err(mut failure) => {
                failure.what = format!(
                    "the restore of backup {backup} that was cut short cannot be settled: {}",
                    failure.what
                );
                all = all.and(Err(failure));
            }
        }
    }
    all
}

/// A failure must not hide what was put back before it.
fn after(done: &[Restored], mut failure: Failure) -> Failure {
    if let Some(last) = done.last() {
        let names: Vec<&str> = done.iter().map(|one| one.dataset.as_str()).collect();
        let before = last.before.as_deref().unwrap_or("nothing");
        failure.what += &format!("; put back before that: {} (there stood {before})", names.join(", "));
    }
    failure
}

/// Where the manifest says that it belongs.
fn place<'a>(datasets: &'a [Dataset], name: &DatasetName, engine: &str) -> Result<&'a Dataset> {
    let item = format!("dataset {name}");
    let Some(dataset) = datasets.iter().find(|dataset| dataset.name == *name) else {
        return Err(Failure::operator(item, "this host's manifest does not name it")
            .hint("put its section back into appliance.toml and restart the agent"));
    };
    if dataset.contents.engine() == engine {
        return Ok(dataset);
    }
    let what = format!("it is {engine} in the backup and {} in the manifest", dataset.contents.engine());
    Err(Failure::operator(item, what).hint("restore it where it was, or by hand"))
}
