//! What triggers tell of: keys of every kind, rows that nobody names, transactions of any size.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_engine::change::{Change, LogPosition};
use handover_engine::name::CaptureId;
use handover_engine::ports::{Database, DatabaseTarget, FencedDatabase, KeyedTarget, LiveDatabase};
use handover_engine::rows::{Key, KeyedRows, TableName};
use handover_platform::sqlite::{SqliteFenced, SqliteLive, SqliteTarget};
use rusqlite::Connection;

use crate::support::{Bed, dump};

/// A source that is followed, and its copy.
struct Followed {
    bed: Bed,
    live: SqliteLive,
    target: SqliteTarget,
    after: LogPosition,
    /// As applications have it: foreign keys act, and what REPLACE removes fires no trigger.
    writer: Connection,
}

pub fn capture() -> CaptureId {
    "following".parse().unwrap()
}

pub fn live(bed: &Bed) -> SqliteLive {
    SqliteLive::new("db".parse().unwrap(), bed.source_path(), bed.exclude.clone())
}

/// The rows of every table of the application's, with storage classes and all bytes.
fn rows(path: &std::path::Path) -> Vec<String> {
    let mut lines = dump(path);
    let is_row =
        |line: &String| line.contains(": [") && !line.starts_with(['[', '_']) && !line.starts_with("sqlite_");
    lines.retain(is_row);
    lines.sort();
    lines
}

impl Followed {
    async fn begin(sql: &str) -> Self {
        let bed = Bed::with(sql);
        let (live, target) = (live(&bed), bed.target());
        let after = live.begin(&capture()).await.unwrap();
        let view = bed.source().snapshot().await.unwrap();
        bed.load(&*view, &target, 1 << 20).await.unwrap();
        target.index(view.schema()).await.unwrap();
        let writer = bed.source_db();
        writer.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        let fires: bool = writer.query_row("PRAGMA recursive_triggers", [], |row| row.get(0)).unwrap();
        assert!(!fires, "what REPLACE removes fires triggers");
        Self { bed, live, target, after, writer }
    }

    /// What a statement does arrives; how many keys were told in each part.
    async fn arrives(&mut self, sql: &str) -> Vec<usize> {
        self.writer.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let mut told = Vec::new();
        loop {
            let part = self.live.changes(&capture(), &self.after, Duration::ZERO).await.unwrap();
            let mut dirty: BTreeMap<&TableName, Vec<Key>> = BTreeMap::new();
            for change in &part.changes {
                let Change::Row { table, key } = change else {
                    panic!("{sql}: triggers tell of rows: {change:?}")
                };
                dirty.entry(&part.tables[*table as usize]).or_default().push(key.clone());
            }
            for (table, keys) in dirty {
                let chunk = self.live.rows(table, &keys, u64::MAX).await.unwrap();
                self.target.apply_keys(&[KeyedRows { keys, chunk }]).await.unwrap();
            }
            told.push(part.changes.len());
            self.live.confirm(&capture(), &part.until).await.unwrap();
            self.after = part.until;
            if part.is_end {
                break;
            }
        }
        let (there, here) = (rows(&self.bed.source_path()), rows(&self.bed.beside(".handover-m1")));
        assert_eq!(here, there, "{sql}");
        told
    }
}

/// Values of every storage class that look alike, are equal, or lie at an end of what there is.
const VALUES: &str = "('1'), (1), (x'31'), (1.5), ('1.5'), (0), (''), (x''), (9e999), (-9e999), (5e-324), (0.1), (9223372036854775807),
    (-9223372036854775808), (9007199254740993), (1e300), ('ä'), (x'c3a4'), ('a'), ('A'), ('a '), (x'00ff'), ('tab' || char(9) || 'line' || char(10) || '\\'),
    ('\\N'), ('N'), (CAST(x'ff61' AS TEXT)), (x'5c4e')";

/// Changes of rows, and of keys into one another's.
const STEPS: [&str; 8] = [
    "UPDATE t SET v = 'new ' || hex(k)",
    "UPDATE t SET k = 'moved' WHERE typeof(k) = 'text' AND k = '1'",
    "UPDATE t SET k = '1' WHERE typeof(k) = 'integer' AND k = 1",
    "BEGIN; UPDATE t SET k = x'00' WHERE k = x''; UPDATE t SET k = x'' WHERE k = ''; UPDATE t SET k = '' WHERE k = x'00'; COMMIT",
    "UPDATE t SET k = 0.0, v = 'real' WHERE typeof(k) = 'integer' AND k = 0",
    "UPDATE OR REPLACE t SET k = CAST(k AS BLOB) WHERE typeof(k) = 'text' AND k > 'a'",
    "INSERT OR REPLACE INTO t (k, v) SELECT k, 'replaced' FROM t WHERE typeof(k) <> 'blob'",
    "DELETE FROM t WHERE typeof(k) IN ('blob', 'real')",
];

async fn every_value(pragmas: &str, definition: &str) {
    let sql = format!(
        "{pragmas}; CREATE TABLE t {definition}; CREATE TABLE one (x); WITH n(k) AS (VALUES {VALUES}) INSERT OR IGNORE INTO t (k) SELECT k FROM n WHERE k <> 0.1"
    );
    let mut followed = Followed::begin(&sql).await;
    followed
        .arrives(&format!(
            "WITH n(k) AS (VALUES {VALUES}) INSERT OR IGNORE INTO t (k, v) SELECT k, 'late' FROM n"
        ))
        .await;
    for step in STEPS {
        followed.arrives(step).await;
    }
    followed.arrives("DELETE FROM t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_class_are_keys() {
    for definition in [
        "(k PRIMARY KEY, v) WITHOUT ROWID",
        "(v, k BLOB PRIMARY KEY DESC) WITHOUT ROWID",
        "(k ANY PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID",
        "(k PRIMARY KEY, v)",
        "(k NOT NULL UNIQUE, v)",
        "(k, v)",
    ] {
        every_value("PRAGMA journal_mode = wal", definition).await;
    }
    every_value("PRAGMA encoding = 'UTF-16le'", "(k PRIMARY KEY, v) WITHOUT ROWID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_in_the_database_before_the_fence() {
    let mut followed =
        Followed::begin("PRAGMA journal_mode = wal; CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
    // Fewer pages than go into the database by themselves, at first; and then more.
    let many = |rows: u32| {
        format!(
            "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < {rows}) \
             INSERT OR REPLACE INTO t SELECT k, zeroblob(4000) FROM n"
        )
    };
    let log = |followed: &Followed| {
        let path = followed.bed.beside(".handover-m1-wal");
        std::fs::metadata(path).map_or(0, |meta| meta.len() >> 20)
    };
    followed.arrives(&many(1_000)).await;
    assert!(log(&followed) >= 3, "{} MiB", log(&followed));
    assert!(followed.target.flush().await.unwrap());
    assert_eq!(log(&followed), 0);
    followed.arrives(&many(6_000)).await;
    assert!(log(&followed) >= 20, "{} MiB", log(&followed));
    // No cut-over is near any more.
    followed.target.flush().await.unwrap();
    followed.target.resume_flushing().await.unwrap();
    for _ in 0..3 {
        followed.arrives(&many(3_000)).await;
    }
    assert!(log(&followed) < 32, "{} MiB", log(&followed));
    // Whoever reads it then would keep it from being published.
    let reader = Connection::open(followed.bed.beside(".handover-m1")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    followed.arrives("DELETE FROM t WHERE k = 1").await;
    let failure = followed.target.flush().await.unwrap_err();
    assert!(failure.what == "it is in use" && failure.hint.contains("a backup"), "{failure}");
    drop(reader);
    assert!(followed.target.flush().await.unwrap());
}

async fn steps(sql: &str, steps: &[&str]) {
    let mut followed = Followed::begin(sql).await;
    for step in steps {
        followed.arrives(step).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_keys() {
    let values = "WITH n(k) AS (VALUES (0.1), (1), (1.5), (-0.0), (1e300), (5e-324), (9e999), (-9e999), (9007199254740993))";
    steps(
        &format!("CREATE TABLE t (k REAL PRIMARY KEY, v) WITHOUT ROWID; {values} INSERT INTO t SELECT k, 'old' FROM n"),
        &["UPDATE t SET v = k", "UPDATE t SET k = -k WHERE k > 1 AND k < 9e999", "UPDATE OR REPLACE t SET k = k + 0.25", "UPDATE t SET k = 2 WHERE k = 1.25", "DELETE FROM t WHERE k > 0"],
    )
    .await;
    // Rows of such a table keep their numbers whatever VACUUM does.
    steps(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (-9223372036854775808, 'first'), (9223372036854775807, 'last'), (0, 'mid')",
        &[
            "UPDATE t SET v = 'new'",
            "DELETE FROM t WHERE k = 9223372036854775807; VACUUM",
            "UPDATE t SET k = -(k + 1); INSERT INTO t (v) VALUES ('after VACUUM')",
            "UPDATE t SET k = k - 7 WHERE k < 100",
        ],
    )
    .await;
    // For want of a name this is no key: the row's number is.
    steps(
        "CREATE TABLE t (k INTEGER PRIMARY KEY DESC, v); INSERT INTO t VALUES (1, 'a'), (NULL, 'b'), (NULL, 'c'), (3, NULL)",
        &[
            "UPDATE t SET v = 'new' WHERE k IS NULL",
            "UPDATE t SET rowid = rowid + 100",
            "UPDATE t SET rowid = 1, k = NULL WHERE rowid = 101; DELETE FROM t WHERE v = 'new' AND rowid = 103",
            "INSERT OR REPLACE INTO t VALUES (3, 'in its place'); INSERT OR REPLACE INTO t (rowid, k) VALUES (1, 3)",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_several_columns_and_collations_are_keys() {
    let rows = "WITH n(a) AS (VALUES ('1'), (1), (x'31'), (1.5), ('a'), ('A'), ('a '), ('')) INSERT OR IGNORE INTO t (a, b, c)";
    let changes = [
        "UPDATE t SET v = 'new'",
        "UPDATE OR REPLACE t SET a = upper(a) WHERE typeof(a) = 'text' AND c = 1",
        "UPDATE OR REPLACE t SET a = b, b = a WHERE c = 1",
        "UPDATE t SET c = c + 10",
        "DELETE FROM t WHERE typeof(b) = 'text'",
    ];
    for key in ["a, b, c", "c DESC, a, b DESC", "a COLLATE NOCASE, b COLLATE RTRIM, c"] {
        let sql = format!(
            "CREATE TABLE t (a, b, c, v, PRIMARY KEY ({key})) WITHOUT ROWID; {rows} SELECT n.a, m.a, 1 FROM n, n AS m; {rows} SELECT n.a, m.a, 2 FROM n, n AS m"
        );
        steps(&sql, &changes).await;
    }
    // The key tells apart what its column's collation takes for the same.
    for collation in ["NOCASE", "RTRIM"] {
        let sql = format!(
            "CREATE TABLE t (k TEXT COLLATE {collation}, u UNIQUE, v, PRIMARY KEY (k COLLATE BINARY)) WITHOUT ROWID;
             INSERT INTO t (k, u) VALUES ('a', 1), ('A', 2), ('b', 3), ('b ', 4), ('c', 5)"
        );
        // The unique value is given up again: the target must be told of what it has removed.
        let changes = [
            "UPDATE t SET k = 'C', u = 50 WHERE k = 'c' COLLATE BINARY",
            "UPDATE t SET k = 'C ', u = 51 WHERE k = 'C' COLLATE BINARY",
            "UPDATE OR REPLACE t SET u = 1 WHERE k = 'A' COLLATE BINARY; UPDATE t SET u = 52 WHERE k = 'A' COLLATE BINARY",
            "UPDATE OR REPLACE t SET u = 4 WHERE k = 'b' COLLATE BINARY; UPDATE t SET u = 53 WHERE k = 'b' COLLATE BINARY",
        ];
        steps(&sql, &changes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_replaced_are_told() {
    let sql = "
        CREATE TABLE two (id INTEGER PRIMARY KEY, a UNIQUE, b TEXT, c, UNIQUE (b, c));
        INSERT INTO two VALUES (1, 1, 'x', 1), (2, 2, 'x', 2), (3, 3, 'y', 1), (4, NULL, NULL, 1), (5, 5, 'z', 5), (6, 6, 'z', 6), (7, 7, 'z', 7);
        CREATE TABLE declared (id INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE); INSERT INTO declared VALUES (1, 1), (2, 2), (3, 3);
        CREATE TABLE word (k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE UNIQUE INDEX word_nocase ON word (k COLLATE NOCASE);
        INSERT INTO word VALUES ('a', 1), ('b', 2), ('c', 3);
        CREATE TABLE made (id INTEGER PRIMARY KEY, a, b AS (a || '!') STORED UNIQUE, c AS (lower(a)) VIRTUAL);
        CREATE UNIQUE INDEX made_c ON made (c);
        INSERT INTO made (id, a) VALUES (1, 'p'), (2, 'q'), (3, 'r');
        CREATE TABLE part (id INTEGER PRIMARY KEY, a, live); CREATE UNIQUE INDEX part_live ON part (a) WHERE live;
        INSERT INTO part VALUES (1, 1, 1), (2, 1, 0), (3, 2, 1);
        CREATE TABLE keyless (a UNIQUE, v); INSERT INTO keyless VALUES ('m', 1), ('n', 2), ('o', 3);";
    // The value is given up again at once: what the target has of it stands in nobody's way.
    let changes = [
        "REPLACE INTO two VALUES (10, 1, 'y', 1); UPDATE two SET a = 1000, b = 'free' WHERE id = 10",
        "UPDATE OR REPLACE two SET a = 2, b = 'z', c = 5 WHERE id = 10; UPDATE two SET a = 1001, b = 'free' WHERE id = 10",
        "UPDATE OR REPLACE two SET a = a + 1 WHERE id IN (6, 7); UPDATE two SET a = 66 WHERE id = 6",
        "INSERT INTO two VALUES (20, 8, 'p', 1); INSERT INTO two VALUES (21, 8, 'q', 1) ON CONFLICT (a) DO UPDATE SET a = 80, b = 'up'",
        "INSERT OR IGNORE INTO two VALUES (7, 80, 'up', 1)",
        "INSERT INTO declared VALUES (9, 1); UPDATE declared SET a = 90 WHERE id = 9",
        "UPDATE declared SET a = 3 WHERE id = 2; UPDATE declared SET a = 20 WHERE id = 2",
        "REPLACE INTO word VALUES ('A', 'other case'); UPDATE word SET k = 'y' WHERE k = 'A'",
        "UPDATE OR REPLACE word SET k = 'B' WHERE k = 'c'; UPDATE word SET k = 'z' WHERE k = 'B'",
        "REPLACE INTO made (id, a) VALUES (9, 'p'); UPDATE made SET a = 'free' WHERE id = 9",
        "UPDATE OR REPLACE made SET a = 'Q' WHERE id = 3; UPDATE made SET a = 'free too' WHERE id = 3",
        "REPLACE INTO part VALUES (9, 1, 1); UPDATE part SET a = 90 WHERE id = 9",
        "UPDATE OR REPLACE part SET a = 2, live = 1 WHERE id = 2; UPDATE part SET a = 20 WHERE id = 2",
        "REPLACE INTO keyless VALUES ('m', 'anew'); UPDATE keyless SET a = 'mm' WHERE a = 'm'",
        "UPDATE OR REPLACE keyless SET a = 'n' WHERE a = 'o'; UPDATE keyless SET a = 'nn' WHERE a = 'n'",
    ];
    steps(sql, &changes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_foreign_keys_and_triggers_do_is_told() {
    let sql = "
        CREATE TABLE parent (id INTEGER PRIMARY KEY, code UNIQUE, v);
        CREATE TABLE child (a, parent REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, slot UNIQUE, PRIMARY KEY (a, parent)) WITHOUT ROWID;
        CREATE TABLE grand (id INTEGER PRIMARY KEY, a, p, FOREIGN KEY (a, p) REFERENCES child (a, parent) ON DELETE SET NULL ON UPDATE CASCADE);
        CREATE TABLE other (parent REFERENCES parent (code) ON DELETE SET DEFAULT ON UPDATE CASCADE, n);
        CREATE TABLE tree (id INTEGER PRIMARY KEY, up REFERENCES tree ON DELETE CASCADE ON UPDATE CASCADE, name UNIQUE);
        CREATE TABLE log (what, at);
        CREATE TRIGGER counts AFTER DELETE ON child BEGIN INSERT INTO log VALUES ('gone', OLD.slot); UPDATE parent SET v = 'fewer' WHERE id = 9; END;
        CREATE TRIGGER touches AFTER UPDATE OF v ON parent WHEN NEW.v = 'fewer' BEGIN UPDATE parent SET v = 'fewer still' WHERE id = NEW.id; END;
        INSERT INTO parent SELECT value, 'c' || value, 0 FROM json_each('[1,2,3,4,5,6,7,8,9]');
        INSERT INTO child SELECT n.value, p.id, p.id * 10 + n.value FROM parent p, json_each('[1,2]') n;
        INSERT INTO grand (a, p) SELECT a, parent FROM child;
        INSERT INTO other SELECT code, id FROM parent;
        INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, 'a'), (3, 1, 'b'), (4, 2, 'aa'), (5, 4, 'aaa'), (6, 3, 'ba');";
    let changes = [
        "DELETE FROM parent WHERE id = 1",
        "UPDATE parent SET id = 100 WHERE id = 2",
        "UPDATE parent SET code = 'moved' WHERE id = 3",
        "REPLACE INTO parent VALUES (3, 'c4', 'in two places'); UPDATE parent SET code = 'free' WHERE id = 3",
        "UPDATE OR REPLACE parent SET code = 'c6' WHERE id = 5; UPDATE parent SET code = 'free too' WHERE id = 5",
        "UPDATE OR REPLACE child SET slot = 82 WHERE a = 1 AND parent = 7; UPDATE child SET slot = 99 WHERE a = 1 AND parent = 7",
        "UPDATE tree SET id = 20 WHERE id = 2",
        "REPLACE INTO tree VALUES (30, 1, 'b'); UPDATE tree SET name = 'free' WHERE id = 30",
        "DELETE FROM tree WHERE id = 1",
        "BEGIN; DELETE FROM parent; ROLLBACK",
        "BEGIN; DELETE FROM parent WHERE id = 7; SAVEPOINT s; DELETE FROM parent; ROLLBACK TO s; UPDATE parent SET id = 7 WHERE id = 8; COMMIT",
        "DELETE FROM parent",
    ];
    steps(sql, &changes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_any_size_comes_in_parts() {
    let mut followed =
        Followed::begin("PRAGMA journal_mode = wal; CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
    let told = followed
        .arrives(
            "BEGIN; WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000) INSERT INTO t SELECT i, i FROM n;
             DELETE FROM t WHERE k > 119990; COMMIT",
        )
        .await;
    assert_eq!(told, [50_000, 50_000, 20_010]);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_come_home_also_where_there_are_none() {
    const TABLES: &str = "
        CREATE TABLE used (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE reset (id INTEGER PRIMARY KEY AUTOINCREMENT);
        CREATE TABLE only_here (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO used VALUES (7); INSERT INTO reset VALUES (8);
        INSERT INTO only_here VALUES (9); DELETE FROM used; DELETE FROM reset; DELETE FROM only_here;";
    let (here, there) = (Bed::with(TABLES), Bed::with(TABLES));
    let change = "UPDATE sqlite_sequence SET seq = 70 WHERE name = 'used'; DELETE FROM sqlite_sequence WHERE name = 'reset'; DROP TABLE only_here";
    there.source_db().execute_batch(change).unwrap();
    let view = there.source().snapshot().await.unwrap();
    let fenced = SqliteFenced::new("db".parse().unwrap(), here.source_path());
    for _ in 0..2 {
        fenced.set_positions(view.schema()).await.unwrap();
    }
    let sql =
        "SELECT group_concat(name || ' ' || seq, ', ') FROM (SELECT * FROM sqlite_sequence ORDER BY name)";
    let found: String = here.source_db().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(found, "only_here 9, used 70");
}
