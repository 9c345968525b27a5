//! Settings that are rows of MariaDB tables.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::ports::settings_table::{At, Ending, RowChange, SettingsTable};
use handover_mariadb::MariaSettingsTable;
use handover_platform::contract::settings_table::{Tabled, settings_table_contract};
use support::Server;

struct Maria {
    server: Arc<Server>,
    databases: [String; 2],
}

impl Maria {
    fn new() -> Self {
        let server = Server::shared();
        let databases = ["settings_from", "settings_to"].map(|name| server.database(name, ""));
        Self { server, databases }
    }

    fn database(&self, second: bool) -> &str {
        &self.databases[usize::from(second)]
    }
}

impl Tabled for Maria {
    fn url(&self, second: bool) -> String {
        self.server.url(self.database(second))
    }

    fn sql(&self, second: bool, statements: &str) -> String {
        self.server.sql(self.database(second), statements)
    }

    fn options(&self) -> &'static str {
        "CREATE TABLE options (id INT AUTO_INCREMENT PRIMARY KEY, tenant VARCHAR(20), name VARCHAR(40) CHARACTER SET latin1, value VARCHAR(20), \
         note ENUM('m','n'), amount FLOAT DEFAULT 7, stamp VARBINARY(9), size INT AS (LENGTH(value)), \
         changed TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), UNIQUE (tenant, name))"
    }

    fn bytes(&self) -> &'static str {
        "x'00ff'"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_keeps_the_contract_of_settings_in_tables() {
    settings_table_contract(Maria::new).await.unwrap();
}

fn options(table: &str) -> SettingsRows {
    SettingsRows {
        dataset: "shop".parse().unwrap(),
        table: table.to_owned(),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        scope: BTreeMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_other_types_are_texts_and_keys_are_exact() {
    let maria = Maria::new();
    maria.sql(
        false,
        "CREATE TABLE typed (name VARCHAR(20) PRIMARY KEY, value INT); INSERT INTO typed VALUES ('Size', 5), ('left', 1);
         CREATE TABLE isam (name VARCHAR(20) PRIMARY KEY, value INT) ENGINE=MyISAM",
    );
    let table = |name: &str| {
        MariaSettingsTable::new(options(name), maria.server.settings(maria.database(false)), At::Place)
    };
    let typed = table("typed");
    let held = typed.read(&["size".to_owned(), "left".to_owned()]).await.unwrap().unwrap();
    assert_eq!(held.keys().collect::<Vec<_>>(), ["left"], "the column's collation knows no case, a key does");
    let set = |key: &str, value: &str| {
        BTreeMap::from([(key.to_owned(), RowChange::Value(RowValue::Text(value.to_owned())))])
    };
    typed.write(&set("left", "12"), Ending::Commit).await.unwrap();
    assert_eq!(maria.sql(false, "SELECT value FROM typed WHERE name = 'left'").trim(), "12");
    for value in ["twelve", "99999999999"] {
        let refused = typed.write(&set("left", value), Ending::Commit).await.unwrap_err();
        assert!(refused.hint.contains("does not take"), "{refused}");
    }
    let refused = table("isam").read(&[]).await.unwrap_err();
    assert!(refused.what.contains("MyISAM has no transactions"), "{refused}");
}
