//! Cuts of large tables: sound whatever the keys, and balanced.

mod support;

use handover_engine::ports::Database;
use handover_engine::rows::{KeyRange, TableName};
use handover_mariadb::MariaDatabase;
use support::Server;

const PARTS: usize = 8;

/// Tables of more than 32 MiB, by the statistics: few long rows.
const TABLES: &[(&str, &str, &str)] = &[
    ("integers", "id INT PRIMARY KEY", "seq * 3"),
    ("skewed", "id BIGINT UNSIGNED PRIMARY KEY", "IF(seq < 15990, seq, 18446744073709551615 - seq)"),
    (
        "composite",
        "a INT, b DATE, PRIMARY KEY (a, b)",
        "IF(seq < 12000, 5, seq DIV 100), '1999-12-31' + INTERVAL seq DAY",
    ),
    (
        "texts",
        "k VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci PRIMARY KEY",
        "CONCAT(IF(seq % 2, 'Äpfel/', 'user:'), MD5(seq))",
    ),
    (
        "binary_text",
        "k VARCHAR(60) CHARACTER SET latin1 COLLATE latin1_bin, n INT, PRIMARY KEY (k, n)",
        "CONCAT('same beginning ', seq DIV 20), seq",
    ),
    (
        "cyrillic",
        "k VARCHAR(60) CHARACTER SET utf16 COLLATE utf16_general_ci PRIMARY KEY",
        "CONCAT(CHAR(0x430 + seq % 32 USING utf16), seq)",
    ),
    ("bytes", "k BINARY(16) PRIMARY KEY", "UNHEX(MD5(seq))"),
    ("uuids", "k UUID PRIMARY KEY", "CONCAT(LEFT(MD5(seq), 8), '-0000-4000-8000-', RIGHT(MD5(seq), 12))"),
    ("decimals", "k DECIMAL(20,4) PRIMARY KEY", "CAST(seq AS DECIMAL(20)) * seq * seq / 7 - 90000"),
    ("moments", "k TIMESTAMP(6) PRIMARY KEY", "FROM_UNIXTIME(1000000000 + seq * 7001.5)"),
    ("addresses", "k INET6 PRIMARY KEY", "CONCAT('fe80::', HEX(seq))"),
];

#[tokio::test]
async fn parts_cover_all_rows_and_are_balanced() {
    let server = Server::start(&["--local-infile=1"]);
    let make: Vec<String> = TABLES
        .iter()
        .map(|(name, key, values)| {
            format!(
                "CREATE TABLE {name} ({key}, body VARBINARY(3000)) ROW_FORMAT=DYNAMIC;
                 INSERT INTO {name} SELECT {values}, REPEAT('x', 2400) FROM seq_1_to_16000; ANALYZE TABLE {name};"
            )
        })
        .collect();
    let db = server.database("cuts", &make.concat());
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&db), Vec::new());
    let view = source.snapshot().await.unwrap();
    for (name, ..) in TABLES {
        let table = TableName::plain(*name);
        let cuts = view.split(&table, PARTS).await.unwrap();
        assert!(cuts.len() >= PARTS / 2 && cuts.len() < PARTS, "{name}: {} cuts", cuts.len());
        let ends: Vec<_> = cuts.iter().cloned().map(Some).chain([None]).collect();
        let (mut after, mut counts, mut whole) = (None, Vec::new(), Vec::new());
        for until in ends {
            let range = KeyRange { after: after.clone(), until: until.clone() };
            let chunk = view.read(&table, &range, u64::MAX).await.unwrap();
            counts.push(chunk.header.rows);
            whole.extend_from_slice(&chunk.block);
            after = until;
        }
        let all = view.read(&table, &KeyRange::default(), u64::MAX).await.unwrap();
        assert!(
            all.header.rows == 16000 && all.block == whole,
            "{name}: the parts {counts:?} are not the whole"
        );
        let largest = counts.iter().max().copied().unwrap_or_default();
        assert!(largest < 16000 / 2, "{name}: {counts:?}");
    }
}

#[tokio::test]
async fn small_tables_and_tables_without_keys_are_left_whole() {
    let server = Server::shared();
    let db = server.database(
        "whole",
        "CREATE TABLE t (id INT PRIMARY KEY); CREATE TABLE n (id INT); INSERT INTO t VALUES (1)",
    );
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&db), Vec::new());
    let view = source.snapshot().await.unwrap();
    for name in ["t", "n", "not_there"] {
        assert!(view.split(&TableName::plain(name), PARTS).await.unwrap().is_empty(), "{name}");
    }
}
