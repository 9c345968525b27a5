//! Replicas of real servers: taken from their primary and given back, set up, compared, and taken back.

#[path = "replica/servers.rs"]
mod servers;
mod support;

use std::time::Duration;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::MigrationId;
use handover_engine::ports::changeover::Replicas;
use handover_platform::access::Side;
use handover_platform::manifest::Manifest;
use handover_platform::replicas::LocalReplicas;
use handover_tests::poll;
use servers::{Servers, WITHIN, migration};
use support::subject::{PLAIN, awkward};

async fn problem(replicas: &LocalReplicas) -> String {
    let facts = replicas.facts().await.unwrap();
    assert_eq!(facts.len(), 1);
    facts[0].problem.clone().unwrap_or_default()
}

async fn roles(replicas: &LocalReplicas) -> (String, String) {
    let facts = replicas.facts().await.unwrap().remove(0);
    (facts.role.unwrap().to_string(), facts.replica.unwrap().role.unwrap().to_string())
}

#[track_caller]
fn check(failure: &Failure, class: Class, words: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, class, "{text}");
    assert!(!failure.hint.is_empty() && failure.item.contains("shop"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("s3cret") && !text.contains("pa'ss"), "{text}");
}

const OLD: &str = "CREATE TABLE big (x INT PRIMARY KEY); INSERT INTO big VALUES (5);
    CREATE VIEW old AS SELECT x FROM big; CREATE TRIGGER oldt BEFORE INSERT ON big FOR EACH ROW SET NEW.x = 1;";

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_set_up_and_taken_back() {
    let servers = Servers::start(&["--read-only=1"]).holding("shop", PLAIN);
    servers.replica.sql("", "CREATE DATABASE shop");
    servers.replica.sql("shop", OLD);
    let (replicas, m, own) = (servers.target(), migration(), servers.own_transactions());
    assert_eq!(problem(&replicas).await, "");
    assert_eq!(roles(&replicas).await, ("stand-alone".to_owned(), "stand-alone".to_owned()));
    // Nothing was done: nothing is undone.
    replicas.put_back(&m).await.unwrap();
    for _ in 0..2 {
        replicas.set_up(&m).await.unwrap();
        replicas.activate(&m).await.unwrap();
    }
    let (primary, replica) = roles(&replicas).await;
    assert!(primary.starts_with("primary of the replica "), "{primary}");
    assert!(replica.starts_with(&format!("replica of 127.0.0.1:{}, running", servers.port())), "{replica}");
    // Copied once, and compared.
    let copied = replicas.rows_done();
    assert_eq!(replicas.differences().await.unwrap(), [""; 0]);
    assert!(copied > 0 && replicas.rows_done() == 2 * copied, "{copied} and {} rows", replicas.rows_done());
    replicas.activate(&m).await.unwrap();
    // It follows, and so do objects that act on rows: only what the primary did arrives.
    servers.primary.sql(
        "shop",
        "INSERT INTO big (name, body) VALUES ('lower', 'new'); DELETE FROM one; CREATE TABLE later (x INT)",
    );
    servers.caught_up();
    let (here, there) =
        servers.both("shop", "SELECT MAX(id), MAX(name) FROM big; SELECT * FROM one; SHOW TABLES");
    assert_eq!(here, there);
    assert_eq!(replicas.differences().await.unwrap(), [""; 0]);
    replicas.activate(&m).await.unwrap();
    let events = servers.replica.sql("", "SELECT status FROM information_schema.events");
    assert_eq!(events, "SLAVESIDE_DISABLED\n", "what they do comes from the primary");
    // Its own log has nothing of the copy: only what came from the primary.
    assert_eq!(servers.own_transactions(), own);
    // What it held comes back, and it follows nobody.
    for _ in 0..2 {
        replicas.put_back(&m).await.unwrap();
        let old = servers.replica.sql("shop", "SELECT x FROM old; SHOW TABLES; SHOW TRIGGERS");
        assert!(old.starts_with("5\nbig\nold\noldt\t"), "{old}");
        assert_eq!(roles(&replicas).await.1, "stand-alone");
    }
    replicas.forget(&m).await.unwrap();
    assert_eq!(servers.replica.sql("", "SHOW DATABASES LIKE '%handover%'"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_held_is_forgotten_and_it_goes_on() {
    let servers = Servers::start(&[]).holding("shop", PLAIN);
    servers.replica.sql("", "CREATE DATABASE shop");
    servers.replica.sql("shop", OLD);
    let (replicas, m) = (servers.target(), migration());
    replicas.set_up(&m).await.unwrap();
    replicas.activate(&m).await.unwrap();
    assert!(servers.replica.sql("", "SHOW DATABASES LIKE '%handover%'").contains("_undo"));
    for _ in 0..2 {
        replicas.forget(&m).await.unwrap();
    }
    assert_eq!(servers.replica.sql("", "SHOW DATABASES LIKE '%handover%'"), "");
    servers.primary.sql("shop", "INSERT INTO keyless VALUES (1, 'after')");
    servers.caught_up();
    let (here, there) = servers.both("shop", "SELECT COUNT(*) FROM keyless");
    assert_eq!(here, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_up_is_cut_short_and_begun_anew() {
    let servers = Servers::start(&[]).holding("shop", &awkward());
    servers.replica.sql("", "CREATE DATABASE shop");
    servers.replica.sql("shop", OLD);
    let m = migration();
    let (mut cuts, mut ms) = (0, 5);
    loop {
        // An agent that was started anew.
        let replicas = servers.target();
        let all = async {
            replicas.set_up(&m).await.unwrap();
            replicas.activate(&m).await.unwrap();
        };
        if tokio::time::timeout(Duration::from_millis(ms), all).await.is_ok() {
            break;
        }
        (cuts, ms) = (cuts + 1, ms * 3 / 2 + 30);
    }
    assert!(cuts > 2, "{cuts}");
    let replicas = servers.target();
    assert_eq!(replicas.differences().await.unwrap(), [""; 0]);
    replicas.put_back(&m).await.unwrap();
    assert_eq!(servers.replica.sql("shop", "SELECT x FROM old"), "5\n");
    replicas.forget(&m).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_one_server_are_copied_at_one_moment_while_they_are_written_to() {
    let make = "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200)); INSERT INTO t (v) SELECT REPEAT('x', 100) FROM seq_1_to_20000;";
    let servers = Servers::start(&[]).holding("shop", make).holding("tickets", make);
    let (replicas, m) = (servers.target(), migration());
    let writing = "BEGIN NOT ATOMIC DECLARE n INT DEFAULT 0; WHILE n < 4000 DO INSERT INTO shop.t (v) VALUES ('a'); INSERT INTO tickets.t (v) VALUES ('b'); \
                   UPDATE shop.t SET v = UUID() WHERE id = n; SET n = n + 1; END WHILE; END";
    let writer = std::thread::scope(|scope| {
        let writer = scope.spawn(|| servers.primary.sql("shop", &format!("DELIMITER //\n{writing}//\n")));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                replicas.set_up(&m).await.unwrap();
                replicas.activate(&m).await.unwrap();
                assert_eq!(replicas.differences().await.unwrap(), [""; 0]);
                replicas.activate(&m).await.unwrap();
            });
        });
        writer.join().unwrap()
    });
    assert_eq!(writer, "");
    servers.caught_up();
    for database in ["shop", "tickets"] {
        let (here, there) = servers.both(database, "CHECKSUM TABLE t; SELECT COUNT(*) FROM t");
        assert_eq!(here, there);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sources_replica_is_taken_from_its_primary_and_given_back() {
    let servers = Servers::start(&[])
        .holding("shop", "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)")
        .linked();
    let (replicas, m) = (servers.source(), migration());
    assert_eq!(problem(&replicas).await, "");
    let (primary, replica) = roles(&replicas).await;
    assert!(primary.starts_with("primary of the replica"), "{primary}");
    assert!(replica.contains("running"), "{replica}");
    for _ in 0..2 {
        servers.source().deactivate(&m).await.unwrap();
        assert_eq!(servers.slave().1, "No");
    }
    // A server that is started starts its replication by itself: it must not find whoever is at the address by then.
    servers.replica.crash();
    servers.primary.sql("shop", "INSERT INTO t VALUES (2)");
    assert_eq!(servers.slave().0, "deactivated.handover.invalid");
    assert_eq!(servers.replica.sql("shop", "SELECT COUNT(*) FROM t"), "1\n");
    let other: MigrationId = "m-2".parse().unwrap();
    let refused = servers.source().deactivate(&other).await.unwrap_err();
    check(&refused, Class::NeedsOperator, &["a migration has deactivated it"]);
    for _ in 0..2 {
        servers.source().put_back(&m).await.unwrap();
        servers.caught_up();
    }
    assert_eq!(servers.replica.sql("shop", "SELECT COUNT(*) FROM t"), "2\n");
    replicas.forget(&m).await.unwrap();
    // One that stood still before stands still again.
    servers.replica.sql("", "STOP SLAVE");
    replicas.deactivate(&m).await.unwrap();
    replicas.put_back(&m).await.unwrap();
    assert_eq!(servers.slave(), ("127.0.0.1".to_owned(), "No".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_goes_by_files_keeps_its_place() {
    let servers = Servers::start(&[]).holding("shop", "CREATE TABLE t (id INT PRIMARY KEY)").linked();
    servers.replica.sql("", "STOP SLAVE; CHANGE MASTER TO MASTER_USE_GTID = no; START SLAVE");
    let (replicas, m) = (servers.source(), migration());
    replicas.deactivate(&m).await.unwrap();
    servers.primary.sql("shop", "INSERT INTO t VALUES (1), (2)");
    assert_eq!(servers.slave().0, "127.0.0.1");
    replicas.put_back(&m).await.unwrap();
    let arrived = poll::until("the rows to arrive", WITHIN, || {
        Ok((servers.replica.sql("shop", "SELECT COUNT(*) FROM t") == "2\n").then_some(()))
    });
    arrived.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_this_primary_already_is_left_to_its_log() {
    let servers = Servers::start(&[])
        .holding("shop", "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)")
        .linked();
    let (replicas, m) = (servers.target(), migration());
    assert_eq!(problem(&replicas).await, "");
    servers.primary.sql("shop", "INSERT INTO t VALUES (2)");
    replicas.set_up(&m).await.unwrap();
    replicas.activate(&m).await.unwrap();
    assert_eq!(servers.replica.sql("shop", "SELECT COUNT(*) FROM t"), "2\n");
    // A row of its own is found, and named by its table.
    servers.replica.sql("shop", "SET sql_log_bin = 0; INSERT INTO t VALUES (33333)");
    let found = replicas.differences().await.unwrap();
    assert_eq!(found, ["shop: table t: 1 parts, 3 rows instead of 2"]);
    replicas.activate(&m).await.unwrap();
    // One in the way of the primary's stops it, and is not shown.
    servers.primary.sql("shop", "INSERT INTO t VALUES (33333)");
    let failure = replicas.activate(&m).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["stopped applying", "table shop.t", "duplicate entry"]);
    assert!(!failure.to_string().contains("33333"), "{failure}");
    assert!(
        roles(&replicas).await.1.contains("not running: Could not execute"),
        "{:?}",
        roles(&replicas).await
    );
    // Taken from its primary by hand, it is set up anew.
    servers.replica.sql("", "STOP SLAVE; RESET SLAVE ALL");
    replicas.set_up(&m).await.unwrap();
    replicas.activate(&m).await.unwrap();
    assert_eq!(replicas.differences().await.unwrap(), [""; 0]);
    replicas.put_back(&m).await.unwrap();
    assert_eq!(servers.replica.sql("shop", "SELECT COUNT(*) FROM t"), "3\n");
    assert_eq!(servers.slave().0, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_told_by_its_name() {
    let table = "CREATE TABLE t (id INT PRIMARY KEY)";
    let servers = Servers::start(&[]).holding("shop", table);
    let m = migration();
    // It cannot sign in.
    let login = format!("replication = \"mariadb://repl:s3cret@127.0.0.1:{}/x\"", servers.port());
    let wrong = servers.replicas_with(Side::Target, &login);
    wrong.set_up(&m).await.unwrap();
    check(
        &wrong.activate(&m).await.unwrap_err(),
        Class::NeedsOperator,
        &["cannot receive", "1045", "REPLICATION SLAVE"],
    );
    wrong.put_back(&m).await.unwrap();
    wrong.forget(&m).await.unwrap();
    // It is not told how.
    let told = problem(&servers.replicas_with(Side::Target, "")).await;
    assert!(told.contains("`replication` is missing"), "{told}");
    // It is no replica.
    let told = problem(&servers.source()).await;
    assert!(told.contains("it is no replica of"), "{told}");
    // Its own log is ahead of its primary's.
    servers.replica.sql("", "CREATE DATABASE own; SET gtid_seq_no = 99999; CREATE TABLE own.t (x INT)");
    let failure = servers.target().set_up(&m).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["0-8-99999", "RESET MASTER"]);
    servers.target().put_back(&m).await.unwrap();
    // It follows another one.
    servers.replica.sql("", "CHANGE MASTER TO MASTER_HOST = 'elsewhere.invalid', MASTER_USER = 'x'");
    let told = problem(&servers.target()).await;
    assert!(told.contains("a replica of elsewhere.invalid:3306 already"), "{told}");
    servers.replica.sql("", "RESET SLAVE ALL");
    // There are other databases, which nobody would bring to it.
    servers.primary.sql("", "CREATE DATABASE blog; CREATE TABLE blog.t (x INT)");
    let told = problem(&servers.target()).await;
    assert!(told.contains("other databases") && told.contains("blog"), "{told}");
    servers.primary.sql("", "DROP DATABASE blog");
    // Its account may not do it.
    servers
        .replica
        .sql("", "CREATE USER weak IDENTIFIED BY 's3cret'; GRANT PROCESS, SLAVE MONITOR ON *.* TO weak");
    let url = format!("mariadb://weak:s3cret@localhost/shop?socket={}", servers.replica.socket().display());
    let file = servers.dir.path().join("appliance.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace(&servers.replica.url("shop"), &url);
    std::fs::write(&file, text).unwrap();
    let weak = LocalReplicas::new(&Manifest::read(&file).unwrap(), servers.dir.path(), Side::Target);
    let told = problem(&weak).await;
    assert!(
        told.contains("its account lacks REPLICATION SLAVE ADMIN, BINLOG ADMIN") && told.contains("GRANT "),
        "{told}"
    );
    // It has the number of its primary.
    servers.replica.sql("", "SET GLOBAL server_id = 7");
    let told = problem(&servers.target()).await;
    assert!(told.contains("server_id 7"), "{told}");
    // It is away.
    servers.replica.kill();
    let told = problem(&servers.target()).await;
    assert!(told.contains("replica of shop at") && told.contains("cannot be connected to"), "{told}");
    let failure = servers.target().set_up(&m).await.unwrap_err();
    check(&failure, Class::Transient, &["replica of shop"]);
}
