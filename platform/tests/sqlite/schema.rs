//! Every kind of object arrives, with the statement that made it.

use handover_engine::rows::TableKey;
use rusqlite::Connection;

use super::support::{Bed, assert_same, dump, integrity};

/// Moves a source made by `sql` in small chunks, and compares.
async fn check(what: &str, sql: &str) -> Bed {
    let bed = Bed::with(sql);
    bed.try_move(50).await.unwrap_or_else(|failure| panic!("{what}: {failure}"));
    assert_same(&bed.source_path(), &bed.target_path());
    assert_eq!(integrity(&bed.target_path()), integrity(&bed.source_path()), "{what}");
    bed
}

fn count(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[tokio::test]
async fn every_kind_of_object() {
    let table = [
        ("nothing at all", ""),
        ("nothing any more", "CREATE TABLE t (a); DROP TABLE t"),
        ("an empty table", "CREATE TABLE t (a INTEGER PRIMARY KEY, b)"),
        ("settings only", "PRAGMA user_version = 2147483647; PRAGMA application_id = -2147483648; VACUUM"),
        (
            "generated columns",
            "CREATE TABLE t (a INTEGER PRIMARY KEY, s AS (b * 2) STORED, b, v TEXT GENERATED ALWAYS AS (b || '!') VIRTUAL,
                 last);
             CREATE INDEX t_v ON t (v); CREATE UNIQUE INDEX t_s ON t (s);
             INSERT INTO t (b, last) VALUES (1, 'x'), (2.5, 'y'), (NULL, 'z')",
        ),
        (
            "generated columns without a key, and without rowid",
            "CREATE TABLE t (v AS (b + 1), b); INSERT INTO t (b) VALUES (1), (2);
             CREATE TABLE w (s AS (k || k) STORED, k PRIMARY KEY, x) WITHOUT ROWID; INSERT INTO w (k) VALUES ('a'), ('b')",
        ),
        (
            "strict tables",
            "CREATE TABLE t (a INT, b ANY) STRICT; INSERT INTO t VALUES (1, 'x'), (2, 3.0);
             CREATE TABLE w (a TEXT PRIMARY KEY, b REAL) STRICT, WITHOUT ROWID; INSERT INTO w VALUES ('a', 1)",
        ),
        (
            "partial, expression, descending and covering indexes",
            "CREATE TABLE t (a, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'Y'), (NULL, 'z');
             CREATE INDEX i1 ON t (a) WHERE a > 1; CREATE UNIQUE INDEX i2 ON t (lower(b));
             CREATE INDEX i3 ON t (b COLLATE NOCASE DESC, a); CREATE INDEX i4 ON t (a + 1, length(b)) WHERE b NOT NULL;
             CREATE INDEX \"i 5\" ON t (\"a\" || b)",
        ),
        (
            "views, one of another, with columns, with a trigger",
            "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2);
             CREATE VIEW v AS SELECT a, b FROM t; CREATE VIEW w (x, y) AS SELECT * FROM v WHERE a = 1;
             CREATE VIEW early AS SELECT * FROM late; CREATE TABLE late (a);
             CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a, new.b); END",
        ),
        (
            "comments and odd spelling",
            "CREATE TABLE t(a /* one; two */, -- three;\n b DEFAULT 'x;y'  ,c DEFAULT (1+1)) ;
             create   unique index I on t(a) -- behind
             ; INSERT INTO t (a) VALUES (1);
             CREATE TABLE u AS SELECT a, b AS \"b b\" FROM t",
        ),
        (
            "checks and not-null that old rows break",
            "CREATE TABLE t (a CHECK (a > 0), b); PRAGMA ignore_check_constraints = ON;
             INSERT INTO t VALUES (-1, 1); PRAGMA ignore_check_constraints = OFF; INSERT INTO t VALUES (1, 1)",
        ),
        (
            "unique values in conflict clauses",
            "CREATE TABLE t (a UNIQUE ON CONFLICT IGNORE, b UNIQUE ON CONFLICT FAIL, c NOT NULL ON CONFLICT REPLACE DEFAULT 7);
             INSERT INTO t VALUES (1, 2, 3), (2, 3, NULL), (NULL, NULL, 1), (NULL, NULL, 1)",
        ),
        (
            "columns that were added and dropped later",
            "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2), (3, 4); ALTER TABLE t ADD COLUMN c DEFAULT 'c';
             INSERT INTO t VALUES (5, 6, 7); ALTER TABLE t DROP COLUMN a; ALTER TABLE t RENAME COLUMN b TO \"b b\";
             ALTER TABLE t RENAME TO \"t t\"",
        ),
    ];
    for (what, sql) in table {
        check(what, sql).await;
    }
}

#[tokio::test]
async fn triggers_do_not_fire_on_load() {
    let bed = check(
        "triggers",
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b); CREATE TABLE log (what);
         INSERT INTO t VALUES (1, 'x'), (2, 'y');
         CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('insert ' || new.a); END;
         CREATE TRIGGER td BEFORE DELETE ON t BEGIN INSERT INTO log VALUES ('delete ' || old.a); END;
         CREATE TRIGGER tu AFTER UPDATE OF b ON t WHEN new.b <> old.b BEGIN SELECT RAISE(ABORT, 'no; never'); END;
         INSERT INTO t VALUES (3, 'z');",
    )
    .await;
    // Again, over what was published, which has them.
    bed.source_db().execute_batch("INSERT INTO t VALUES (4, 'late'); DELETE FROM t WHERE a = 1").unwrap();
    bed.moves().await;
    let db = bed.target_db();
    assert_eq!(count(&db, "SELECT count(*) FROM log"), 3);
    db.execute_batch("INSERT INTO t VALUES (5, 'w')").unwrap();
    assert_eq!(count(&db, "SELECT count(*) FROM log"), 4, "afterwards they do");
    assert!(db.execute("UPDATE t SET b = 'other'", []).is_err());
}

#[tokio::test]
async fn a_later_pass_over_views_that_name_nothing() {
    for columns in ["a INTEGER PRIMARY KEY", "rowid, oid, _rowid_, a"] {
        let bed = check(
            columns,
            &format!(
                "CREATE TABLE t ({columns}); INSERT INTO t (a) VALUES (1), (2); CREATE INDEX t_a ON t (a);
                 CREATE TABLE gone (a); CREATE VIEW broken AS SELECT a FROM gone; CREATE VIEW sound AS SELECT * FROM t;
                 CREATE TRIGGER odd AFTER INSERT ON t BEGIN DELETE FROM gone; END; DROP TABLE gone"
            ),
        )
        .await;
        bed.source_db().execute_batch("UPDATE t SET a = 3 WHERE a = 2").unwrap();
        bed.moves().await;
    }
}

#[tokio::test]
async fn virtual_tables() {
    let bed = check(
        "virtual tables",
        "CREATE TABLE doc (id INTEGER PRIMARY KEY, body);
         INSERT INTO doc VALUES (1, 'the quick brown fox'), (2, 'jumps over'), (3, 'the lazy dog');
         CREATE VIRTUAL TABLE f5 USING fts5(title, body, tokenize = 'porter ascii', prefix = '2 3');
         CREATE VIRTUAL TABLE f5c USING fts5(body, content = 'doc', content_rowid = 'id');
         CREATE VIRTUAL TABLE \"f5 none\" USING fts5(body, content = '');
         CREATE VIRTUAL TABLE words USING fts5vocab(f5, 'row');
         INSERT INTO f5 SELECT 'title ' || id, body FROM doc; INSERT INTO f5c (f5c) VALUES ('rebuild');
         INSERT INTO \"f5 none\" (rowid, body) SELECT id, body FROM doc;
         DELETE FROM f5 WHERE rowid = 2; INSERT INTO f5 (f5) VALUES ('optimize');
         CREATE TRIGGER doc_in AFTER INSERT ON doc BEGIN INSERT INTO f5c (rowid, body) VALUES (new.id, new.body); END",
    )
    .await;
    let db = bed.target_db();
    assert_eq!(count(&db, "SELECT count(*) FROM f5 WHERE f5 MATCH 'foxes'"), 1);
    assert_eq!(count(&db, "SELECT count(*) FROM f5c WHERE f5c MATCH 'the'"), 2);
    assert_eq!(count(&db, "SELECT rowid FROM \"f5 none\" WHERE \"f5 none\" MATCH 'jumps'"), 2);
    assert_eq!(count(&db, "SELECT doc FROM words WHERE term = 'fox'"), 1);
    db.execute_batch(
        "INSERT INTO f5 (f5) VALUES ('integrity-check'); INSERT INTO doc VALUES (4, 'a new fox')",
    )
    .unwrap();
    assert_eq!(count(&db, "SELECT count(*) FROM f5c WHERE f5c MATCH 'fox'"), 2);
}

#[tokio::test]
async fn virtual_tables_of_older_kinds() {
    let has = |module: &str| {
        let db = Connection::open_in_memory().unwrap();
        let sql = "SELECT count(*) FROM pragma_module_list WHERE name = ?";
        db.query_row(sql, [module], |row| row.get::<_, i64>(0)).unwrap() > 0
    };
    assert!(has("fts3") && has("rtree"), "the release is built with them");
    let bed = check(
        "older virtual tables",
        "CREATE VIRTUAL TABLE f4 USING fts4(body, tokenize=porter); CREATE VIRTUAL TABLE f3 USING fts3(a, b);
         CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, y0, y1, +label);
         CREATE VIRTUAL TABLE whole USING rtree_i32(id, x0, x1);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             INSERT INTO box SELECT i, i, i + 1, -i, i, 'box ' || i FROM n;
         INSERT INTO whole VALUES (7, 1, 2);
         INSERT INTO f4 SELECT 'running ' || label FROM box; INSERT INTO f3 VALUES ('one', 'two'); DELETE FROM f4 WHERE docid = 5;",
    )
    .await;
    let db = bed.target_db();
    assert_eq!(count(&db, "SELECT count(*) FROM f4 WHERE f4 MATCH 'run'"), 199);
    assert_eq!(count(&db, "SELECT count(*) FROM f3 WHERE b MATCH 'two'"), 1);
    assert_eq!(count(&db, "SELECT count(*) FROM box WHERE x0 > 190"), 10);
    let sound: String = db.query_row("SELECT rtreecheck('box')", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn sequence_positions() {
    let bed = check(
        "AUTOINCREMENT",
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE never (id INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE TABLE gone (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE far (id INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE TABLE \"a/b 'c'\" (id INTEGER PRIMARY KEY AUTOINCREMENT);
         INSERT INTO t (v) VALUES (1), (2), (3); DELETE FROM t WHERE id > 1;
         INSERT INTO gone VALUES (77); DELETE FROM gone; INSERT INTO far VALUES (9223372036854775807);
         INSERT INTO \"a/b 'c'\" VALUES (5); UPDATE sqlite_sequence SET seq = 1000 WHERE name = 't'",
    )
    .await;
    let db = bed.target_db();
    db.execute_batch("INSERT INTO t (v) VALUES ('next'); INSERT INTO gone DEFAULT VALUES").unwrap();
    assert_eq!(count(&db, "SELECT max(id) FROM t"), 1001);
    assert_eq!(count(&db, "SELECT max(id) FROM gone"), 78);
    assert!(db.execute("INSERT INTO far DEFAULT VALUES", []).is_err(), "the last number was given");
}

#[tokio::test]
async fn planner_statistics() {
    let content = "CREATE TABLE t (a, b); CREATE INDEX t_a ON t (a); CREATE INDEX t_b ON t (b);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t SELECT i % 7, i FROM n;";
    for rest in [
        "ANALYZE",
        "ANALYZE t_a",
        "ANALYZE; DELETE FROM sqlite_stat1",
        "ANALYZE; UPDATE sqlite_stat1 SET stat = '5 4 odd'",
    ] {
        check(rest, &format!("{content} {rest}")).await;
    }
}

#[tokio::test]
async fn foreign_keys() {
    let bed = check(
        "foreign keys",
        "PRAGMA foreign_keys = OFF;
         CREATE TABLE a (id INTEGER PRIMARY KEY, b REFERENCES b ON DELETE CASCADE);
         CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE tree (id INTEGER PRIMARY KEY, parent REFERENCES tree ON DELETE SET NULL ON UPDATE CASCADE);
         CREATE TABLE pair (x, y, PRIMARY KEY (x, y)); CREATE TABLE child (x, y, FOREIGN KEY (x, y) REFERENCES pair ON DELETE CASCADE);
         CREATE TABLE broken (t REFERENCES tree, nowhere REFERENCES missing);
         INSERT INTO a VALUES (1, 1), (2, 1); INSERT INTO b VALUES (1, 2);
         INSERT INTO tree VALUES (1, 3), (2, 1), (3, 2), (4, 4), (5, 5); INSERT INTO pair VALUES (1, 2); INSERT INTO child VALUES (1, 2), (NULL, 2);
         INSERT INTO broken VALUES (99, 1)",
    )
    .await;
    // Replacing a parent's rows must take no child along.
    bed.source_db()
        .execute_batch("PRAGMA foreign_keys = OFF; UPDATE tree SET parent = 2 WHERE id = 1; DELETE FROM pair")
        .unwrap();
    bed.moves().await;
    let facts = handover_engine::ports::Database::facts(&bed.source()).await.unwrap();
    let notes = facts.notes.join("\n");
    assert!(notes.contains("broken"), "an operator is told of rows without a parent: {notes}");
}

#[tokio::test]
async fn names() {
    let names = [
        "table", "select", "a b", "a\"b", "a'b", "a`b", "[a]", "a.b", "a;b", "größe", "表", "😀", "", " ",
        "a\\b", "1", "--", "/*", "a\tb", "a\nb", "?1", ":x", "%s", "Sqlite", "rowid", "oid",
    ];
    let mut sql = String::new();
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for (n, name) in names.iter().enumerate() {
        let (table, column) = (quote(name), quote(names[(n + 1) % names.len()]));
        let (index, view, trigger) =
            (quote(&format!("{name} i")), quote(&format!("{name} v")), quote(&format!("{name} t")));
        sql.push_str(&format!(
            "CREATE TABLE {table} ({column} TEXT PRIMARY KEY, \"order\" AS (1), {other});
             CREATE INDEX {index} ON {table} ({other}); CREATE VIEW {view} AS SELECT {column} FROM {table};
             CREATE TRIGGER {trigger} AFTER INSERT ON {table} BEGIN SELECT 1; END;
             INSERT INTO {table} VALUES ('x', 1), ('y', 2);",
            other = quote(&format!("{name} other")),
        ));
    }
    check("names", &sql).await;
}

#[tokio::test]
async fn a_thousand_tables() {
    let mut sql = String::from("BEGIN;");
    for n in 0..1000 {
        sql.push_str(&format!(
            "CREATE TABLE t{n} (a INTEGER PRIMARY KEY, b); INSERT INTO t{n} VALUES (1, {n});"
        ));
    }
    sql.push_str("COMMIT");
    check("a thousand tables", &sql).await;
}

#[tokio::test]
async fn tables_that_are_left_out() {
    let mut bed = Bed::with(
        "CREATE TABLE keep (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE cache (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
         CREATE INDEX cache_v ON cache (v); CREATE VIRTUAL TABLE found USING fts5(body); CREATE TABLE found_not (a);
         INSERT INTO keep VALUES (1); INSERT INTO cache VALUES (9, 9); INSERT INTO found VALUES ('x'); ANALYZE;",
    );
    bed.exclude = vec!["cache".to_owned(), "found".to_owned()];
    bed.try_move(100).await.unwrap();
    let left = dump(&bed.target_path()).join("\n");
    assert!(!left.contains("cache") && !left.contains("found_data"), "{left}");
    assert!(left.contains("keep"), "{left}");
}

#[tokio::test]
async fn how_rows_are_found() {
    let table = [
        ("a INTEGER PRIMARY KEY", TableKey::Columns(vec![0])),
        ("b, a INTEGER, PRIMARY KEY (a)", TableKey::Columns(vec![1])),
        ("a INTEGER PRIMARY KEY DESC", TableKey::Hidden("rowid".to_owned())),
        ("a INT PRIMARY KEY", TableKey::Hidden("rowid".to_owned())),
        ("a, RowID", TableKey::Hidden("_rowid_".to_owned())),
        ("rowid INTEGER PRIMARY KEY, oid, _rowid_", TableKey::Columns(vec![0])),
        ("rowid, oid", TableKey::Hidden("_rowid_".to_owned())),
        ("rowid, oid, _ROWID_", TableKey::Position),
        ("oid AS (a), _rowid_, rowid, a", TableKey::Position),
        ("a, oid, _rowid_ AS (a), rowid AS (a)", TableKey::Position),
    ];
    for (columns, key) in table {
        let bed = Bed::with(&format!(
            "CREATE TABLE t ({columns}); INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES"
        ));
        let view = bed.try_move(1).await.unwrap_or_else(|failure| panic!("{columns}: {failure}"));
        assert_eq!(view.schema().tables[0].key, key, "{columns}");
        assert_same(&bed.source_path(), &bed.target_path());
    }
}
