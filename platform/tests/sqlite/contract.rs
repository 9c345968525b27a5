//! The contract of every database adapter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_platform::contract::{Subject, database_contract};
use handover_platform::sqlite::SqliteTarget;
use rusqlite::Connection;

use super::support::{Bed, dump};

const SCHEMA: &str = "
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

struct Sqlite {
    bed: Bed,
    /// Closed, a writer in WAL mode would take the log with it: it stays open, as an appliance's does.
    writer: std::sync::Mutex<Connection>,
    round: AtomicU32,
}

impl Sqlite {
    fn new(mode: &str) -> Self {
        let bed = Bed::with(&format!("PRAGMA journal_mode = {mode}; BEGIN; {SCHEMA} COMMIT"));
        let writer = bed.source_db();
        writer.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        Self { bed, writer: writer.into(), round: AtomicU32::new(1) }
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
        let sql = format!(
            "BEGIN;
             DELETE FROM item WHERE id = (SELECT min(id) FROM item);
             UPDATE item SET name = 'gone ' || id WHERE id = 200;
             UPDATE item SET name = 'item 200', price = -price WHERE id = 300;
             UPDATE item SET name = 'other {n}' WHERE id = 300;
             INSERT INTO item (name) VALUES ('late {n}');
             DELETE FROM word WHERE n = 100 + {n};
             UPDATE word SET n = n + 0.5 WHERE text = 'word 77';
             INSERT INTO word VALUES ('A', '', {n}) ON CONFLICT DO UPDATE SET n = n + 1;
             INSERT INTO pair VALUES (7, -{n}), (99, {n});
             DELETE FROM pair WHERE b = 20 + {n};
             UPDATE one SET x = x + 1;
             COMMIT;"
        );
        self.writer.lock().unwrap().execute_batch(&sql).unwrap();
    }

    async fn occupy(&self) {
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE old (x); INSERT INTO old VALUES ('stood here')";
        self.bed.target_db().execute_batch(sql).unwrap();
    }

    async fn standing(&self) -> Option<String> {
        let path = self.bed.target_path();
        path.exists().then(|| dump(&path).join("\n"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_in_wal_mode() {
    database_contract(|| Sqlite::new("wal")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_in_delete_mode() {
    database_contract(|| Sqlite::new("delete")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_in_utf16() {
    database_contract(|| {
        let bed = Bed::with(&format!("PRAGMA encoding = 'UTF-16le'; PRAGMA journal_mode = wal; BEGIN; {SCHEMA} COMMIT"));
        let writer = bed.source_db();
        Sqlite { bed, writer: writer.into(), round: AtomicU32::new(1) }
    })
    .await
    .unwrap();
}
