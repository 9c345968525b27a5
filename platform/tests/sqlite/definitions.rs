//! A schema that changes while it is followed, and what keeps changes being lost: following stops, and says why.

use std::time::Duration;

use handover_engine::change::LogPosition;
use handover_engine::failure::{Class, Failure};
use handover_engine::ports::LiveDatabase;
use handover_engine::rows::{Key, TableName};

use crate::following::{capture, live};
use crate::support::Bed;

const SCHEMA: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, v, w);
    CREATE TABLE other (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE child (id INTEGER PRIMARY KEY, t REFERENCES t);
    CREATE INDEX t_v ON t (v);
    CREATE VIEW seen AS SELECT id FROM t;
    CREATE TRIGGER acts AFTER INSERT ON other BEGIN UPDATE t SET v = v; END;
    CREATE TABLE left_out (x);
    INSERT INTO t VALUES (1, 'a', 'b'); INSERT INTO other VALUES (1, 2);";
/// A table whose rows are known by their numbers, which VACUUM may change.
const BY_NUMBER: &str = "CREATE TABLE numbered (x); INSERT INTO numbered VALUES (1);";

async fn told(bed: &Bed, after: &LogPosition) -> Result<LogPosition, Failure> {
    live(bed).changes(&capture(), after, Duration::ZERO).await.map(|told| told.until)
}

fn bed(more: &str) -> Bed {
    let mut bed = Bed::with(&format!("{SCHEMA} {more}"));
    bed.exclude = vec!["left_out".to_owned()];
    bed
}

fn assert_stops(what: &str, failure: &Failure, parts: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, Class::NeedsOperator, "{what}: {text}");
    assert!(failure.begins_anew(), "{what}: {text}");
    for part in parts {
        assert!(text.contains(part), "{what}: no {part:?} in {text}");
    }
}

/// Follows, has keys wait, runs `sql`: following stops with a message that has these parts, and ends without a trace.
async fn stops(more: &str, sql: &str, parts: &[&str]) {
    let bed = bed(more);
    let after = live(&bed).begin(&capture()).await.unwrap();
    bed.source_db().execute_batch("UPDATE t SET v = 'waits'; DELETE FROM other").unwrap();
    bed.source_db().execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let failure = told(&bed, &after).await.expect_err(sql);
    assert_stops(sql, &failure, parts);
    live(&bed).end(&capture(), false).await.unwrap();
    let traces = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%handover%'";
    let traces: i64 = bed.source_db().query_row(traces, [], |row| row.get(0)).unwrap();
    assert_eq!(traces, 0, "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_stops_with_its_name() {
    let altered = "its definition was changed while";
    for (sql, parts) in [
        ("CREATE TABLE new (a, b, c, PRIMARY KEY (a, b, c))", ["table new: ", "it was made while"]),
        ("CREATE VIRTUAL TABLE new USING fts5(a)", ["table new: ", "it was made while"]),
        ("DROP TABLE t", ["table t: ", "it was dropped while"]),
        ("DROP TABLE other", ["table other: ", "it was dropped while"]),
        ("ALTER TABLE t RENAME TO u", ["table t: ", "it was renamed to u while"]),
        ("ALTER TABLE t ADD COLUMN x DEFAULT 7", ["table t: ", altered]),
        ("ALTER TABLE t DROP COLUMN w", ["table t: ", altered]),
        ("ALTER TABLE t RENAME COLUMN w TO x", ["table t: ", altered]),
        (
            "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v, w); CREATE INDEX t_v ON t (v)",
            ["table t: ", "it was dropped and made anew"],
        ),
        ("DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v)", ["table t: ", altered]),
        (
            "DROP TRIGGER __handover_following_d_t",
            ["table t: ", "a trigger that keeps its changes was dropped"],
        ),
        ("CREATE UNIQUE INDEX t_w ON t (w)", ["index t_w: ", "it was made while"]),
        ("DROP INDEX t_v; CREATE UNIQUE INDEX t_v ON t (v)", ["index t_v: ", altered]),
        ("DROP VIEW seen", ["view seen: ", "it was dropped while"]),
        ("DROP TRIGGER acts", ["trigger acts: ", "it was dropped while"]),
    ] {
        stops("", sql, &parts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_missed_stops() {
    let gone = "what keeps its changes is gone";
    stops(BY_NUMBER, "VACUUM", &["VACUUM has numbered its rows anew"]).await;
    stops("", "DROP TABLE __handover_changes_following", &[gone]).await;
    stops("", "DROP TABLE __handover_rows_following", &[gone]).await;
    stops("", "DROP TABLE __handover_definitions_following", &[gone]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_in_its_place_stops() {
    let bed = bed("");
    let begun = live(&bed).begin(&capture()).await.unwrap();
    let old = bed.dir.path().join("old.db");
    std::fs::copy(bed.source_path(), &old).unwrap();
    bed.source_db().execute_batch("UPDATE t SET v = 'newer'").unwrap();
    let after = told(&bed, &begun).await.unwrap();
    live(&bed).confirm(&capture(), &after).await.unwrap();
    // Written over: the same file, with what was in it before.
    let newer = std::fs::read(bed.source_path()).unwrap();
    std::fs::write(bed.source_path(), std::fs::read(&old).unwrap()).unwrap();
    assert_stops(
        "older",
        &told(&bed, &after).await.unwrap_err(),
        &["an older state of it has been put in its place"],
    );
    std::fs::write(bed.source_path(), newer).unwrap();
    told(&bed, &after).await.unwrap();
    // Put in its place, and written to until it has as many changes.
    std::fs::rename(&old, bed.source_path()).unwrap();
    bed.source_db().execute_batch("UPDATE t SET v = 1; UPDATE t SET v = 2; UPDATE t SET v = 3").unwrap();
    assert_stops("copy", &told(&bed, &after).await.unwrap_err(), &["another file has been put in its place"]);
    std::fs::remove_file(bed.source_path()).unwrap();
    bed.source_db().execute_batch(SCHEMA).unwrap();
    for failure in
        [told(&bed, &after).await.unwrap_err(), live(&bed).confirm(&capture(), &after).await.unwrap_err()]
    {
        assert_stops("another", &failure, &["what keeps its changes is gone"]);
    }
}

/// Between being told of a key and asking for its row anything may happen to its table.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_that_is_another_are_not_told() {
    for (sql, what) in [
        ("DROP TABLE t", "it was dropped while"),
        ("ALTER TABLE t ADD COLUMN x DEFAULT 7", "its definition was changed while"),
    ] {
        let bed = bed("");
        let live = live(&bed);
        live.begin(&capture()).await.unwrap();
        let (t, other, keys) = (TableName::plain("t"), TableName::plain("other"), [Key("i1".into())]);
        assert_eq!(live.rows(&t, &keys, 1).await.unwrap().header.rows, 1);
        bed.source_db().execute_batch(sql).unwrap();
        assert_stops(sql, &live.rows(&t, &keys, 1).await.unwrap_err(), &["table t: ", what]);
        assert_eq!(live.rows(&other, &[Key("i1\ti2".into())], 1).await.unwrap().header.rows, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_no_row_stops_nothing() {
    let bed = bed("");
    let live = live(&bed);
    let after = live.begin(&capture()).await.unwrap();
    for sql in [
        "ANALYZE; REINDEX; PRAGMA user_version = 7; PRAGMA optimize",
        "VACUUM",
        "CREATE TABLE IF NOT EXISTS t (x); CREATE TEMP TABLE t2 (x); CREATE TEMP TRIGGER q AFTER INSERT ON t BEGIN SELECT 1; END",
        "ALTER TABLE left_out ADD COLUMN y; CREATE INDEX left_out_y ON left_out (y)",
        "BEGIN; ALTER TABLE t ADD COLUMN z; ROLLBACK",
    ] {
        bed.source_db().execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        told(&bed, &after).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    live.fence(&capture(), Duration::from_secs(5)).await.unwrap();
    told(&bed, &after).await.unwrap();
    live.unfence(&capture()).await.unwrap();
    bed.source_db().execute_batch("UPDATE t SET v = 'told'").unwrap();
    assert_ne!(told(&bed, &after).await.unwrap(), after);
}
