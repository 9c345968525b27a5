//! Sources that are replicas themselves: what their primaries send is followed, and passes the fence.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_engine::failure::{Class, Failure};
use handover_engine::ports::LiveDatabase;
use handover_mariadb::{MariaLive, Settings, source_privileges};
use support::Server;
use support::pair::{Pair, WAIT, capture, live_at};

const TABLE: &str =
    "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100)); INSERT INTO t SELECT seq, 'a' FROM seq_1_to_100;";
const FENCE: Duration = Duration::from_secs(5);

#[track_caller]
fn check(failure: &Failure, words: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, Class::NeedsOperator, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// A server with the same database as another one, which becomes a replica of it.
struct Primary(Server);

impl Primary {
    fn of(source: &Server, database: &str) -> Self {
        let primary = Server::start(&["--local-infile=1", "--server-id=7"]);
        primary.sql("", &format!("SET sql_log_bin = 0; CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; USE {database}; {TABLE}"));
        primary.sql("", "SET sql_log_bin = 0; CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'");
        source.sql(
            "",
            &format!(
                "SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_binlog_pos; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'repl', \
                 MASTER_PASSWORD = 'secret', MASTER_USE_GTID = slave_pos; START SLAVE",
                primary.port()
            ),
        );
        Self(primary)
    }
}

/// Waits until the source answers so.
async fn until(source: &Server, database: &str, query: &str, answer: &str) {
    let begun = Instant::now();
    while source.sql(database, query) != answer {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "in vain: {query}: {}",
            source.sql("", "SHOW SLAVE STATUS")
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_followed_and_fenced_once_it_applies_nothing() {
    let options = ["--local-infile=1", "--server-id=8", "--gtid-domain-id=1", "--log-slave-updates"];
    let source = Arc::new(Server::start(&options));
    let mut pair = Pair::new(&source, "replica", TABLE).await;
    let primary = Primary::of(&source, &pair.from);
    let from = pair.from.clone();
    // Transactions of several domains and servers, and some of its own in between.
    for round in 1..4 {
        primary.0.sql(&from, &format!("UPDATE t SET v = 'p{round}' WHERE id < 40; SET gtid_domain_id = 2; INSERT INTO t VALUES (100 + {round}, 'two'); DELETE FROM t WHERE id = {round}"));
        pair.sql(&format!(
            "UPDATE t SET v = 'own{round}' WHERE id > 90; INSERT INTO t VALUES (200 + {round}, 'own')"
        ));
        until(
            &source,
            &from,
            &format!("SELECT COUNT(*) FROM t WHERE id = {round} OR v = 'p{round}' AND id = 39"),
            "1\n",
        )
        .await;
        until(&source, &from, &format!("SELECT COUNT(*) FROM t WHERE id = 100 + {round}"), "1\n").await;
        pair.follow("replicated").await;
    }
    let servers = "SELECT @@gtid_binlog_pos REGEXP '0-7-' AND @@gtid_binlog_pos REGEXP '1-8-' AND @@gtid_binlog_pos REGEXP '2-7-'";
    assert_eq!(source.sql("", servers), "1\n", "{}", source.sql("", "SELECT @@gtid_binlog_pos"));
    // A replica that applies is not fenced, and the preflight says so.
    let found = source_privileges(&"shop".parse().unwrap(), &source.settings(&from)).await.unwrap();
    assert!(
        found
            .iter()
            .any(|one| one.what.contains("no fence stops that") && one.fix.contains("STOP ALL SLAVES")),
        "{found:?}"
    );
    // So does whoever asks whether it may be fenced, and whoever would fence it.
    let address = format!("127.0.0.1:{}", primary.0.port());
    for refused in [pair.live.may_fence().await, pair.live.fence(&capture(), FENCE).await] {
        check(&refused.unwrap_err(), &["is a replica", &address, "no fence stops that", "STOP ALL SLAVES"]);
    }
    let fences = "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_name LIKE '\\_\\_handover%'";
    assert_eq!(pair.sql(fences), "0\n");
    pair.sql("UPDATE t SET v = 'free' WHERE id = 95");
    source.sql("", "STOP SLAVE SQL_THREAD");
    primary.0.sql(&from, "UPDATE t SET v = 'late' WHERE id = 50");
    pair.live.may_fence().await.unwrap();
    pair.live.fence(&capture(), FENCE).await.unwrap();
    assert!(!source.allows(&from, "UPDATE t SET v = 'x' WHERE id = 95"));
    pair.follow("fenced").await;
    // Started again it passes the fence, and is noticed, by an agent that was started anew too.
    source.sql("", "START SLAVE SQL_THREAD");
    until(&source, &from, "SELECT v FROM t WHERE id = 50", "late\n").await;
    check(&pair.failure().await, &["started again behind the fence", "STOP ALL SLAVES"]);
    pair.restart();
    check(&pair.failure().await, &["started again behind the fence"]);
    // Stopped again, what it has written meanwhile is told.
    source.sql("", "STOP SLAVE");
    let told = pair.live.changes(&capture(), &pair.after, WAIT).await.unwrap();
    assert_eq!(told.changes.len(), 1, "{told:?}");
    pair.follow("stopped again").await;
    pair.live.unfence(&capture()).await.unwrap();
    source.sql("", "START SLAVE");
    primary.0.sql(&from, "UPDATE t SET v = 'last' WHERE id = 51");
    until(&source, &from, "SELECT v FROM t WHERE id = 51", "last\n").await;
    pair.follow("unfenced").await;
    source.sql("", "STOP SLAVE");
    pair.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_log_leaves_out_what_it_applies_is_refused() {
    let source = Server::start(&[
        "--local-infile=1",
        "--server-id=8",
        "--gtid-domain-id=1",
        "--skip-log-slave-updates",
    ]);
    let from = source.database("unlogged", TABLE);
    live_at(&source, &from).begin(&capture()).await.unwrap();
    let primary = Primary::of(&source, &from);
    primary.0.sql(&from, "UPDATE t SET v = 'p' WHERE id = 1");
    until(&source, &from, "SELECT v FROM t WHERE id = 1", "p\n").await;
    check(
        &live_at(&source, &from).begin(&capture()).await.unwrap_err(),
        &["is a replica", "log_slave_updates"],
    );
    // Who may not look at the connection is told while it applies.
    source.sql("", "CREATE USER modest@localhost IDENTIFIED BY 'secret'; GRANT SELECT, TRIGGER, LOCK TABLES ON *.* TO modest@localhost; GRANT BINLOG MONITOR, REPLICATION SLAVE ON *.* TO modest@localhost");
    let url = source.url(&from).replace("root@", "modest:secret@");
    let modest = Settings::parse(&url).unwrap();
    let modest = MariaLive::new("db".parse().unwrap(), modest, Vec::new());
    check(&modest.begin(&capture()).await.unwrap_err(), &["is a replica", "log_slave_updates"]);
    source.sql("", "STOP SLAVE");
    check(
        &live_at(&source, &from).begin(&capture()).await.unwrap_err(),
        &["is a replica", "log_slave_updates"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_fence_from_being_put_up_is_told_before() {
    let server = Server::start(&["--local-infile=1"]);
    let from = server.database("unfenced", TABLE);
    server.sql("", "CREATE USER fencer@localhost IDENTIFIED BY 's3cret'; GRANT BINLOG MONITOR, REPLICATION SLAVE ON *.* TO fencer@localhost");
    let url = format!("mariadb://fencer:s3cret@localhost/{from}?socket={}", server.socket().display());
    let live = MariaLive::new("db".parse().unwrap(), Settings::parse(&url).unwrap(), Vec::new());
    server.sql("", &format!("GRANT SELECT ON `{from}`.* TO fencer@localhost"));
    for missing in ["TRIGGER", "LOCK TABLES"] {
        let refused = live.may_fence().await.unwrap_err();
        check(&refused, &["no fence can be put up", missing, "GRANT"]);
        server.sql("", &refused.hint);
    }
    server.sql("", "SET GLOBAL log_bin_trust_function_creators = 0");
    let refused = live.may_fence().await.unwrap_err();
    check(&refused, &["no fence can be put up", "triggers may not be made"]);
    assert!(live.fence(&capture(), FENCE).await.is_err());
    server.sql("", &refused.hint);
    live.may_fence().await.unwrap();
    live.fence(&capture(), FENCE).await.unwrap();
    live.unfence(&capture()).await.unwrap();
}
