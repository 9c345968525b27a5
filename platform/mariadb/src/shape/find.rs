//! Queries that find single keys of a table.

use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyRange, text};

use super::{Kind, Shape, malformed};
use crate::session::Record;
use crate::sql::{hex, quote};

/// A row's key.
#[derive(Debug, Clone)]
pub struct Found {
    pub key: Key,
    /// Its columns' values: text in UTF-8, all else as it travels.
    pub values: Vec<Vec<u8>>,
}

impl Kind {
    /// A value of [`Found::values`] in SQL.
    fn guessed(&self, value: &[u8]) -> Option<String> {
        match self {
            Self::Text { charset, collation } => {
                Some(format!("CONVERT(_utf8mb4 {} USING {charset}) COLLATE {collation}", hex(value)))
            }
            other => other.literal(value),
        }
    }
}

impl Shape {
    /// Columns of the key: as they travel, then as text in UTF-8 where they are text.
    pub(super) fn sought(&self) -> String {
        let plain = self.key.iter().map(|n| self.columns[*n].1.select(&self.columns[*n].0));
        let text = self.key.iter().map(|n| match &self.columns[*n] {
            (name, Kind::Text { .. }) => format!("CONVERT({name} USING utf8mb4)"),
            _ => "NULL".to_owned(),
        });
        plain.chain(text).collect::<Vec<_>>().join(", ")
    }

    /// What one of these queries has found.
    pub fn found(&self, row: &Record) -> Found {
        let (mut key, mut values) = (Vec::new(), Vec::new());
        for at in 0..self.key.len() {
            if at > 0 {
                key.push(b'\t');
            }
            let value = row.bytes(at).unwrap_or_default();
            text::escape_into(&mut key, value);
            values.push(row.bytes(self.key.len() + at).unwrap_or(value).to_vec());
        }
        Found { key: Key(key.into()), values }
    }

    fn seek(&self, database: &str, range: &KeyRange, terms: &[String], descending: bool) -> Result<String> {
        let condition = self.condition(range)?;
        let (before, joined) = (if condition.is_empty() { " WHERE " } else { " AND " }, terms.join(" AND "));
        let terms = if terms.is_empty() { String::new() } else { format!("{before}{joined}") };
        let direction = if descending { " DESC" } else { "" };
        let order: Vec<String> =
            self.key.iter().map(|n| format!("{}{direction}", self.columns[*n].0)).collect();
        Ok(format!(
            "SELECT {} FROM {}.{}{}{condition}{terms} ORDER BY {} LIMIT 1",
            self.sought(),
            quote(database),
            quote(&self.name),
            self.forced(),
            order.join(", ")
        ))
    }

    fn term(&self, column: usize, operator: &str, value: &[u8]) -> Result<String> {
        let (name, kind) = &self.columns[self.key[column]];
        let value = kind.guessed(value).ok_or_else(|| malformed(&self.name, "a number that is none"))?;
        Ok(format!("{name} {operator} {value}"))
    }

    /// The first or last key of a range, among those whose first columns have these values.
    pub fn edge(&self, database: &str, range: &KeyRange, equal: &[Vec<u8>], last: bool) -> Result<String> {
        let terms: Result<Vec<String>> =
            equal.iter().enumerate().map(|(at, value)| self.term(at, "=", value)).collect();
        self.seek(database, range, &terms?, last)
    }

    /// The first key of a range whose `column` (of the key) is not below `value`; those before it are `like`'s.
    pub fn next(
        &self,
        database: &str,
        range: &KeyRange,
        like: &Found,
        column: usize,
        value: &[u8],
    ) -> Result<String> {
        let mut terms = Vec::new();
        for (at, same) in like.values[..column].iter().enumerate() {
            terms.push(self.term(at, "=", same)?);
        }
        terms.push(self.term(column, ">=", value)?);
        self.seek(database, range, &terms, false)
    }

    /// The key this many rows behind a range's first.
    pub fn stride(&self, database: &str, range: &KeyRange, rows: u64) -> Result<String> {
        Ok(format!("{} OFFSET {rows}", self.seek(database, range, &[], false)?))
    }

    /// How many rows lie in a range, by the server's own estimate.
    pub fn estimate(&self, database: &str, range: &KeyRange) -> Result<String> {
        let table = format!("{}.{}", quote(database), quote(&self.name));
        Ok(format!("EXPLAIN SELECT 1 FROM {table}{}{}", self.forced(), self.condition(range)?))
    }

    /// A value half way between two of a column of the key.
    pub fn between(&self, column: usize, low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
        self.columns[self.key[column]].1.between(low, high)
    }
}
