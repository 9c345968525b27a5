//! The contract of every database adapter, over the shapes that a SQLite database can have.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget, FencedDatabase, LiveDatabase};
use handover_platform::contract::live::{LiveSubject, live_contract};
use handover_platform::contract::{Subject, database_contract};
use handover_platform::sqlite::{SqliteDatabase, SqliteFenced, SqliteLive, SqliteTarget};
use rusqlite::Connection;

use super::support::{Bed, dump};

/// An appliance's database with a bit of everything.
const MIXED: &str = "
    CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, price REAL, photo BLOB);
    CREATE TABLE word (lang TEXT COLLATE NOCASE, text TEXT, n, PRIMARY KEY (lang, text DESC)) WITHOUT ROWID;
    CREATE TABLE pair (a INTEGER, b INTEGER, PRIMARY KEY (a DESC, b DESC)) WITHOUT ROWID;
    CREATE TABLE note (about REFERENCES item, body);
    CREATE TABLE one (x);
    CREATE TABLE empty (x PRIMARY KEY);
    CREATE INDEX note_about ON note (about) WHERE about > 10;
    CREATE VIEW priced AS SELECT name FROM item WHERE price > 0;
    CREATE TRIGGER noted AFTER INSERT ON item BEGIN INSERT INTO note VALUES (new.id, 'new'); END;
    CREATE VIRTUAL TABLE found USING fts5(body);
    CREATE UNIQUE INDEX item_upper ON item (upper(name));
    INSERT INTO one VALUES (1);
    WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
        INSERT INTO item (name, price, photo) SELECT 'item ' || i, i / 7.0, randomblob(i % 40) FROM n;
    WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
        INSERT INTO word SELECT char(97 + i % 5), 'word ' || i, i FROM n;
    WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
        INSERT INTO pair SELECT i % 20, i FROM n;
    INSERT INTO found SELECT 'the text of ' || name FROM item;
    ANALYZE;";

/// What the `n`-th change does to it. Two rows change unique values in a ring; other rows come and go at both ends.
fn mixed_change(n: u32) -> String {
    format!(
        "DELETE FROM item WHERE id = (SELECT min(id) FROM item);
         UPDATE item SET name = 'gone ' || id WHERE id = 200;
         UPDATE item SET name = 'item 200', price = -price WHERE id = 300;
         UPDATE item SET name = 'other {n}' WHERE id = 300;
         INSERT INTO item (name) VALUES ('late {n}');
         DELETE FROM word WHERE n = 100 + {n};
         UPDATE word SET n = n + 0.5 WHERE text = 'word 77';
         INSERT INTO word VALUES ('A', '', {n}) ON CONFLICT DO UPDATE SET n = n + 1;
         INSERT INTO pair VALUES (7, -{n}), (99, {n});
         DELETE FROM pair WHERE b = 20 + {n};
         INSERT INTO found VALUES ('late {n}');
         DELETE FROM found WHERE rowid = 10 + {n};
         UPDATE one SET x = x + 1;"
    )
}

/// One large table of columns `g`, `k` and `v`, with one of one row and an empty one.
fn one_table(definition: &str) -> String {
    format!(
        "CREATE TABLE t ({definition};
         CREATE TABLE one (x);
         CREATE TABLE empty (x);
         CREATE INDEX t_v ON t (v DESC);
         INSERT INTO one VALUES (1);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO t (g, k, v) SELECT i % 9, printf('%s %04d', char(65 + i % 2 * 32 + i % 26), i), i / 3.0 FROM n;"
    )
}

/// Takes away the first row by key, and puts others before, between and after.
fn change(n: u32) -> String {
    format!(
        "DELETE FROM t WHERE k = (SELECT min(k) FROM t);
         DELETE FROM t WHERE v = 100 + {n};
         UPDATE t SET v = -v WHERE v = 50;
         UPDATE t SET k = 'moved {n}' WHERE v = 60;
         INSERT INTO t (g, k, v) VALUES (-1, ' {n}', 'first'), (4, 'M {n}', 'between'), (99, 'zzz {n}', 'last');"
    )
}

/// As [`change`], for rows that are known by their position: a row that comes or goes moves all behind it.
fn change_in_place(n: u32) -> String {
    format!(
        "UPDATE t SET v = 'first {n}' WHERE g = 1 AND v < 1;
         UPDATE t SET k = 'between {n}' WHERE v = 50;
         DELETE FROM t WHERE v = 100;
         INSERT INTO t (g, k, v) VALUES (7, 'last', {n});"
    )
}

struct Sqlite {
    bed: Bed,
    /// Closed, a writer in WAL mode would take the log with it: it stays open, as an appliance's does.
    writer: Mutex<Connection>,
    round: AtomicU32,
    change: fn(u32) -> String,
}

impl Sqlite {
    fn new(pragmas: &str, content: &str, change: fn(u32) -> String) -> Self {
        let bed = Bed::with(&format!("{pragmas}; BEGIN; {content} COMMIT"));
        let writer = bed.source_db();
        writer.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        Self { bed, writer: writer.into(), round: AtomicU32::new(1), change }
    }
}

#[async_trait]
impl Subject for Sqlite {
    fn source(&self) -> Arc<dyn Database> {
        Arc::new(self.bed.source())
    }

    fn target(&self, migration: &MigrationId) -> Arc<dyn DatabaseTarget> {
        Arc::new(SqliteTarget::new("db".parse().unwrap(), self.bed.target_path(), migration))
    }

    async fn mutate(&self) {
        let n = self.round.fetch_add(1, Ordering::Relaxed);
        let sql = format!("BEGIN; {} COMMIT", (self.change)(n));
        self.writer.lock().unwrap().execute_batch(&sql).unwrap();
    }

    async fn occupy(&self) {
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE old (x); INSERT INTO old VALUES ('stood here')";
        self.bed.target_db().execute_batch(sql).unwrap();
    }

    fn kept(&self, place: &str) -> Arc<dyn Database> {
        let (name, scratch) = ("db".parse().unwrap(), self.bed.scratch());
        Arc::new(SqliteDatabase::new(name, place.into(), Vec::new(), scratch))
    }

    async fn standing(&self) -> Option<String> {
        let path = self.bed.target_path();
        path.exists().then(|| dump(&path).join("\n"))
    }
}

#[async_trait]
impl LiveSubject for Sqlite {
    fn live(&self) -> Arc<dyn LiveDatabase> {
        Arc::new(SqliteLive::new("db".parse().unwrap(), self.bed.source_path(), Vec::new()))
    }

    async fn write(&self) -> bool {
        self.bed.source_db().execute_batch("UPDATE one SET x = x + 1").is_ok()
    }

    fn fenced(&self) -> Arc<dyn FencedDatabase> {
        Arc::new(SqliteFenced::new("db".parse().unwrap(), self.bed.source_path()))
    }

    fn successor(&self) -> (Arc<dyn Database>, Arc<dyn LiveDatabase>) {
        let (path, name) = (self.bed.target_path(), "db".parse().unwrap());
        let database = SqliteDatabase::new(name, path.clone(), Vec::new(), self.bed.scratch());
        (Arc::new(database), Arc::new(SqliteLive::new("db".parse().unwrap(), path, Vec::new())))
    }

    async fn mutate_successor(&self) {
        let n = self.round.fetch_add(1, Ordering::Relaxed);
        let db = self.bed.target_db();
        let sql = format!("PRAGMA foreign_keys = OFF; BEGIN; {} COMMIT", (self.change)(n));
        db.execute_batch(&sql).unwrap();
    }

    async fn traces(&self) -> String {
        self.traces_at(&self.bed.source_path().display().to_string()).await
    }

    async fn traces_at(&self, place: &str) -> String {
        let db = Connection::open(place).unwrap();
        let sql = "SELECT coalesce(group_concat(name), '') FROM sqlite_schema WHERE name LIKE '%handover%'";
        db.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

async fn check(pragmas: &str, content: &str, change: fn(u32) -> String) {
    database_contract(|| Sqlite::new(pragmas, content, change)).await.unwrap();
    live_contract(|| Sqlite::new(pragmas, content, change)).await.unwrap();
}

async fn check_table(definition: &str) {
    check("PRAGMA journal_mode = wal", &one_table(definition), change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_wal_mode() {
    check("PRAGMA journal_mode = wal", MIXED, mixed_change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_delete_mode() {
    check("PRAGMA journal_mode = delete", MIXED, mixed_change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_utf16() {
    check("PRAGMA encoding = 'UTF-16le'; PRAGMA journal_mode = wal", MIXED, mixed_change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_big_endian_utf16_with_small_pages_and_auto_vacuum() {
    let pragmas = "PRAGMA encoding = 'UTF-16be'; PRAGMA page_size = 512; PRAGMA auto_vacuum = INCREMENTAL; \
                   PRAGMA user_version = -7; PRAGMA application_id = 252006674";
    check(pragmas, MIXED, mixed_change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_explicit_key() {
    check_table("g, k, v)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_that_is_not_the_row_number() {
    check_table("g, k TEXT PRIMARY KEY, v)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rowid_by_a_descending_key() {
    check_table("g, k TEXT PRIMARY KEY DESC, v) WITHOUT ROWID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rowid_by_a_key_of_two_directions_and_a_collation() {
    check_table("g, k TEXT COLLATE NOCASE, v, PRIMARY KEY (g DESC, k)) WITHOUT ROWID").await;
    check_table("g, k TEXT, v, PRIMARY KEY (g, k COLLATE NOCASE DESC)) WITHOUT ROWID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_column_called_rowid() {
    check_table("g, rowid TEXT, k, v)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_columns_of_every_name_of_the_row_number() {
    let content = one_table("oid, rowid, _rowid_, g, k, v)");
    check("PRAGMA journal_mode = wal", &content, change_in_place).await;
    check("PRAGMA encoding = 'UTF-16le'", &content, change_in_place).await;
}

/// Moves one unit from the first table to the second, over and over, until told to stop.
fn keep_writing(db: &Connection, stop: &AtomicBool) -> u32 {
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let sql = "BEGIN IMMEDIATE; UPDATE a SET n = n - 1 WHERE id = 1 + abs(random() % 100);
                   UPDATE b SET n = n + changes() WHERE id = 1 + abs(random() % 100); COMMIT";
        db.execute_batch(sql).unwrap();
        done += 1;
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_of_one_moment_while_another_thread_writes() {
    for mode in ["wal", "delete"] {
        let bed = Bed::with(&format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE a (id INTEGER PRIMARY KEY, n); CREATE TABLE b (id INTEGER PRIMARY KEY, n);
             WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO a SELECT i, 1000 FROM n;
             INSERT INTO b SELECT id, 0 FROM a"
        ));
        let db = bed.source_db();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let stop = stop.clone();
            move || keep_writing(&db, &stop)
        });
        for _ in 0..8 {
            bed.try_move(100).await.unwrap();
            let sum: i64 = bed
                .target_db()
                .query_row("SELECT (SELECT sum(n) FROM a) + (SELECT sum(n) FROM b)", [], |row| row.get(0))
                .unwrap();
            assert_eq!(sum, 100_000, "{mode}: tables of two moments");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 0, "{mode}: nothing was written meanwhile");
    }
}
