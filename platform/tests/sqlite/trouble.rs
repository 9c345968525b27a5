//! Bad days: damaged, missing, locked and foreign files, full and read-only disks. Every failure names the dataset and
//! the file, and tells what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use handover_engine::digest::Digest;
use handover_engine::failure::{Class, Failure};
use handover_engine::ports::{Database, DatabaseTarget, Result};
use handover_engine::rows::{Ddl, KeyRange, RowsChunk, RowsHeader, TableName};
use handover_platform::sqlite::{SqliteDatabase, SqliteTarget, remove_stale_copies};

use super::support::{Bed, assert_same, chunks, explained, migration};

/// A source of some megabytes.
fn large(mode: &str) -> Bed {
    Bed::with(&format!(
        "PRAGMA journal_mode = {mode}; CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE INDEX t_v ON t (v);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, randomblob(2000) FROM n"
    ))
}

/// What goes wrong when the source is looked at, and when it is read to its end.
async fn failures(source: &SqliteDatabase) -> Vec<Failure> {
    let read = async {
        let view = source.snapshot().await?;
        for table in &view.schema().tables {
            chunks(&*view, &table.name, 1000).await?;
        }
        Ok::<_, Failure>(())
    };
    source.facts().await.err().into_iter().chain(read.await.err()).collect()
}

/// A file system of its own, of a few megabytes or read-only.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Nothing where the tests may not mount.
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::TempDir::new().unwrap();
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        if !done.is_ok_and(|done| done.status.success()) {
            println!("skipped: mounting a file system takes root");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.path()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn target_at(path: PathBuf) -> SqliteTarget {
    SqliteTarget::new("db".parse().unwrap(), path, &migration())
}

#[tokio::test]
async fn sources_that_cannot_be_read() {
    type Spoil = fn(&Path);
    let table: [(&str, Spoil, Class, &str); 5] = [
        ("missing", |path| fs::remove_file(path).unwrap(), Class::NeedsOperator, "appliance.toml"),
        (
            "a directory",
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            Class::NeedsOperator,
            "appliance.toml",
        ),
        (
            "something else",
            |path| fs::write(path, vec![b'x'; 8192]).unwrap(),
            Class::NeedsOperator,
            "no SQLite database",
        ),
        (
            "overwritten in its middle",
            |path| {
                let mut bytes = fs::read(path).unwrap();
                let (start, end) = (bytes.len() / 4, bytes.len() / 2);
                bytes[start..end].fill(0xaa);
                fs::write(path, bytes).unwrap();
            },
            Class::Permanent,
            "integrity_check",
        ),
        (
            "cut off",
            |path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() / 3]).unwrap();
            },
            Class::Permanent,
            "integrity_check",
        ),
    ];
    for (what, spoil, class, hint) in table {
        for mode in ["wal", "delete"] {
            let bed = large(mode);
            spoil(&bed.source_path());
            let failures = failures(&bed.source()).await;
            assert!(!failures.is_empty(), "{what}, {mode}: nothing was noticed");
            for failure in failures {
                explained(&failure, class, "source.db", hint);
            }
            assert_eq!(fs::read_dir(bed.scratch()).map_or(0, Iterator::count), 0, "{what}: a copy is left");
        }
    }
}

#[tokio::test]
async fn a_locked_source_is_tried_again() {
    let bed = Bed::with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let writer = bed.source_db();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let source = bed.source().busy_timeout(Duration::from_millis(20));
    let found = failures(&source).await;
    assert_eq!(found.len(), 2);
    for failure in found {
        explained(&failure, Class::Transient, "source.db", "tried again");
    }
    writer.execute_batch("ROLLBACK").unwrap();
    assert!(failures(&source).await.is_empty());
    bed.moves().await;
}

#[tokio::test]
async fn a_writer_that_ended_in_the_middle_is_rolled_back() {
    let bed = large("DELETE");
    let committed = fs::read(bed.source_path()).unwrap();
    let writer = bed.source_db();
    // More than it holds in memory: what is not committed is in the file, and what was there in the journal.
    writer.execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE t SET v = randomblob(2000)").unwrap();
    let left = tempfile::tempdir().unwrap();
    for name in ["source.db", "source.db-journal"] {
        fs::copy(bed.source_path().with_file_name(name), left.path().join(name)).unwrap();
    }
    drop(writer);
    let path = left.path().join("source.db");
    assert_ne!(fs::read(&path).unwrap(), committed, "nothing was written in the middle");
    let source =
        SqliteDatabase::new("shop".parse().unwrap(), path.clone(), Vec::new(), left.path().to_owned());
    assert_eq!(failures(&source).await, []);
    assert_eq!(fs::read(&path).unwrap(), committed);
}

#[tokio::test]
async fn tables_that_no_release_can_read() {
    let mut bed = Bed::with(
        "CREATE TABLE t (a); PRAGMA writable_schema = ON;
         INSERT INTO sqlite_schema VALUES ('table', 'odd', 'odd', 0, 'CREATE VIRTUAL TABLE odd USING nosuch(a)')",
    );
    let failure = bed.source().snapshot().await.err().unwrap();
    explained(&failure, Class::NeedsOperator, "source.db", "exclude the table");
    assert!(failure.to_string().contains("nosuch"), "{failure}");
    bed.exclude = vec!["odd".to_owned()];
    bed.try_move(100).await.unwrap();
    bed.exclude = vec!["cache".to_owned()];
    let failure = bed.source().facts().await.unwrap_err();
    explained(&failure, Class::NeedsOperator, "source.db", "appliance.toml");
    assert!(failure.to_string().contains("cache"), "{failure}");
}

#[tokio::test]
async fn what_only_the_application_can_compute() {
    let table = [
        ("index", "t_a", "CREATE INDEX t_a ON t (nosuch(a))"),
        ("table", "t", "CREATE TABLE t (a, b AS (nosuch(a)) STORED)"),
        ("table", "t", "CREATE TABLE t (a COLLATE nosuch)"),
        ("table", "w", "CREATE TABLE w (a TEXT COLLATE nosuch PRIMARY KEY) WITHOUT ROWID"),
    ];
    for (kind, name, sql) in table {
        let mut bed = Bed::with(
            "CREATE TABLE t (a); INSERT INTO t VALUES ('x'), ('y'); CREATE INDEX t_a ON t (a);
             CREATE TABLE w (a TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO w VALUES ('x'), ('y'); CREATE TABLE other (a);
             PRAGMA writable_schema = ON",
        );
        let db = bed.source_db();
        db.execute_batch("PRAGMA writable_schema = ON").unwrap();
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE type = ? AND name = ?", [sql, kind, name])
            .unwrap();
        drop(db);
        let failure = bed.try_move(1000).await.err().unwrap_or_else(|| panic!("{sql}"));
        explained(&failure, Class::NeedsOperator, ".db", "exclude it");
        bed.target().undo().await.unwrap();
        bed.exclude = vec![if name == "w" { "w" } else { "t" }.to_owned()];
        bed.try_move(1000).await.unwrap_or_else(|failure| panic!("{sql}: {failure}"));
    }
}

#[tokio::test]
async fn a_full_disk_at_the_target() {
    let Some(disk) = Mounted::new("size=1m") else { return };
    let bed = large("wal");
    let view = bed.source().snapshot().await.unwrap();
    let path = disk.path().join("target.db");
    let target = target_at(path.clone());
    let failure = bed.load(&*view, &target, 100_000).await.unwrap_err();
    explained(&failure, Class::NeedsOperator, "target.db", "free space");
    // What was applied is still whole, and the load goes on where there is room.
    let held = target.reread(&TableName::plain("t"), &KeyRange::default()).await.unwrap();
    assert!(held.header.rows > 0);
    drop(target);
    disk.remount("size=32m");
    let target = target_at(path.clone());
    bed.load(&*view, &target, 100_000).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    drop(target);
    assert_same(&bed.source_path(), &path);
}

#[tokio::test]
async fn a_full_disk_while_indexes_are_made() {
    let Some(disk) = Mounted::new("size=32m") else { return };
    let bed = large("wal");
    let view = bed.source().snapshot().await.unwrap();
    let path = disk.path().join("target.db");
    let target = target_at(path.clone());
    bed.load(&*view, &target, 100_000).await.unwrap();
    drop(target);
    let filler = disk.path().join("filler");
    let used: u64 = fs::read_dir(disk.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    fs::write(&filler, vec![1; usize::try_from((32 << 20) - used - (512 << 10)).unwrap()]).unwrap();
    let target = target_at(path.clone());
    let failure = target.finish(view.schema()).await.unwrap_err();
    explained(&failure, Class::NeedsOperator, "target.db", "free space");
    fs::remove_file(filler).unwrap();
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    drop(target);
    assert_same(&bed.source_path(), &path);
}

#[tokio::test]
async fn no_room_for_a_private_copy() {
    let Some(disk) = Mounted::new("size=256k") else { return };
    let bed = large("delete");
    let source = SqliteDatabase::new(
        "db".parse().unwrap(),
        bed.source_path(),
        Vec::new(),
        disk.path().join("scratch"),
    );
    let failure = source.snapshot().await.err().unwrap();
    explained(&failure, Class::NeedsOperator, "scratch", "free space");
    assert_eq!(fs::read_dir(disk.path().join("scratch")).unwrap().count(), 0, "the broken copy is left");
}

#[tokio::test]
async fn a_target_that_cannot_be_written() {
    let bed = Bed::with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let view = bed.source().snapshot().await.unwrap();
    if let Some(disk) = Mounted::new("ro") {
        for path in ["target.db", "sub/target.db"] {
            let failure = target_at(disk.path().join(path)).prepare(view.schema()).await.unwrap_err();
            explained(&failure, Class::NeedsOperator, &disk.path().display().to_string(), "write there");
        }
    }
    let file = bed.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let failure = target_at(file.join("target.db")).prepare(view.schema()).await.unwrap_err();
    explained(&failure, Class::NeedsOperator, "file", "appliance.toml");
}

/// Prepares a target for the source's schema with one statement more.
async fn prepare_with(bed: &Bed, sql: &str) -> Result<()> {
    let view = bed.source().snapshot().await?;
    let mut schema = view.schema().clone();
    schema.before_load.push(Ddl { kind: "table".to_owned(), name: "x".to_owned(), sql: sql.to_owned() });
    bed.target().prepare(&schema).await
}

#[tokio::test]
async fn a_hostile_schema_reaches_no_other_file() {
    let bed = Bed::with("CREATE TABLE t (a)");
    let other = bed.dir.path().join("other.db");
    let attach = format!("ATTACH '{}' AS other; CREATE TABLE other.x (a)", other.display());
    for sql in [
        attach.clone(),
        format!("CREATE TABLE x (a); {attach}"),
        format!("CREATE TABLE x (a) -- \n; {attach}"),
        "PRAGMA writable_schema = ON".to_owned(),
        "VACUUM INTO '/tmp/never'".to_owned(),
        String::new(),
    ] {
        let failure = prepare_with(&bed, &sql).await.unwrap_err();
        assert!(failure.item.contains("target.db") && !failure.hint.is_empty(), "{sql}: {failure}");
        assert!(!other.exists(), "{sql}");
    }
    prepare_with(&bed, "CREATE TABLE x (a)").await.unwrap();
}

#[tokio::test]
async fn malformed_chunks_are_refused_whole() {
    let bed = Bed::with("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'x')");
    let view = bed.source().snapshot().await.unwrap();
    let target = bed.target();
    bed.load(&*view, &target, 100).await.unwrap();
    let chunk = |table: &str, block: &'static [u8]| RowsChunk {
        header: RowsHeader {
            table: TableName::plain(table),
            range: KeyRange::default(),
            rows: 1,
            bytes: block.len() as u64,
            digest: Digest::of(block),
            unchanged: false,
        },
        block: block.into(),
    };
    for (table, block) in [
        ("nowhere", &b"i1\ttx\n"[..]),
        ("sqlite_schema", b"i1\ttx\n"),
        ("t", b"i1\n"),
        ("t", b"i1\ttx\ttx\n"),
        ("t", b"i1\tx\n"),
        ("t", b"i1\ttx"),
        ("t", b"i1\tt\\\n"),
        ("t", b"i99999999999999999999\ttx\n"),
        ("t", b"i5\tty\ni6\tr12\n"),
    ] {
        let failure = target.apply(&[chunk(table, block)]).await.unwrap_err();
        explained(&failure, Class::Permanent, "target.db", "report this");
        let here = target.reread(&TableName::plain("t"), &KeyRange::default()).await.unwrap();
        assert_eq!(&here.block[..], b"i1\ttx\n", "something of {} stays", block.escape_ascii());
    }
}

#[tokio::test]
async fn a_target_that_was_damaged_is_not_published() {
    let bed = large("wal");
    let view = bed.source().snapshot().await.unwrap();
    let target = bed.target();
    bed.load(&*view, &target, 100_000).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    drop(target);
    let partial = bed.beside(".handover-m1");
    let mut bytes = fs::read(&partial).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_960].fill(0xaa);
    fs::write(&partial, bytes).unwrap();
    let failure = bed.target().publish().await.unwrap_err();
    assert_eq!(failure.class, Class::Permanent, "{failure}");
    assert!(failure.item.contains("target.db") && !failure.hint.is_empty(), "{failure}");
    assert!(!bed.target_path().exists());
}

#[tokio::test]
async fn copies_of_a_crashed_run_are_removed() {
    let bed = Bed::with("CREATE TABLE t (a)");
    remove_stale_copies(&bed.scratch()).unwrap();
    fs::create_dir_all(bed.scratch()).unwrap();
    for name in ["copy-1", "copy-2", "other"] {
        fs::write(bed.scratch().join(name), "x").unwrap();
    }
    remove_stale_copies(&bed.scratch()).unwrap();
    let left: Vec<_> = fs::read_dir(bed.scratch()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["other"]);
}
