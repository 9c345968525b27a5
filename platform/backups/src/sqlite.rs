//! SQLite databases: copied page by page under one lock by the library's online backup, which is its tool.

pub mod restore;

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_engine::backup::Kept;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::archive::{self, Archive};
use crate::beside;
use crate::contents::Dataset;
use crate::work::{Work, blocking, io_failed};

/// How long a writer is waited for.
const LOCKED: Duration = Duration::from_secs(30);
/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Where it leads: links are followed, and stay.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
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
    let tool = format!("SQLite {} online backup", rusqlite::version());
    let settings = [("file".to_owned(), format!("{:o} {} {}", meta.mode() & 0o777, meta.uid(), meta.gid()))];
    Ok(Some(Kept { settings: settings.into(), ..written.kept(dataset, tool, file) }))
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
        let _ = std::fs::remove_file(beside::path(path, suffix));
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
        remove(&path);
        tested
    })
    .await
}

/// Takes a database of ours away, and what SQLite keeps beside it.
fn remove(path: &Path) {
    for suffix in [&[""][..], &BESIDE].concat() {
        let _ = std::fs::remove_file(beside::path(path, suffix));
    }
}

fn unpack(file: &Path, to: &Path, work: &Work) -> Result<()> {
    remove(to);
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
