//! Reading chunks of a table.

use bytes::Bytes;
use handover_engine::digest::Digest;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, Schema, TableKey, TableName, TableSpec};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, params_from_iter};

use super::catalog::{self, key_collations, quote};
use super::value::{Value, parse_row, print};

/// A table's shape in SQL.
pub struct Shape<'a> {
    pub table: &'a TableSpec,
    /// Text is not kept as UTF-8: it travels as the bytes that are stored.
    pub utf16: bool,
    /// The key's columns, quoted, each with its collation; empty for a table without a key.
    key: Vec<String>,
}

/// The key is none of the table's, or the table is unknown.
fn bad(what: &str) -> rusqlite::Error {
    rusqlite::Error::InvalidParameterName(what.to_owned())
}

impl<'a> Shape<'a> {
    pub fn of(db: &Connection, schema: &'a Schema, table: &TableName) -> Result<Self> {
        let spec = schema.table(table).ok_or_else(|| bad("no such table in the snapshot"))?;
        let key = match &spec.key {
            TableKey::Position => Vec::new(),
            TableKey::Hidden(alias) => vec![alias.clone()],
            TableKey::Columns(columns) => {
                let collations = key_collations(db, &table.name)?;
                let part = |(at, column): (usize, &u32)| {
                    let name = quote(&spec.columns[*column as usize].name);
                    collations.get(at).map_or(name.clone(), |coll| format!("{name} COLLATE {}", quote(coll)))
                };
                columns.iter().enumerate().map(part).collect()
            }
        };
        let utf16 = schema.settings.get("encoding").is_some_and(|encoding| encoding != "UTF-8");
        Ok(Self { table: spec, utf16, key })
    }

    /// Every value of a row, in order: the hidden key first.
    pub fn columns(&self) -> Vec<String> {
        let hidden = if let TableKey::Hidden(alias) = &self.table.key { Some(alias.clone()) } else { None };
        hidden.into_iter().chain(self.table.columns.iter().map(|column| quote(&column.name))).collect()
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

    /// The parameters of some values.
    pub fn bind<'v>(&self, values: &'v [Value<'v>]) -> Vec<Value<'v>> {
        if !self.utf16 {
            return values.to_vec();
        }
        values.iter().flat_map(|value| [Value::Integer(value.is_text().into()), value.as_blob()]).collect()
    }

    /// The condition of a range and its values.
    pub fn condition<'k>(&self, range: &'k KeyRange) -> Result<(String, Vec<Value<'k>>)> {
        let (mut terms, mut values) = (Vec::new(), Vec::new());
        for (key, operator) in [(&range.after, ">"), (&range.until, "<=")] {
            let Some(key) = key else { continue };
            if self.key.is_empty() {
                return Err(bad("a key for a table without one"));
            }
            let parts = parse_row(&key.0, self.key.len()).map_err(|error| bad(&error.to_string()))?;
            let marks: Vec<String> = (0..parts.len()).map(|n| self.placeholder(values.len() + n)).collect();
            terms.push(format!("({}) {operator} ({})", self.key.join(", "), marks.join(", ")));
            values.extend(parts);
        }
        let condition =
            if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
        Ok((condition, values))
    }

    fn select(&self, condition: &str) -> String {
        let columns: Vec<String> = self
            .columns()
            .iter()
            .map(|column| {
                if self.utf16 {
                    format!("CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) ELSE {column} END, typeof({column}) = 'text'")
                } else {
                    column.clone()
                }
            })
            .collect();
        let order =
            if self.key.is_empty() { String::new() } else { format!(" ORDER BY {}", self.key.join(", ")) };
        format!("SELECT {} FROM main.{}{condition}{order}", columns.join(", "), quote(&self.table.name.name))
    }

    /// Which of a row's values are the key.
    fn key_values(&self) -> Vec<usize> {
        match &self.table.key {
            TableKey::Position => Vec::new(),
            TableKey::Hidden(_) => vec![0],
            TableKey::Columns(columns) => columns.iter().map(|column| *column as usize).collect(),
        }
    }
}

/// Reads the next chunk of a range. A table without a key is read whole.
pub fn chunk(
    db: &Connection,
    schema: &Schema,
    table: &TableName,
    range: &KeyRange,
    budget: u64,
) -> Result<RowsChunk> {
    let shape = Shape::of(db, schema, table)?;
    let budget = if shape.key.is_empty() { u64::MAX } else { budget };
    let (condition, values) = shape.condition(range)?;
    let mut statement = db.prepare_cached(&shape.select(&condition))?;
    let mut rows = statement.query(params_from_iter(shape.bind(&values)))?;
    let width = shape.columns().len();
    let (mut block, mut count, mut last, mut ends) = (Vec::new(), 0_u64, Vec::new(), Vec::new());
    let mut more = false;
    while let Some(row) = rows.next()? {
        if count > 0 && block.len() as u64 >= budget {
            more = true;
            break;
        }
        last.clear();
        ends.clear();
        let start = block.len();
        for n in 0..width {
            if n > 0 {
                block.push(b'\t');
            }
            let (value, as_text) = if shape.utf16 {
                (row.get_ref(2 * n)?, row.get_ref(2 * n + 1)? == ValueRef::Integer(1))
            } else {
                (row.get_ref(n)?, false)
            };
            let from = block.len();
            print(&mut block, value, as_text);
            ends.push((from - start, block.len() - start));
        }
        last.extend_from_slice(&block[start..]);
        block.push(b'\n');
        count += 1;
    }
    let until = if more {
        let parts: Vec<&[u8]> = shape.key_values().into_iter().map(|n| &last[ends[n].0..ends[n].1]).collect();
        Some(Key(Bytes::from(parts.join(&b'\t'))))
    } else {
        range.until.clone()
    };
    let header = RowsHeader {
        table: table.clone(),
        range: KeyRange { after: range.after.clone(), until },
        rows: count,
        bytes: block.len() as u64,
        digest: Digest::of(&block),
        unchanged: false,
    };
    Ok(RowsChunk { header, block: block.into() })
}

/// The schema of an open database, once per connection.
pub fn schema(db: &Connection, exclude: &[String]) -> Result<Schema> {
    catalog::read(db, exclude)
}
