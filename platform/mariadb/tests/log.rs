//! Following: the log itself, in parts, over rotations and restarts, with what cannot be followed, and the fence.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_engine::change::Change;
use handover_engine::failure::{Class, Failure};
use handover_engine::ports::LiveDatabase;
use handover_engine::rows::{Key, TableName};
use support::Server;
use support::pair::{Pair, WAIT, capture, live_at};

const TABLE: &str =
    "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100)); INSERT INTO t SELECT seq, 'a' FROM seq_1_to_100;";

#[track_caller]
fn check(failure: &Failure, words: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, Class::NeedsOperator, "{text}");
    assert!(!failure.hint.is_empty(), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// A transaction of more rows than a part holds comes in parts, whoever asks for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_comes_in_parts() {
    let server = Server::shared();
    let mut pair = Pair::new(&server, "parts", TABLE).await;
    pair.sql("INSERT INTO t SELECT seq, 'b' FROM seq_101_to_200000; INSERT INTO t VALUES (200001, 'last')");
    let (mut told, mut parts) = (0, 0);
    loop {
        let asked = pair.after.clone();
        let part = pair.part().await.unwrap();
        assert!(part.changes.len() < 60_000, "{} changes at once", part.changes.len());
        told += part.changes.len();
        parts += 1;
        if parts == 2 {
            // Its answer was lost, and so was the agent.
            pair.restart();
            let again = pair.live.changes(&capture(), &asked, WAIT).await.unwrap();
            assert_eq!(again.changes, part.changes);
            assert_eq!(again.until, part.until);
        }
        if part.is_end {
            break;
        }
    }
    assert!(told == 199_901 && parts >= 4, "{told} changes in {parts} parts");
    pair.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_on_over_rotations_and_crashes() {
    let server = Arc::new(Server::start(&[
        "--local-infile=1",
        "--innodb-flush-log-at-trx-commit=1",
        "--sync-binlog=1",
    ]));
    let mut pair = Pair::new(&server, "rotations", TABLE).await;
    pair.follow("at once").await;
    pair.sql("FLUSH BINARY LOGS; UPDATE t SET v = 'b' WHERE id = 1; FLUSH BINARY LOGS; FLUSH BINARY LOGS");
    pair.follow("after rotations").await;
    pair.sql("UPDATE t SET v = 'c' WHERE id = 2");
    server.crash();
    pair.sql("UPDATE t SET v = 'd' WHERE id = 3");
    // The connections are gone, at either side: that is told, and asked again.
    while let Err(failure) = pair.try_follow().await {
        assert_eq!(failure.class, Class::Transient, "{failure}");
    }
    pair.follow("after a crash").await;
    // What is compressed is read too.
    pair.sql("SET GLOBAL log_bin_compress = 1, GLOBAL log_bin_compress_min_len = 10");
    pair.sql("UPDATE t SET v = REPEAT('e', 90); DELETE FROM t WHERE id > 50; INSERT INTO t SELECT seq, REPEAT('f', 90) FROM seq_200_to_300");
    pair.follow("compressed").await;
    pair.sql("FLUSH BINARY LOGS; UPDATE t SET v = 'g' WHERE id = 4; FLUSH BINARY LOGS");
    pair.restart();
    let file = server.sql("", "SHOW MASTER STATUS");
    server.sql("", &format!("PURGE BINARY LOGS TO '{}'", file.split('\t').next().unwrap()));
    check(&pair.failure().await, &["1236", "binlog_expire_logs_seconds"]);
}

/// A log's first event names its file, with a checksum behind the name: of a hundred files some have one that looks like a
/// part of it.
#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_log_is_told_by_its_name() {
    let server = Arc::new(Server::start(&["--local-infile=1"]));
    let mut pair = Pair::new(&server, "names", TABLE).await;
    for file in 0..100 {
        pair.restart();
        pair.sql(&format!("UPDATE t SET v = '{file}' WHERE id = {file}; FLUSH BINARY LOGS"));
        let told = tokio::time::timeout(Duration::from_secs(20), pair.part()).await.unwrap().unwrap();
        assert_eq!(told.changes.len(), usize::from(file > 0), "{file}");
    }
    pair.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_refused() {
    let server = Server::shared();
    for (statements, words) in [
        ("ALTER TABLE t ADD COLUMN x INT", &["table t", "definition"] as &[&str]),
        ("CREATE TABLE other (id INT PRIMARY KEY)", &["table other"]),
        ("CREATE TABLE IF NOT EXISTS other (id INT PRIMARY KEY)", &["table other"]),
        ("DROP TABLE t", &["table t"]),
        ("RENAME TABLE t TO u", &["table t"]),
        ("CREATE INDEX v ON t (v)", &["table t"]),
        ("SET binlog_format = STATEMENT; UPDATE t SET v = 'x' WHERE id = 1", &["binlog_format", "table t"]),
        ("SET binlog_format = MIXED; INSERT INTO t VALUES (-1, 'x')", &["binlog_format"]),
    ] {
        let mut pair = Pair::new(&server, "refused", TABLE).await;
        pair.sql(
            "CREATE TEMPORARY TABLE tt (id INT); CREATE TABLE IF NOT EXISTS t (id INT); CREATE VIEW w AS SELECT 1; ANALYZE TABLE t;
             CREATE TRIGGER tr BEFORE DELETE ON t FOR EACH ROW SET @x = 1; DROP TRIGGER tr",
        );
        pair.follow(statements).await;
        pair.sql(statements);
        check(&pair.failure().await, words);
        pair.restart();
        check(&pair.failure().await, words);
        pair.done().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_be_followed_are_refused() {
    for (options, words) in [
        (&["--binlog-format=MIXED"] as &[&str], &["binlog_format", "SET GLOBAL"]),
        (&["--binlog-row-image=MINIMAL"], &["binlog_row_image", "SET GLOBAL"]),
        (&["--skip-log-bin"], &["binary log is off", "log_bin"]),
    ] {
        let server = Server::start(options);
        let from = server.database("settings", TABLE);
        let failure = live_at(&server, &from).begin(&capture()).await.unwrap_err();
        check(&failure, words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn xa_transactions_arrive_when_they_end() {
    let server = Arc::new(Server::start(&["--local-infile=1"]));
    let mut pair = Pair::new(&server, "xa", TABLE).await;
    pair.sql("XA START 'one'; UPDATE t SET v = 'xa' WHERE id = 1; XA END 'one'; XA PREPARE 'one'");
    pair.sql(
        "XA START 'two', 'b', 7; DELETE FROM t WHERE id = 2; XA END 'two', 'b', 7; XA PREPARE 'two', 'b', 7",
    );
    pair.sql("UPDATE t SET v = 'x' WHERE id = 3");
    pair.follow("prepared").await;
    let part = pair.live.changes(&capture(), &pair.after, WAIT).await.unwrap();
    assert!(part.changes.is_empty() && part.is_end, "{part:?}");
    pair.after = part.until;
    pair.restart();
    pair.sql("XA ROLLBACK 'two', 'b', 7; XA COMMIT 'one'");
    pair.follow("ended").await;
    pair.sql(
        "XA START 'three'; UPDATE t SET v = 'xa' WHERE id = 4; XA END 'three'; XA COMMIT 'three' ONE PHASE",
    );
    pair.follow("in one phase").await;
    assert_eq!(pair.sql("SELECT v FROM t WHERE id IN (1, 4)"), "xa\nxa\n");
    pair.sql("XA START 'four'; UPDATE t SET v = 'xa' WHERE id = 5; XA END 'four'; XA PREPARE 'four'");
    let failure = live_at(&server, &pair.from).begin(&capture()).await.unwrap_err();
    assert!(failure.is_transient() && failure.to_string().contains("XA"), "{failure}");
    pair.sql("XA COMMIT 'four'");
    pair.follow("at last").await;
    pair.done().await;
}

/// With semi-synchronous replication, a commit waits for a replica once it is in the log.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_before_it_can_be_seen() {
    let server = Arc::new(Server::start(&[
        "--local-infile=1",
        "--rpl-semi-sync-master-enabled=1",
        "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
        "--rpl-semi-sync-master-timeout=1",
    ]));
    let mut pair = Pair::new(&server, "unseen", TABLE).await;
    pair.follow("at first").await;
    server.sql("", "SET GLOBAL rpl_semi_sync_master_enabled = 0; SET GLOBAL rpl_semi_sync_master_timeout = 3000; SET GLOBAL rpl_semi_sync_master_enabled = 1");
    let (writer, from, begun) = (server.clone(), pair.from.clone(), Instant::now());
    let write = std::thread::spawn(move || writer.sql(&from, "INSERT INTO t VALUES (1000, 'new')"));
    let mut part = pair.part().await.unwrap();
    while part.changes.is_empty() {
        part = pair.part().await.unwrap();
    }
    let key = Key("1000".into());
    assert_eq!(part.changes, [Change::Row { table: 0, key: key.clone() }]);
    let rows = pair.live.rows(&TableName::plain("t"), &[key], 1000).await.unwrap();
    assert_eq!(&*rows.block, b"1000\tnew\n");
    assert!(begun.elapsed() > Duration::from_secs(2), "the commit did not wait");
    write.join().unwrap();
    pair.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_stops_every_writer() {
    let server = Arc::new(Server::start(&["--local-infile=1"]));
    let mut pair = Pair::new(
        &server,
        "fence",
        &format!("{TABLE} CREATE TABLE isam (id INT) ENGINE=MyISAM; INSERT INTO isam VALUES (1); CREATE TRIGGER own BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'own'"),
    )
    .await;
    let triggers =
        "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_name LIKE '\\_\\_handover%'";
    // A transaction that has written holds it up.
    let holder = live_at(&server, &pair.from);
    pair.sql("XA START 'held'; UPDATE t SET v = 'held' WHERE id = 1; XA END 'held'; XA PREPARE 'held'");
    let begun = Instant::now();
    let failure = holder.fence(&capture(), Duration::from_secs(1)).await.unwrap_err();
    assert!(failure.is_transient() && !failure.hint.is_empty(), "{failure}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(pair.sql(triggers), "0\n");
    pair.sql("XA COMMIT 'held'");
    let (writer, from) = (server.clone(), pair.from.clone());
    let held = std::thread::spawn(move || {
        writer.sql(&from, "BEGIN; UPDATE t SET v = 'held' WHERE id = 1; DO SLEEP(4); COMMIT")
    });
    let is_held = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'";
    while pair.sql(is_held) != "1\n" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failure = holder.fence(&capture(), Duration::from_millis(100)).await.unwrap_err();
    assert!(failure.is_transient() && failure.to_string().contains("in time"), "{failure}");
    assert_eq!(pair.sql(triggers), "0\n");
    held.join().unwrap();
    pair.live.fence(&capture(), Duration::from_secs(5)).await.unwrap();
    assert_eq!(pair.sql(triggers), "6\n");
    server.crash();
    for write in [
        "INSERT INTO t VALUES (1000, 'x')",
        "INSERT IGNORE INTO t VALUES (1000, 'x')",
        "REPLACE INTO t VALUES (1, 'x')",
        "UPDATE t SET v = 'x'",
        "UPDATE IGNORE t SET v = 'x'",
        "DELETE FROM t WHERE id = 1",
        "DELETE t, isam FROM t JOIN isam",
        "INSERT INTO isam VALUES (2)",
        "BEGIN; UPDATE t SET v = 'x' WHERE id = 2; COMMIT",
    ] {
        assert!(!server.allows(&pair.from, write), "{write}");
    }
    assert!(server.allows(&pair.from, "SET @handover_applying = 1; UPDATE t SET v = 'ours' WHERE id = 3"));
    assert_eq!(
        pair.sql("SELECT COUNT(*), MAX(id), SUM(v = 'x') FROM t; SELECT COUNT(*) FROM isam"),
        "100\t100\t0\n1\n"
    );
    pair.restart();
    pair.live.unfence(&capture()).await.unwrap();
    assert_eq!(pair.sql(triggers), "0\n");
    pair.sql("INSERT INTO t VALUES (1000, 'x')");
    while let Err(failure) = pair.try_follow().await {
        assert!(failure.is_transient(), "{failure}");
    }
    pair.follow("behind the fence").await;
    pair.done().await;
}
