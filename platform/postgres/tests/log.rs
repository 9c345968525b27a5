//! Following on bad days: servers that die, logs that are lost, tables that change, fences and captures beside each other.

mod support;

use std::sync::Arc;
use std::time::Duration;

use handover_engine::check::Severity;
use handover_engine::failure::{Class, Failure};
use handover_engine::ports::{KeyedTarget, LiveDatabase};
use handover_engine::rows::{Key, KeyedRows, TableName};
use handover_postgres::PostgresLive;
use support::Server;
use support::followed::*;

fn check<T>(result: Result<T, Failure>, class: Class, parts: &[&str]) {
    let failure = result.err().expect("it succeeds");
    let text = failure.to_string();
    assert_eq!(failure.class, class, "{text}");
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert!(!failure.hint.is_empty(), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_goes_on() {
    let server = Arc::new(Server::start("fsync = on"));
    let mut followed = Followed::on(server, "CREATE TABLE t (id integer PRIMARY KEY, v integer)").await;
    for round in 0..3 {
        followed.sql(&format!(
            "INSERT INTO t SELECT n, {round} FROM generate_series({round} * 1000, {round} * 1000 + 999) n"
        ));
        if round == 1 {
            followed.next().await.unwrap();
        }
        followed.live.fence(&capture("contract"), Duration::from_secs(5)).await.unwrap();
        followed.server.stop();
        check(
            followed.live.changes(&capture("contract"), &followed.after, WAIT).await,
            Class::Transient,
            &["shop"],
        );
        followed.server.boot();
        let refused = followed.server.attempt(&followed.from, "DELETE FROM t").unwrap_err();
        assert!(refused.contains("takes no more writes"), "{refused}");
        followed.live.unfence(&capture("contract")).await.unwrap();
        if round != 1 {
            followed.follow().await.unwrap();
        }
    }
    let all = followed.server.sql(&followed.from, "SELECT count(*) FROM t");
    assert_eq!(all, "3000");
    followed.done().await;
}

/// Puts a row in place, as it is at the source.
async fn put(followed: &Followed, key: &'static str) {
    let table = TableName { schema: "public".to_owned(), name: "t".to_owned() };
    let keys = vec![Key(key.into())];
    let chunk = followed.live.rows(&table, &keys, 100).await.unwrap();
    followed.target.apply_keys(&[KeyedRows { keys, chunk }]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_by_key_that_were_made_durable_outlive_a_crash() {
    // Of its own accord, nothing of the target's log is on disk before the crash.
    let server = Arc::new(Server::start("fsync = on\nwal_writer_delay = 10s"));
    let mut followed = Followed::on(
        server,
        "CREATE TABLE t (id integer PRIMARY KEY, v integer); INSERT INTO t VALUES (1, 0), (2, 0)",
    )
    .await;
    for round in 1..=3 {
        followed.sql(&format!("UPDATE t SET v = {round} WHERE id = 1"));
        followed.next().await.unwrap();
        put(&followed, "1").await;
        followed.target.make_durable().await.unwrap();
        followed.server.stop();
        followed.server.boot();
        followed.assert_same(&format!("after crash {round}")).await;
    }
    // A crash in between may have lost some of it, whoever writes on after it: that is told, once.
    put(&followed, "1").await;
    followed.server.stop();
    followed.server.boot();
    put(&followed, "2").await;
    check(followed.target.make_durable().await, Class::Transient, &["may not be durable"]);
    for key in ["1", "2"] {
        put(&followed, key).await;
    }
    followed.target.make_durable().await.unwrap();
    followed.assert_same("after all").await;
    followed.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_lost_is_told() {
    let mut followed = Followed::new("CREATE TABLE t (id integer PRIMARY KEY)").await;
    let named = |followed: &Followed| {
        followed.sql("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
    };
    let begun = followed.after.clone();
    followed.sql("INSERT INTO t VALUES (1)");
    followed.follow().await.unwrap();
    // What was let go cannot be asked for again.
    followed.sql("INSERT INTO t VALUES (2)");
    followed.follow().await.unwrap();
    let again = live(&followed.server, &followed.from).changes(&capture("contract"), &begun, WAIT).await;
    check(again, Class::NeedsOperator, &["shop", "lost", "asked for from"]);
    followed.sql("INSERT INTO t VALUES (3)");
    let slot = named(&followed);
    followed.sql(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    check(followed.next().await, Class::NeedsOperator, &["shop", "lost", &slot]);
    check(
        followed.live.confirm(&capture("contract"), &followed.after).await,
        Class::NeedsOperator,
        &["lost"],
    );
    // Begun anew it is another log.
    let before = followed.after.clone();
    followed.after = followed.live.begin(&capture("contract")).await.unwrap();
    check(followed.live.changes(&capture("contract"), &before, WAIT).await, Class::NeedsOperator, &["lost"]);
    followed.sql(&format!("INSERT INTO t VALUES (4); DROP PUBLICATION {slot}"));
    check(followed.next().await, Class::NeedsOperator, &["shop", "publication", "gone"]);
    followed.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_tables_are_told() {
    for (at, alter) in [
        "ALTER TABLE t ADD COLUMN more integer",
        "ALTER TABLE t ALTER v TYPE varchar(7); UPDATE t SET v = 'x'",
        "ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (7)",
        "DROP TABLE t",
        "ALTER TABLE t REPLICA IDENTITY FULL",
    ]
    .iter()
    .enumerate()
    {
        let mut followed = Followed::new("CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE u (id integer PRIMARY KEY); INSERT INTO t VALUES (1)").await;
        followed.sql("CREATE TABLE other (id integer); ALTER TABLE u ADD CHECK (id > 0) NOT VALID; CREATE INDEX ON t (v); VACUUM FULL t; INSERT INTO u VALUES (1)");
        followed.follow().await.unwrap();
        followed.sql(alter);
        check(followed.next().await, Class::NeedsOperator, &["table public.t", "definition"]);
        assert!(at > 4 || followed.next().await.is_err(), "it is told once only");
        followed.done().await;
    }
}

/// Writers take their tables in another order than whoever locks all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_stands_in_nobodys_deadlock() {
    let server = Server::start("");
    let from = server.create("busy", "");
    server.sql(
        &from,
        "CREATE TABLE a (id integer PRIMARY KEY, v integer); INSERT INTO a VALUES (1, 0), (2, 0);
         CREATE TABLE z (id integer PRIMARY KEY, v integer); INSERT INTO z VALUES (1, 0), (2, 0)",
    );
    let live = live(&server, &from);
    live.begin(&capture("mine")).await.unwrap();
    for round in 0..3 {
        let write = |id: u32| {
            format!(
                "DO $$ BEGIN LOOP UPDATE z SET v = v + 1 WHERE id = {id}; PERFORM pg_sleep(0.02);
                 UPDATE a SET v = v + 1 WHERE id = {id}; COMMIT; END LOOP; END $$"
            )
        };
        let writers = [1, 2].map(|id| session(&server, &from, &write(id)));
        let all_write = format!("SELECT count(*) = 2 FROM a WHERE v > {round} * 1000000");
        until(&server, &from, &all_write).await;
        live.fence(&capture("mine"), Duration::from_secs(30)).await.unwrap();
        for mut writer in writers {
            writer.kill().await.unwrap();
        }
        live.unfence(&capture("mine")).await.unwrap();
        server.sql(&from, &format!("UPDATE a SET v = ({round} + 1) * 1000000"));
    }
    let log = std::fs::read_to_string(server.dir.join("data/log")).unwrap();
    assert!(log.contains("takes no more writes"), "{log}");
    assert!(!log.contains("deadlock detected"), "{log}");
    live.end(&capture("mine"), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_waits_for_writers_and_stops_everybody() {
    let server = Server::start("");
    let from = server.create("fenced", "");
    server.sql(
        &from,
        "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE keyless (a integer);
         CREATE TABLE part (id integer PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part_1 PARTITION OF part DEFAULT;
         CREATE TABLE child () INHERITS (t); CREATE UNLOGGED TABLE quick (a integer);
         CREATE ROLE app LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON SCHEMA public TO app",
    );
    let live = live(&server, &from);
    let (mine, theirs) = (capture("mine"), capture("theirs"));
    let after = live.begin(&mine).await.unwrap();
    live.begin(&theirs).await.unwrap();
    let mut writer = session(&server, &from, "BEGIN; INSERT INTO t VALUES (1)");
    let writes =
        "SELECT count(*) > 0 FROM pg_locks WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock'";
    until(&server, &from, writes).await;
    // A session that reads is in nobody's way.
    let _reader = session(&server, &from, "BEGIN; SELECT * FROM keyless");
    let fenced = live.fence(&mine, Duration::from_millis(300)).await;
    check(fenced, Class::Transient, &["table public.t", "process", "postgres", "in use"]);
    server.sql(&from, "INSERT INTO keyless VALUES (1)");
    assert!(!traces(&server, &from).contains("handover_fence"));
    let (fenced, ()) = tokio::join!(live.fence(&mine, Duration::from_secs(30)), async {
        until(&server, &from, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").await;
        writer.kill().await.unwrap();
        server.sql(&from, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock' AND granted");
    });
    fenced.unwrap();
    for write in [
        "INSERT INTO t VALUES (2)",
        "UPDATE keyless SET a = 1",
        "DELETE FROM part",
        "INSERT INTO part_1 VALUES (1)",
        "TRUNCATE t",
        "INSERT INTO child VALUES (1)",
        "INSERT INTO quick VALUES (1)",
        "COPY t FROM PROGRAM 'echo 9'",
        "SET session_replication_role = replica; INSERT INTO t VALUES (2)",
        "SET ROLE app; INSERT INTO t VALUES (2)",
        "MERGE INTO t USING (SELECT 1 AS a) s ON t.id = s.a WHEN NOT MATCHED THEN INSERT VALUES (5)",
    ] {
        let refused = server.attempt(&from, write).expect_err(write);
        assert!(refused.contains("takes no more writes"), "{write}: {refused}");
    }
    assert_eq!(server.sql(&from, "SELECT count(*) FROM keyless"), "1");
    server.sql(&from, "SET handover.applying = 'on'; INSERT INTO t VALUES (77); DELETE FROM t WHERE id = 77");
    // It stands as long as one of them wants it.
    live.fence(&theirs, Duration::from_secs(5)).await.unwrap();
    live.unfence(&mine).await.unwrap();
    server.attempt(&from, "INSERT INTO t VALUES (3)").unwrap_err();
    let told = live.changes(&mine, &after, WAIT).await.unwrap();
    live.end(&mine, false).await.unwrap();
    server.attempt(&from, "INSERT INTO t VALUES (3)").unwrap_err();
    assert_eq!(keys(&told, "t"), ["77"]);
    // Readers of a table keep its trigger there, which refuses nothing then, and is used again.
    live.unfence(&theirs).await.unwrap();
    server.sql(&from, "INSERT INTO t VALUES (4); INSERT INTO keyless VALUES (4)");
    assert!(traces(&server, &from).contains("handover_fence"));
    live.fence(&theirs, Duration::from_secs(5)).await.unwrap();
    server.attempt(&from, "INSERT INTO keyless VALUES (3)").unwrap_err();
    server.attempt(&from, "INSERT INTO t VALUES (3)").unwrap_err();
    drop(_reader);
    server.sql(&from, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'keyless'::regclass AND mode = 'AccessShareLock'");
    live.end(&theirs, false).await.unwrap();
    assert_eq!(traces(&server, &from), "");
    server.sql(&from, "INSERT INTO t VALUES (5); INSERT INTO keyless VALUES (5)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_captures_side_by_side() {
    let server = Server::shared();
    let from = server.create("twice", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY)");
    let live = live(&server, &from);
    let (a, b) = (capture("Side.A"), capture("side-a"));
    let after_a = live.begin(&a).await.unwrap();
    server.sql(&from, "INSERT INTO t VALUES (1)");
    let after_b = live.begin(&b).await.unwrap();
    server.sql(&from, "INSERT INTO t VALUES (2)");
    let (told_a, told_b) = tokio::join!(live.changes(&a, &after_a, WAIT), live.changes(&b, &after_b, WAIT));
    let (told_a, told_b) = (told_a.unwrap(), told_b.unwrap());
    assert_eq!(keys(&told_a, "t"), ["1", "2"]);
    assert_eq!(keys(&told_b, "t"), ["2"]);
    live.confirm(&a, &told_a.until).await.unwrap();
    live.end(&a, false).await.unwrap();
    assert_eq!(keys(&live.changes(&b, &after_b, WAIT).await.unwrap(), "t"), ["2"]);
    live.end(&b, false).await.unwrap();
    assert_eq!(traces(&server, &from), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_following_needs_is_told_with_its_statement() {
    let server = Server::start("wal_level = replica\nmax_replication_slots = 0");
    let from = server.create("needy", "");
    server.sql(&from, "CREATE ROLE owner; CREATE ROLE modest LOGIN; CREATE TABLE t (id integer PRIMARY KEY); ALTER TABLE t OWNER TO owner");
    let settings = handover_postgres::Settings::parse(&server.url("modest", &from)).unwrap();
    let dataset = "shop".parse().unwrap();
    let found = handover_postgres::following_privileges(&dataset, &settings).await.unwrap();
    let hints: Vec<&str> = found.iter().map(|finding| finding.hint.as_str()).collect();
    for part in [
        "wal_level = 'logical'",
        "max_replication_slots",
        "max_slot_wal_keep_size = '16384MB'",
        "ALTER ROLE \"modest\" REPLICATION",
        "GRANT CREATE ON DATABASE",
        "GRANT \"owner\" TO \"modest\"",
    ] {
        assert!(hints.iter().any(|hint| hint.contains(part)), "{part}: {hints:?}");
    }
    // Of one that has taken over, the source's settings say nothing; and what is only advised is no reason to plan otherwise.
    let found = handover_postgres::returning_privileges(&dataset, &settings, true).await.unwrap();
    assert!(found.iter().any(|finding| finding.severity == Severity::Error), "{found:?}");
    for finding in &found {
        let is_error = finding.severity == Severity::Error;
        assert_eq!(finding.hint.contains("--one-way"), is_error, "{finding:?}");
        assert!(!format!("{finding:?}").contains("source.toml"), "{finding:?}");
    }
    let kept = found.iter().find(|finding| finding.severity == Severity::Info).unwrap();
    assert!(kept.hint.contains("the agent's `capture_bytes`") && !kept.what.contains("source"), "{kept:?}");
    let live = PostgresLive::new(dataset.clone(), &settings, Vec::new());
    check(live.begin(&capture("x")).await, Class::NeedsOperator, &["wal_level is replica"]);
    server.sql("postgres", "ALTER SYSTEM SET wal_level = 'logical'");
    server.sql("postgres", "ALTER SYSTEM SET max_replication_slots = 4");
    server.sql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'");
    server.stop();
    server.boot();
    check(live.begin(&capture("x")).await, Class::NeedsOperator, &["replication slots"]);
    server.sql(
        &from,
        &format!(
            "ALTER ROLE modest REPLICATION; GRANT CREATE ON DATABASE {from} TO modest; GRANT owner TO modest"
        ),
    );
    let short = handover_postgres::following_privileges(&dataset, &settings).await.unwrap();
    assert!(short.len() == 1 && short[0].what.contains("1024 MB"), "{short:?}");
    assert!(short[0].severity == Severity::Warning && short[0].what.contains("the copy begins"), "{short:?}");
    let short = handover_postgres::returning_privileges(&dataset, &settings, true).await.unwrap();
    assert!(short.len() == 1 && short[0].what.contains("is not brought back"), "{short:?}");
    server.sql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '16GB'");
    server.sql("postgres", "SELECT pg_reload_conf()");
    until(&server, "postgres", "SELECT current_setting('max_slot_wal_keep_size') = '16GB'").await;
    assert_eq!(handover_postgres::following_privileges(&dataset, &settings).await.unwrap(), []);
    let live = PostgresLive::new(dataset, &settings, Vec::new());
    let after = live.begin(&capture("x")).await.unwrap();
    server.sql(&from, "INSERT INTO t VALUES (1)");
    assert_eq!(keys(&live.changes(&capture("x"), &after, WAIT).await.unwrap(), "t"), ["1"]);
    live.fence(&capture("x"), Duration::from_secs(5)).await.unwrap();
    server.attempt(&from, "INSERT INTO t VALUES (2)").unwrap_err();
    live.end(&capture("x"), false).await.unwrap();
    assert_eq!(traces(&server, &from), "");
}
