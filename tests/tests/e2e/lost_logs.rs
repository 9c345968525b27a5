//! A server's log that is lost while nobody reads it: following stops and says so, and an abort leaves nothing behind.

use handover_tests::bed::Bed;
use handover_tests::poll;
use handover_tests::server::{Engine, Server};
use serde_json::Value;

use super::SETTLES_WITHIN;
use super::verifying::{follow, servers};

/// A table of one row.
pub const TABLE: &str = "CREATE TABLE one (id INT PRIMARY KEY, v INT); INSERT INTO one VALUES (1, 1);";
const WRITE: &str = "UPDATE one SET v = v + 1 WHERE id = 1";

/// Waits until following has stopped; its failure, which `status` shows with what to do.
pub fn stopped(bed: &Bed) -> Value {
    let failure = poll::until("following to stop", SETTLES_WITHIN, || {
        // An agent that is down is waited for.
        let Ok(status) = bed.json(&["status"]) else { return Ok(None) };
        Ok((status["condition"] == "failed").then(|| status["failure"].clone()))
    })
    .unwrap();
    let shown = bed.cli(&["status"]).unwrap().text();
    for part in ["item", "what", "hint"] {
        let part = failure[part].as_str().unwrap();
        assert!(!part.is_empty() && shown.contains(part), "{part}: {shown}");
    }
    failure
}

/// What captures and fences leave at a server, and in a database of it.
pub fn traces(server: &Server, database: &str) -> String {
    let list = match server.engine() {
        Engine::Mariadb => {
            "SELECT trigger_name FROM information_schema.triggers WHERE trigger_name LIKE '\\_\\_handover%'
             UNION ALL SELECT table_name FROM information_schema.tables WHERE table_name LIKE '\\_\\_handover%'"
        }
        Engine::Postgres => {
            "SELECT slot_name::text FROM pg_replication_slots UNION ALL SELECT pubname::text FROM pg_publication
             UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'handover%'
             UNION ALL SELECT tgname::text FROM pg_trigger WHERE tgname LIKE 'handover%'"
        }
    };
    server.run(database, list).unwrap()
}

/// The databases whose names begin as that of the one that is moved.
pub fn databases(server: &Server) -> Vec<String> {
    let list = match server.engine() {
        Engine::Mariadb => "SELECT schema_name FROM information_schema.schemata",
        Engine::Postgres => "SELECT datname FROM pg_database",
    };
    let names = server.run("", list).unwrap();
    names.lines().filter(|name| name.starts_with("app")).map(str::to_owned).collect()
}

fn a_lost_log_stops_and_is_cleaned_up(engine: Engine, lose: impl FnOnce(&Server), words: &[&str]) {
    let (from, to, mut bed, _root) = servers(engine, TABLE);
    follow(&bed);
    bed.target.kill().unwrap();
    // Nobody reads the log at the server's, either.
    bed.source.kill().unwrap();
    from.run("app", WRITE).unwrap();
    lose(&from);
    from.run("app", WRITE).unwrap();
    bed.source.restart().unwrap();
    bed.target.restart().unwrap();
    let failure = stopped(&bed).to_string();
    assert!(words.iter().all(|word| failure.contains(word)), "{failure}");
    assert_eq!(bed.status().unwrap().phase, "following");
    let migration = bed.status().unwrap().migration;
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "aborted");
    from.run("app", WRITE).unwrap();
    assert_eq!(from.run("app", "SELECT v FROM one").unwrap(), "4\n");
    assert_eq!(
        (traces(&from, "app").as_str(), databases(&from), databases(&to)),
        ("", vec!["app".to_owned()], vec![])
    );
    let kept = std::fs::read_to_string(bed.source.state().join("captures.json")).unwrap();
    assert_eq!(kept, "[]", "the source still knows of a capture");
    assert!(!bed.target.state().join("spool").join(migration).join("app").exists(), "the spool is left");
}

#[test]
fn a_mariadb_whose_log_was_purged_is_named_and_let_go() {
    let purge = |server: &Server| {
        server.run("", "FLUSH BINARY LOGS").unwrap();
        let status = server.run("", "SHOW MASTER STATUS").unwrap();
        let purge = format!("PURGE BINARY LOGS TO '{}'", status.split('\t').next().unwrap());
        // A file that is still sent to a reader that has gone is passed over.
        poll::until("the log to be purged", SETTLES_WITHIN, || {
            server.run("", &purge)?;
            Ok((server.run("", "SHOW BINARY LOGS")?.lines().count() == 1).then_some(()))
        })
        .unwrap();
    };
    let words = ["binary log does not reach back", "binlog_expire_logs_seconds", "start again"];
    a_lost_log_stops_and_is_cleaned_up(Engine::Mariadb, purge, &words);
}

#[test]
fn a_postgresql_whose_slot_was_dropped_is_named_and_let_go() {
    let drop_slot = |server: &Server| {
        // A connection that has gone may hold it for a moment.
        poll::until("the slot to be dropped", SETTLES_WITHIN, || {
            let drop =
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
            server.run("app", drop)?;
            Ok((server.run("app", "SELECT count(*) FROM pg_replication_slots")? == "0\n").then_some(()))
        })
        .unwrap();
    };
    a_lost_log_stops_and_is_cleaned_up(Engine::Postgres, drop_slot, &["lost", "begin anew"]);
}
