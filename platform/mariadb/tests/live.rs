//! Following: the contract of live databases, and what MariaDB's log and keys make of it.

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

/// Key columns, their values, and (where two of them are the same to the server) less of them.
const KEYS: &[(&str, &str, &str)] = &[
    ("signed", "k TINYINT PRIMARY KEY", "(-128), (-1), (0), (127)"),
    ("small", "k SMALLINT UNSIGNED PRIMARY KEY", "(0), (65535)"),
    ("medium", "k MEDIUMINT PRIMARY KEY", "(-8388608), (8388607)"),
    ("plain_int", "k INT PRIMARY KEY", "(-2147483648), (2147483647)"),
    ("zeros", "k INT(7) ZEROFILL PRIMARY KEY", "(42), (4294967295)"),
    ("large", "k BIGINT UNSIGNED PRIMARY KEY", "(0), (18446744073709551615), (9223372036854775808)"),
    ("low", "k BIGINT PRIMARY KEY", "(-9223372036854775808), (9223372036854775807)"),
    (
        "decimals",
        "k DECIMAL(30,11) PRIMARY KEY",
        "(-0.00000000001), (0), (1234567890123456789.5), (-99999999.25)",
    ),
    ("wide_decimals", "k DECIMAL(65,0) PRIMARY KEY", "(-1), (REPEAT('9', 65)), (1000000000)"),
    ("fractions", "k DECIMAL(9,9) PRIMARY KEY", "(0.123456789), (-0.1)"),
    ("floats", "k FLOAT PRIMARY KEY", "(0.1), (-1e30), (16777217), (1e-40)"),
    ("doubles", "k DOUBLE PRIMARY KEY", "(0.1), (-1e300), (1e17), (1e-5), (123456789012345678)"),
    ("dates", "k DATE PRIMARY KEY", "('2024-02-29'), ('0000-00-00'), ('2020-00-31'), ('9999-12-31')"),
    ("times", "k TIME PRIMARY KEY", "('-838:59:59'), ('00:00:00'), ('838:59:59'), ('-00:00:01')"),
    ("fine_times", "k TIME(3) PRIMARY KEY", "('-00:00:00.001'), ('-01:00:00.999'), ('12:34:56.789')"),
    (
        "moments",
        "k DATETIME PRIMARY KEY",
        "('0000-00-00 00:00:00'), ('2024-02-29 23:59:59'), ('1000-01-01 00:00:00')",
    ),
    (
        "fine_moments",
        "k DATETIME(5) PRIMARY KEY",
        "('2024-02-29 23:59:59.12345'), ('9999-12-31 23:59:59.99999')",
    ),
    (
        "stamps",
        "k TIMESTAMP PRIMARY KEY",
        "('1970-01-01 12:00:01'), ('2024-02-29 23:59:59'), ('2038-01-19 01:14:07')",
    ),
    (
        "fine_stamps",
        "k TIMESTAMP(6) PRIMARY KEY",
        "('2024-12-31 23:59:59.000001'), ('2000-01-01 00:00:00.5')",
    ),
    ("years", "k YEAR PRIMARY KEY", "(0), (1901), (2155), (2024)"),
    ("bits", "k BIT(13) PRIMARY KEY", "(0), (8191), (255)"),
    ("bytes_of_bits", "k BIT(64) PRIMARY KEY", "(0), (18446744073709551615)"),
    ("members", "k ENUM('b','a','ö') PRIMARY KEY", "('a'), ('b'), ('ö')"),
    ("sets", "k SET('b','a','c','d','e','f','g','h','i') PRIMARY KEY", "('a'), ('b,a'), (''), ('i')"),
    (
        "uuids",
        "k UUID PRIMARY KEY",
        "('00000000-0000-0000-0000-000000000000'), (UUID()), ('12345678-9abc-4def-8123-456789abcdef'), ('018f3c3e-9abc-7def-8123-456789abcd00'), ('12345678-9abc-1def-0123-456789abcdef'), ('ffffffff-ffff-ffff-ffff-ffffffffffff'), ('12345678-9abc-5def-c123-000000000000'), ('02345678-9abc-8def-c123-000000000000')",
    ),
    (
        "addresses",
        "k INET6 PRIMARY KEY",
        "('::'), ('::1'), ('fe80::1:0'), ('::ffff:1.2.3.4'), ('1:0:0:2::'), ('1:2:3:4:5:6:7:8'), ('1:0:2:3:4:5:6:7'), ('::1.2.3.4'), ('1:2:3:4:5:6:7:0'), ('0:1:0:0:1:0:0:1')",
    ),
    ("short_addresses", "k INET4 PRIMARY KEY", "('0.0.0.0'), ('255.255.255.255'), ('10.0.0.0')"),
    (
        "utf8",
        "k VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY",
        "('a'), ('A'), ('ä😀'), (''), ('a\\\\tb\\\\n\\\\\\\\N')",
    ),
    (
        "folded",
        "k VARCHAR(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci PRIMARY KEY",
        "('Straße'), ('b'), (REPEAT('ü', 290))",
    ),
    ("latin", "k VARCHAR(30) CHARACTER SET latin1 PRIMARY KEY", "('a'), ('ö'), (x'80ff')"),
    ("chars", "k CHAR(20) CHARACTER SET utf8mb3 PRIMARY KEY", "('a'), ('ö '), ('')"),
    ("wide_chars", "k CHAR(200) CHARACTER SET utf8mb4 PRIMARY KEY", "('a'), (REPEAT('😀', 200))"),
    (
        "binary_strings",
        "k BINARY(4) PRIMARY KEY",
        "(x'00'), (x'6100ff'), (x'61'), (x'ff5c0a09'), (x'00000001')",
    ),
    ("binary_text", "k VARBINARY(300) PRIMARY KEY", "(x'00'), (x''), (x'610000'), (x'61'), (x'ff5c0a09')"),
    (
        "composite",
        "k VARCHAR(5) CHARACTER SET latin1 NOT NULL, l DATE NOT NULL, m INT NOT NULL, PRIMARY KEY (m, k, l)",
        "('a', '2020-01-01', 1), ('a', '2020-01-02', 1), ('\\\\t', '2020-01-01', -1)",
    ),
    ("by_index", "k INT NOT NULL, l INT, UNIQUE KEY (k)", "(1, 2), (2, NULL)"),
    (
        "behind_generated",
        "g INT GENERATED ALWAYS AS (k + 1) VIRTUAL, k INT NOT NULL, s INT GENERATED ALWAYS AS (k) STORED INVISIBLE, PRIMARY KEY (k)",
        "(1), (2)",
    ),
];

/// Every kind of key arrives as chunks write it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_are_told() {
    let server = Server::shared();
    let make: String = KEYS
        .iter()
        .map(|(name, columns, _)| format!("CREATE TABLE {name} (v INT NOT NULL DEFAULT 1, {columns});\n"))
        .collect();
    let mut pair = Pair::new(&server, "keys", &make).await;
    let set = "SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'; ";
    for (name, columns, values) in KEYS {
        let names: Vec<&str> = ["k", "l", "m"]
            .into_iter()
            .filter(|column| {
                columns.contains(&format!(", {column} ")) || columns.starts_with(&format!("{column} "))
            })
            .collect();
        pair.sql(&format!("{set} INSERT INTO {name} ({}) VALUES {values}", names.join(", ")));
    }
    let mut told = std::collections::BTreeSet::new();
    let begun = pair.after.clone();
    loop {
        let part = pair.part().await.unwrap();
        for change in &part.changes {
            if let handover_engine::change::Change::Row { table, key } = change {
                told.insert((part.tables[*table as usize].name.clone(), key.0.to_vec()));
            }
        }
        if part.is_end {
            break;
        }
    }
    let view = pair.view().await;
    for (name, ..) in KEYS {
        let table = handover_engine::rows::TableName::plain(*name);
        let mut range = handover_engine::rows::KeyRange::default();
        let spec = view.schema().table(&table).unwrap();
        let handover_engine::rows::TableKey::Columns(key) = &spec.key else { panic!("{name}") };
        let whole = view.read(&table, &range, u64::MAX).await.unwrap();
        range.after = None;
        for row in handover_engine::rows::text::rows(&whole.block).unwrap() {
            let values: Vec<&[u8]> = handover_engine::rows::text::values(row).collect();
            let key: Vec<&[u8]> = key.iter().map(|at| values[*at as usize]).collect();
            let key = key.join(&b'\t');
            let own: Vec<String> =
                told.iter().filter(|(t, _)| t == name).map(|(_, k)| k.escape_ascii().to_string()).collect();
            let is_exact = !matches!(*name, "floats" | "doubles");
            assert!(
                !is_exact || told.contains(&((*name).to_owned(), key.clone())),
                "{name}: {} is not told, but {own:?}",
                key.escape_ascii()
            );
        }
    }
    pair.after = begun;
    pair.follow("after inserts").await;
    for (name, ..) in KEYS {
        pair.sql(&format!("UPDATE {name} SET v = 2"));
    }
    pair.follow("after updates").await;
    for (name, ..) in KEYS {
        pair.sql(&format!("DELETE FROM {name} LIMIT 1"));
    }
    pair.follow("after deletes").await;
    pair.done().await;
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
