//! A schema that is changed at the target once it has taken over: nothing more comes home, and an abort does not lose that unasked.

use handover_tests::bed::Bed;
use handover_tests::poll;
use handover_tests::server::Engine;
use rusqlite::Connection;

use super::SETTLES_WITHIN;
use super::lost_logs::{TABLE, databases, stopped, traces};
use super::verifying::{follow, following, servers};

fn cut_over(bed: &Bed) {
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "trial");
}

/// Following back stops with the table's name; an abort would lose something, and nothing is begun by asking for it.
fn nothing_comes_home(bed: &Bed, table: &str) {
    let failure = stopped(bed);
    assert!(failure["item"].as_str().unwrap().contains(table), "{failure}");
    assert!(failure["what"].as_str().unwrap().contains("definition was changed"), "{failure}");
    let hint = failure["hint"].as_str().unwrap();
    assert!(hint.contains("handover accept") && hint.contains("handover abort --discard"), "{hint}");
    assert!(!hint.contains("again") && !hint.contains("anew"), "{hint}");
    let refused = bed.cli(&["abort"]).unwrap();
    assert_eq!(refused.code, Some(5), "{}", refused.text());
    for part in [table, "would not be at the source", "handover accept", "handover abort --discard"] {
        assert!(refused.text().contains(part), "{part}: {}", refused.text());
    }
    let status = bed.json(&["status"]).unwrap();
    assert_eq!((&status["phase"], &status["condition"]), (&"trial".into(), &"failed".into()), "{status}");
}

fn give_up(bed: &Bed) {
    bed.cli(&["abort", "--discard", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "aborted");
}

#[test]
fn a_table_that_is_altered_in_a_successor_is_given_up_when_asked() {
    let bed = following(94);
    cut_over(&bed);
    let target = Connection::open(bed.copy().database).unwrap();
    target.busy_timeout(SETTLES_WITHIN).unwrap();
    let alter = "UPDATE invoice SET cents = cents + 1; ALTER TABLE invoice ADD COLUMN later DEFAULT 7";
    target.execute_batch(&format!("BEGIN; {alter}; COMMIT")).unwrap();
    nothing_comes_home(&bed, "table invoice");
    // The target goes on serving.
    target.execute_batch("UPDATE invoice SET later = 8").unwrap();
    drop(target);
    let source = Connection::open(bed.original().database).unwrap();
    source.busy_timeout(SETTLES_WITHIN).unwrap();
    source.execute_batch("UPDATE invoice SET cents = 0").unwrap_err();
    give_up(&bed);
    assert!(!bed.copy().database.exists(), "the target's database is left");
    source.execute_batch("UPDATE invoice SET cents = 0").unwrap();
    let left = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_\\_handover%' ESCAPE '\\'";
    assert_eq!(source.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

fn an_altered_successor_is_given_up(engine: Engine) {
    let (from, to, bed, _root) = servers(engine, TABLE);
    follow(&bed);
    cut_over(&bed);
    to.run("app", "INSERT INTO one VALUES (2, 2)").unwrap();
    let count = || from.run("app", "SELECT count(*) FROM one");
    poll::until("a row to come home", SETTLES_WITHIN, || Ok((count()? == "2\n").then_some(()))).unwrap();
    to.run("app", "ALTER TABLE one ADD COLUMN more INT; INSERT INTO one VALUES (3, 3, 3)").unwrap();
    nothing_comes_home(&bed, "one");
    // The target goes on serving.
    to.run("app", "UPDATE one SET more = 4 WHERE id = 3").unwrap();
    from.run("app", "UPDATE one SET v = 9").unwrap_err();
    give_up(&bed);
    from.run("app", "UPDATE one SET v = 9").unwrap();
    assert_eq!((count().unwrap().as_str(), traces(&from, "app").as_str()), ("2\n", ""));
    // What was written there since is in what is kept.
    let kept = databases(&to);
    assert!(kept.len() == 1 && kept[0].ends_with("_kept"), "{kept:?}");
    assert_eq!(traces(&to, &kept[0]), "");
    assert_eq!(to.run(&kept[0], "SELECT more FROM one WHERE id = 3").unwrap(), "4\n");
}

#[test]
fn a_mariadb_successor_that_is_altered_is_given_up_when_asked() {
    an_altered_successor_is_given_up(Engine::Mariadb);
}

#[test]
fn a_postgresql_successor_that_is_altered_is_given_up_when_asked() {
    an_altered_successor_is_given_up(Engine::Postgres);
}
