//! Settings that are rows of a MariaDB table.

use std::collections::BTreeMap;

use async_trait::async_trait;
use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::ports::settings_table::{
    At, Ending, HeldRow, MOST_ROWS, RowChange, SettingsTable, WholeRow, refused,
};

use crate::session::{Role, Session};
use crate::settings::Settings;
use crate::shape;
use crate::sql::{self, qualified, quote};
use crate::target::place::{self, Names};

const READ: &str = "its settings cannot be read";
const WRITE: &str = "its settings cannot be changed";
/// Every constraint is in force, and no value is changed to fit.
const STRICT: &str = "SET sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', \
    check_constraint_checks = 1, unique_checks = 1, foreign_key_checks = 1";
/// What a table refuses: values that are not of its types, too long, violate a constraint, or leave out what has no default.
const UNFIT: [u16; 12] = [1048, 1062, 1264, 1265, 1292, 1364, 1366, 1406, 1451, 1452, 4025, 1690];

/// A table of settings.
#[derive(Debug, Clone)]
pub struct MariaSettingsTable {
    rows: SettingsRows,
    settings: Settings,
    /// What a migration builds, and not the database itself.
    built: Option<Names>,
}

/// The table as it is.
struct Table {
    name: String,
    /// Its columns but those that are computed, with their declarations.
    columns: BTreeMap<String, String>,
}

impl MariaSettingsTable {
    /// The rows of a table of the database that the settings name, or of what is built beside it.
    pub fn new(rows: SettingsRows, settings: Settings, at: At<'_>) -> Self {
        let built = match at {
            At::Place => None,
            At::Built(migration) => Some(Names::new(&settings.database, migration)),
        };
        Self { rows, settings, built }
    }

    fn item(&self) -> String {
        format!("{}, table {} of {}", self.rows.dataset, self.rows.table, self.settings.location())
    }

    async fn session(&self) -> Result<Session> {
        let mut session = Session::open(&self.rows.dataset, &self.settings, Role::Loader).await?;
        if self.built.is_none() {
            session.run("cannot be set up", STRICT).await?;
        }
        Ok(session)
    }

    /// The table; none where it is not there.
    async fn table(&self, session: &mut Session) -> Result<Option<Table>> {
        let database = match &self.built {
            None => &self.settings.database,
            Some(names) => {
                let state = place::state(session, names).await?;
                if !state.is_some_and(|state| state.building) {
                    return Ok(None);
                }
                &names.build
            }
        };
        let (place, table) = (sql::text(database), sql::text(&self.rows.table));
        let query = format!(
            "SELECT column_name, column_type, character_set_name, collation_name, column_key FROM information_schema.columns \
             WHERE table_schema = {place} AND table_name = {table} AND is_generated = 'NEVER' ORDER BY ordinal_position"
        );
        let listed = session.records(READ, &query).await?;
        if listed.is_empty() {
            return Ok(None);
        }
        let columns: BTreeMap<String, String> = listed
            .iter()
            .map(|row| {
                let declared =
                    shape::declared(&row.text(1), row.maybe(2).as_deref(), row.maybe(3).as_deref());
                (row.text(0), declared)
            })
            .collect();
        let mut named = self.rows.scope.keys().chain([&self.rows.key_column, &self.rows.value_column]);
        if let Some(missing) = named.find(|name| !columns.contains_key(*name)) {
            return Err(refused::column(self.item(), missing));
        }
        if !listed.iter().any(|row| row.text(4) == "PRI") {
            return Err(refused::keyless(self.item()));
        }
        let query = format!(
            "SELECT e.engine, e.transactions FROM information_schema.tables t JOIN information_schema.engines e ON e.engine = t.engine \
             WHERE t.table_schema = {place} AND t.table_name = {table}"
        );
        let engine = session.record(READ, &query).await?;
        if engine.text(1) != "YES" {
            let what = format!("its storage engine {} has no transactions", engine.text(0));
            return Err(Failure::operator(self.item(), what).hint("ALTER TABLE … ENGINE=InnoDB"));
        }
        Ok(Some(Table { name: qualified(database, &self.rows.table), columns }))
    }

    fn scope(&self) -> String {
        let equal =
            self.rows.scope.iter().map(|(column, value)| format!("{} = {}", quote(column), sql::text(value)));
        equal.chain(["TRUE".to_owned()]).collect::<Vec<_>>().join(" AND ")
    }

    async fn held(
        &self,
        session: &mut Session,
        keys: &[String],
    ) -> Result<Option<BTreeMap<String, HeldRow>>> {
        let Some(table) = self.table(session).await? else { return Ok(None) };
        let mut condition = self.scope();
        if !keys.is_empty() {
            let literals: Vec<String> = keys.iter().map(|key| sql::text(key)).collect();
            condition.push_str(&format!(
                " AND {} IN ({})",
                quote(&self.rows.key_column),
                literals.join(", ")
            ));
        }
        let mut selected = vec![as_text(&self.rows.key_column), as_text(&self.rows.value_column)];
        selected.extend(table.columns.iter().map(|(name, declared)| shape::selected(declared, &quote(name))));
        let query = format!(
            "SELECT {} FROM {} WHERE {condition} LIMIT {}",
            selected.join(", "),
            table.name,
            MOST_ROWS + 1
        );
        let is_binary = shape::is_binary(&table.columns[&self.rows.value_column]);
        let mut out = BTreeMap::new();
        for row in session.records(READ, &query).await? {
            // The column's collation may find others than those that were asked for.
            let Some(key) = row.maybe(0).filter(|key| keys.is_empty() || keys.contains(key)) else {
                continue;
            };
            let value = match row.maybe(1) {
                Some(_) if is_binary => return Err(refused::binary(self.item(), &key)),
                Some(text) => RowValue::Text(text),
                None => RowValue::Null,
            };
            let columns = table.columns.keys().enumerate();
            let whole: WholeRow =
                columns.map(|(at, name)| (name.clone(), row.bytes(at + 2).map(<[u8]>::to_vec))).collect();
            if out.insert(key.clone(), HeldRow { value, whole }).is_some() {
                return Err(refused::twice(self.item(), &key));
            }
        }
        if out.len() > MOST_ROWS { Err(refused::too_many(self.item())) } else { Ok(Some(out)) }
    }

    async fn change(
        &self,
        session: &mut Session,
        table: &Table,
        key: &str,
        change: &RowChange,
    ) -> Result<()> {
        let literal = sql::text(key);
        let condition = format!(
            "{} AND {} = {literal} AND {} = {literal} COLLATE utf8mb4_bin",
            self.scope(),
            quote(&self.rows.key_column),
            as_text(&self.rows.key_column)
        );
        let columns = match change {
            RowChange::Value(RowValue::Absent) => {
                return self.run(session, &format!("DELETE FROM {} WHERE {condition}", table.name)).await;
            }
            RowChange::Value(RowValue::Null) => vec![(&self.rows.value_column, "NULL".to_owned())],
            RowChange::Value(RowValue::Text(text)) => vec![(&self.rows.value_column, sql::text(text))],
            RowChange::Whole(whole) => self.literals(table, whole)?,
        };
        let there = format!("SELECT 1 FROM {} WHERE {condition} FOR UPDATE", table.name);
        if !session.records(WRITE, &there).await?.is_empty() {
            let set: Vec<String> =
                columns.iter().map(|(name, value)| format!("{} = {value}", quote(name))).collect();
            return self
                .run(session, &format!("UPDATE {} SET {} WHERE {condition}", table.name, set.join(", ")))
                .await;
        }
        let mut row: BTreeMap<&String, String> =
            self.rows.scope.iter().map(|(column, value)| (column, sql::text(value))).collect();
        row.insert(&self.rows.key_column, literal);
        row.extend(columns);
        let (names, values): (Vec<_>, Vec<_>) =
            row.into_iter().map(|(name, value)| (quote(name), value)).unzip();
        let (names, values) = (names.join(", "), values.join(", "));
        self.run(session, &format!("INSERT INTO {} ({names}) VALUES ({values})", table.name)).await
    }

    /// A row's values in SQL.
    fn literals<'a>(&self, table: &Table, whole: &'a WholeRow) -> Result<Vec<(&'a String, String)>> {
        let literal = |(name, value): (&'a String, &Option<Vec<u8>>)| {
            let declared = table.columns.get(name).ok_or_else(|| refused::column(self.item(), name))?;
            let literal = match value {
                None => Some("NULL".to_owned()),
                Some(value) => shape::converted(declared, declared, value),
            };
            let literal = literal.ok_or_else(|| {
                Failure::permanent(self.item(), format!("what was in {name} is none of its type"))
            })?;
            Ok((name, literal))
        };
        whole.iter().map(literal).collect()
    }

    async fn run(&self, session: &mut Session, statement: &str) -> Result<()> {
        let Err(error) = session.try_run(statement).await else { return Ok(()) };
        let is_unfit = crate::error::code(&error).is_some_and(|code| UNFIT.contains(&code));
        let failure = session.failed(Some(&self.rows.table), WRITE, error);
        Err(if is_unfit { failure.hint(refused::UNFIT) } else { failure })
    }
}

fn as_text(column: &str) -> String {
    format!("CAST({} AS CHAR CHARACTER SET utf8mb4)", quote(column))
}

#[async_trait]
impl SettingsTable for MariaSettingsTable {
    async fn read(&self, keys: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>> {
        let mut session = self.session().await?;
        self.held(&mut session, keys).await
    }

    async fn write(&self, changes: &BTreeMap<String, RowChange>, ending: Ending) -> Result<()> {
        let mut session = self.session().await?;
        let table = self.table(&mut session).await?;
        let table = table.ok_or_else(|| {
            Failure::operator(self.item(), "it is not there any more").hint("make it again, then resume")
        })?;
        // A session that something fails on ends here, and its transaction with it.
        session.run(WRITE, "START TRANSACTION").await?;
        for (key, change) in changes {
            self.change(&mut session, &table, key, change).await?;
        }
        let end = match ending {
            Ending::Commit => "COMMIT",
            Ending::TakeBack => "ROLLBACK",
        };
        session.run(WRITE, end).await
    }
}
