//! What this agent lacks on its host for a dataset: privileges, and space of its own. Each finding says what to do.
//!
//! Nothing is written to find out: a preflight leaves no trace.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use handover_engine::check::{Finding, Severity};
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use rustix::fs::{Access, AtFlags, CWD};

use crate::database::Place;

/// Where the SQLite file format says how a database is read: 2 is WAL
/// (<https://www.sqlite.org/fileformat2.html>, "File format version numbers").
const READ_VERSION: usize = 19;

/// What stands in the way of reading a database; `scratch` is where private copies are made.
pub async fn of_reading(place: &Place, name: &DatasetName, scratch: &Path) -> Vec<Finding> {
    let found = match place {
        Place::Sqlite(path) => Ok(room_for_copy(path, scratch, &item(name)).into_iter().collect()),
        Place::Mariadb(settings) => {
            handover_mariadb::source_privileges(name, settings).await.map(|found| mariadb(name, found))
        }
        Place::Postgres(settings) => {
            handover_postgres::privileges(name, settings, handover_postgres::Side::Source).await
        }
    };
    or_unknown(name, found)
}

/// What stands in the way of following a database while it is in use. Of MariaDB's, `of_reading` tells as a warning.
pub async fn of_following(place: &Place, name: &DatasetName) -> Vec<Finding> {
    match place {
        // Its log is made beside it.
        Place::Sqlite(path) => [path, path.parent().unwrap_or(path)]
            .iter()
            .find_map(|place| writable(place, &item(name)))
            .into_iter()
            .collect(),
        Place::Mariadb(_) => Vec::new(),
        Place::Postgres(settings) => {
            or_unknown(name, handover_postgres::following_privileges(name, settings).await)
        }
    }
}

/// Which host a database is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that is replaced.
    Source,
    /// The one that takes over.
    Target,
}

/// What keeps the source from following the target once that has taken over.
pub async fn of_returning(place: &Place, name: &DatasetName, side: Side) -> Vec<Finding> {
    let is_target = side == Side::Target;
    let found = match place {
        // Whoever may follow it may write to it.
        Place::Sqlite(_) => Ok(Vec::new()),
        Place::Mariadb(settings) => handover_mariadb::returning_privileges(name, settings, is_target)
            .await
            .map(|found| mariadb(name, found)),
        Place::Postgres(settings) => handover_postgres::returning_privileges(name, settings, is_target).await,
    };
    or_unknown(name, found)
}

/// What stands in the way of making a database.
pub async fn of_making(place: &Place, name: &DatasetName) -> Vec<Finding> {
    let found = match place {
        Place::Sqlite(path) => Ok(writable(path.parent().unwrap_or(path), &item(name)).into_iter().collect()),
        Place::Mariadb(settings) => {
            handover_mariadb::target_privileges(name, settings).await.map(|found| mariadb(name, found))
        }
        Place::Postgres(settings) => {
            handover_postgres::privileges(name, settings, handover_postgres::Side::Target).await
        }
    };
    or_unknown(name, found)
}

/// What a target's server has, of all that databases may need of it; none where it cannot be asked, which `of_making` tells.
pub async fn offers(place: &Place, name: &DatasetName) -> Option<BTreeSet<String>> {
    match place {
        // The library is the agent's own, so both sides have the same.
        Place::Sqlite(_) => None,
        Place::Mariadb(settings) => handover_mariadb::offers(name, settings).await.ok(),
        Place::Postgres(settings) => handover_postgres::offers(name, settings).await.ok(),
    }
}

/// What stands in the way of reading a tree.
pub fn of_reading_files(name: &DatasetName) -> Vec<Finding> {
    let what = "it does not run as root: a file that its user may not read fails the copy";
    as_root(name, what).into_iter().collect()
}

/// What keeps an abort from bringing files home to a tree at the source. It matters only once something was written at the target.
pub fn of_returning_files(root: &Path, name: &DatasetName) -> Vec<Finding> {
    let found = writable(root, &item(name)).map(|finding| {
        let what = format!("an abort could not bring home what was written at the target: {}", finding.what);
        let hint = "let the source's agent write there (`systemctl edit handover-source`, ReadWritePaths=), or plan with --one-way";
        Finding::new(Severity::Warning, finding.item, what, hint)
    });
    found.into_iter().collect()
}

/// What stands in the way of making a tree at `root`.
pub fn of_making_files(root: &Path, name: &DatasetName) -> Vec<Finding> {
    let what = "it does not run as root: files cannot be given their owners, devices cannot be made";
    writable(root, &item(name)).into_iter().chain(as_root(name, what)).collect()
}

/// For a dataset that could not be looked at: what is missing may be why, but that nothing can be asked of it is told already.
pub fn keep_errors(findings: &mut Vec<Finding>) {
    findings.retain(|finding| finding.severity == Severity::Error);
}

fn item(name: &DatasetName) -> String {
    format!("dataset {name}")
}

fn or_unknown(name: &DatasetName, found: Result<Vec<Finding>>) -> Vec<Finding> {
    found.unwrap_or_else(|failure| {
        let what = format!("its privileges cannot be looked at: {}", failure.what);
        vec![Finding::new(Severity::Warning, item(name), what, failure.hint)]
    })
}

fn mariadb(name: &DatasetName, found: Vec<handover_mariadb::Finding>) -> Vec<Finding> {
    let finding = |found: handover_mariadb::Finding| {
        let severity = if found.required { Severity::Error } else { Severity::Warning };
        Finding::new(severity, item(name), found.what, found.fix)
    };
    found.into_iter().map(finding).collect()
}

fn as_root(name: &DatasetName, what: &str) -> Option<Finding> {
    let hint = "run the agent as root (the systemd unit of docs/operations.md does)";
    (!rustix::process::geteuid().is_root()).then(|| Finding::new(Severity::Warning, item(name), what, hint))
}

/// The directory, or the nearest one above it that is there: what is missing will be made in it.
fn nearest(place: &Path) -> PathBuf {
    place.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn writable(place: &Path, item: &str) -> Option<Finding> {
    let place = nearest(place);
    let wanted = if place.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    let error = rustix::fs::accessat(CWD, &place, wanted, AtFlags::EACCESS).err()?;
    let hint = "give the agent's user the right to write there, or mount it writable";
    Some(Finding::new(
        Severity::Error,
        item,
        format!("{} cannot be written to: {error}", place.display()),
        hint,
    ))
}

/// A database that is not in WAL mode is copied before it is read.
fn room_for_copy(path: &Path, scratch: &Path, item: &str) -> Option<Finding> {
    let mut head = [0; READ_VERSION + 1];
    // One that cannot be read is told by who looks at what it holds.
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).ok()?;
    let size = path.metadata().ok()?.len();
    let place = nearest(scratch);
    let free = rustix::fs::statvfs(&place).ok()?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    (head[READ_VERSION] != 2 && size > free).then(|| {
        let what = format!(
            "it is not in WAL mode, so a private copy of {size} bytes is made in {}, where {free} are free",
            scratch.display()
        );
        let hint = "free space there, put `state` of the source's configuration on another file system, or set the database to WAL";
        Finding::new(Severity::Error, item, what, hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> DatasetName {
        "shop".parse().unwrap()
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_making_files(&dir.path().join("not/yet/there"), &name()), []);
        assert_eq!(of_returning_files(dir.path(), &name()), []);
        let home = of_returning_files(Path::new("/proc/sys"), &name());
        assert!(home[0].severity == Severity::Warning && home[0].hint.contains("--one-way"), "{home:?}");
        // Read-only for root too.
        let found = of_making_files(Path::new("/proc/sys/none"), &name());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].severity, Severity::Error);
        assert!(found[0].what.contains("/proc/sys cannot be written to"), "{found:?}");
    }

    #[tokio::test]
    async fn a_database_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        File::create(&path).unwrap();
        assert_eq!(of_following(&Place::Sqlite(path), &name()).await, []);
        let found = of_following(&Place::Sqlite("/proc/sys/none".into()), &name()).await;
        assert!(found.len() == 1 && found[0].what.contains("/proc/sys cannot be"), "{found:?}");
    }

    #[test]
    fn a_copy_needs_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE t (a)").unwrap();
        assert_eq!(room_for_copy(&path, dir.path(), "x"), None);
        // No bytes are free there.
        let found = room_for_copy(&path, Path::new("/proc"), "x").unwrap();
        assert!(found.what.contains("private copy") && found.hint.contains("WAL"), "{found:?}");
        db.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        assert_eq!(room_for_copy(&path, Path::new("/proc"), "x"), None);
    }
}
