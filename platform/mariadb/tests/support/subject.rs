//! Databases of two shapes, as subjects of contracts.

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_mariadb::{MariaDatabase, MariaTarget};
use handover_platform::contract::Subject;

use super::Server;

/// A database to be moved.
pub struct Maria {
    pub server: Arc<Server>,
    pub from: String,
    pub to: String,
    pub mutate: &'static str,
}

impl Maria {
    pub fn new(make: &str, mutate: &'static str) -> Self {
        let server = Server::shared();
        let from = server.database("from", make);
        let to = server.fresh("to");
        Self { server, from, to, mutate }
    }
}

#[async_trait]
impl Subject for Maria {
    fn source(&self) -> Arc<dyn Database> {
        let settings = self.server.settings(&self.from);
        Arc::new(MariaDatabase::new("db".parse().unwrap(), settings, Vec::new()))
    }

    fn target(&self, migration: &MigrationId) -> Arc<dyn DatabaseTarget> {
        Arc::new(MariaTarget::new("db".parse().unwrap(), self.server.settings(&self.to), migration))
    }

    async fn mutate(&self) {
        self.server.sql(&self.from, self.mutate);
    }

    async fn occupy(&self) {
        self.server.sql("", &format!("CREATE DATABASE `{}` CHARACTER SET latin1", self.to));
        self.server.sql(
            &self.to,
            "CREATE TABLE big (x INT PRIMARY KEY, other TEXT); INSERT INTO big VALUES (1, 'old');
             CREATE TABLE old (id INT AUTO_INCREMENT PRIMARY KEY, p INT, KEY p (p),
               CONSTRAINT oldf FOREIGN KEY (p) REFERENCES big (x)); INSERT INTO old VALUES (7, 1);
             CREATE VIEW v AS SELECT other FROM big;
             CREATE TRIGGER oldt BEFORE INSERT ON old FOR EACH ROW SET NEW.p = 1;
             CREATE FUNCTION oldf() RETURNS INT RETURN 3;",
        );
    }

    fn kept(&self, place: &str) -> Arc<dyn Database> {
        let settings = self.server.settings(database_at(place));
        Arc::new(MariaDatabase::new("db".parse().unwrap(), settings, Vec::new()))
    }

    async fn standing(&self) -> Option<String> {
        let query = format!("SELECT 1 FROM information_schema.schemata WHERE schema_name = '{}'", self.to);
        if self.server.sql("", &query).is_empty() {
            return None;
        }
        let out = std::process::Command::new("mariadb-dump")
            .args([
                "--no-defaults",
                "--skip-comments",
                "--routines",
                "--triggers",
                "--events",
                "--skip-dump-date",
            ])
            .args(["--order-by-primary", "--databases"])
            .arg(format!("--socket={}", self.server.socket().display()))
            .arg(&self.to)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Some(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// The name of a database in its location.
pub fn database_at(place: &str) -> &str {
    place.split(" at ").next().unwrap_or_default()
}

pub const PLAIN: &str = "
CREATE TABLE big (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40), body TEXT, n DOUBLE, KEY name (name));
INSERT INTO big (name, body, n) SELECT CONCAT('name ', seq), REPEAT(CHAR(32 + seq % 90), seq % 60), seq / 7 FROM seq_1_to_900;
CREATE TABLE one (k VARCHAR(10) COLLATE utf8mb4_bin PRIMARY KEY, v BLOB, big_id INT UNSIGNED, CONSTRAINT one_big FOREIGN KEY (big_id) REFERENCES big (id));
INSERT INTO one VALUES ('a', x'00090a0d5c', 1);
CREATE TABLE empty (id BIGINT PRIMARY KEY, e ENUM('a','b'));
CREATE TABLE keyless (a INT, b VARCHAR(60), KEY a (a));
INSERT INTO keyless SELECT 300 - seq, CONCAT('row ', seq) FROM seq_1_to_300;
CREATE SEQUENCE numbers START WITH 5;
CREATE VIEW v AS SELECT id, name FROM big;
CREATE TRIGGER t BEFORE INSERT ON big FOR EACH ROW SET NEW.name = UPPER(NEW.name);
CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + 1;
CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO DELETE FROM empty;
";

pub const PLAIN_CHANGE: &str = "
SET @low = (SELECT MIN(id) FROM big), @high = (SELECT MAX(id) FROM big);
DELETE FROM one;
INSERT INTO one VALUES (CONCAT('b', LEFT(UUID(), 8)), UUID(), NULL);
DELETE FROM big WHERE id IN (@low, @high, @low + 100);
UPDATE big SET body = UUID() WHERE id = @low + 200;
INSERT INTO big (name, body) VALUES (UUID(), 'new'), (UUID(), NULL);
INSERT INTO keyless VALUES (1, UUID());
";

pub const AWKWARD: &str = "
CREATE TABLE `wide``key, (x)` (
  `a b` VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german2_ci NOT NULL, `datum` DATE NOT NULL, `e` ENUM('z','a','m') NOT NULL,
  `f` FLOAT, `b` BIT(13), `sum` INT GENERATED ALWAYS AS (LENGTH(`v`)) STORED, `v` VARBINARY(60), `s` SET('x','y'),
  PRIMARY KEY (`a b`, `datum`, `e`), UNIQUE KEY `u` (`v`)) ROW_FORMAT=DYNAMIC;
INSERT INTO `wide``key, (x)` (`a b`, datum, e, f, b, v, s)
  SELECT CONCAT(CHAR(65 + seq % 50), seq DIV 50 % 3), '2020-01-01' + INTERVAL seq DIV 150 DAY, 1 + seq % 3, seq / 3, seq, CONCAT('\\\\', seq, CHAR(seq % 256)), seq % 4
  FROM seq_1_to_700;
CREATE TABLE `Groß` (u UUID PRIMARY KEY, i INET6, y YEAR) CHARACTER SET ucs2;
INSERT INTO `Groß` SELECT CONCAT('00000000-0000-1000-8000-', LPAD(seq, 12, '0')), '::1', 1950 + seq % 100 FROM seq_1_to_120;
CREATE TABLE nokey (a INT NOT NULL, t TEXT CHARACTER SET utf8mb4, w CHAR(9) CHARACTER SET utf16, FULLTEXT KEY t (t));
INSERT INTO nokey SELECT seq % 5, REPEAT('é😀', seq % 9), '😀' FROM seq_1_to_200;
CREATE TABLE isam (id INT, d DATETIME(6), PRIMARY KEY (id)) ENGINE=Aria TRANSACTIONAL=0;
INSERT INTO isam SELECT seq, '2001-02-03 04:05:06.789' FROM seq_1_to_1;
CREATE TABLE nothing (d DECIMAL(65,30), t TIME(6) NOT NULL, UNIQUE KEY t (t));
CREATE TABLE parts (id INT NOT NULL, at DATE NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (YEAR(at))
  (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parts SELECT seq, MAKEDATE(1990 + seq % 20, 7) FROM seq_1_to_100;
CREATE VIEW a_view AS SELECT * FROM z_view;
";

/// [`AWKWARD`] with a view that another one, which comes before it, reads.
pub fn awkward() -> String {
    AWKWARD.replace("CREATE VIEW a_view", "CREATE VIEW z_view AS SELECT a FROM nokey; CREATE VIEW a_view")
}

pub const AWKWARD_CHANGE: &str = "
DELETE FROM `wide``key, (x)` ORDER BY `a b`, datum, e LIMIT 1;
DELETE FROM `wide``key, (x)` ORDER BY `a b` DESC, datum DESC, e DESC LIMIT 2;
UPDATE `wide``key, (x)` SET v = UUID() WHERE datum = '2020-01-03' LIMIT 1;
INSERT INTO `wide``key, (x)` (`a b`, datum, e, v) VALUES (LEFT(UUID(), 8), NOW(), 2, UUID());
INSERT INTO `Groß` VALUES (UUID(), NULL, 0);
INSERT INTO nothing VALUES (RAND(), CURTIME(6));
UPDATE nokey SET t = UUID() LIMIT 1;
INSERT INTO parts SELECT MAX(id) + 1, '1999-01-01' FROM parts;
";
