//! Following: the contract of live databases, and what MariaDB's log and keys make of it.

#[path = "live/keys.rs"]
mod keys;
#[path = "live/readers.rs"]
mod readers;
mod support;

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget, FencedDatabase, LiveDatabase};
use handover_mariadb::{MariaDatabase, MariaFenced};
use handover_platform::contract::Subject;
use handover_platform::contract::live::{LiveSubject, live_contract};
use support::Server;
use support::pair::{Pair, live_at};
use support::subject::{AWKWARD_CHANGE, Maria, PLAIN, PLAIN_CHANGE, awkward, database_at};

struct Followed {
    inner: Maria,
    write: &'static str,
}

#[async_trait]
impl Subject for Followed {
    fn source(&self) -> Arc<dyn Database> {
        self.inner.source()
    }

    fn target(&self, migration: &MigrationId) -> Arc<dyn DatabaseTarget> {
        self.inner.target(migration)
    }

    async fn mutate(&self) {
        self.inner.mutate().await;
    }

    async fn occupy(&self) {
        self.inner.occupy().await;
    }

    fn kept(&self, place: &str) -> Arc<dyn Database> {
        self.inner.kept(place)
    }

    async fn standing(&self) -> Option<String> {
        self.inner.standing().await
    }
}

#[async_trait]
impl LiveSubject for Followed {
    fn live(&self) -> Arc<dyn LiveDatabase> {
        Arc::new(live_at(&self.inner.server, &self.inner.from))
    }

    async fn write(&self) -> bool {
        self.inner.server.allows(&self.inner.from, self.write)
    }

    fn fenced(&self) -> Arc<dyn FencedDatabase> {
        let settings = self.inner.server.settings(&self.inner.from);
        Arc::new(MariaFenced::new("db".parse().unwrap(), settings))
    }

    fn successor(&self) -> (Arc<dyn Database>, Arc<dyn LiveDatabase>) {
        let Maria { server, to, .. } = &self.inner;
        let database = MariaDatabase::new("db".parse().unwrap(), server.settings(to), Vec::new());
        (Arc::new(database), Arc::new(live_at(server, to)))
    }

    async fn mutate_successor(&self) {
        self.inner.server.sql(&self.inner.to, self.inner.mutate);
    }

    async fn traces(&self) -> String {
        self.traces_at(&self.inner.from).await
    }

    async fn traces_at(&self, place: &str) -> String {
        let query = format!(
            "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = '{}' AND trigger_name LIKE '\\_\\_handover%'",
            database_at(place)
        );
        self.inner.server.sql("", &query)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_tables_keep_the_live_contract() {
    let write = "INSERT INTO one VALUES (LEFT(UUID(), 8), NULL, NULL)";
    live_contract(|| Followed { inner: Maria::new(PLAIN, PLAIN_CHANGE), write }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn awkward_tables_keep_the_live_contract() {
    let write = "INSERT INTO `Groß` VALUES (UUID(), NULL, 0)";
    live_contract(|| Followed { inner: Maria::new(&awkward(), AWKWARD_CHANGE), write }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_unique_values_change_hands() {
    let server = Server::shared();
    let mut pair = Pair::new(
        &server,
        "hands",
        "CREATE TABLE t (id INT PRIMARY KEY, u VARCHAR(20), v INT, UNIQUE KEY u (u), UNIQUE KEY v (v));
         CREATE TABLE ci (k VARCHAR(20) PRIMARY KEY, v INT); CREATE TABLE other (id INT PRIMARY KEY) SELECT 7 id;
         INSERT INTO t VALUES (1, 'a', 10), (2, 'b', 20), (3, NULL, 30); INSERT INTO ci VALUES ('a', 1), ('b', 2)",
    )
    .await;
    for (what, statements) in [
        ("another key", "UPDATE t SET id = id + 100"),
        ("keys shift", "UPDATE t SET id = id + 1 ORDER BY id DESC"),
        (
            "unique values are swapped",
            "BEGIN; UPDATE t SET u = 'x', v = 0 WHERE v = 10; UPDATE t SET u = 'a', v = 10 WHERE v = 20; UPDATE t SET u = 'b', v = 20 WHERE v = 0; COMMIT",
        ),
        (
            "keys are swapped",
            "BEGIN; UPDATE t SET id = -1 WHERE v = 10; UPDATE t SET id = 102 WHERE v = 20; UPDATE t SET id = 103 WHERE id = -1; COMMIT",
        ),
        ("another key that is the same to the server", "UPDATE ci SET k = 'A', v = 3 WHERE k = 'a'"),
        ("replaced", "REPLACE INTO t VALUES (1, 'a', 30), (9, 'c', 90)"),
        (
            "several tables",
            "BEGIN; DELETE FROM ci WHERE k = 'b'; INSERT INTO other VALUES (1), (2); DELETE t, other FROM t JOIN other WHERE t.id = 9 AND other.id = 7; COMMIT",
        ),
        ("cleared", "TRUNCATE t; INSERT INTO t VALUES (5, 'z', 1); TRUNCATE other"),
        (
            "cleared again",
            "INSERT INTO other VALUES (5); TRUNCATE TABLE `other`; INSERT INTO other VALUES (6)",
        ),
        (
            "rolled back",
            "BEGIN; DELETE FROM t; ROLLBACK; BEGIN; INSERT INTO t VALUES (6, 'y', 6); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; INSERT INTO t VALUES (7, 'w', 7); COMMIT",
        ),
        (
            "a statement fails",
            "DELETE FROM ci; INSERT IGNORE INTO t VALUES (8, 'v', 8), (9, 'z', 9), (10, 'q', 10)",
        ),
    ] {
        pair.sql(statements);
        pair.follow(what).await;
    }
    pair.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_foreign_keys_do_unseen_arrives() {
    let server = Server::shared();
    let mut pair = Pair::new(
        &server,
        "cascades",
        "CREATE TABLE a (id INT PRIMARY KEY, code VARCHAR(10) CHARACTER SET latin1 UNIQUE);
         CREATE TABLE b (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES a (id) ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE c (id INT PRIMARY KEY, b INT, FOREIGN KEY (b) REFERENCES b (id) ON DELETE CASCADE);
         CREATE TABLE n (id INT PRIMARY KEY, code VARCHAR(10) CHARACTER SET latin1, FOREIGN KEY (code) REFERENCES a (code) ON DELETE SET NULL ON UPDATE SET NULL);
         CREATE TABLE pieces (a INT, n INT, v INT, PRIMARY KEY (a, n), FOREIGN KEY (a) REFERENCES a (id) ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE tree (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE);
         INSERT INTO a SELECT seq, CONCAT('c', seq) FROM seq_1_to_9; INSERT INTO b SELECT seq, 1 + seq DIV 10 FROM seq_1_to_80;
         INSERT INTO c SELECT seq, 1 + seq DIV 10 FROM seq_1_to_700; INSERT INTO n SELECT seq, CONCAT('c', 1 + seq DIV 10) FROM seq_1_to_80;
         INSERT INTO pieces SELECT 1 + seq DIV 10, seq, 1 FROM seq_1_to_80;
         INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2)",
    )
    .await;
    let view = pair.view().await;
    let unfollowed: Vec<&str> =
        view.schema().tables.iter().filter(|t| !t.followed).map(|t| t.name.name.as_str()).collect();
    assert_eq!(unfollowed, ["c", "tree"]);
    drop(view);
    for (what, statements) in [
        ("deleted", "DELETE FROM a WHERE id = 2"),
        (
            "deleted and made again",
            "DELETE FROM a WHERE id = 3; INSERT INTO a VALUES (3, 'c3'); INSERT INTO b VALUES (25, 3)",
        ),
        ("another key", "UPDATE a SET id = 50 WHERE id = 4"),
        ("other values", "UPDATE a SET code = 'new' WHERE id = 5; UPDATE pieces SET v = 2 WHERE a = 5"),
        ("unchecked", "SET foreign_key_checks = 0; DELETE FROM a WHERE id = 6"),
        ("all", "DELETE FROM a"),
    ] {
        pair.sql(statements);
        pair.follow(what).await;
    }
    pair.done().await;
}
