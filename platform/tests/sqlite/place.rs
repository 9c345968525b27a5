//! The target's final place and the files around it, also as a crash leaves them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use handover_engine::failure::Class;
use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget};
use handover_platform::sqlite::SqliteTarget;

use super::support::{Bed, assert_same, assert_sound, chunks, dump, explained, migration};

const SOURCE: &str = "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, v);
    WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO t SELECT i, 'row ' || i FROM n";
const OCCUPANT: &str =
    "PRAGMA journal_mode = wal; CREATE TABLE old (x); INSERT INTO old VALUES ('stood here')";

/// Names in the directory of the final place.
fn names(bed: &Bed) -> Vec<String> {
    let entries = fs::read_dir(bed.target_path().parent().unwrap()).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Loads everything and finishes it, not yet published.
async fn finished(bed: &Bed) -> SqliteTarget {
    let view = bed.source().snapshot().await.unwrap();
    let target = bed.target();
    bed.load(&*view, &target, 400).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    target
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn what_was_applied_outlives_a_crash_at_any_moment() {
    let bed = Bed::with(SOURCE);
    let view = bed.source().snapshot().await.unwrap();
    let table = view.schema().tables[0].name.clone();
    let target = bed.target();
    target.prepare(view.schema()).await.unwrap();
    let chunks = chunks(&*view, &table, 400).await.unwrap();
    for (done, chunk) in chunks.iter().enumerate().take(8) {
        target.apply(std::slice::from_ref(chunk)).await.unwrap();
        // The files as they are on the disk while the connection is still open, with a torn write at the log's end.
        let image = bed.dir.path().join(format!("image {done}"));
        copy_dir(bed.target_path().parent().unwrap(), &image);
        let log = image.join("target.db.handover-m1-wal");
        let mut torn = fs::read(&log).unwrap();
        torn.extend_from_slice(&[0x5a; 3000]);
        fs::write(&log, torn).unwrap();
        let again = SqliteTarget::new("db".parse().unwrap(), image.join("target.db"), &migration());
        again.prepare(view.schema()).await.unwrap();
        for held in &chunks[..=done] {
            let here = again.reread(&table, &held.header.range).await.unwrap();
            assert_eq!(here.header, held.header, "crash after chunk {done}");
        }
        for missing in &chunks[done + 1..] {
            assert_eq!(again.reread(&table, &missing.header.range).await.unwrap().header.rows, 0);
        }
    }
}

#[tokio::test]
async fn nothing_is_left_beside_the_final_place() {
    for occupied in [false, true] {
        let bed = Bed::with(SOURCE);
        if occupied {
            bed.target_db().execute_batch(OCCUPANT).unwrap();
        }
        finished(&bed).await.publish().await.unwrap();
        let mut expected = vec!["target.db", "target.db.handover-state"];
        if occupied {
            expected.push("target.db.handover-undo");
        }
        assert_eq!(names(&bed), expected);
        bed.target().forget().await.unwrap();
        assert_eq!(names(&bed), ["target.db"]);
        assert_same(&bed.source_path(), &bed.target_path());
        let bed = Bed::with(SOURCE);
        finished(&bed).await.undo().await.unwrap();
        assert_eq!(names(&bed), [""; 0]);
    }
}

#[tokio::test]
async fn a_publication_that_was_cut_short_is_done_again() {
    let bed = Bed::with(SOURCE);
    bed.target_db().execute_batch(OCCUPANT).unwrap();
    let before = dump(&bed.target_path());
    let target = finished(&bed).await;
    drop(target);
    let partial = fs::read(bed.beside(".handover-m1")).unwrap();
    bed.target().publish().await.unwrap();
    // The record is written and what stood here kept; only the last rename is undone.
    fs::write(bed.beside(".handover-m1"), partial).unwrap();
    fs::remove_file(bed.target_path()).unwrap();
    fs::hard_link(bed.beside(".handover-undo"), bed.target_path()).unwrap();
    bed.target().publish().await.unwrap();
    assert_same(&bed.source_path(), &bed.target_path());
    assert_sound(&bed.target_path());
    bed.target().undo().await.unwrap();
    assert_eq!(dump(&bed.target_path()), before);
    assert_eq!(names(&bed), ["target.db"]);
}

#[tokio::test]
async fn undo_that_was_cut_short_is_done_again() {
    let bed = Bed::with(SOURCE);
    bed.target_db().execute_batch(OCCUPANT).unwrap();
    let before = dump(&bed.target_path());
    finished(&bed).await.publish().await.unwrap();
    let record = fs::read(bed.beside(".handover-state")).unwrap();
    bed.target().undo().await.unwrap();
    // What stood here is back, but the record was not removed yet.
    fs::write(bed.beside(".handover-state"), record).unwrap();
    bed.target().undo().await.unwrap();
    assert_eq!(dump(&bed.target_path()), before);
    assert_eq!(names(&bed), ["target.db"]);
}

#[tokio::test]
async fn the_log_of_what_stood_here_is_kept_with_it() {
    let bed = Bed::with(SOURCE);
    let other = bed.target_db();
    other.execute_batch(OCCUPANT).unwrap();
    // As a crashed application leaves it: the rows are still in the log.
    let image = bed.dir.path().join("image");
    copy_dir(bed.target_path().parent().unwrap(), &image);
    drop(other);
    for entry in fs::read_dir(&image).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), bed.target_path().parent().unwrap().join(entry.file_name())).unwrap();
    }
    assert!(bed.beside("-wal").exists());
    finished(&bed).await.publish().await.unwrap();
    assert_same(&bed.source_path(), &bed.target_path());
    bed.target().undo().await.unwrap();
    assert!(dump(&bed.target_path()).join("\n").contains("stood here"));
}

#[tokio::test]
async fn mode_and_journal_mode_are_those_of_the_source() {
    for (mode, journal) in [(0o604, "wal"), (0o660, "delete"), (0o600, "truncate")] {
        let bed = Bed::with(&format!("{SOURCE}; PRAGMA journal_mode = {journal}"));
        fs::set_permissions(bed.source_path(), fs::Permissions::from_mode(mode)).unwrap();
        let target = finished(&bed).await;
        let private = fs::metadata(bed.beside(".handover-m1")).unwrap().permissions().mode();
        assert_eq!(private & 0o777, 0o600, "nobody else reads it before it is published");
        target.publish().await.unwrap();
        assert_eq!(fs::metadata(bed.target_path()).unwrap().permissions().mode() & 0o777, mode);
        assert_same(&bed.source_path(), &bed.target_path());
    }
}

#[tokio::test]
async fn a_symbolic_link_at_the_final_place_stays() {
    let bed = Bed::with(SOURCE);
    let real = bed.dir.path().join("real.db");
    rusqlite::Connection::open(&real).unwrap().execute_batch(OCCUPANT).unwrap();
    fs::create_dir_all(bed.target_path().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&real, bed.target_path()).unwrap();
    finished(&bed).await.publish().await.unwrap();
    assert!(bed.target_path().is_symlink());
    assert_same(&bed.source_path(), &real);
    bed.target().undo().await.unwrap();
    assert!(bed.target_path().is_symlink() && dump(&real).join("\n").contains("stood here"));
}

#[tokio::test]
async fn two_migrations_do_not_share_a_place() {
    let bed = Bed::with(SOURCE);
    finished(&bed).await.publish().await.unwrap();
    let view = bed.source().snapshot().await.unwrap();
    let other = SqliteTarget::new("db".parse().unwrap(), bed.target_path(), &"other".parse().unwrap());
    for failure in [
        other.prepare(view.schema()).await.unwrap_err(),
        other.undo().await.unwrap_err(),
        other.forget().await.unwrap_err(),
    ] {
        explained(&failure, Class::NeedsOperator, "target.db", "abort or finalize");
    }
    assert_same(&bed.source_path(), &bed.target_path());
    bed.target().forget().await.unwrap();
    other.prepare(view.schema()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_record_and_an_unknown_kept_database_are_left_alone() {
    for record in ["{", "{\"format\": 99}", "", "[]"] {
        let bed = Bed::with(SOURCE);
        let target = finished(&bed).await;
        fs::write(bed.beside(".handover-state"), record).unwrap();
        let failure = target.publish().await.unwrap_err();
        explained(&failure, Class::Permanent, ".handover-state", "recovery.md");
        assert!(!bed.target_path().exists());
    }
    let bed = Bed::with(SOURCE);
    bed.target_db().execute_batch(OCCUPANT).unwrap();
    fs::write(bed.beside(".handover-undo"), "of an earlier migration").unwrap();
    let view = bed.source().snapshot().await.unwrap();
    let failure = bed.target().prepare(view.schema()).await.unwrap_err();
    explained(&failure, Class::NeedsOperator, ".handover-undo", "recovery.md");
}

/// Another process that has a file open; it ends with the test, however that ends.
struct User(Child);

impl User {
    fn of(file: fs::File) -> Self {
        let mut idle = Command::new("tail");
        idle.args(["-f", "/dev/null"]).stdin(file).stdout(Stdio::null()).stderr(Stdio::null());
        Self(idle.spawn().unwrap())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_database_in_use_is_not_replaced() {
    let bed = Bed::with(SOURCE);
    bed.target_db().execute_batch(OCCUPANT).unwrap();
    let before = dump(&bed.target_path());
    let target = finished(&bed).await;
    // An idle application: it holds no lock, but would go on writing to the file that was replaced.
    let held = fs::File::open(bed.target_path()).unwrap();
    let user = User::of(held);
    let failure = target.publish().await.unwrap_err();
    explained(&failure, Class::NeedsOperator, "target.db", "stop its services");
    assert_eq!(dump(&bed.target_path()), before);
    drop(user);
    target.publish().await.unwrap();
    assert_same(&bed.source_path(), &bed.target_path());
}

#[tokio::test]
async fn something_else_than_a_database_is_kept_too() {
    let bed = Bed::with(SOURCE);
    fs::create_dir_all(bed.target_path().parent().unwrap()).unwrap();
    for content in
        ["", "not a database, whatever its name says; long enough to be looked at as one, if one only tries"]
    {
        fs::write(bed.target_path(), content).unwrap();
        assert!(bed.target().occupied().await.unwrap().is_some(), "{content:?}");
        finished(&bed).await.publish().await.unwrap();
        assert_same(&bed.source_path(), &bed.target_path());
        bed.target().undo().await.unwrap();
        assert_eq!(fs::read_to_string(bed.target_path()).unwrap(), content);
        assert_eq!(names(&bed), ["target.db"]);
    }
}

#[tokio::test]
async fn entries_of_indexes_that_are_built_later_are_told() {
    let bed = Bed::with(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE, c); CREATE INDEX t_c ON t (c); CREATE INDEX t_cb ON t (c, b);
         INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3); CREATE TABLE u (a UNIQUE); INSERT INTO u VALUES (1)",
    );
    assert_eq!(bed.source().facts().await.unwrap().index_entries, Some(6));
}

#[tokio::test]
async fn looking_at_a_source_leaves_nothing_beside_it() {
    for mode in ["wal", "delete"] {
        let bed =
            Bed::with(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (a); INSERT INTO t VALUES (1)"));
        bed.source().facts().await.unwrap();
        let left = fs::read_dir(bed.dir.path()).unwrap().count();
        assert_eq!(left, 1, "{mode}");
        let view: std::sync::Arc<dyn DatabaseSnapshot> = bed.source().snapshot().await.unwrap();
        let copies = |bed: &Bed| fs::read_dir(bed.scratch()).map_or(0, Iterator::count);
        assert_eq!(copies(&bed), usize::from(mode == "delete"), "{mode}");
        drop(view);
        assert_eq!(copies(&bed), 0, "{mode}");
    }
}
