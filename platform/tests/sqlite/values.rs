//! Every value arrives as it is stored: its storage class and every bit of it.

use handover_engine::rows::{KeyRange, TableName};
use rusqlite::Connection;
use rusqlite::types::{ToSql, Value};

use super::support::{Bed, assert_same, assert_sound, dump};

/// Declared types of every affinity (SQLite manual, "Datatypes", 3.1.1), also those whose name misleads.
const DECLARED: [&str; 16] = [
    "",
    "INTEGER",
    "INT",
    "UNSIGNED BIG INT",
    "FLOATING POINT",
    "TEXT",
    "VARCHAR(3)",
    "CLOB",
    "BLOB",
    "REAL",
    "DOUBLE PRECISION",
    "NUMERIC",
    "DECIMAL(10,5)",
    "BOOLEAN",
    "DATETIME",
    "STRING",
];

/// Values of every storage class, each as SQL. Text in the encoding of the database where it is cast from a blob.
const VALUES: [&str; 48] = [
    "NULL",
    "0",
    "1",
    "-1",
    "127",
    "128",
    "-129",
    "32768",
    "8388608",
    "2147483648",
    "140737488355328",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775807 - 1",
    "0.0",
    "-0.0",
    "1.0",
    "0.1",
    "-1.5e300",
    "1e999",
    "-1e999",
    "4.9406564584124654e-324",
    "2.2250738585072009e-308",
    "2.2250738585072014e-308",
    "1.7976931348623157e308",
    "9007199254740993.0",
    "9223372036854775807.0",
    "1e15 + 0.3",
    "''",
    "'text'",
    "' 12 '",
    "'12'",
    "'012'",
    "'1e3'",
    "'12.50'",
    "'0x10'",
    "'9223372036854775808'",
    "'NULL'",
    "'\\N'",
    "'tab' || char(9) || 'line' || char(10) || char(13) || '\\' || char(8, 11, 12)",
    "'a' || char(0) || 'b'",
    "char(0)",
    "char(128512, 233, 8364, 65533, 65279)",
    "x''",
    "x'00'",
    "x'5c4e'",
    "x'000102090a0d5c7f80ff'",
    "randomblob(3000)",
];

fn table_of_every_type() -> String {
    let columns = DECLARED.iter().enumerate().map(|(n, declared)| format!("c{n} {declared}"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let mut sql = format!("CREATE TABLE t ({columns}); CREATE TABLE w (k PRIMARY KEY, v) WITHOUT ROWID;");
    for value in VALUES {
        let row = vec![value; DECLARED.len()].join(", ");
        sql.push_str(&format!("INSERT INTO t VALUES ({row});"));
        if value != "NULL" {
            sql.push_str(&format!("INSERT OR IGNORE INTO w VALUES ({value}, {value});"));
        }
    }
    sql
}

/// How many values of each storage class the source has: the table is worth nothing where SQLite made them all alike.
fn classes(db: &Connection, column: &str) -> Vec<(String, i64)> {
    let sql = format!("SELECT typeof({column}), count(*) FROM t GROUP BY 1 ORDER BY 1");
    let mut statement = db.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn every_storage_class_in_every_affinity() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let bed = Bed::with(&format!("PRAGMA encoding = '{encoding}'; {}", table_of_every_type()));
        assert_eq!(classes(&bed.source_db(), "c0").len(), 5, "no value changes where nothing is declared");
        assert_eq!(classes(&bed.source_db(), "c1").len(), 5);
        assert_eq!(classes(&bed.source_db(), "c5").len(), 3, "numbers become text");
        bed.moves().await;
        assert_sound(&bed.target_path());
    }
}

#[tokio::test]
async fn every_storage_class_in_strict_tables() {
    let bed = Bed::with(
        "CREATE TABLE s (i INT, n INTEGER, r REAL, t TEXT, b BLOB, a ANY, PRIMARY KEY (n)) STRICT;
         CREATE TABLE k (a ANY PRIMARY KEY, b ANY NOT NULL) STRICT, WITHOUT ROWID;
         INSERT INTO s VALUES (1, 2, 3, 4, x'05', 6), (NULL, -9223372036854775807 - 1, -0.0, '', x'', ''),
             (9223372036854775807, 9223372036854775807, 1e999, 'a' || char(0), zeroblob(9), x'00'),
             (0, 0, 0.5, '5', x'ff', '000123'), (NULL, 7, NULL, NULL, NULL, NULL), (1, 8, 1, '1', x'31', 1.0);
         INSERT INTO k VALUES (1, '1'), ('1', 1), (x'31', 1.0), (1.5, x''), ('', '');",
    );
    bed.moves().await;
    assert_sound(&bed.target_path());
}

/// Values that only the C interface can store, or only a cast.
fn odd_values() -> Vec<Value> {
    vec![
        Value::Real(f64::from_bits(1)),
        Value::Real(f64::from_bits(0x000f_ffff_ffff_ffff)),
        Value::Real(f64::MIN_POSITIVE),
        Value::Real(-0.0),
        Value::Real(f64::INFINITY),
        Value::Real(f64::NEG_INFINITY),
        Value::Real(f64::MAX),
        Value::Real(0.1 + 0.2),
        Value::Integer(i64::MIN),
        Value::Integer(i64::MAX),
        Value::Text(String::new()),
        Value::Text("\0".to_owned()),
        Value::Text("a\0b\0".to_owned()),
        Value::Text("\u{feff}\u{10ffff}".to_owned()),
        Value::Blob(Vec::new()),
        Value::Blob((0..=255).collect()),
    ]
}

#[tokio::test]
async fn bound_values_keep_every_bit() {
    let bed = Bed::with("CREATE TABLE t (v); CREATE TABLE r (v REAL)");
    let db = bed.source_db();
    for value in odd_values() {
        db.execute("INSERT INTO t VALUES (?)", [&value]).unwrap();
        db.execute("INSERT INTO r VALUES (?)", [&value]).unwrap();
    }
    // SQLite stores no NaN: it makes NULL of it.
    db.execute("INSERT INTO t VALUES (?)", [f64::NAN.to_sql().unwrap()]).unwrap();
    let class: String =
        db.query_row("SELECT typeof(v) FROM t ORDER BY rowid DESC", [], |row| row.get(0)).unwrap();
    assert_eq!(class, "null");
    drop(db);
    bed.moves().await;
}

#[tokio::test]
async fn text_that_is_not_valid() {
    let table = [
        ("UTF-8", vec!["ff", "c3", "c328", "eda080", "f4908080", "00", "61ff00fe62", "80", "e282", "c080"]),
        // Lone surrogates of either half, in the wrong order, at the end; a byte order mark; half a unit.
        (
            "UTF-16le",
            vec!["00d8", "00dc", "00dc00d8", "610000d8", "00d86100", "fffe", "feff", "0000", "61006200"],
        ),
        (
            "UTF-16be",
            vec!["d800", "dc00", "dc00d800", "0061d800", "d8000061", "fffe", "feff", "0000", "00610062"],
        ),
    ];
    for (encoding, texts) in table {
        let bed = Bed::with(&format!(
            "PRAGMA encoding = '{encoding}'; CREATE TABLE t (v); CREATE TABLE u (v TEXT);
             CREATE TABLE w (k TEXT PRIMARY KEY) WITHOUT ROWID"
        ));
        let db = bed.source_db();
        for text in &texts {
            let text = format!("CAST(x'{text}' AS TEXT)");
            let sql = format!(
                "INSERT INTO t VALUES ({text}); INSERT INTO u VALUES ({text}); INSERT OR IGNORE INTO w VALUES ({text})"
            );
            db.execute_batch(&sql).unwrap();
        }
        let stored: i64 = db
            .query_row("SELECT count(DISTINCT CAST(v AS BLOB)) FROM t WHERE typeof(v) = 'text'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(stored, i64::try_from(texts.len()).unwrap(), "{encoding}: SQLite changed them itself");
        drop(db);
        bed.moves().await;
    }
}

/// The comparison itself tells apart what looks alike.
#[test]
fn the_comparison_sees_small_differences() {
    let table = [
        "1",
        "1.0",
        "'1'",
        "x'31'",
        "NULL",
        "''",
        "x''",
        "0.0",
        "0",
        "'a'",
        "'a' || char(0)",
        "1e-320",
        "2e-320",
    ];
    let mut dumps: Vec<Vec<String>> = Vec::new();
    for value in table {
        let bed = Bed::with(&format!("CREATE TABLE t (v); INSERT INTO t VALUES ({value})"));
        let dump = dump(&bed.source_path());
        assert!(!dumps.contains(&dump), "{value}");
        dumps.push(dump);
    }
}

#[tokio::test]
async fn row_numbers_and_keys_at_their_ends() {
    let bed = Bed::with(
        "CREATE TABLE hidden (v);
         CREATE TABLE id (id INTEGER PRIMARY KEY, v);
         CREATE TABLE real (k REAL PRIMARY KEY, v) WITHOUT ROWID;
         CREATE TABLE mixed (k PRIMARY KEY, v);
         INSERT INTO hidden (rowid, v) VALUES (-9223372036854775807 - 1, 'min'), (-1, 'minus'), (0, 'zero'),
             (9223372036854775806, 'last but one'), (9223372036854775807, 'max');
         INSERT INTO id SELECT rowid, v FROM hidden;
         INSERT INTO real VALUES (-1e999, 1), (-0.5, 2), (0, 3), (1e-320, 4), (1e999, 5);
         INSERT INTO mixed VALUES (NULL, 1), (NULL, 2), (1, 3), ('1', 4), (x'31', 5), ('', 6), (x'', 7);",
    );
    for budget in [1, 10, 1000] {
        bed.try_move(budget).await.unwrap();
        assert_same(&bed.source_path(), &bed.target_path());
    }
}

#[tokio::test]
async fn a_blob_and_a_text_of_64_mib() {
    let bed = Bed::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v, w);
         INSERT INTO t VALUES (1, 'before', NULL), (2, randomblob(64 << 20), x'00'),
             (3, CAST(zeroblob(1 << 20) AS TEXT), NULL), (4, 'behind', NULL);",
    );
    let view = bed.try_move(1 << 20).await.unwrap();
    assert_same(&bed.source_path(), &bed.target_path());
    let first = view.read(&TableName::plain("t"), &KeyRange::default(), 1).await.unwrap();
    assert_eq!(first.header.rows, 1, "a large row is a chunk of its own");
}
