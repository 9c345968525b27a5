//! A table's shape in SQL: its key's order, the condition of a range, the statements that read and write rows.

use handover_engine::rows::{Key, KeyRange, Schema, TableKey, TableName, TableSpec};
use rusqlite::{Connection, OptionalExtension};

use super::catalog::{ASIDE, column_names, hidden_key, quote};
use super::error::{Error, Result};
use super::value::{Value, parse_row};

/// One column of a key.
struct Part {
    /// The column with its collation.
    sql: String,
    descending: bool,
    /// It is a column of an index, which always has a collation.
    collated: bool,
}

/// A table's shape.
pub struct Shape<'a> {
    /// The table as the schema describes it.
    pub table: &'a TableSpec,
    /// Text is not kept as UTF-8: it travels as the bytes that are stored.
    pub utf16: bool,
    /// The key's columns; empty for a table without a key.
    key: Vec<Part>,
    indexed: bool,
    /// While a table without a key is loaded: the hidden key's name, which then holds the rows' positions.
    loading: Option<&'static str>,
}

/// Where a read or a delete is confined to.
pub struct Confined<'k> {
    /// `WHERE …`, or nothing.
    pub sql: String,
    /// The values of its placeholders, to be bound by [`Shape::bind`].
    pub values: Vec<Value<'k>>,
}

impl<'a> Shape<'a> {
    /// The shape of a table of the schema.
    pub fn of(db: &Connection, schema: &'a Schema, table: &TableName) -> Result<Self> {
        let table = schema.table(table).ok_or(Error::Unknown("there is no such table in the schema"))?;
        let loading = if table.columns.iter().any(|column| column.name == ASIDE) {
            let names = column_names(db, &table.name.name)?;
            hidden_key(|| names.iter().map(String::as_str))
        } else {
            None
        };
        let key = match &table.key {
            TableKey::Position => loading.into_iter().map(hidden).collect(),
            TableKey::Hidden(alias) => vec![hidden(alias)],
            TableKey::Columns(columns) => key_parts(db, table, columns)?,
        };
        let utf16 = schema.settings.get("encoding").is_some_and(|encoding| encoding != "UTF-8");
        let indexed = key.iter().any(|part| part.collated);
        Ok(Self { table, utf16, key, indexed, loading })
    }

    /// The table's name in SQL.
    pub fn name(&self) -> String {
        quote(&self.table.name.name)
    }

    /// True when rows are found by their position only.
    pub fn by_position(&self) -> bool {
        matches!(self.table.key, TableKey::Position)
    }

    /// While a table without a key is loaded, the column that takes the positions.
    pub fn positions(&self) -> Option<&'static str> {
        self.loading
    }

    /// Every value of a row, in order: the hidden key first.
    pub fn columns(&self) -> Vec<String> {
        let hidden = if let TableKey::Hidden(alias) = &self.table.key { Some(alias.clone()) } else { None };
        hidden.into_iter().chain(self.table.columns.iter().map(|column| quote(&column.name))).collect()
    }

    /// True when the key is that of an index, false when it is the row number itself.
    pub fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// Which of a row's values are the key.
    pub fn key_values(&self) -> Vec<usize> {
        match &self.table.key {
            TableKey::Position => Vec::new(),
            TableKey::Hidden(_) => vec![0],
            TableKey::Columns(columns) => columns.iter().map(|column| *column as usize).collect(),
        }
    }

    /// The placeholder of the `n`-th value (from 0), as it is bound by [`Self::bind`].
    pub fn placeholder(&self, n: usize) -> String {
        if self.utf16 {
            // The database casts the bytes to text in its own encoding.
            format!("iif(?{}, CAST(?{} AS TEXT), ?{})", 2 * n + 1, 2 * n + 2, 2 * n + 2)
        } else {
            format!("?{}", n + 1)
        }
    }

    /// Binds the `n`-th value (from 0) to its placeholder.
    pub fn bind(&self, statement: &mut rusqlite::Statement<'_>, n: usize, value: &Value<'_>) -> Result<()> {
        if self.utf16 {
            statement.raw_bind_parameter(2 * n + 1, value.is_text())?;
            statement.raw_bind_parameter(2 * n + 2, value.as_blob())?;
        } else {
            statement.raw_bind_parameter(n + 1, value)?;
        }
        Ok(())
    }

    /// The rows of a range.
    pub fn confine<'k>(&self, range: &'k KeyRange) -> Result<Confined<'k>> {
        let (mut terms, mut values) = (Vec::new(), Vec::new());
        for (key, is_after) in [(&range.after, true), (&range.until, false)] {
            let Some(key) = key else { continue };
            let parts = parse_row(&key.0, self.key.len())?;
            let marks: Vec<String> = (0..parts.len()).map(|n| self.placeholder(values.len() + n)).collect();
            terms.push(self.bound(&marks, is_after));
            values.extend(parts);
        }
        let sql = if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
        Ok(Confined { sql, values })
    }

    /// The rows after a key, or up to it, in the order of the index.
    fn bound(&self, marks: &[String], is_after: bool) -> String {
        let descending = self.key.iter().filter(|part| part.descending).count();
        if descending == 0 || descending == self.key.len() {
            let columns: Vec<&str> = self.key.iter().map(|part| part.sql.as_str()).collect();
            let strict = if (descending == 0) == is_after { ">" } else { "<" };
            let or_equal = if is_after { "" } else { "=" };
            return format!("({}) {strict}{or_equal} ({})", columns.join(", "), marks.join(", "));
        }
        // Row values know one direction only. The first column by itself lets the index be used.
        let mut equal: Vec<String> = Vec::new();
        let mut cases: Vec<String> = Vec::new();
        for (part, mark) in self.key.iter().zip(marks) {
            let beyond = if part.descending == is_after { "<" } else { ">" };
            let mut case = equal.clone();
            case.push(format!("{} {beyond} {mark}", part.sql));
            cases.push(format!("({})", case.join(" AND ")));
            equal.push(format!("{} = {mark}", part.sql));
        }
        if !is_after {
            cases.push(format!("({})", equal.join(" AND ")));
        }
        let first = if self.key[0].descending == is_after { "<=" } else { ">=" };
        format!("{} {first} {} AND ({})", self.key[0].sql, marks[0], cases.join(" OR "))
    }

    /// The rows whose key is bound to the placeholders.
    pub fn confine_to_key(&self) -> String {
        let terms: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(n, part)| format!("{} = {}", part.sql, self.placeholder(n)))
            .collect();
        format!(" WHERE {}", terms.join(" AND "))
    }

    /// A key's values.
    pub fn parse_key<'k>(&self, key: &'k Key) -> Result<Vec<Value<'k>>> {
        Ok(parse_row(&key.0, self.key.len())?)
    }

    /// Selects a row's values, in key order. In UTF-16 each value is followed by whether it is a text.
    pub fn select(&self, condition: &str) -> String {
        let columns: Vec<String> = self.columns().iter().map(|column| value(column, self.utf16)).collect();
        let part =
            |part: &Part| if part.descending { format!("{} DESC", part.sql) } else { part.sql.clone() };
        let order: Vec<String> = self.key.iter().map(part).collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        format!("SELECT {} FROM main.{} NOT INDEXED{condition}{order}", columns.join(", "), self.name())
    }

    /// Inserts a row's values. A row elsewhere with the same unique value is stale, and its own chunk brings it up to date.
    pub fn insert(&self) -> String {
        let columns: Vec<String> =
            self.columns().into_iter().chain(self.loading.map(str::to_owned)).collect();
        let marks: Vec<String> = (0..columns.len()).map(|n| self.placeholder(n)).collect();
        format!(
            "INSERT OR REPLACE INTO main.{} ({}) VALUES ({})",
            self.name(),
            columns.join(", "),
            marks.join(", ")
        )
    }
}

/// A column's value as it is selected. In UTF-16 it is followed by whether it is a text.
pub fn value(column: &str, utf16: bool) -> String {
    if !utf16 {
        return column.to_owned();
    }
    let is_text = format!("typeof({column}) = 'text'");
    format!("iif({is_text}, CAST({column} AS BLOB), {column}), {is_text}")
}

fn hidden(alias: &str) -> Part {
    Part { sql: alias.to_owned(), descending: false, collated: false }
}

/// A primary key as its index orders it; an INTEGER PRIMARY KEY has none and is in ascending order.
fn key_parts(db: &Connection, table: &TableSpec, columns: &[u32]) -> Result<Vec<Part>> {
    let name = &table.name.name;
    let index: Option<String> = db
        .prepare_cached("SELECT name FROM pragma_index_list(?) WHERE origin = 'pk'")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let mut order: Vec<(String, bool)> = Vec::new();
    if let Some(index) = index {
        let sql = "SELECT coll, desc FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno";
        let mut statement = db.prepare_cached(sql)?;
        let found = statement.query_map([index], |row| Ok((row.get(0)?, row.get(1)?)))?;
        order = found.collect::<rusqlite::Result<_>>()?;
    }
    let part = |(at, column): (usize, &u32)| {
        let column = table.columns.get(*column as usize).ok_or(Error::Unknown("a key of no column"))?;
        let column = quote(&column.name);
        Ok(match order.get(at) {
            Some((collation, descending)) => Part {
                sql: format!("{column} COLLATE {}", quote(collation)),
                descending: *descending,
                collated: true,
            },
            None => Part { sql: column, descending: false, collated: false },
        })
    };
    columns.iter().enumerate().map(part).collect()
}

/// A position as a key.
pub fn position_key(position: u64) -> Key {
    Key(format!("i{position}").into_bytes().into())
}

/// The position that a key of a table without a key stands for; 0 for the open start.
pub fn position(key: Option<&Key>) -> Result<u64> {
    let Some(key) = key else { return Ok(0) };
    match parse_row(&key.0, 1)?[0] {
        Value::Integer(position) => {
            u64::try_from(position).map_err(|_| Error::Unknown("a position below zero"))
        }
        _ => Err(Error::Unknown("a key that is no position")),
    }
}
