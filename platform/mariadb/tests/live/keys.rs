//! Keys of every type, as MariaDB's log tells them.

use std::collections::BTreeSet;
use std::sync::Arc;

use handover_engine::change::Change;
use handover_engine::rows::{KeyRange, TableKey, TableName, text};

use crate::support::Server;
use crate::support::pair::Pair;

/// Key columns, their values, and (where two of them are the same to the server) less of them.
const KEYS: &[(&str, &str, &str)] = &[
    ("signed", "k TINYINT PRIMARY KEY", "(-128), (-1), (0), (127)"),
    ("tiny", "k TINYINT UNSIGNED PRIMARY KEY", "(0), (127), (128), (255)"),
    ("small", "k SMALLINT UNSIGNED PRIMARY KEY", "(0), (65535)"),
    ("medium", "k MEDIUMINT PRIMARY KEY", "(-8388608), (8388607)"),
    ("medium_unsigned", "k MEDIUMINT UNSIGNED PRIMARY KEY", "(0), (8388607), (8388608), (16777215)"),
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
    // Some second bytes are a backslash.
    (
        "chinese",
        "k VARCHAR(30) CHARACTER SET gbk PRIMARY KEY",
        "('a'), (x'815c'), (x'815c5c27'), ('中文'), ('')",
    ),
    ("chinese_chars", "k CHAR(9) CHARACTER SET gbk PRIMARY KEY", "('a'), (x'815c'), ('中文 '), ('')"),
    ("japanese", "k VARCHAR(30) CHARACTER SET sjis PRIMARY KEY", "('a'), (x'835c'), (x'b1'), ('日本')"),
    ("two_bytes", "k VARCHAR(30) CHARACTER SET ucs2 PRIMARY KEY", "('a'), ('中'), ('\\\\n'), ('')"),
    ("two_bytes_chars", "k CHAR(9) CHARACTER SET ucs2 PRIMARY KEY", "('a'), ('ö '), ('')"),
    ("utf16", "k VARCHAR(30) CHARACTER SET utf16 PRIMARY KEY", "('a'), ('中😀'), ('ö'), ('')"),
    ("utf16_low_first", "k VARCHAR(30) CHARACTER SET utf16le PRIMARY KEY", "('a'), ('中😀'), ('ö')"),
    ("utf16_chars", "k CHAR(9) CHARACTER SET utf16 COLLATE utf16_bin PRIMARY KEY", "('a'), ('A'), ('😀 ')"),
    ("utf32", "k VARCHAR(30) CHARACTER SET utf32 PRIMARY KEY", "('a'), ('中😀'), ('')"),
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
        "beside_a_prefix",
        "k INT NOT NULL, l VARCHAR(20) NOT NULL, PRIMARY KEY (l(3)), UNIQUE KEY (k)",
        "(1, 'abcd'), (2, 'ab')",
    ),
    (
        "behind_generated",
        "g INT GENERATED ALWAYS AS (k + 1) VIRTUAL, k INT NOT NULL, s INT GENERATED ALWAYS AS (k) STORED INVISIBLE, PRIMARY KEY (k)",
        "(1), (2)",
    ),
];

/// Every kind of key arrives as chunks write it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_are_told() {
    are_told(&Server::shared(), "time_zone = '+00:00'", KEYS).await;
}

/// Moments are told as they are, whatever the hour is where the server stands.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_told_by_servers_anywhere() {
    let is_of_time =
        |name: &str| ["dates", "times", "moments", "stamps", "years"].iter().any(|end| name.ends_with(end));
    let keys: Vec<_> = KEYS.iter().filter(|(name, ..)| is_of_time(name)).copied().collect();
    for zone in ["+05:45", "-09:30"] {
        let server = Arc::new(Server::start(&["--local-infile=1", &format!("--default-time-zone={zone}")]));
        are_told(&server, "timestamp = DEFAULT", &keys).await;
    }
}

/// Rows with keys of these columns come, change and go; `set` holds for the sessions that write them.
async fn are_told(server: &Arc<Server>, set: &str, keys: &[(&str, &str, &str)]) {
    let make: String = keys
        .iter()
        .map(|(name, columns, _)| format!("CREATE TABLE {name} (v INT NOT NULL DEFAULT 1, {columns});\n"))
        .collect();
    let mut pair = Pair::new(server, "keys", &make).await;
    let set = format!("SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', {set};");
    for (name, columns, values) in keys {
        let names: Vec<&str> = ["k", "l", "m"]
            .into_iter()
            .filter(|column| {
                columns.contains(&format!(", {column} ")) || columns.starts_with(&format!("{column} "))
            })
            .collect();
        pair.sql(&format!("{set} INSERT INTO {name} ({}) VALUES {values}", names.join(", ")));
    }
    let mut told = BTreeSet::new();
    let begun = pair.after.clone();
    loop {
        let part = pair.part().await.unwrap();
        for change in &part.changes {
            if let Change::Row { table, key } = change {
                told.insert((part.tables[*table as usize].name.clone(), key.0.to_vec()));
            }
        }
        if part.is_end {
            break;
        }
    }
    let view = pair.view().await;
    for (name, ..) in keys {
        let table = TableName::plain(*name);
        let mut range = KeyRange::default();
        let spec = view.schema().table(&table).unwrap();
        let TableKey::Columns(key) = &spec.key else { panic!("{name}") };
        let whole = view.read(&table, &range, u64::MAX).await.unwrap();
        range.after = None;
        for row in text::rows(&whole.block).unwrap() {
            let values: Vec<&[u8]> = text::values(row).collect();
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
    for (name, ..) in keys {
        pair.sql(&format!("UPDATE {name} SET v = 2"));
    }
    pair.follow("after updates").await;
    for (name, ..) in keys {
        pair.sql(&format!("DELETE FROM {name} LIMIT 1"));
    }
    pair.follow("after deletes").await;
    pair.done().await;
}

/// What begins alike has one key of beginnings: such a key names no row, and another one may, as `beside_a_prefix` has it.
#[tokio::test(flavor = "multi_thread")]
async fn tables_keyed_by_beginnings_alone_are_copied_again() {
    let server = Server::shared();
    let make = "CREATE TABLE alone (k VARCHAR(100), v INT, PRIMARY KEY (k(3))) ENGINE=InnoDB; INSERT INTO alone VALUES ('abcd', 1);
                CREATE TABLE beside (k VARCHAR(100), v INT NOT NULL, PRIMARY KEY (k(3)), UNIQUE KEY (v)) ENGINE=InnoDB;";
    let mut pair = Pair::new(&server, "beginnings", make).await;
    let view = pair.view().await;
    let followed: Vec<(&str, bool)> =
        view.schema().tables.iter().map(|table| (table.name.name.as_str(), table.followed)).collect();
    assert_eq!(followed, [("alone", false), ("beside", true)]);
    drop(view);
    for change in [
        "INSERT INTO alone VALUES ('xyz', 2); INSERT INTO beside VALUES ('abcd', 1), ('xyz', 2)",
        "UPDATE alone SET k = 'abce' WHERE v = 1; UPDATE beside SET k = 'abce' WHERE v = 1",
        "REPLACE INTO alone VALUES ('abcf', 3); REPLACE INTO beside VALUES ('abcf', 3)",
    ] {
        pair.sql(change);
        pair.follow(change).await;
    }
    pair.done().await;
}
