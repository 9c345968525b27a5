//! Values of every type, with their extremes, byte for byte: compared by the server itself, not through the adapter.

mod support;

use std::fmt::Write as _;

use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::KeyRange;
use handover_mariadb::{MariaDatabase, MariaTarget, Settings};
use support::Server;

const TYPES: &str = r#"
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+05:30', NAMES utf8mb4;
CREATE TABLE numbers (id INT PRIMARY KEY, t TINYINT, su SMALLINT UNSIGNED, m MEDIUMINT, i INT ZEROFILL, b BIGINT, bu BIGINT UNSIGNED,
  d DECIMAL(65,30), f FLOAT, f2 FLOAT(9,3), g DOUBLE, g2 DOUBLE(20,4), bi BIT(64), b1 BIT(1), bo BOOLEAN, y YEAR);
INSERT INTO numbers VALUES
 (-2147483648, -128, 65535, -8388608, 7, -9223372036854775808, 18446744073709551615, -99999999999999999999999999999999999.999999999999999999999999999999, -3.4028234663852886e38, 123456.789, 1.7976931348623157e308, 1234567890123456.7891, x'ffffffffffffffff', 1, 1, 2155),
 (0, 0, 0, 0, 0, 0, 0, 0, -0e0, 0, -0e0, 0, 0, 0, 0, 0),
 (1, 127, 1, 8388607, 4294967295, 9223372036854775807, 1, 0.000000000000000000000000000001, 1.401298464324817e-45, -0.001, 5e-324, -0.0001, x'8000000000000001', 0, -5, 1901),
 (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (3, 1, 1, 1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 97, 1, 1, 1970), (4, 1, 1, 1, 1, 1, 1, 1, 16777217, 1e5, 2.2250738585072014e-308, 1, 10, 1, 1, 1999);
CREATE TABLE times (id INT AUTO_INCREMENT PRIMARY KEY, d DATE, t TIME(6), t0 TIME, dt DATETIME(6), dt0 DATETIME NOT NULL, ts TIMESTAMP(6) NULL, ts0 TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP);
INSERT INTO times VALUES
 (0, '0000-00-00', '-838:59:59.999999', '838:59:59', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00'),
 (1, '2023-02-31', '00:00:00.000001', '-00:00:01', '9999-12-31 23:59:59.999999', '2023-02-31 00:00:00', '1970-01-01 05:30:01', '2038-01-19 08:44:07'),
 (2, '0000-01-01', NULL, NULL, '2000-00-00 01:02:03', '2000-01-00 00:00:00', NULL, '2021-03-28 02:30:00'),
 (3, NULL, '24:00:00', '12:00', '2021-10-31 02:30:00.5', '0001-01-01', '2021-10-31 02:30:00.123456', '2001-09-09 01:46:40');
CREATE TABLE strings (id BINARY(4) PRIMARY KEY, c CHAR(10), v VARCHAR(50), t LONGTEXT, bn BINARY(8), vb VARBINARY(300), bl LONGBLOB,
  l1 VARCHAR(300) CHARACTER SET latin1, u2 VARCHAR(20) CHARACTER SET ucs2, u16 TEXT CHARACTER SET utf16, u32 CHAR(5) CHARACTER SET utf32, jp VARCHAR(20) CHARACTER SET cp932,
  gbk VARCHAR(20) CHARACTER SET gbk, j JSON, e ENUM('', 'a', 'é', 'ß'), s SET('1', '2', 'é', 'x'));
INSERT INTO strings VALUES
 (x'00000000', 'a ', 'trailing  ', 'tab\tnl\ncr\rnul\0bs\\quote''"\b\Z', x'61', x'00', '', _latin1 x'e9ff80', 'é', '😀é', '😀', _cp932 x'835c8f5c', _gbk x'bf5c815c', '{"a": [1, 2.50, "\\u00e9"]}', 'é', 'é,1'),
 (x'20202020', '', '', '', '', '', NULL, '', '', '', '', '', '', '[]', '', ''),
 (x'0a090d5c', '\\N', '\\N', '\\', x'5c4e', x'5c0a', x'0b0c1a', '\\', '\\', '\\', '\\', '\\', '\\', '"\\\\"', 'a', '1,2,é,x'),
 (x'ffffffff', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE IGNORE strings SET e = 99 WHERE id = x'20202020';
SET @all = (SELECT UNHEX(GROUP_CONCAT(LPAD(HEX(seq), 2, '0') ORDER BY seq SEPARATOR '')) FROM seq_0_to_255);
INSERT INTO strings (id, vb, bl, l1) VALUES ('all!', @all, REPEAT(@all, 3000), @all);
CREATE TABLE others (id VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, i4 INET4, i6 INET6, u UUID, g GEOMETRY, p POINT NOT NULL,
  hidden INT INVISIBLE DEFAULT 3, made INT AS (LENGTH(id)) STORED, virt INT AS (LENGTH(id)), z VARCHAR(50) COMPRESSED, SPATIAL KEY p (p));
INSERT INTO others (id, i4, i6, u, g, p, hidden, z) VALUES
 ('a', '255.255.255.255', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', 'ffffffff-ffff-ffff-ffff-ffffffffffff', ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))', 4326), POINT(1.5, -2), 9, REPEAT('z', 50)),
 ('É', '0.0.0.0', '::', '00000000-0000-0000-0000-000000000000', NULL, POINT(0, 0), NULL, NULL),
 ('😀', NULL, '::ffff:1.2.3.4', 'd87fc58d-e58f-11f1-b255-02fc00000001', GeometryCollection(Point(1, 1)), POINT(1e300, -0e0), 1, '');
"#;

async fn carry(server: &Server, from: &str, target: Settings) {
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(from), Vec::new());
    let view = source.snapshot().await.unwrap();
    let migration: MigrationId = "values".parse().unwrap();
    let target = MariaTarget::new("db".parse().unwrap(), target, &migration);
    target.prepare(view.schema()).await.unwrap();
    for table in &view.schema().tables {
        let chunk = view.read(&table.name, &KeyRange::default(), u64::MAX).await.unwrap();
        assert_ne!(chunk.header.rows, 0, "{}", table.name);
        target.apply(&[chunk]).await.unwrap();
    }
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
}

/// All rows as the server shows their bytes, and its own checksums.
///
/// A table with a virtual column goes without: `CHECKSUM TABLE` of one takes in bits that the server leaves undefined,
/// and differs from one server's start to the next over the same rows (10.11.19).
fn contents(server: &Server, database: &str) -> String {
    let query = format!(
        "SELECT table_name, SUM(extra LIKE 'VIRTUAL%'), \
           GROUP_CONCAT(CONCAT('HEX(', IF(data_type IN ('float'), CONCAT('CAST(`', column_name, '` AS DOUBLE)'), CONCAT('`', column_name, '`')), ')') \
             ORDER BY ordinal_position SEPARATOR ', ') \
         FROM information_schema.columns WHERE table_schema = '{database}' GROUP BY table_name ORDER BY table_name"
    );
    let mut out = String::new();
    for line in server.sql("", &query).lines() {
        let [table, virtuals, columns] = line.splitn(3, '\t').collect::<Vec<_>>().try_into().unwrap();
        let rows =
            server.sql(database, &format!("SET time_zone = '-03:00'; SELECT {columns} FROM `{table}`"));
        let mut rows: Vec<_> = rows.lines().collect();
        rows.sort_unstable();
        let sum = match virtuals {
            "0" => server.sql(database, &format!("CHECKSUM TABLE `{table}`")).replace(database, "db"),
            _ => String::new(),
        };
        let _ = writeln!(out, "{table}\n{}\n{sum}", rows.join("\n"));
    }
    out
}

#[tokio::test]
async fn every_type_arrives_byte_for_byte() {
    let server = Server::shared();
    let from = server.database("types", TYPES);
    let to = server.fresh("types_to");
    carry(&server, &from, server.settings(&to)).await;
    let (there, here) = (contents(&server, &from), contents(&server, &to));
    assert!(there.lines().count() > 20, "{there}");
    assert_eq!(there, here);
    let printed = "SELECT CONCAT(e|0, ' ', s|0, ' ', HEX(l1)) FROM strings ORDER BY id; SELECT f, g, CAST(f AS DOUBLE), bi|0 FROM numbers ORDER BY id";
    assert_eq!(server.sql(&from, printed), server.sql(&to, printed));
}

#[tokio::test]
async fn defaults_of_the_servers_change_nothing() {
    let server = Server::start(&[
        "--local-infile=0",
        "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,PAD_CHAR_TO_FULL_LENGTH",
        "--character-set-server=cp1251",
        "--default-time-zone=-07:00",
        "--max-statement-time=30",
    ]);
    let from = server.database("types", TYPES);
    let to = server.fresh("types_to");
    carry(&server, &from, server.settings(&to)).await;
    assert_eq!(contents(&server, &from), contents(&server, &to));
}

#[tokio::test]
async fn a_row_larger_than_packets_arrives() {
    let server = Server::shared();
    let from = server.database(
        "large",
        "CREATE TABLE t (id INT PRIMARY KEY, a LONGBLOB, b LONGBLOB, c LONGBLOB, d LONGBLOB, e LONGBLOB);
         INSERT INTO t VALUES (1, REPEAT('a\\n', 7000000), REPEAT('\\0', 14000000), REPEAT('c', 14000000), REPEAT('d\\\\', 7000000), REPEAT('e', 8000000)), (2, '', '', '', '', '')",
    );
    let to = server.fresh("large_to");
    carry(&server, &from, server.settings(&to)).await;
    assert_eq!(
        server.sql(&from, "CHECKSUM TABLE t").split('\t').nth(1),
        server.sql(&to, "CHECKSUM TABLE t").split('\t').nth(1)
    );
}

/// Above, at and below the size from which values travel in pieces; keys that need care; characters of one to four bytes.
const IN_PIECES: &str = r#"
SET NAMES utf8mb4;
CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_general_ci, n DECIMAL(10,3), f DOUBLE, a LONGTEXT CHARACTER SET latin1, b LONGBLOB, m MEDIUMTEXT CHARACTER SET utf8mb4,
  w LONGTEXT CHARACTER SET utf16, j JSON, z LONGBLOB COMPRESSED, small TEXT, PRIMARY KEY (k, n, f));
SET @all = (SELECT UNHEX(GROUP_CONCAT(LPAD(HEX(seq), 2, '0') ORDER BY seq SEPARATOR '')) FROM seq_0_to_255);
INSERT INTO t (k, n, f, a, b, m, small) VALUES
  ('a\tb\\', -1.5, 0.1, REPEAT(@all, 40000), REPEAT(@all, 70000), REPEAT('aé€😀', 1600000), 'a'),
  ('É', 0, -0e0, REPEAT('x', 4194304), REPEAT('y', 4194305), NULL, 'b'),
  ('é2', 7.125, 5e-324, REPEAT('x', 4194303), REPEAT('\0', 4194304), REPEAT('😀', 1048577), NULL);
INSERT INTO t (k, n, f, w, j, z) VALUES
  ('😀', 0, 1e308, REPEAT('é😀', 1000000), CONCAT('["', REPEAT('é\\"\\n', 1000000), '"]'), REPEAT(@all, 17000)), ('', 1, 1, '', '[]', '');
"#;

#[tokio::test]
async fn large_values_are_read_in_pieces() {
    let server = Server::start(&["--max-allowed-packet=32M"]);
    let (from, to) = (server.database("pieces", IN_PIECES), server.fresh("pieces_to"));
    carry(&server, &from, server.settings(&to)).await;
    let sums = |name: &str| {
        let sums = server.sql(name, "CHECKSUM TABLE t; SELECT MD5(k), n, f, MD5(a), MD5(b), MD5(m), MD5(w), MD5(j), MD5(z), LENGTH(m), small FROM t ORDER BY k");
        sums.replace(name, "db")
    };
    assert_eq!(sums(&from), sums(&to));
    // What verification compares is the same.
    let view = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), Vec::new())
        .snapshot()
        .await
        .unwrap();
    let table = view.schema().tables[0].name.clone();
    let target = MariaTarget::new("db".parse().unwrap(), server.settings(&to), &"values".parse().unwrap());
    let there = target.reread(&table, &KeyRange::default()).await.unwrap();
    let chunk = view.read(&table, &KeyRange::default(), u64::MAX).await.unwrap();
    assert_eq!((chunk.header.digest, chunk.header.rows), (there.header.digest, 5));
}

/// Definitions with what the server shows as `?`.
const UNSHOWN: &str = r#"
SET sql_mode = '';
CREATE TABLE wide (id INT PRIMARY KEY, e ENUM('', '😀', 'a,)''\\', '?', '😁?') NOT NULL DEFAULT '😁?', s SET('x', '😀', 'ü') DEFAULT 'x,😀',
  u ENUM('?', '😀') CHARACTER SET utf16, l ENUM('ÿ', '?') CHARACTER SET latin1 DEFAULT '?', v VARCHAR(20) DEFAULT 'it''s 😀\n\\', b VARBINARY(9) DEFAULT x'ff3f0027fe',
  g ENUM('x', '😀') AS (e) VIRTUAL, made VARCHAR(20) AS (CONCAT('😀', v)) STORED, KEY e (e), CHECK (v <> '😂'));
INSERT INTO wide (id) VALUES (0);
INSERT INTO wide (id, e, s, u) SELECT seq, seq, seq, 1 + seq % 2 FROM seq_1_to_5;
CREATE TABLE by_member (e ENUM('?', '😀', 'b') PRIMARY KEY, s SET('😀', '?'));
INSERT INTO by_member VALUES (1, 1), (2, 2), (3, 3);
"#;

#[tokio::test]
async fn members_and_defaults_that_cannot_be_shown_arrive() {
    let server = Server::start(&[]);
    let from = server.database("unshown", UNSHOWN);
    let to = server.fresh("unshown_to");
    // Reading takes no privilege beyond the usual ones.
    server.sql("", &format!("CREATE USER reader@localhost; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `{from}`.* TO reader@localhost"));
    let modest = server.url(&from).replace("root@", "reader@");
    let modest = MariaDatabase::new("db".parse().unwrap(), Settings::parse(&modest).unwrap(), Vec::new());
    let seen = modest.snapshot().await.unwrap().schema().clone();
    assert!(seen.before_load.iter().any(|ddl| ddl.sql.contains("'😁?'")), "{seen:?}");
    assert!(
        seen.tables[1].columns[1].declared.starts_with("enum('','😀','a,)''\\\\','?','😁?') CHARACTER SET"),
        "{seen:?}"
    );
    carry(&server, &from, server.settings(&to)).await;
    assert_eq!(contents(&server, &from), contents(&server, &to));
    // What new rows get, and what is accepted.
    let fresh = "SET sql_mode = ''; INSERT INTO wide (id, e) VALUES (100, '😀'); INSERT INTO wide (id) VALUES (101);
        SELECT e + 0, HEX(e), HEX(s), HEX(v), HEX(b), HEX(made), HEX(g) FROM wide ORDER BY id; SELECT HEX(e), HEX(s) FROM by_member";
    let there = server.sql(&from, fresh);
    assert!(there.contains("F09F9880"), "{there}");
    assert_eq!(there, server.sql(&to, fresh));
    let target = MariaDatabase::new("db".parse().unwrap(), server.settings(&to), Vec::new());
    assert_eq!(target.snapshot().await.unwrap().schema().structure(), seen.structure());
}

#[tokio::test]
async fn a_member_that_only_looks_the_same_is_a_difference() {
    let server = Server::shared();
    let table =
        |member: &str| format!("CREATE TABLE t (e ENUM('{member}') PRIMARY KEY, v VARCHAR(3) DEFAULT 'x')");
    let mut structures = Vec::new();
    for member in ["😀", "😁", "?"] {
        let name = server.database("looks", &table(member));
        let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&name), Vec::new());
        structures.push(source.facts().await.unwrap().structure);
    }
    assert!(
        structures[0] != structures[1] && structures[1] != structures[2] && structures[0] != structures[2]
    );
}

#[tokio::test]
async fn rows_that_violate_a_check_arrive() {
    let server = Server::shared();
    let from = server.database(
        "unchecked",
        "CREATE TABLE t (id INT PRIMARY KEY, v INT CHECK (v > 0), j JSON, k INT, KEY k (k), CHECK (k < id));
         SET check_constraint_checks = 0; INSERT INTO t VALUES (1, -1, 'no json', 7), (2, 1, '[]', 1);",
    );
    for options in [&["--local-infile=1"], &["--local-infile=0"]] {
        let other = Server::start(options);
        let to = other.fresh("unchecked_to");
        carry(&server, &from, other.settings(&to)).await;
        assert_eq!(contents(&server, &from), contents(&other, &to));
        // The checks hold for what comes next.
        let refused = "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 4025 SELECT 'refused'; INSERT INTO t VALUES (3, 1, '[]', 9); END";
        assert_eq!(other.sql(&to, &format!("DELIMITER //\n{refused}//\n")), "refused\n");
    }
}
