//! Putting an SQLite database back: built beside its place, then one link and one rename.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::{BESIDE, failed, real, remove, sound, unpack};
use crate::beside::{self, number, told};
use crate::contents::Dataset;
use crate::note::Begun as Of;
use crate::restore::{Before, Restoring, Settled};
use crate::room;
use crate::shelf::sync;
use crate::work::{Work, blocking, io_failed};

/// Our own triggers, and then tables.
const OURS: &str = "SELECT type, name FROM sqlite_master WHERE name LIKE '\\_\\_handover\\_%' ESCAPE '\\' \
                    AND type IN ('trigger', 'table') ORDER BY type DESC";

/// A restore that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// The database's file.
    path: PathBuf,
    /// The one that is built.
    built: PathBuf,
    /// It is whole, and about to be put in place.
    swaps: bool,
    /// Where what stands there goes; none where nothing does.
    before: Option<PathBuf>,
}

/// Puts it in place; what stood there is under another name beside it.
pub async fn restore(dataset: &Dataset, path: &Path, at: &Restoring<'_>, work: &Work) -> Result<Before> {
    let (item, path) = (dataset.item(), real(path));
    room::check(&item, &path, at.kept.contents_bytes)?;
    let built = beside::path(&path, beside::BUILT);
    let mut begun = Begun { path, built, swaps: false, before: None };
    work.step("note")?;
    at.pen.write(Of::Sqlite(begun.clone()))?;
    build(&begun, &item, at, work).await?;
    begun.swaps = true;
    begun.before = begun.path.exists().then(|| beside::free_before(&begun.path, at.id));
    work.step("note the swap")?;
    at.pen.write(Of::Sqlite(begun.clone()))?;
    let (begun, work) = (begun, work.clone());
    blocking(&item, move || swap(&begun, &work)).await
}

async fn build(begun: &Begun, item: &str, at: &Restoring<'_>, work: &Work) -> Result<()> {
    let (begun, work, own) = (begun.clone(), work.clone(), item.to_owned());
    let (file, recorded) = (at.file.clone(), at.kept.settings.get("file").cloned());
    blocking(item, move || {
        work.step("build")?;
        unpack(&file, &begun.built, &work)?;
        take_ours_away(&begun.built, &own)?;
        sound(&begun.built, &own)?;
        work.step("dress")?;
        dress(&begun.built, &begun.path, recorded.as_deref())
            .map_err(io_failed(&begun.built, "cannot be given its owner and mode"))?;
        work.step("make way")?;
        if begun.path.exists() { make_way(&begun.path, &own) } else { Ok(()) }
    })
    .await
}

/// One link and one rename: whatever a crash falls between, the old one or the new one is in place, and the old one is somewhere.
fn swap(begun: &Begun, work: &Work) -> Result<Before> {
    let directory = beside::above(&begun.path);
    if let Some(before) = &begun.before {
        work.step("keep")?;
        std::fs::hard_link(&begun.path, before)
            .and_then(|()| sync(directory))
            .map_err(io_failed(before, "what stands there cannot be kept"))?;
    }
    work.step("put in place")?;
    std::fs::rename(&begun.built, &begun.path)
        .and_then(|()| sync(directory))
        .map_err(io_failed(&begun.path, "cannot be put in place"))?;
    work.step("in place")?;
    Ok(told(begun.before.as_ref()))
}

/// Ends what was put in place, and takes back what was not.
pub async fn settle(item: &str, begun: &Begun, work: &Work) -> Result<Settled> {
    let (begun, work) = (begun.clone(), work.clone());
    blocking(item, move || {
        let is_kept = |before: &PathBuf| number(before).is_some_and(|kept| number(&begun.path) != Some(kept));
        let is_done = begun.swaps
            && number(&begun.built).is_none()
            && number(&begun.path).is_some()
            && begun.before.as_ref().is_none_or(is_kept);
        let directory = beside::above(&begun.path);
        if is_done {
            sync(directory).map_err(io_failed(directory, "cannot be made durable"))?;
            return Ok(Settled::Ended(told(begun.before.as_ref())));
        }
        // A second name of what stands in place. It goes first: as long as there is what was built, this is not done.
        if let Some(before) =
            begun.before.as_ref().filter(|before| number(before).is_some() && !is_kept(before))
        {
            work.step("forget the second name")?;
            std::fs::remove_file(before)
                .and_then(|()| sync(directory))
                .map_err(io_failed(before, "cannot be removed"))?;
        }
        work.step("remove what was built")?;
        remove(&begun.built);
        Ok(Settled::TakenBack)
    })
    .await
}

/// What a migration had put into the database when it was backed up acts on its own, and belongs to that migration.
fn take_ours_away(path: &Path, item: &str) -> Result<()> {
    let failed = failed(item, "what is in its backup cannot be put in order");
    let db = Connection::open(path).map_err(&failed)?;
    let ours: Vec<(String, String)> = {
        let mut named = db.prepare(OURS).map_err(&failed)?;
        let rows = named.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect).map_err(&failed)?
    };
    for (kind, name) in ours {
        let sql = format!("DROP {kind} IF EXISTS \"{}\"", name.replace('"', "\"\""));
        db.execute_batch(&sql).map_err(&failed)?;
    }
    db.close().map_err(|(_, error)| failed(error))
}

/// Mode and owner of what it replaces, or else those that it was backed up with.
fn dress(new: &Path, path: &Path, recorded: Option<&str>) -> std::io::Result<()> {
    let numbers: Vec<&str> = recorded.map(|text| text.split(' ').collect()).unwrap_or_default();
    let of_backup = || match numbers[..] {
        [mode, uid, gid] => {
            Some((u32::from_str_radix(mode, 8).ok()? & 0o777, uid.parse().ok()?, gid.parse().ok()?))
        }
        _ => None,
    };
    let standing = path.metadata().ok().map(|meta| (meta.mode() & 0o777, meta.uid(), meta.gid()));
    let Some((mode, uid, gid)) = standing.or_else(of_backup) else { return Ok(()) };
    let now = new.metadata()?;
    if (now.uid(), now.gid()) != (uid, gid) {
        chown(new, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(new, std::fs::Permissions::from_mode(mode))?;
    std::fs::File::open(new)?.sync_all()
}

/// A process that has the file open, as far as this one may see: SQLite itself knows nothing of others that do nothing at the time.
fn opened_by(path: &Path) -> Option<String> {
    let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let file = place(path.metadata().ok()?);
    let has_it = |process: &std::fs::DirEntry| {
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        open.filter_map(|one| one.path().metadata().ok()).any(|meta| place(meta) == file)
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let name = |process: &std::fs::DirEntry| process.file_name().to_string_lossy().into_owned();
    processes.filter(|one| name(one).bytes().all(|b| b.is_ascii_digit())).find(has_it).map(|one| name(&one))
}

/// Brings what stands there into its one file: nothing of its log may be left for another.
fn make_way(path: &Path, item: &str) -> Result<()> {
    if let Some(process) = opened_by(path) {
        return Err(Failure::operator(item, format!("process {process} has {} open", path.display()))
            .hint("stop its services, and restore again"));
    }
    let settled = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|db| {
        db.busy_timeout(Duration::from_secs(5))?;
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        // Nobody is writing, and what was left to be rolled back is.
        db.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
        db.close().map_err(|(_, error)| error)
    });
    if settled.is_ok() {
        let _ = std::fs::remove_file(beside::path(path, "-journal"));
    }
    for suffix in BESIDE {
        let file = beside::path(path, suffix);
        if file.exists() {
            return Err(Failure::operator(
                item,
                format!("{} is in the way: somebody has it open", file.display()),
            )
            .hint("stop its services; if what stands there is damaged, move both away, and restore again"));
        }
    }
    Ok(())
}
