//! Copies that are not fit to take their source's place: the cut-over does not begin, or is called off, and says why.

use handover_tests::bed::Bed;
use handover_tests::poll;
use handover_tests::server::Engine;
use rusqlite::Connection;

use super::lost_logs::TABLE;
use super::verifying::{follow, following, servers, unfinished};
use super::{SETTLES_WITHIN, settle_and_compare};

/// Asks for a cut-over that must not take place; what it says.
#[track_caller]
fn refused(bed: &Bed, args: &[&str], code: i32) -> String {
    let all: Vec<&str> = ["cutover"].iter().chain(args).copied().collect();
    let told = bed.cli(&all).unwrap();
    assert_eq!(told.code, Some(code), "{}", told.text());
    let status = bed.json(&["status"]).unwrap();
    assert_eq!((&status["phase"], &status["condition"]), (&"following".into(), &"good".into()), "{status}");
    told.text()
}

#[test]
fn what_cannot_be_followed_is_read_again_behind_the_fence() {
    let bed = following(91);
    // Its source has not changed since it was copied, so that nothing of it is sent again: only reading it tells.
    let copy = unfinished(&bed);
    copy.execute_batch("DELETE FROM memo WHERE rowid = (SELECT min(rowid) FROM memo)").unwrap();
    drop(copy);
    let told = refused(&bed, &["--watch"], 3);
    assert!(told.contains("called off") && told.contains("table memo"), "{told}");
    let source = Connection::open(&bed.original().database).unwrap();
    source.execute_batch("UPDATE customer SET name = 'let in again' WHERE id = 1").unwrap();
    // What differed is copied anew.
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}

/// A source whose schema changes in a way that following lets pass, until that is taken back.
fn a_changed_schema_is_named(bed: &Bed, change: impl FnOnce(), undo: impl FnOnce(), object: &str) {
    change();
    for (how, code) in [("--dry-run", 5), ("--watch", 3)] {
        let told = refused(bed, &[how], code);
        assert!(told.contains("its schema has changed") && told.contains(object), "{told}");
        let status = bed.json(&["status"]).unwrap();
        assert!(status["cutover"]["fenced_at"].is_null(), "writers were kept waiting: {status}");
    }
    undo();
    bed.json(&["cutover", "--dry-run"]).unwrap();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "trial");
}

fn a_changed_server_is_named(engine: Engine, create: &str, drop: &str, object: &str) {
    let (from, _to, bed, _root) = servers(engine, TABLE);
    follow(&bed);
    let run = |sql: &str| from.run("app", sql).map(std::mem::drop).unwrap();
    a_changed_schema_is_named(&bed, || run(create), || run(drop), object);
}

#[test]
fn a_postgresql_source_with_another_table_is_named() {
    let create = "CREATE TABLE late (id INT PRIMARY KEY); INSERT INTO late VALUES (1);";
    a_changed_server_is_named(Engine::Postgres, create, "DROP TABLE late", "late is new");
}

#[test]
fn a_mariadb_source_with_another_view_is_named() {
    let create = "CREATE VIEW late AS SELECT id FROM one";
    a_changed_server_is_named(Engine::Mariadb, create, "DROP VIEW late", "view late is new");
}

#[test]
fn a_copy_that_is_too_far_behind_is_waited_for() {
    let bed = following(93);
    // What there is to do before the fence alone takes longer.
    let told = refused(&bed, &["--max-lag", "0", "--watch"], 3);
    assert!(told.contains("too far behind") && told.contains("--max-lag"), "{told}");
    bed.json(&["throttle", "--max-rate", "100KB"]).unwrap();
    let source = Connection::open(&bed.original().database).unwrap();
    let rows = "INSERT INTO reading (meter, value)
                WITH RECURSIVE n AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < 40000)
                SELECT printf('%0100d', n), n FROM n";
    source.execute_batch(rows).unwrap();
    poll::until("the copy to be behind", SETTLES_WITHIN, || {
        let status = bed.json(&["status"])?;
        Ok((status["following"]["app"]["lag_ms"].as_u64() > Some(2_000)).then_some(()))
    })
    .unwrap();
    for how in [&["--max-lag", "1"] as &[&str], &["--max-lag", "1", "--dry-run"]] {
        let told = refused(&bed, how, 5);
        assert!(told.contains("dataset app: it is") && told.contains("ms behind"), "{told}");
    }
    // A cut-over itself is held to nothing.
    bed.cli(&["cutover", "--max-lag", "60", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}
