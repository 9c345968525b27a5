//! Parts of a large table, which are copied side by side: together they are all of it, and none is much larger than another.

mod support;

use handover_engine::ports::{Database, DatabaseSnapshot};
use handover_engine::rows::{KeyRange, TableName, TableSpec};
use support::{Server, source};

const PARTS: usize = 4;
const ROWS: u64 = 60_000;

/// Rows of each part.
async fn rows(
    view: &dyn DatabaseSnapshot,
    table: &TableName,
    cuts: &[handover_engine::rows::Key],
) -> Vec<u64> {
    let ends = cuts.iter().cloned().map(Some).chain([None]);
    let (mut after, mut out) = (None, Vec::new());
    for until in ends {
        let range = KeyRange { after, until: until.clone() };
        let chunk = view.read(table, &range, u64::MAX).await.unwrap();
        assert!(chunk.header.range == range, "{table}: a part was not read whole");
        out.push(chunk.header.rows);
        after = until;
    }
    out
}

#[tokio::test]
async fn parts_are_whole_and_balanced() {
    let server = Server::shared();
    let from = server.create("parts", "");
    let keys = [
        ("serial", "k integer PRIMARY KEY", "n"),
        ("composite", "k integer, l text, PRIMARY KEY (k, l)", "n % 3, 'x' || n"),
        ("reversed", "l text, k integer, PRIMARY KEY (k, l)", "'y' || n % 7, n"),
        (
            "words",
            "k text COLLATE \"de-x-icu\" PRIMARY KEY",
            "(ARRAY['a', 'B', 'ä', 'Z', 'é', '-'])[n % 6 + 1] || n",
        ),
        ("bytewise", "k text COLLATE \"C\" PRIMARY KEY", "chr(n % 90 + 33) || E'\\t\\\\' || n"),
        ("uuids", "k uuid PRIMARY KEY", "md5(n::text)::uuid"),
        ("numerics", "k numeric PRIMARY KEY", "n / 7.0 - 1000"),
        ("times", "k timestamptz PRIMARY KEY", "'2020-01-01'::timestamptz + n * interval '17 min'"),
        ("skewed", "k bigint PRIMARY KEY", "n::bigint * n * n"),
        ("few", "k boolean, l integer, PRIMARY KEY (k, l)", "n % 1000 = 0, n"),
        ("places", "k integer", "n"),
    ];
    for (name, key, value) in keys {
        server.sql(&from, &format!(
            "CREATE TABLE {name} ({key}, filler text); ALTER TABLE {name} ALTER filler SET STORAGE PLAIN;
             INSERT INTO {name} SELECT {value}, repeat('x', 400) FROM generate_series(1, {ROWS}) n; ANALYZE {name}"
        ));
    }
    let view = source(&server, &from).snapshot().await.unwrap();
    let tables: Vec<&TableSpec> = view.schema().tables.iter().collect();
    assert_eq!(tables.len(), keys.len());
    for table in tables {
        let cuts = view.split(&table.name, PARTS).await.unwrap();
        assert!(!cuts.is_empty() && cuts.len() < PARTS, "{}: {} cuts", table.name, cuts.len());
        let parts = rows(&*view, &table.name, &cuts).await;
        assert_eq!(parts.iter().sum::<u64>(), ROWS, "{}: {parts:?}", table.name);
        let fair = ROWS / PARTS as u64;
        assert!(parts.iter().all(|part| *part < fair * 2), "{}: {parts:?}", table.name);
    }
}

#[tokio::test]
async fn tables_that_are_small_or_changed_since_they_were_looked_at() {
    let server = Server::shared();
    let from = server.create("odd_parts", "");
    // The statistics say that there are many rows of a few bytes; there are few, and large ones.
    server.sql(
        &from,
        "CREATE TABLE small (k integer PRIMARY KEY); INSERT INTO small SELECT generate_series(1, 1000);
         CREATE TABLE wide (k integer PRIMARY KEY, v text); ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
         INSERT INTO wide SELECT n, repeat('x', 1 << 20) FROM generate_series(1, 40) n;
         CREATE TABLE emptied (k integer PRIMARY KEY, v text); INSERT INTO emptied SELECT n, repeat('x', 500) FROM generate_series(1, 60000) n;
         ANALYZE; DELETE FROM emptied WHERE k > 3",
    );
    let view = source(&server, &from).snapshot().await.unwrap();
    for (name, count) in [("small", 1000), ("wide", 40), ("emptied", 3)] {
        let table = TableName { schema: "public".to_owned(), name: name.to_owned() };
        let cuts = view.split(&table, PARTS).await.unwrap();
        assert!(name != "small" || cuts.is_empty());
        let parts = rows(&*view, &table, &cuts).await;
        assert_eq!(parts.iter().sum::<u64>(), count, "{name}: {parts:?}");
    }
}
