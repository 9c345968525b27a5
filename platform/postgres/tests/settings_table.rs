//! Settings that are rows of PostgreSQL tables.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::ports::settings_table::{At, Ending, RowChange, SettingsTable};
use handover_platform::contract::settings_table::{Tabled, settings_table_contract};
use handover_postgres::PostgresSettingsTable;
use support::Server;

struct Postgres {
    server: Arc<Server>,
    databases: [String; 2],
}

impl Postgres {
    fn new() -> Self {
        let server = Server::shared();
        let databases = ["settings_from", "settings_to"].map(|name| server.create(name, ""));
        Self { server, databases }
    }

    fn database(&self, second: bool) -> &str {
        &self.databases[usize::from(second)]
    }
}

impl Tabled for Postgres {
    fn url(&self, second: bool) -> String {
        self.server.url("postgres", self.database(second))
    }

    fn sql(&self, second: bool, statements: &str) -> String {
        self.server.sql(self.database(second), statements)
    }

    fn options(&self) -> &'static str {
        "CREATE TABLE options (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant TEXT, name VARCHAR(40), value VARCHAR(20), \
         note TEXT, amount INT DEFAULT 7, stamp BYTEA, size INT GENERATED ALWAYS AS (length(value)) STORED, \
         UNIQUE (tenant, name))"
    }

    fn bytes(&self) -> &'static str {
        "'\\x00ff'"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract_of_settings_in_tables() {
    settings_table_contract(Postgres::new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_have_schemas_and_values_types() {
    let postgres = Postgres::new();
    postgres.sql(
        false,
        "CREATE SCHEMA \"Odd\"; CREATE TABLE \"Odd\".settings (name TEXT PRIMARY KEY, value JSONB NOT NULL, seen TIMESTAMPTZ[]); \
         INSERT INTO \"Odd\".settings VALUES ('limits', '{\"size\": 5}', '{2020-01-02 03:04:05+00}')",
    );
    let rows = SettingsRows {
        dataset: "shop".parse().unwrap(),
        table: "Odd.settings".to_owned(),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        scope: BTreeMap::new(),
    };
    let settings = postgres.server.settings(postgres.database(false));
    let table = PostgresSettingsTable::new(rows, &settings, At::Place);
    let held = table.read(&[]).await.unwrap().unwrap();
    let set = |value: &str| {
        BTreeMap::from([("limits".to_owned(), RowChange::Value(RowValue::Text(value.to_owned())))])
    };
    let before = postgres.sql(false, "SELECT * FROM \"Odd\".settings");
    table.write(&set("{\"size\": 9}"), Ending::Commit).await.unwrap();
    assert_eq!(postgres.sql(false, "SELECT value->>'size' FROM \"Odd\".settings").trim(), "9");
    let refused = table.write(&set("no JSON"), Ending::Commit).await.unwrap_err();
    assert!(refused.hint.contains("does not take"), "{refused}");
    let back = BTreeMap::from([("limits".to_owned(), RowChange::Whole(held["limits"].whole.clone()))]);
    table.write(&back, Ending::Commit).await.unwrap();
    assert_eq!(postgres.sql(false, "SELECT * FROM \"Odd\".settings"), before);
}
