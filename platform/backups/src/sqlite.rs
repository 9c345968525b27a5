//! SQLite databases: copied page by page under one lock by the library's online backup, which is its tool.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_engine::backup::{Kept, Restored};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::archive::{self, Archive};
use crate::contents::Dataset;
use crate::restore::{Restoring, free_path};
use crate::room;
use crate::shelf::sync;
use crate::work::{Work, blocking, io_failed};

/// How long a writer is waited for.
const LOCKED: Duration = Duration::from_secs(30);
/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Our own triggers, and then tables.
const OURS: &str = "SELECT type, name FROM sqlite_master WHERE name LIKE '\\_\\_handover\\_%' ESCAPE '\\' \
                    AND type IN ('trigger', 'table') ORDER BY type DESC";

/// Where it leads: links are followed, and stay.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(item: &str, what: &str) -> impl Fn(rusqlite::Error) -> Failure {
    move |error| {
        let is_busy = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        let hint = if is_busy { "another process holds it locked" } else { "this is what SQLite says of it" };
        Failure::operator(item, what).because(error).hint(hint)
    }
}

/// Bytes that its backup needs: the copy, and what that is packed to.
pub fn size(path: &Path) -> Option<u64> {
    real(path).metadata().ok().map(|meta| meta.len().saturating_mul(2))
}

/// Backs it up; none where it is not there.
pub async fn make(dataset: &Dataset, path: &Path, directory: &Path, work: &Work) -> Result<Option<Kept>> {
    let path = real(path);
    let Ok(meta) = path.metadata() else { return Ok(None) };
    let item = dataset.item();
    let copy = directory.join(format!("{}.db", dataset.name));
    let (from, to, of) = (path.clone(), copy.clone(), item.clone());
    blocking(&item, move || {
        copy_pages(&from, &to, &of)?;
        sound(&to, &of)
    })
    .await?;
    let file = format!("{}.db.zst", dataset.name);
    let mut archive = Archive::create(&directory.join(&file), work);
    let from = tokio::fs::File::open(&copy).await.map_err(io_failed(&copy, "cannot be read"))?;
    archive.pour(from).await?;
    let written = archive.finish().await?;
    std::fs::remove_file(&copy).map_err(io_failed(&copy, "cannot be removed"))?;
    Ok(Some(Kept {
        dataset: dataset.name.clone(),
        engine: dataset.contents.engine().to_owned(),
        tool: format!("SQLite {} online backup", rusqlite::version()),
        file,
        bytes: written.bytes,
        contents_bytes: written.contents_bytes,
        digest: written.digest,
        entries: None,
        settings: [("file".to_owned(), format!("{:o} {} {}", meta.mode() & 0o777, meta.uid(), meta.gid()))]
            .into(),
        notes: Vec::new(),
    }))
}

fn copy_pages(from: &Path, to: &Path, item: &str) -> Result<()> {
    let failed = failed(item, "its backup cannot be made");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(&failed)?;
    source.busy_timeout(LOCKED).map_err(&failed)?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(io_failed(to, "cannot be made"))?;
    let mut copy = Connection::open(to).map_err(&failed)?;
    // It is packed into a file that is made durable, and thrown away.
    copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").map_err(&failed)?;
    let backup = Backup::new(&source, &mut copy).map_err(&failed)?;
    match backup.step(-1).map_err(&failed)? {
        StepResult::Done => Ok(()),
        _ => Err(Failure::transient(item, "it stays locked by a writer").hint("it is tried again")),
    }
}

/// Refuses a database that SQLite finds damaged.
fn sound(path: &Path, item: &str) -> Result<()> {
    let failed = failed(item, "what is in its backup cannot be read");
    let db = Connection::open(path).map_err(&failed)?;
    let said: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(&failed)?;
    db.close().map_err(|(_, error)| failed(error))?;
    for suffix in BESIDE {
        let _ = std::fs::remove_file(beside(path, suffix));
    }
    if said == "ok" {
        return Ok(());
    }
    Err(Failure::operator(item, format!("it is damaged: {said}"))
        .hint("repair it (`sqlite3 FILE .recover`), or restore an older backup"))
}

/// Unpacks it and has SQLite look through it.
pub async fn test(item: &str, file: &Path, work: &Work) -> Result<()> {
    let path = work.scratch.join("verify.db");
    let (item, file, work) = (item.to_owned(), file.to_owned(), work.clone());
    blocking(&item.clone(), move || {
        let tested = unpack(&file, &path, &work).and_then(|()| sound(&path, &item));
        let _ = std::fs::remove_file(&path);
        tested
    })
    .await
}

fn unpack(file: &Path, to: &Path, work: &Work) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = std::fs::remove_file(beside(to, suffix));
    }
    let unpack = || {
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        archive::unpacked(file, |piece| {
            work.got_on(piece.len())?;
            out.write_all(piece)
        })?;
        out.sync_all()
    };
    unpack().map_err(io_failed(to, "the backup cannot be unpacked there"))
}

/// Puts it in place; what stood there is under another name beside it.
pub async fn restore(dataset: &Dataset, path: &Path, at: &Restoring<'_>, work: &Work) -> Result<Restored> {
    let path = real(path);
    let (item, kept, file, id) = (dataset.item(), at.kept.clone(), at.file.clone(), at.id.clone());
    room::check(&item, &path, kept.contents_bytes)?;
    let (name, work) = (dataset.name.clone(), work.clone());
    blocking(&item.clone(), move || {
        let new = beside(&path, ".handover-restore");
        unpack(&file, &new, &work)?;
        take_ours_away(&new, &item)?;
        sound(&new, &item)?;
        dress(&new, &path, kept.settings.get("file"))
            .map_err(io_failed(&new, "cannot be given its owner and mode"))?;
        let before = swap(&new, &path, &format!(".before-{id}"), &item)?;
        Ok(Restored { dataset: name, before: before.map(|before| before.display().to_string()) })
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
fn dress(new: &Path, path: &Path, recorded: Option<&String>) -> std::io::Result<()> {
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

/// One link and one rename: whatever a crash falls between, the old one or the new one is in place, and the old one is somewhere.
fn swap(new: &Path, path: &Path, suffix: &str, item: &str) -> Result<Option<PathBuf>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut before = None;
    if path.exists() {
        make_way(path, item)?;
        let kept = free_path(&beside(path, suffix));
        std::fs::hard_link(path, &kept)
            .and_then(|()| sync(directory))
            .map_err(io_failed(&kept, "what stands there cannot be kept"))?;
        before = Some(kept);
    }
    std::fs::rename(new, path)
        .and_then(|()| sync(directory))
        .map_err(io_failed(path, "cannot be put in place"))?;
    Ok(before)
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
        let _ = std::fs::remove_file(beside(path, "-journal"));
    }
    for suffix in BESIDE {
        let file = beside(path, suffix);
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
