//! A table's shape in SQL: how its values are read, compared and loaded.

mod convert;
mod find;
mod keys;
mod mid;
mod pieces;

use std::fmt::Write as _;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{KeyRange, TableKey, TableSpec, text};

use super::session::Record;
use super::sql::{hex, quote, string};

pub use convert::{converted, is_binary, selected};
pub use find::Found;
pub use keys::SEVERAL;

/// The column that holds positions while a table without a key is loaded.
pub const POSITION: &str = "__handover_pos";

/// How values of a type travel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// As the server prints it; a number in SQL.
    Number,
    /// FLOAT: printed with too few digits, so it travels as the DOUBLE that it is.
    Float,
    /// BIT, ENUM, SET: by number.
    Bits,
    /// Dates, times, years: text.
    Plain,
    /// INET4, INET6, UUID: text that must not be taken for bytes.
    Ascii,
    /// Bytes.
    Bytes,
    /// Text in its own character set and collation.
    Text { charset: String, collation: String },
}

/// The type's first word.
fn word(declared: &str) -> String {
    declared.chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// A value may have 16 MiB and more: JSON is a LONGTEXT, a geometry a LONGBLOB (manual: "Data Type Storage Requirements").
fn may_be_large(declared: &str) -> bool {
    let word = word(declared);
    word.starts_with("long")
        || word.starts_with("medium") && word != "mediumint"
        || word == "json"
        || word.ends_with("geometry")
        || word.ends_with("geometrycollection")
        || ["point", "linestring", "polygon"].iter().any(|kind| word.ends_with(kind))
}

/// Of those, what `SUBSTRING` takes apart: not geometries.
fn has_pieces(declared: &str) -> bool {
    let word = word(declared);
    may_be_large(declared) && (word.ends_with("blob") || word.ends_with("text") || word == "json")
}

fn kind(declared: &str) -> Kind {
    match word(declared).as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "decimal" | "double"
        | "real" => Kind::Number,
        "float" => Kind::Float,
        "bit" | "enum" | "set" => Kind::Bits,
        "date" | "time" | "datetime" | "timestamp" | "year" => Kind::Plain,
        "inet4" | "inet6" | "uuid" => Kind::Ascii,
        _ => match declared.rsplit_once(" CHARACTER SET ").and_then(|(_, rest)| rest.split_once(" COLLATE "))
        {
            Some((charset, collation)) => {
                Kind::Text { charset: charset.to_owned(), collation: collation.to_owned() }
            }
            None => Kind::Bytes,
        },
    }
}

/// A column's type as it travels in a schema: with its character set and collation where it has one.
pub fn declared(column_type: &str, charset: Option<&str>, collation: Option<&str>) -> String {
    match (charset, collation) {
        (Some(charset), Some(collation)) => {
            format!("{column_type} CHARACTER SET {charset} COLLATE {collation}")
        }
        _ => column_type.to_owned(),
    }
}

impl Kind {
    fn select(&self, column: &str) -> String {
        match self {
            Self::Float => format!("CAST({column} AS DOUBLE)"),
            Self::Bits => format!("{column}|0"),
            _ => column.to_owned(),
        }
    }

    /// What a variable of the loader is converted by; `None` when the value goes right into the column.
    fn convert(&self, variable: &str) -> Option<String> {
        match self {
            Self::Bits => Some(format!("CAST({variable} AS UNSIGNED)")),
            Self::Ascii => Some(format!("CONVERT({variable} USING ascii)")),
            _ => None,
        }
    }

    /// A value in SQL, to be compared with a column.
    fn literal(&self, value: &[u8]) -> Option<String> {
        Some(match self {
            Self::Number | Self::Float | Self::Bits => number(value)?,
            Self::Plain | Self::Ascii => string("ascii", value),
            Self::Bytes => hex(value),
            Self::Text { charset, collation } => format!("{} COLLATE {collation}", string(charset, value)),
        })
    }

    /// A value in SQL, to be stored.
    fn stored(&self, value: &[u8]) -> Option<String> {
        match self {
            Self::Text { charset, .. } => Some(string(charset, value)),
            other => other.literal(value),
        }
    }
}

fn number(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let is_number =
        text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) && text.parse::<f64>().is_ok();
    is_number.then(|| text.to_owned())
}

/// A table in SQL. Cloning is cheap enough for rare cases.
#[derive(Debug, Clone)]
pub struct Shape {
    name: String,
    columns: Vec<(String, Kind)>,
    /// Columns whose values can be read piece by piece, and may be worth it.
    in_pieces: Vec<usize>,
    /// Positions in `columns`; empty for a table without a key.
    key: Vec<usize>,
    index: Option<String>,
    by_position: bool,
    may_be_large: bool,
}

/// A text block or a key is not the table's.
fn malformed(table: &str, error: impl std::fmt::Display) -> Failure {
    Failure::permanent(format!("table {table}"), format!("a block or key is malformed: {error}"))
}

impl Shape {
    /// The shape of a table whose key is the index called `index`.
    pub fn new(spec: &TableSpec, index: Option<&str>) -> Self {
        let key = match &spec.key {
            TableKey::Columns(columns) => columns.iter().map(|n| *n as usize).collect(),
            TableKey::Hidden(_) | TableKey::Position => Vec::new(),
        };
        let in_pieces = spec.columns.iter().enumerate();
        let in_pieces = in_pieces.filter(|(n, column)| has_pieces(&column.declared) && !key.contains(n));
        Self {
            name: spec.name.name.clone(),
            in_pieces: in_pieces.map(|(n, _)| n).filter(|_| !key.is_empty()).collect(),
            columns: spec.columns.iter().map(|c| (quote(&c.name), kind(&c.declared))).collect(),
            may_be_large: spec.columns.iter().any(|column| may_be_large(&column.declared)),
            by_position: key.is_empty(),
            key,
            index: index.map(str::to_owned),
        }
    }

    /// The same table, whose rows are stored without a position.
    pub fn without_positions(&self) -> Self {
        Self { by_position: false, ..self.clone() }
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table has no key: its rows are found by their position.
    pub fn is_by_position(&self) -> bool {
        self.by_position
    }

    /// A row may be larger than what one chunk usually holds of them.
    pub fn may_be_large(&self) -> bool {
        self.may_be_large
    }

    /// Which of a row's values are the key.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    fn key_values(&self, key: &[u8]) -> Result<Vec<String>> {
        let values: Vec<&[u8]> = text::values(key).collect();
        if values.len() != self.key.len() {
            return Err(malformed(&self.name, "another number of key columns"));
        }
        let literal = |(value, column): (&[u8], &usize)| {
            let value = text::unescape(value).map_err(|e| malformed(&self.name, e))?;
            let kind = &self.columns[*column].1;
            kind.literal(&value).ok_or_else(|| malformed(&self.name, "a number that is none"))
        };
        values.into_iter().zip(&self.key).map(literal).collect()
    }

    /// `key OP (values)`, as a disjunction that the server finds by index: it does not for row comparisons.
    fn compare(&self, key: &[u8], last: &str) -> Result<String> {
        let values = self.key_values(key)?;
        let strict = &last[..1];
        let mut alternatives = Vec::new();
        for end in 0..values.len() {
            let mut term = String::new();
            for (at, value) in values.iter().enumerate().take(end + 1) {
                let column = &self.columns[self.key[at]].0;
                let operator = if at < end {
                    "="
                } else if at + 1 == values.len() {
                    last
                } else {
                    strict
                };
                let _ = write!(term, "{}{column} {operator} {value}", if at > 0 { " AND " } else { "" });
            }
            alternatives.push(term);
        }
        Ok(format!("({})", alternatives.join(" OR ")))
    }

    /// The condition of a range, with its WHERE; empty for the whole table.
    pub fn condition(&self, range: &KeyRange) -> Result<String> {
        let mut terms = Vec::new();
        for (key, operator) in [(&range.after, ">"), (&range.until, "<=")] {
            let Some(key) = key else { continue };
            if self.by_position {
                terms.push(format!("{POSITION} {operator} {}", self.position(&key.0)?));
            } else {
                terms.push(self.compare(&key.0, operator)?);
            }
        }
        Ok(if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) })
    }

    /// A key of a table without one: how many rows lie before it.
    pub fn position(&self, key: &[u8]) -> Result<u64> {
        let text = std::str::from_utf8(key).ok();
        text.and_then(|t| t.parse().ok()).ok_or_else(|| malformed(&self.name, "a position that is none"))
    }

    fn forced(&self) -> String {
        self.index.as_ref().map_or(String::new(), |index| format!(" FORCE INDEX ({})", quote(index)))
    }

    fn selected(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|(name, kind)| kind.select(name)).collect();
        columns.join(", ")
    }

    /// Reads a range in key order; `positioned`: the table has a column of positions. `small`: without large values, see
    /// [`Self::in_pieces`].
    pub fn select(&self, database: &str, range: &KeyRange, positioned: bool, small: bool) -> Result<String> {
        let selected = if small { self.selected_small() } else { self.selected() };
        let from = format!("SELECT {selected} FROM {}.{}", quote(database), quote(&self.name));
        if !self.by_position {
            let keys: Vec<&str> = self.key.iter().map(|n| self.columns[*n].0.as_str()).collect();
            let condition = self.condition(range)?;
            return Ok(format!("{from}{}{condition} ORDER BY {}", self.forced(), keys.join(", ")));
        }
        if positioned {
            return Ok(format!("{from}{} ORDER BY {POSITION}", self.condition(range)?));
        }
        // In the order in which the engine keeps the rows.
        let after = range.after.as_ref().map_or(Ok(0), |key| self.position(&key.0))?;
        let until = range.until.as_ref().map_or(Ok(u64::MAX), |key| self.position(&key.0))?;
        let limit = if (after, until) == (0, u64::MAX) {
            String::new()
        } else {
            format!(" LIMIT {} OFFSET {after}", until.saturating_sub(after))
        };
        Ok(format!("{from} USE INDEX (){limit}"))
    }

    /// Finds the last key of a range.
    pub fn last(&self, database: &str, range: &KeyRange) -> Result<String> {
        match (self.by_position, &range.until) {
            (false, _) => self.edge(database, range, &[], true),
            (true, Some(until)) => Ok(format!("SELECT {}", self.position(&until.0)?)),
            (true, None) => Ok(format!("SELECT COUNT(*) FROM {}.{}", quote(database), quote(&self.name))),
        }
    }

    /// The key that it has found.
    pub fn last_key(&self, row: &Record) -> Vec<u8> {
        if self.by_position { row.text(0).into_bytes() } else { self.found(row).key.0.to_vec() }
    }

    /// Asks whether a range holds any row.
    pub fn any(&self, database: &str, range: &KeyRange) -> Result<String> {
        let table = format!("{}.{}", quote(database), quote(&self.name));
        Ok(format!("SELECT 1 FROM {table}{}{} LIMIT 1", self.forced(), self.condition(range)?))
    }

    /// Deletes a range.
    pub fn delete(&self, database: &str, range: &KeyRange) -> Result<String> {
        let table = format!("{}.{}", quote(database), quote(&self.name));
        Ok(format!("DELETE FROM {table}{}", self.condition(range)?))
    }

    /// Loads a text block; rows whose unique values are there already are left out, or take the others' place.
    pub fn load(&self, database: &str, replace: bool) -> String {
        let (mut targets, mut sets) = (Vec::new(), Vec::new());
        for (at, (name, kind)) in self.columns.iter().enumerate() {
            let variable = format!("@h{at}");
            match kind.convert(&variable) {
                Some(value) => {
                    targets.push(variable);
                    sets.push(format!("{name} = {value}"));
                }
                None => targets.push(name.clone()),
            }
        }
        if self.by_position {
            sets.push(format!("{POSITION} = (@handover_pos := @handover_pos + 1)"));
        }
        let sets = if sets.is_empty() { String::new() } else { format!(" SET {}", sets.join(", ")) };
        let word = if replace { "REPLACE" } else { "IGNORE" };
        format!(
            "LOAD DATA LOCAL INFILE 'rows' {word} INTO TABLE {}.{} CHARACTER SET binary \
             FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({}){sets}",
            quote(database),
            quote(&self.name),
            targets.join(", ")
        )
    }

    /// The beginning of a statement that stores rows without a file; [`Self::tuple`]s follow.
    pub fn replace(&self, database: &str) -> String {
        let mut names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        if self.by_position {
            names.push(POSITION);
        }
        format!("REPLACE INTO {}.{} ({}) VALUES ", quote(database), quote(&self.name), names.join(", "))
    }

    /// One row of a text block as a tuple in SQL.
    pub fn tuple(&self, row: &[u8], position: u64) -> Result<String> {
        let mut out = String::with_capacity(row.len() * 2 + 16);
        out.push('(');
        let mut width = 0;
        for value in text::values(row) {
            let Some((_, kind)) = self.columns.get(width) else {
                return Err(malformed(&self.name, "too many values"));
            };
            if width > 0 {
                out.push(',');
            }
            if value == text::NULL {
                out.push_str("NULL");
            } else {
                let value = text::unescape(value).map_err(|e| malformed(&self.name, e))?;
                out.push_str(
                    &kind.stored(&value).ok_or_else(|| malformed(&self.name, "a number that is none"))?,
                );
            }
            width += 1;
        }
        if width != self.columns.len() {
            return Err(malformed(&self.name, "too few values"));
        }
        if self.by_position {
            let _ = write!(out, ",{position}");
        }
        out.push(')');
        Ok(out)
    }
}
