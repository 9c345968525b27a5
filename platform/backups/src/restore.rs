//! Putting back what is in a backup: each dataset by its engine, beside its place first.

use std::path::{Path, PathBuf};

use handover_engine::backup::{Backup, Kept, Restored};
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::{BackupId, DatasetName};
use handover_engine::ports::Result;

use crate::contents::{Contents, Dataset};
use crate::make;
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
        chosen.push((kept, place(datasets, kept)?));
        make::verify(kept, &directory.place(&backup.id), work).await?;
    }
    let mut out = Vec::new();
    for (kept, dataset) in chosen {
        let file = directory.place(&backup.id).join(&kept.file);
        let at = Restoring { id: &backup.id, kept, file, aside: directory.kept()? };
        let restored = match &dataset.contents {
            Contents::Sqlite(path) => sqlite::restore(dataset, path, &at, work).await,
            Contents::Mariadb(server) => mariadb::restore::restore(dataset, server, &at, work).await,
            Contents::Postgres(server) => postgres::restore::restore(dataset, server, &at, work).await,
            Contents::Tree(tree) => tree::restore(dataset, tree, &at, work).await,
        }
        .map_err(|failure| after(&out, failure))?;
        tracing::info!(backup = %backup.id, dataset = %dataset.name, before = ?restored.before, "a dataset is restored");
        out.push(restored);
    }
    Ok(out)
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
fn place<'a>(datasets: &'a [Dataset], kept: &Kept) -> Result<&'a Dataset> {
    let item = format!("dataset {}", kept.dataset);
    let Some(dataset) = datasets.iter().find(|dataset| dataset.name == kept.dataset) else {
        return Err(Failure::operator(item, "this host's manifest does not name it")
            .hint("put its section back into appliance.toml and restart the agent"));
    };
    if dataset.contents.engine() == kept.engine {
        return Ok(dataset);
    }
    let what =
        format!("it is {} in the backup and {} in the manifest", kept.engine, dataset.contents.engine());
    Err(Failure::operator(item, what).hint("restore it where it was, or by hand"))
}

/// This path, or the next one like it that nothing stands at.
pub fn free_path(path: &Path) -> PathBuf {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    let all = std::iter::once(path.to_owned()).chain((2..).map(numbered));
    all.into_iter().find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| path.to_owned())
}

/// The name of a database beside another, within so many bytes: `shop__before_1a2b3c4d`.
pub fn beside(database: &str, what: &str, longest: usize) -> String {
    let end = format!("__{what}");
    if database.len() + end.len() <= longest {
        return format!("{database}{end}");
    }
    let mark = Digest::of(database.as_bytes()).short();
    let mut cut = longest - end.len() - mark.len() - 1;
    while !database.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}_{mark}{end}", &database[..cut])
}

/// The first of `shop__before_…`, `shop__before_…_2` and so on that is not among those that there are.
pub fn free_name(database: &str, id: &BackupId, longest: usize, taken: &[String]) -> String {
    let mark = Digest::of(id.as_str().as_bytes()).short()[..8].to_owned();
    let numbered = |n: u32| match n {
        1 => beside(database, &format!("before_{mark}"), longest),
        n => beside(database, &format!("before_{mark}_{n}"), longest),
    };
    (1..=u32::MAX).map(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_names_of_their_own_that_fit() {
        let id: BackupId = "b-1".parse().unwrap();
        let first = free_name("shop", &id, 63, &[]);
        assert!(first.starts_with("shop__before_"), "{first}");
        let second = free_name("shop", &id, 63, std::slice::from_ref(&first));
        assert_eq!(second, format!("{first}_2"));
        let (one, other) = ("é".repeat(31), format!("{}e", "é".repeat(30)));
        let long = [&one, &other].map(|name| beside(name, "handover_restore", 63));
        assert!(long.iter().all(|name| name.len() <= 63) && long[0] != long[1], "{long:?}");
    }
}
