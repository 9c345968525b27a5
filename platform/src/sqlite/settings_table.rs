//! Settings that are rows of an SQLite table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::ports::settings_table::{
    At, Ending, HeldRow, MOST_ROWS, RowChange, SettingsTable, WholeRow, refused,
};
use handover_engine::rows::text::NULL;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params_from_iter};

use super::catalog::quote;
use super::error::{self, Error, failed, item};
use super::target::partial;
use super::value::{self, Value};
use crate::tree::blocking;

const READ: &str = "its settings cannot be read";
const WRITE: &str = "its settings cannot be changed";
/// Whatever is changed is durable; a lock is waited for.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA synchronous = FULL";

/// A table of settings.
#[derive(Debug, Clone)]
pub struct SqliteSettingsTable {
    rows: SettingsRows,
    path: PathBuf,
    is_built: bool,
}

impl SqliteSettingsTable {
    /// The rows of a table of the database at `path`, or of what is built beside it.
    pub fn new(rows: SettingsRows, path: PathBuf, at: At<'_>) -> Self {
        let (path, is_built) = match at {
            At::Place => (path, false),
            At::Built(id) => (partial(&rows.dataset, path, id), true),
        };
        Self { rows, path, is_built }
    }

    fn failed(&self, what: &str, error: Error) -> Failure {
        let mut failure = failed(&self.rows.dataset, &self.path, what, error);
        failure.item = self.item();
        failure
    }

    fn item(&self) -> String {
        format!("{}, table {}", item(&self.rows.dataset, &self.path), self.rows.table)
    }

    fn open(&self) -> error::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        db.execute_batch(PRAGMAS)?;
        // Rows that move are put in whatever they violate; foreign keys are looked at when all of them are there.
        let strictness = match self.is_built {
            true => "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON",
            false => "PRAGMA foreign_keys = ON",
        };
        db.execute_batch(strictness)?;
        Ok(db)
    }

    /// Its columns but those that are computed; none where there is no such table.
    fn columns(&self, db: &Connection) -> Result<Option<Vec<String>>> {
        let listed = || -> error::Result<Vec<(String, bool)>> {
            let mut query = db.prepare("SELECT name, pk > 0 FROM pragma_table_xinfo(?1) WHERE hidden = 0")?;
            let rows = query.query_map([&self.rows.table], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        };
        let listed = listed().map_err(|e| self.failed(READ, e))?;
        if listed.is_empty() {
            return Ok(None);
        }
        let mut named = self.rows.scope.keys().chain([&self.rows.key_column, &self.rows.value_column]);
        if let Some(missing) = named.find(|name| !listed.iter().any(|(column, _)| column == *name)) {
            return Err(refused::column(self.item(), missing));
        }
        if !listed.iter().any(|(_, is_key)| *is_key) {
            return Err(refused::keyless(self.item()));
        }
        Ok(Some(listed.into_iter().map(|(column, _)| column).collect()))
    }

    /// The condition that tells rows of the scope, and the values that belong to it.
    fn scope(&self) -> (String, Vec<Value<'_>>) {
        let mut condition = String::from("1");
        for column in self.rows.scope.keys() {
            condition.push_str(&format!(" AND {} = ?", quote(column)));
        }
        (condition, self.rows.scope.values().map(|value| text(value)).collect())
    }

    fn read(&self, keys: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>> {
        if !self.path.exists() {
            return Ok(None);
        }
        let db = self.open().map_err(|e| self.failed(READ, e))?;
        let Some(columns) = self.columns(&db)? else { return Ok(None) };
        let mut out = BTreeMap::new();
        for (key, row) in self.held(&db, &columns, keys).map_err(|e| self.failed(READ, e))? {
            let row = row.ok_or_else(|| refused::binary(self.item(), &key))?;
            if out.insert(key.clone(), row).is_some() {
                return Err(refused::twice(self.item(), &key));
            }
        }
        if out.len() > MOST_ROWS { Err(refused::too_many(self.item())) } else { Ok(Some(out)) }
    }

    /// Rows by their keys; none for one whose value is binary.
    fn held(
        &self,
        db: &Connection,
        columns: &[String],
        keys: &[String],
    ) -> error::Result<Vec<(String, Option<HeldRow>)>> {
        let (mut condition, mut values) = self.scope();
        if !keys.is_empty() {
            let marks = vec!["?"; keys.len()].join(", ");
            condition.push_str(&format!(" AND {} IN ({marks})", quote(&self.rows.key_column)));
            values.extend(keys.iter().map(|key| text(key)));
        }
        let selected: Vec<String> = columns.iter().map(|column| quote(column)).collect();
        let mut query = db.prepare(&format!(
            "SELECT {} FROM {} WHERE {condition} LIMIT {}",
            selected.join(", "),
            quote(&self.rows.table),
            MOST_ROWS + 1
        ))?;
        let mut rows = query.query(params_from_iter(values))?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let (mut whole, mut key, mut value) = (WholeRow::new(), None, None);
            for (at, column) in columns.iter().enumerate() {
                let held = row.get_ref(at)?;
                if *column == self.rows.key_column {
                    key = text_of(held);
                } else if *column == self.rows.value_column {
                    value = match held {
                        ValueRef::Null => Some(RowValue::Null),
                        held => text_of(held).map(RowValue::Text),
                    };
                }
                let mut printed = Vec::new();
                value::print(&mut printed, held, false);
                whole.insert(column.clone(), (printed != NULL).then_some(printed));
            }
            // The collation of the column may find others than those that were asked for.
            if let Some(key) = key.filter(|key| keys.is_empty() || keys.contains(key)) {
                out.push((key, value.map(|value| HeldRow { value, whole })));
            }
        }
        Ok(out)
    }

    fn write(&self, changes: &BTreeMap<String, RowChange>, ending: Ending) -> Result<()> {
        let done = || -> error::Result<()> {
            let mut db = self.open()?;
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (key, change) in changes {
                self.change(&transaction, key, change)?;
            }
            match ending {
                Ending::Commit => transaction.commit()?,
                Ending::TakeBack => transaction.rollback()?,
            }
            Ok(())
        };
        done().map_err(|error| {
            let is_refused = matches!(&error, Error::Sqlite(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation));
            let failure = self.failed(WRITE, error);
            if is_refused { failure.hint(refused::UNFIT) } else { failure }
        })
    }

    fn change(&self, db: &Connection, key: &str, change: &RowChange) -> error::Result<()> {
        let (scope, mut found) = self.scope();
        let condition = format!("{scope} AND {} = ? COLLATE BINARY", quote(&self.rows.key_column));
        found.push(text(key));
        let table = quote(&self.rows.table);
        // How a value is stored there now; nothing where there is no row.
        let sql = format!("SELECT typeof({}) FROM {table} WHERE {condition}", quote(&self.rows.value_column));
        let kind: Option<String> =
            db.query_row(&sql, params_from_iter(&found), |row| row.get(0)).optional()?;
        let columns: BTreeMap<&str, Value<'_>> = match change {
            RowChange::Value(RowValue::Absent) => {
                let delete = format!("DELETE FROM {table} WHERE {condition}");
                db.execute(&delete, params_from_iter(&found))?;
                return Ok(());
            }
            RowChange::Value(value) => {
                BTreeMap::from([(self.rows.value_column.as_str(), stored(value, kind.as_deref()))])
            }
            RowChange::Whole(whole) => {
                let mut columns = BTreeMap::new();
                for (column, bytes) in whole {
                    columns.insert(column.as_str(), Value::parse(bytes.as_deref().unwrap_or(NULL))?);
                }
                columns
            }
        };
        if kind.is_some() {
            let set: Vec<String> = columns.keys().map(|column| format!("{} = ?", quote(column))).collect();
            let update = format!("UPDATE {table} SET {} WHERE {condition}", set.join(", "));
            db.execute(&update, params_from_iter(columns.values().chain(&found)))?;
            return Ok(());
        }
        let mut row: BTreeMap<&str, Value<'_>> =
            self.rows.scope.iter().map(|(column, value)| (column.as_str(), text(value))).collect();
        row.insert(&self.rows.key_column, text(key));
        row.extend(columns);
        let names: Vec<String> = row.keys().map(|column| quote(column)).collect();
        let marks = vec!["?"; row.len()].join(", ");
        let insert = format!("INSERT INTO {table} ({}) VALUES ({marks})", names.join(", "));
        db.execute(&insert, params_from_iter(row.values()))?;
        Ok(())
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        blocking(&self.rows.dataset, move || work(&this)).await
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text.as_bytes()))
}

/// A value as text; none where it is binary.
fn text_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null | ValueRef::Blob(_) => None,
        ValueRef::Integer(integer) => Some(integer.to_string()),
        ValueRef::Real(real) => Some(real.to_string()),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
    }
}

/// A value as it is stored in place of one of this kind: numbers stay numbers where the column does not say what it holds.
fn stored<'a>(value: &'a RowValue, kind: Option<&str>) -> Value<'a> {
    let RowValue::Text(value) = value else { return Value::Null };
    let number = match kind {
        Some("integer") => value.parse().ok().map(Value::Integer),
        Some("real") => value.parse().ok().map(Value::Real),
        _ => None,
    };
    number.unwrap_or_else(|| text(value))
}

#[async_trait]
impl SettingsTable for SqliteSettingsTable {
    async fn read(&self, keys: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>> {
        let keys = keys.to_vec();
        self.run(move |table| table.read(&keys)).await
    }

    async fn write(&self, changes: &BTreeMap<String, RowChange>, ending: Ending) -> Result<()> {
        let changes = changes.clone();
        self.run(move |table| table.write(&changes, ending)).await
    }
}
