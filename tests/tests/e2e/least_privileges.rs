//! Accounts at the source that have no more than what is documented: enough to follow it, to fence it off, and to let its writers in again.

use handover_tests::bed::{Bed, Dataset};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use handover_tests::server::{Engine, Server};

use super::SETTLES_WITHIN;
use super::lost_logs::traces;

const SCHEMA: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2);";

/// What docs/mariadb.md and docs/postgres.md grant to whoever follows one way.
fn grants(engine: Engine) -> &'static str {
    match engine {
        Engine::Mariadb => {
            "CREATE USER mover@localhost; GRANT SELECT ON mysql.proc TO mover@localhost;
             GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON app.* TO mover@localhost;
             GRANT RELOAD, BINLOG MONITOR, REPLICATION SLAVE ON *.* TO mover@localhost;
             SET GLOBAL log_bin_trust_function_creators = 1"
        }
        Engine::Postgres => {
            "CREATE ROLE shop; ALTER TABLE t OWNER TO shop; CREATE ROLE mover LOGIN REPLICATION;
             GRANT pg_read_all_data TO mover; GRANT CREATE ON DATABASE app TO mover; GRANT shop TO mover"
        }
    }
}

/// What is granted beside, so that the source can follow the target.
fn further(engine: Engine) -> &'static str {
    match engine {
        Engine::Mariadb => "GRANT INSERT, UPDATE, DELETE, CREATE, DROP, ALTER ON app.* TO mover@localhost",
        Engine::Postgres => "GRANT SET ON PARAMETER session_replication_role TO mover",
    }
}

fn cut_over(bed: &Bed, from: &Server, options: &[&str]) {
    let plan = bed.json(&[&["plan", "--follow"], options].concat()).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    from.run("app", "UPDATE t SET v = v + 1 WHERE id = 1").unwrap();
    poll::until("the target to catch up", SETTLES_WITHIN, || {
        let status = bed.json(&["status"])?;
        assert_eq!(status["condition"], "good", "{status}");
        Ok((status["following"]["app"]["waiting"] == 0).then_some(()))
    })
    .unwrap();
    let tried = bed.json(&["cutover", "--dry-run"]).unwrap();
    assert_eq!(tried["in_the_way"], serde_json::json!([]), "{tried}");
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(bed.status().unwrap().phase, "trial");
    from.run("app", "UPDATE t SET v = 0 WHERE id = 2").unwrap_err();
}

fn each_way_ends(engine: Engine) {
    let options = &["--local-infile=1"][..usize::from(engine == Engine::Mariadb)];
    let (from, to) = (Server::start(engine, options).unwrap(), Server::start(engine, options).unwrap());
    from.create("app").unwrap();
    from.run("app", SCHEMA).unwrap();
    from.run("app", grants(engine)).unwrap();
    let administrator = if engine == Engine::Mariadb { "root@" } else { "postgres@" };
    let source = from.url("app").replace(administrator, "mover@");
    assert!(source.contains("mover@"), "{source}");
    let root = tempfile::tempdir().unwrap();
    let dataset = Dataset::Server { name: "app".to_owned(), source, target: to.url("app") };
    let bed = Bed::at(root.path(), Binaries::find(Profile::Same).unwrap(), vec![dataset], "info").unwrap();
    // Without a way back: what was written at the target is given up.
    cut_over(&bed, &from, &["--one-way"]);
    bed.cli(&["abort", "--discard", "--watch"]).unwrap().success().unwrap();
    assert_eq!(traces(&from, "app"), "");
    from.run("app", "UPDATE t SET v = 20 WHERE id = 2").unwrap();
    // With one.
    from.run("app", further(engine)).unwrap();
    cut_over(&bed, &from, &[]);
    to.run("app", "UPDATE t SET v = 30 WHERE id = 2").unwrap();
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(traces(&from, "app"), "");
    assert_eq!(from.run("app", "SELECT v FROM t WHERE id = 2").unwrap().trim(), "30");
    // To its end: the fence is all that is left.
    cut_over(&bed, &from, &["--one-way"]);
    bed.cli(&["accept", "--watch"]).unwrap().success().unwrap();
    bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    from.run("app", "UPDATE t SET v = 0 WHERE id = 2").unwrap_err();
}

#[test]
fn each_way_ends_with_mariadb() {
    each_way_ends(Engine::Mariadb);
}

#[test]
fn each_way_ends_with_postgres() {
    each_way_ends(Engine::Postgres);
}
