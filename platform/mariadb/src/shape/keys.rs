//! Rows that are named by their keys, or by other columns' values.

use std::fmt::Write as _;

use handover_engine::ports::Result;
use handover_engine::rows::{Key, text};

use super::{Shape, malformed};
use crate::sql::quote;

/// Keys of a single column in one statement.
const SINGLE: usize = 4000;
/// Keys of several columns: the time that a server (10.11) takes to plan for them grows with their square, from about 1000 on.
pub const SEVERAL: usize = 500;

impl Shape {
    /// How many keys one statement should name at most.
    pub fn batch(&self) -> usize {
        if self.key.len() == 1 { SINGLE } else { SEVERAL }
    }

    /// The condition that a row has one of these keys.
    pub fn has_key(&self, keys: &[Key]) -> Result<String> {
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            rows.push(self.key_values(&key.0)?);
        }
        let columns: Vec<&str> = self.key.iter().map(|at| self.columns[*at].0.as_str()).collect();
        Ok(among(&columns, rows))
    }

    /// The condition that columns hold one of these lists of values; none where NULL alone is asked for, which equals nothing.
    pub fn has_values(&self, columns: &[u32], values: &[Key]) -> Result<Option<String>> {
        let (mut names, mut kinds) = (Vec::new(), Vec::new());
        for at in columns {
            let column = self.columns.get(*at as usize);
            let (name, kind) = column.ok_or_else(|| malformed(&self.name, "a column that is none"))?;
            names.push(name.as_str());
            kinds.push(kind);
        }
        let mut rows = Vec::new();
        for row in values {
            let values: Vec<&[u8]> = text::values(&row.0).collect();
            if values.len() != kinds.len() {
                return Err(malformed(&self.name, "another number of columns"));
            }
            if values.contains(&text::NULL) {
                continue;
            }
            let mut literals = Vec::new();
            for (value, kind) in values.into_iter().zip(&kinds) {
                let value = text::unescape(value).map_err(|e| malformed(&self.name, e))?;
                let literal = kind.literal(&value);
                literals.push(literal.ok_or_else(|| malformed(&self.name, "a number that is none"))?);
            }
            rows.push(literals);
        }
        Ok(if rows.is_empty() { None } else { Some(among(&names, rows)) })
    }

    /// The key of a row of a text block.
    pub fn key_of(&self, row: &[u8]) -> Vec<u8> {
        let values: Vec<&[u8]> = text::values(row).collect();
        let parts: Vec<&[u8]> = self.key.iter().filter_map(|at| values.get(*at).copied()).collect();
        parts.join(&b'\t')
    }

    /// Reads the rows of a condition.
    pub fn select_where(&self, database: &str, condition: &str, small: bool) -> String {
        let selected = if small { self.selected_small() } else { self.selected() };
        format!("SELECT {selected} FROM {}{} WHERE {condition}", self.full(database), self.forced())
    }

    /// About how many bytes the large values of the rows of a condition have together.
    pub fn measure(&self, database: &str, condition: &str) -> String {
        let lengths: Vec<String> =
            self.columns.iter().map(|(name, _)| format!("COALESCE(OCTET_LENGTH({name}), 0)")).collect();
        let (from, forced) = (self.full(database), self.forced());
        format!("SELECT COALESCE(SUM({}), 0) FROM {from}{forced} WHERE {condition}", lengths.join(" + "))
    }

    /// Finds the keys of the rows of a condition; [`Self::found`] reads them. It need not be one on the key.
    pub fn keys_where(&self, database: &str, condition: &str) -> String {
        format!("SELECT {} FROM {} WHERE {condition}", self.sought(), self.full(database))
    }

    /// Deletes the rows of a condition on the key.
    pub fn delete_where(&self, database: &str, condition: &str) -> String {
        let name = self.full(database);
        // Of several tables, since of a single one no index can be named.
        format!("DELETE {name} FROM {name}{} WHERE {condition}", self.forced())
    }

    /// Empties the table.
    pub fn truncate(&self, database: &str) -> String {
        format!("TRUNCATE TABLE {}", self.full(database))
    }

    fn full(&self, database: &str) -> String {
        format!("{}.{}", quote(database), quote(&self.name))
    }
}

/// `columns` hold one of `rows`, such that the server finds each by index: it does not for comparisons of rows. Rows that are
/// alike but for the last column, one behind the other, are one term.
fn among(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let Some((last, first)) = columns.split_last() else { return "FALSE".to_owned() };
    let mut out = String::new();
    let mut before: Option<Vec<String>> = None;
    for mut row in rows {
        let Some(value) = row.pop() else { continue };
        if before.as_ref() == Some(&row) {
            let _ = write!(out, ",{value}");
            continue;
        }
        if before.is_some() {
            out.push_str(")) OR ");
        }
        out.push('(');
        for (column, value) in first.iter().zip(&row) {
            let _ = write!(out, "{column} = {value} AND ");
        }
        let _ = write!(out, "{last} IN ({value}");
        before = Some(row);
    }
    if before.is_none() { "FALSE".to_owned() } else { format!("({out})))") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_short() {
        let check = |columns: &[&str], rows: &[&[&str]], expected: &str| {
            let rows = rows.iter().map(|row| row.iter().map(|value| (*value).to_owned()).collect()).collect();
            assert_eq!(among(columns, rows), expected);
        };
        check(&["a"], &[&["1"], &["2"]], "((a IN (1,2)))");
        check(
            &["a", "b"],
            &[&["1", "2"], &["1", "3"], &["2", "3"]],
            "((a = 1 AND b IN (2,3)) OR (a = 2 AND b IN (3)))",
        );
        check(&["a"], &[], "FALSE");
    }
}
