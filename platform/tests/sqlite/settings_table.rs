//! Settings that are rows of SQLite tables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::ports::settings_table::{At, Ending, RowChange, SettingsTable};
use handover_platform::contract::settings_table::{Tabled, settings_table_contract};
use handover_platform::sqlite::SqliteSettingsTable;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::support::Bed;

struct Sqlite(Bed);

impl Sqlite {
    fn path(&self, second: bool) -> PathBuf {
        self.0.dir.path().join(if second { "second.db" } else { "first.db" })
    }
}

impl Tabled for Sqlite {
    fn url(&self, second: bool) -> String {
        format!("sqlite:{}", self.path(second).display())
    }

    fn sql(&self, second: bool, statements: &str) -> String {
        let db = Connection::open(self.path(second)).unwrap();
        if !statements.starts_with("SELECT") {
            db.execute_batch(statements).unwrap();
            return String::new();
        }
        let mut query = db.prepare(statements).unwrap();
        let width = query.column_count();
        let mut rows = query.query([]).unwrap();
        let mut out = String::new();
        while let Some(row) = rows.next().unwrap() {
            let value = |at| match row.get_ref(at).unwrap() {
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                ValueRef::Integer(integer) => integer.to_string(),
                other => format!("{other:?}"),
            };
            let values: Vec<String> = (0..width).map(value).collect();
            out.push_str(&format!("{}\n", values.join("|")));
        }
        out
    }

    fn options(&self) -> &'static str {
        "CREATE TABLE options (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT, name TEXT COLLATE NOCASE, value TEXT CHECK (length(value) <= 20), \
         note, amount INTEGER DEFAULT 7, stamp BLOB, size INT AS (length(value)), UNIQUE (tenant, name))"
    }

    fn bytes(&self) -> &'static str {
        "x'00ff'"
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_settings_in_tables() {
    settings_table_contract(|| Sqlite(Bed::new())).await.unwrap();
}

#[tokio::test]
async fn numbers_stay_numbers_where_the_column_says_nothing() {
    let sqlite = Sqlite(Bed::new());
    sqlite.sql(false, "CREATE TABLE t (name PRIMARY KEY, value) WITHOUT ROWID; INSERT INTO t VALUES ('a', 5), ('b', 0.1), ('c', 'x')");
    let rows = SettingsRows {
        dataset: "shop".parse().unwrap(),
        table: "t".to_owned(),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        scope: BTreeMap::new(),
    };
    let table = SqliteSettingsTable::new(rows, sqlite.path(false), At::Place);
    let held = table.read(&[]).await.unwrap().unwrap();
    let value = |key: &str| held[key].value.clone();
    assert_eq!([value("a"), value("b")], ["5", "0.1"].map(|text| RowValue::Text(text.to_owned())));
    let set = |key: &str, value: &str| (key.to_owned(), RowChange::Value(RowValue::Text(value.to_owned())));
    let changes = BTreeMap::from([set("a", "6"), set("b", "0.25"), set("c", "7")]);
    table.write(&changes, Ending::Commit).await.unwrap();
    let kinds = "SELECT name, typeof(value), value = 0.25 FROM t ORDER BY name";
    assert_eq!(sqlite.sql(false, kinds), "a|integer|0\nb|real|1\nc|text|0\n");
    let back = held.into_iter().map(|(key, row)| (key, RowChange::Whole(row.whole))).collect();
    table.write(&back, Ending::Commit).await.unwrap();
    assert_eq!(sqlite.sql(false, "SELECT typeof(value), value = 0.1 FROM t WHERE name = 'b'"), "real|1\n");
}
