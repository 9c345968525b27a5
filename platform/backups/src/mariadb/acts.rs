//! What acts by itself in a MariaDB database: triggers, routines, events, views. It cannot be renamed into another database.

use bytes::Bytes;
use handover_engine::ports::Result;

use super::client::{Client, qualified, text};
use super::{DIVIDE, OWN};
use crate::archive::Archive;

/// There is nothing to be locked where no rows are read, and whoever may only read may not.
const UNLOCKED: &str = "--skip-lock-tables";

/// Writes it into an archive, after the line that it begins with. Views come last: they need functions.
pub async fn pour(client: &Client, database: &str, views: &[String], archive: &mut Archive) -> Result<()> {
    archive.add(Bytes::from_static(DIVIDE)).await?;
    let late = ["--no-data", "--no-create-info", "--triggers", "--routines", "--events", UNLOCKED];
    client.pour(&late.map(str::to_owned), &[database], archive).await?;
    if views.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = std::iter::once(database).chain(views.iter().map(String::as_str)).collect();
    client.pour(&["--no-data", "--skip-triggers", UNLOCKED].map(str::to_owned), &names, archive).await
}

/// The views of a database.
pub async fn views(client: &Client, database: &str) -> Result<Vec<String>> {
    client.names(database, "table_name", "tables", "table_schema", "table_type = 'VIEW'").await
}

/// A kind of thing: how it is dropped, and where it is listed: the column of its name, the table, the column of the database, which rows.
type Kind<'a> = (&'static str, &'a str, &'a str, &'a str, &'a str);

const KINDS: [Kind<'static>; 6] = [
    ("TRIGGER", "trigger_name", "triggers", "trigger_schema", "1"),
    ("EVENT", "event_name", "events", "event_schema", "1"),
    ("VIEW", "table_name", "tables", "table_schema", "table_type = 'VIEW'"),
    ("FUNCTION", "routine_name", "routines", "routine_schema", "routine_type = 'FUNCTION'"),
    ("PROCEDURE", "routine_name", "routines", "routine_schema", "routine_type = 'PROCEDURE'"),
    ("PACKAGE", "routine_name", "routines", "routine_schema", "routine_type = 'PACKAGE'"),
];

/// All of it, by kind and name.
pub async fn all(client: &Client, database: &str) -> Result<Vec<String>> {
    named(client, database, &KINDS).await
}

/// Takes all of it away. Idempotent.
pub async fn drop_all(client: &Client, database: &str) -> Result<()> {
    drop_named(client, database, &KINDS).await
}

/// Tables of ours: what a migration had put into the database when it was backed up belongs to that migration.
pub async fn drop_our_tables(client: &Client, database: &str) -> Result<()> {
    let which = ours("table_name");
    drop_named(client, database, &[("TABLE", "table_name", "tables", "table_schema", &which)]).await
}

/// The same of triggers.
pub async fn drop_our_triggers(client: &Client, database: &str) -> Result<()> {
    let which = ours("trigger_name");
    drop_named(client, database, &[("TRIGGER", "trigger_name", "triggers", "trigger_schema", &which)]).await
}

fn ours(column: &str) -> String {
    format!("LEFT({column}, {}) = {}", OWN.len(), text(OWN))
}

async fn named(client: &Client, database: &str, kinds: &[Kind<'_>]) -> Result<Vec<String>> {
    let database_is = text(database);
    let select = |(kind, column, of, schema, which): &Kind<'_>| {
        format!(
            "SELECT '{kind}', {column} FROM information_schema.{of} WHERE {schema} = {database_is} AND {which}"
        )
    };
    let all = kinds.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ");
    let mut rows = client.ask(&all).await?;
    // Triggers first: a table that is in use keeps its own, and nothing has gone by then.
    rows.sort_by_key(|row| {
        (kinds.iter().position(|kind| row.first().is_some_and(|name| name == kind.0)), row.get(1).cloned())
    });
    let line =
        |row: &Vec<String>| Some(format!("{} IF EXISTS {}", row.first()?, qualified(database, row.get(1)?)));
    Ok(rows.iter().filter_map(line).collect())
}

async fn drop_named(client: &Client, database: &str, kinds: &[Kind<'_>]) -> Result<()> {
    let named = named(client, database, kinds).await?;
    client.change(&named.iter().map(|one| format!("DROP {one}")).collect::<Vec<_>>()).await
}
