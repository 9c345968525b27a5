//! Settings that are rows of a PostgreSQL table.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::settings_table::{
    At, Ending, HeldRow, MOST_ROWS, RowChange, SettingsTable, WholeRow, refused,
};

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};
use crate::target::place::Place;

const READ: &str = "its settings cannot be read";
const WRITE: &str = "its settings cannot be changed";

/// A table of settings.
pub struct PostgresSettingsTable {
    rows: SettingsRows,
    settings: Settings,
    place: Place,
    is_built: bool,
}

/// The table as it is.
struct Table {
    name: String,
    columns: BTreeSet<String>,
    /// Numbers that the server alone gives: they cannot be changed, but be given to new rows.
    given: BTreeSet<String>,
    /// Columns of values that are no text.
    binary: BTreeSet<String>,
}

impl PostgresSettingsTable {
    /// The rows of a table of the settings' database, or of what is built beside it. Without a schema it is in `public`.
    pub fn new(rows: SettingsRows, settings: &Settings, at: At<'_>) -> Self {
        let (is_built, migration) = match at {
            At::Place => (false, MigrationId::nobody()),
            At::Built(migration) => (true, migration.clone()),
        };
        let place = Place::new(rows.dataset.clone(), settings.clone(), migration);
        Self { rows, settings: settings.clone(), place, is_built }
    }

    fn item(&self) -> String {
        format!("{}, table {} of {}", self.rows.dataset, self.rows.table, self.settings.location())
    }

    fn failed<'a>(&'a self, what: &'static str) -> impl Fn(tokio_postgres::Error) -> Failure + 'a {
        move |error| {
            let code = error.code().map_or("", |code| code.code()).to_owned();
            let failure = failed(self.item(), what, &error);
            // Data of another type or size, and violated constraints.
            let is_unfit = ["22", "23"].iter().any(|class| code.starts_with(class));
            if is_unfit { failure.hint(refused::UNFIT) } else { failure }
        }
    }

    /// A connection to the database, where it is there.
    async fn conn(&self) -> Result<Option<Conn>> {
        let settings = if self.is_built {
            self.place.unfinished().await?
        } else {
            self.place.stands().await?.then(|| self.settings.clone())
        };
        let Some(settings) = settings else { return Ok(None) };
        let conn = Conn::open(&self.rows.dataset, &settings).await?;
        if self.is_built {
            // Only where allowed; nothing depends on it.
            let _ = conn.batch_execute("SET session_replication_role = replica").await;
        }
        Ok(Some(conn))
    }

    /// The table; none where it is not there.
    async fn table(&self, conn: &Conn) -> Result<Option<Table>> {
        let (schema, name) = self.rows.table.split_once('.').unwrap_or(("public", self.rows.table.as_str()));
        let sql = format!(
            "SELECT a.attname, a.attidentity = 'a', a.atttypid = 'pg_catalog.bytea'::pg_catalog.regtype, \
               EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p') \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
             WHERE n.nspname = {} AND c.relname = {} AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped \
               AND a.attgenerated = ''",
            literal(schema),
            literal(name)
        );
        let listed = conn.rows(&sql).await.map_err(self.failed(READ))?;
        let is = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().as_deref() == Some("t");
        let names = |wanted: &dyn Fn(&[Option<String>]) -> bool| -> BTreeSet<String> {
            listed.iter().filter(|row| wanted(row)).filter_map(|row| row.first().cloned().flatten()).collect()
        };
        let columns = names(&|_| true);
        if columns.is_empty() {
            return Ok(None);
        }
        let mut named = self.rows.scope.keys().chain([&self.rows.key_column, &self.rows.value_column]);
        if let Some(missing) = named.find(|name| !columns.contains(*name)) {
            return Err(refused::column(self.item(), missing));
        }
        // What is built may have no keys yet.
        if !self.is_built && !listed.iter().any(|row| is(row, 3)) {
            return Err(refused::keyless(self.item()));
        }
        Ok(Some(Table {
            name: format!("{}.{}", quote(schema), quote(name)),
            given: names(&|row| is(row, 1)),
            binary: names(&|row| is(row, 2)),
            columns,
        }))
    }

    /// The condition that tells rows of the scope. A literal has the type of what it is compared with.
    fn scope(&self) -> String {
        let equal =
            self.rows.scope.iter().map(|(column, value)| format!("{} = {}", quote(column), literal(value)));
        equal.chain(["TRUE".to_owned()]).collect::<Vec<_>>().join(" AND ")
    }

    async fn held(&self, conn: &Conn, keys: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>> {
        let Some(table) = self.table(conn).await? else { return Ok(None) };
        let mut condition = self.scope();
        if !keys.is_empty() {
            let literals: Vec<String> = keys.iter().map(|key| literal(key)).collect();
            condition.push_str(&format!(
                " AND {} IN ({})",
                as_text(&self.rows.key_column),
                literals.join(", ")
            ));
        }
        let selected: Vec<String> = table.columns.iter().map(|column| as_text(column)).collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {condition} LIMIT {}",
            selected.join(", "),
            table.name,
            MOST_ROWS + 1
        );
        let mut out = BTreeMap::new();
        for row in conn.rows(&sql).await.map_err(self.failed(READ))? {
            let whole = table.columns.iter().cloned().zip(row);
            let whole: WholeRow = whole.map(|(name, value)| (name, value.map(String::into_bytes))).collect();
            let text = |column: &str| {
                let value = whole.get(column).cloned().flatten();
                value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            let Some(key) = text(&self.rows.key_column) else { continue };
            let value = match text(&self.rows.value_column) {
                Some(_) if table.binary.contains(&self.rows.value_column) => {
                    return Err(refused::binary(self.item(), &key));
                }
                Some(text) => RowValue::Text(text),
                None => RowValue::Null,
            };
            if out.insert(key.clone(), HeldRow { value, whole }).is_some() {
                return Err(refused::twice(self.item(), &key));
            }
        }
        if out.len() > MOST_ROWS { Err(refused::too_many(self.item())) } else { Ok(Some(out)) }
    }

    async fn change(&self, conn: &Conn, table: &Table, key: &str, change: &RowChange) -> Result<()> {
        let condition = format!("{} AND {} = {}", self.scope(), as_text(&self.rows.key_column), literal(key));
        let columns: BTreeMap<&String, String> = match change {
            RowChange::Value(RowValue::Absent) => {
                return self.run(conn, &format!("DELETE FROM {} WHERE {condition}", table.name)).await;
            }
            RowChange::Value(RowValue::Null) => [(&self.rows.value_column, "NULL".to_owned())].into(),
            RowChange::Value(RowValue::Text(text)) => [(&self.rows.value_column, literal(text))].into(),
            RowChange::Whole(whole) => {
                whole.iter().map(|(name, value)| (name, stored(value.as_deref()))).collect()
            }
        };
        if let Some(missing) = columns.keys().find(|name| !table.columns.contains(**name)) {
            return Err(refused::column(self.item(), missing));
        }
        let there = format!("SELECT 1 FROM {} WHERE {condition} FOR UPDATE", table.name);
        if !conn.rows(&there).await.map_err(self.failed(WRITE))?.is_empty() {
            let set = columns.iter().filter(|(name, _)| !table.given.contains(**name));
            let set: Vec<String> = set.map(|(name, value)| format!("{} = {value}", quote(name))).collect();
            let update = format!("UPDATE {} SET {} WHERE {condition}", table.name, set.join(", "));
            return self.run(conn, &update).await;
        }
        let mut row: BTreeMap<&String, String> =
            self.rows.scope.iter().map(|(column, value)| (column, literal(value))).collect();
        row.insert(&self.rows.key_column, literal(key));
        row.extend(columns);
        let (names, values): (Vec<_>, Vec<_>) =
            row.into_iter().map(|(name, value)| (quote(name), value)).unzip();
        let (names, values) = (names.join(", "), values.join(", "));
        let insert =
            format!("INSERT INTO {} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})", table.name);
        self.run(conn, &insert).await
    }

    async fn run(&self, conn: &Conn, statement: &str) -> Result<()> {
        conn.batch_execute(statement).await.map_err(self.failed(WRITE))
    }
}

/// A column as text, in the form that its type reads again.
fn as_text(column: &str) -> String {
    format!("CAST({} AS pg_catalog.text)", quote(column))
}

/// A value in SQL: a literal takes the column's type, and is refused where it does not fit.
fn stored(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| literal(&String::from_utf8_lossy(value)))
}

#[async_trait]
impl SettingsTable for PostgresSettingsTable {
    async fn read(&self, keys: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>> {
        match self.conn().await? {
            Some(conn) => self.held(&conn, keys).await,
            None => Ok(None),
        }
    }

    async fn write(&self, changes: &BTreeMap<String, RowChange>, ending: Ending) -> Result<()> {
        let gone =
            || Failure::operator(self.item(), "it is not there any more").hint("make it again, then resume");
        let conn = self.conn().await?.ok_or_else(gone)?;
        let table = self.table(&conn).await?.ok_or_else(gone)?;
        // A session that something fails on ends here, and its transaction with it.
        self.run(&conn, "BEGIN").await?;
        for (key, change) in changes {
            self.change(&conn, &table, key, change).await?;
        }
        let end = match ending {
            Ending::Commit => "COMMIT",
            // Constraints that are looked at in the end are looked at before it is taken back.
            Ending::TakeBack => "SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK",
        };
        self.run(&conn, end).await
    }
}
