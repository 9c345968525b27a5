//! A source that is in use: followed, cut over, given back.

use std::path::Path;
use std::time::Duration;

use handover_engine::time::Timestamp;
use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::compare;
use handover_tests::poll;
use rusqlite::Connection;

use super::{SETTLES_WITHIN, settle_and_compare};

/// A bed whose migration follows its source, and has caught up.
fn following(seed: u64) -> Bed {
    let bed = Bed::temporary(&Spec::small(seed)).unwrap();
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    caught_up(&bed);
    bed
}

/// Waits until nothing waits any more that was told so far.
fn caught_up(bed: &Bed) {
    poll::until("the target to catch up", SETTLES_WITHIN, || {
        // An agent that is down is waited for.
        let Ok(status) = bed.json(&["status"]) else { return Ok(None) };
        assert_eq!(status["condition"], "good", "{status}");
        Ok((status["following"]["app"]["waiting"] == 0).then_some(()))
    })
    .unwrap();
}

fn source(bed: &Bed) -> Connection {
    let db = Connection::open(&bed.original().database).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db
}

/// A write to some table of a database.
fn write(database: &Path) -> rusqlite::Result<()> {
    let db = Connection::open(database)?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.execute_batch("UPDATE customer SET name = name WHERE id = (SELECT min(id) FROM customer)")
}

fn traces(bed: &Bed) -> String {
    traces_of(&bed.original().database)
}

fn traces_of(database: &Path) -> String {
    let sql = "SELECT coalesce(group_concat(name), '') FROM sqlite_schema WHERE name LIKE '\\_\\_handover\\_%' ESCAPE '\\'";
    Connection::open(database).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_source_in_use_is_followed_and_replaced() {
    let bed = following(41);
    for seed in 0..3 {
        bed.original().change(seed).unwrap();
    }
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    let status = settle_and_compare(&bed);
    assert_eq!(status.phase, "trial");
    let refused = write(&bed.original().database).unwrap_err().to_string();
    assert!(refused.contains("handover: this database"), "{refused}");
    write(&bed.copy().database).unwrap();
    assert_eq!(status.allowed, ["pause", "accept", "abort"]);
    let cutover = bed.json(&["status"]).unwrap()["cutover"].clone();
    assert!(
        cutover["downtime_ms"].as_u64().is_some() && cutover["predicted_ms"].as_u64().is_some(),
        "{cutover}"
    );
    bed.cli(&["accept", "--watch"]).unwrap().success().unwrap();
    assert_eq!(traces_of(&bed.copy().database), "", "the target still keeps changes for the source");
    write(&bed.copy().database).unwrap();
    refuses_to_lose(&bed, "the source follows it no more");
    bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    // The fence is all that is left, and stands.
    write(&bed.original().database).unwrap_err();
    let traces = traces(&bed);
    assert!(traces.split(',').all(|name| name.starts_with("__handover_fence")), "{traces}");
    assert!(!bed.root().join("target/state/spool").join(&status.migration).join("app").exists());
}

#[test]
fn a_cutover_is_tried_and_planned() {
    let mut bed = following(46);
    let tried = bed.json(&["cutover", "--dry-run"]).unwrap();
    let acts: Vec<&str> =
        tried["acts"].as_array().unwrap().iter().filter_map(|act| act["step"].as_str()).collect();
    assert_eq!(acts[..2], ["maintain", "fence"], "{tried}");
    assert!(acts.contains(&"publish") && tried["predicted_ms"].as_u64().is_some_and(|ms| ms > 0), "{tried}");
    write(&bed.original().database).unwrap();
    caught_up(&bed);
    let refused = |args: &[&str], part: &str| {
        let told = bed.cli(args).unwrap();
        assert!(told.code != Some(0) && told.text().contains(part), "{}", told.text());
    };
    refused(&["cutover", "--never"], "no cut-over is planned");
    refused(&["cutover", "--at", "2026-01-31T02:30:00+01:00"], "2026-01-31T01:30:00Z has passed");
    refused(&["cutover", "--at", "tomorrow"], "RFC 3339");
    let later = |ms: i64| Timestamp::from_millis(poll::wall_ms() + ms).to_string();
    bed.json(&["cutover", "--at", &later(3_600_000)]).unwrap();
    assert!(bed.json(&["status"]).unwrap()["planned_at"].is_string());
    bed.json(&["cutover", "--never"]).unwrap();
    assert!(bed.json(&["status"]).unwrap()["planned_at"].is_null());
    bed.json(&["cutover", "--at", &later(3_000)]).unwrap();
    // An agent that is down meanwhile knows of it.
    bed.target.kill().unwrap();
    bed.original().change(9).unwrap();
    bed.target.restart().unwrap();
    poll::until("the target to take over", SETTLES_WITHIN, || {
        let status = bed.json(&["status"])?;
        Ok((status["phase"] == "trial" && status["activity"] == "following_back").then_some(()))
    })
    .unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
    write(&bed.original().database).unwrap_err();
}

#[test]
fn aborting_after_the_cutover_gives_the_source_back() {
    let bed = following(42);
    bed.original().change(1).unwrap();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "trial");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "aborted");
    assert!(!bed.copy().database.exists(), "the target's database is left");
    write(&bed.original().database).unwrap();
    assert_eq!(traces(&bed), "");
}

#[test]
fn a_cutover_that_would_take_too_long_is_called_off() {
    let bed = following(43);
    let writer = source(&bed);
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE customer SET name = 'held' WHERE id = 1").unwrap();
    let called_off = bed.cli(&["cutover", "--max-downtime", "2", "--watch"]).unwrap();
    assert_eq!(called_off.code, Some(3), "{}", called_off.text());
    assert!(called_off.text().contains("called off"), "{}", called_off.text());
    writer.execute_batch("COMMIT").unwrap();
    write(&bed.original().database).unwrap();
    assert_eq!(bed.json(&["status"]).unwrap()["activity"], "following");
    bed.original().change(2).unwrap();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}

/// Writes past the fence, as a replica's own thread does on servers, as long as the fence stands.
fn pass_the_fence(database: &Path) -> rusqlite::Result<()> {
    let db = Connection::open(database)?;
    db.busy_timeout(Duration::from_secs(10))?;
    let stands = || {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name = '__handover_fence'";
        db.query_row(sql, [], |row| Ok(row.get::<_, i64>(0)? > 0))
    };
    while !stands()? {
        poll::pause(Duration::from_millis(1));
    }
    loop {
        db.execute_batch("BEGIN IMMEDIATE")?;
        if !stands()? {
            return db.execute_batch("ROLLBACK");
        }
        db.execute_batch(
            "INSERT INTO __handover_fence VALUES (1); UPDATE customer SET name = 'passed' WHERE id = (SELECT min(id) FROM customer); \
             DELETE FROM __handover_fence; COMMIT",
        )?;
        poll::pause(Duration::from_millis(1));
    }
}

#[test]
fn what_passes_the_fence_calls_a_cutover_off() {
    let bed = following(50);
    let database = bed.original().database.clone();
    let passing = std::thread::spawn(move || pass_the_fence(&database));
    let called_off = bed.cli(&["cutover", "--watch"]).unwrap();
    assert_eq!(called_off.code, Some(3), "{}", called_off.text());
    assert!(called_off.text().contains("changed behind the fence"), "{}", called_off.text());
    passing.join().unwrap().unwrap();
    // What has passed is followed.
    write(&bed.original().database).unwrap();
    caught_up(&bed);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}

#[test]
fn agents_that_are_killed_miss_nothing() {
    let mut bed = following(44);
    for seed in 0..4 {
        if seed % 2 == 0 { bed.source.kill() } else { bed.target.kill() }.unwrap();
        bed.original().change(seed).unwrap();
        if seed % 2 == 0 { bed.source.restart() } else { bed.target.restart() }.unwrap();
        bed.original().change(seed + 10).unwrap();
    }
    caught_up(&bed);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}

#[test]
fn aborting_while_following_leaves_nothing_at_the_source() {
    let bed = following(45);
    assert!(traces(&bed).contains("__handover_changes_"));
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(traces(&bed), "");
    write(&bed.original().database).unwrap();
}

/// A copy of what stands at the target now.
fn kept(bed: &Bed) -> std::path::PathBuf {
    let copy = bed.root().join("kept.db");
    let db = Connection::open(&bed.copy().database).unwrap();
    db.execute("VACUUM INTO ?", [copy.to_string_lossy()]).unwrap();
    copy
}

#[test]
fn aborting_brings_home_what_was_written_at_the_target() {
    let mut bed = following(47);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    bed.copy().change(1).unwrap();
    caught_up(&bed);
    // Either agent may be away for a while.
    bed.source.kill().unwrap();
    bed.copy().change(2).unwrap();
    bed.target.kill().unwrap();
    bed.copy().change(3).unwrap();
    bed.source.restart().unwrap();
    bed.target.restart().unwrap();
    caught_up(&bed);
    bed.copy().change(4).unwrap();
    let kept = kept(&bed);
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "aborted");
    let found = compare::databases(&bed.original().database, &kept).unwrap();
    assert_eq!(found.found, 0, "{}", found.describe());
    assert!(!bed.copy().database.exists(), "the target's database is left");
    write(&bed.original().database).unwrap();
    assert_eq!(traces(&bed), "");
}

#[test]
fn what_cannot_be_brought_home_is_given_up_when_asked() {
    let mut bed = following(48);
    bed.configure_target(|text| format!("{text}\n[limits]\npatience_seconds = 1\n")).unwrap();
    caught_up(&bed);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    caught_up(&bed);
    bed.source.kill().unwrap();
    bed.copy().change(1).unwrap();
    poll::until("following back to stand still", SETTLES_WITHIN, || {
        Ok((bed.json(&["status"])?["condition"] == "failed").then_some(()))
    })
    .unwrap();
    let failed = bed.cli(&["abort", "--watch"]).unwrap();
    assert_eq!(failed.code, Some(3), "{}", failed.text());
    // Nothing is lost: the target's database stands, and takes no writes that would be.
    assert!(write(&bed.copy().database).unwrap_err().to_string().contains("handover"));
    bed.source.restart().unwrap();
    let written: i64 = source(&bed).query_row("SELECT count(*) FROM customer", [], |row| row.get(0)).unwrap();
    bed.cli(&["abort", "--discard", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "aborted");
    assert!(!bed.copy().database.exists(), "the target's database is left");
    write(&bed.original().database).unwrap();
    let left: i64 = source(&bed).query_row("SELECT count(*) FROM customer", [], |row| row.get(0)).unwrap();
    assert_eq!(left, written, "something was brought back nevertheless");
}

#[test]
fn a_plan_for_one_way_keeps_nothing_at_the_target() {
    let bed = Bed::temporary(&Spec::small(49)).unwrap();
    let refused = bed.cli(&["plan", "--one-way"]).unwrap();
    assert!(refused.code != Some(0) && refused.text().contains("--follow"), "{}", refused.text());
    let plan = bed.json(&["plan", "--follow", "--one-way"]).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    caught_up(&bed);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    let status = bed.json(&["status"]).unwrap();
    assert_eq!((&status["phase"], &status["activity"]), (&"trial".into(), &"idle".into()), "{status}");
    assert_eq!(traces_of(&bed.copy().database), "");
    refuses_to_lose(&bed, "the source does not follow it");
    write(&bed.copy().database).unwrap();
    bed.cli(&["abort", "--discard", "--watch"]).unwrap().success().unwrap();
    write(&bed.original().database).unwrap();
}

/// An abort that would lose what was written at the target is refused, and nothing is begun.
fn refuses_to_lose(bed: &Bed, part: &str) {
    let before = bed.json(&["status"]).unwrap();
    let refused = bed.cli(&["abort"]).unwrap();
    assert_eq!(refused.code, Some(5), "{}", refused.text());
    for part in [part, "would not be at the source", "handover abort --discard"] {
        assert!(refused.text().contains(part), "{part}: {}", refused.text());
    }
    assert_eq!(bed.json(&["status"]).unwrap()["phase"], before["phase"]);
}

#[test]
fn a_table_that_is_altered_at_the_source_stops_following_by_name() {
    let bed = following(50);
    let sql =
        "BEGIN; UPDATE invoice SET cents = cents + 1; ALTER TABLE invoice ADD COLUMN later DEFAULT 7; COMMIT";
    source(&bed).execute_batch(sql).unwrap();
    let failure = super::lost_logs::stopped(&bed);
    assert!(failure["item"].as_str().unwrap().contains("table invoice"), "{failure}");
    assert_eq!(failure["what"], "its definition was changed while its changes were followed", "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("abort this migration and start again"), "{failure}");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(traces(&bed), "");
    write(&bed.original().database).unwrap();
}
