//! A table in SQL: its columns, its key, the condition of a range.

use std::collections::BTreeSet;
use std::fmt::Write;

use handover_engine::rows::{Key, KeyRange, Schema, TableKey, TableName, TableSpec, text};

use crate::sql::{literal_bytes, quote};

/// The operators of B-trees, in the order of their strategy numbers (the manual's chapter "Index Method Strategies").
const OPERATORS: [&str; 5] = ["<", "<=", "=", ">=", ">"];
const LESS: usize = 0;
const EQUAL: usize = 2;
const GREATER: usize = 4;

/// A table as statements name it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The table, quoted.
    pub table: String,
    /// Columns that travel, quoted; the hidden key is not among them.
    pub columns: Vec<String>,
    /// The hidden key, where the table has no other.
    pub hidden: bool,
    /// What its rows are ordered by: an expression, the type its values are cast to, and which value of a row it is.
    key: Vec<Part>,
    encoding: String,
}

#[derive(Debug, Clone)]
struct Part {
    expression: String,
    cast: String,
    value: usize,
    /// The operators of the type: `<`, `<=`, `=`, `>=` and `>`.
    operators: [String; 5],
    /// Whether they are the type's own, which nothing finds by their names alone.
    own: bool,
}

/// Keys in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// Their values and places (from 1), as an item of FROM that is called `k`.
    pub keys: String,
    /// Whether the row of `t` is that of the key.
    pub matches: String,
}

/// A key or a table that does not belong to the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// Unknown table.
    #[error("there is no such table in the snapshot")]
    Table,
    /// A key of another number of values, or malformed.
    #[error("a key that is none of the table's")]
    Key,
}

impl Shape {
    /// The shape of a table of `schema`.
    pub fn of(schema: &Schema, name: &TableName) -> Result<Self, BadShape> {
        let spec = schema.table(name).ok_or(BadShape::Table)?;
        let bytewise: BTreeSet<usize> = schema
            .state
            .get(&format!("key_bytes/{name}"))
            .map(|list| list.split(',').filter_map(|at| at.parse().ok()).collect())
            .unwrap_or_default();
        Ok(Self {
            table: format!("{}.{}", quote(&name.schema), quote(&name.name)),
            columns: spec.columns.iter().map(|column| quote(&column.name)).collect(),
            hidden: matches!(spec.key, TableKey::Hidden(_)),
            key: parts(spec, &bytewise, schema.state.get(&format!("key_operators/{name}")))?,
            encoding: schema.settings.get("encoding").cloned().unwrap_or_else(|| "UTF8".to_owned()),
        })
    }

    /// The same table under another name of the key's column and of itself: rows joined with their places.
    pub fn with_places(&self, place: &str) -> Self {
        let key = self.key.iter().map(|part| Part { expression: place.to_owned(), ..part.clone() }).collect();
        Self { key, ..self.clone() }
    }

    /// The range's condition, with WHERE; empty for everything.
    pub fn condition(&self, range: &KeyRange) -> Result<String, BadShape> {
        let mut terms = Vec::new();
        for (key, side, or_equal) in [(&range.after, GREATER, false), (&range.until, LESS, true)] {
            if let Some(key) = key {
                terms.push(self.compare(key, side, or_equal)?);
            }
        }
        Ok(if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) })
    }

    /// The condition that rows come after the key (`LESS` or `GREATER`), or also that they are the key's.
    fn compare(&self, key: &Key, side: usize, or_equal: bool) -> Result<String, BadShape> {
        let values: Vec<&[u8]> = text::values(&key.0).collect();
        if values.len() != self.key.len() {
            return Err(BadShape::Key);
        }
        let literals = self.key.iter().zip(values).map(|(part, value)| {
            let value = text::unescape(value).map_err(|_| BadShape::Key)?;
            Ok(format!("{}::{}", literal_bytes(&value, &self.encoding), part.cast))
        });
        let literals = literals.collect::<Result<Vec<_>, _>>()?;
        let or_equal_side = if side == LESS { LESS + 1 } else { GREATER - 1 };
        if !self.key.iter().any(|part| part.own) {
            let operator = OPERATORS[if or_equal { or_equal_side } else { side }];
            let expressions: Vec<&str> = self.key.iter().map(|part| part.expression.as_str()).collect();
            return Ok(format!("({}) {operator} ({})", expressions.join(", "), literals.join(", ")));
        }
        // A comparison of rows finds all its operators by one name: column by column, from the last.
        let mut parts = self.key.iter().zip(literals).rev();
        let term = |part: &Part, at: usize, value: &str| {
            format!("{} {} {value}", part.expression, part.operators.get(at).map_or("", String::as_str))
        };
        let (part, value) = parts.next().ok_or(BadShape::Key)?;
        let last = term(part, if or_equal { or_equal_side } else { side }, &value);
        Ok(parts.fold(last, |rest, (part, value)| {
            let [reached, beyond, equal] = [or_equal_side, side, EQUAL].map(|at| term(part, at, &value));
            format!("{reached} AND ({beyond} OR {equal} AND {rest})")
        }))
    }

    /// These keys in SQL, to be joined with their rows. Equality is that of the column, whatever orders the keys.
    pub fn lookup(&self, keys: &[Key]) -> Result<Lookup, BadShape> {
        let mut lists = vec![vec![b'{']; self.key.len()];
        for (at, key) in keys.iter().enumerate() {
            let mut values = text::values(&key.0);
            for list in &mut lists {
                let value = values.next().filter(|value| *value != text::NULL).ok_or(BadShape::Key)?;
                if at > 0 {
                    list.push(b',');
                }
                add_element(list, &text::unescape(value).map_err(|_| BadShape::Key)?);
            }
            if values.next().is_some() {
                return Err(BadShape::Key);
            }
        }
        let (mut arrays, mut names, mut terms) = (Vec::new(), String::new(), Vec::new());
        for (at, (mut list, part)) in lists.into_iter().zip(&self.key).enumerate() {
            list.push(b'}');
            arrays.push(format!(
                "pg_catalog.unnest({}::pg_catalog.text[])",
                literal_bytes(&list, &self.encoding)
            ));
            // Writing to a string cannot fail.
            let _ = write!(names, "k{at}, ");
            let column = self.columns.get(part.value).ok_or(BadShape::Key)?;
            terms.push(format!("t.{column} {} k.k{at}::{}", part.operators[EQUAL], part.cast));
        }
        Ok(Lookup {
            keys: format!("ROWS FROM ({}) WITH ORDINALITY AS k ({names}n)", arrays.join(", ")),
            matches: terms.join(" AND "),
        })
    }

    /// The statement that reads the rows of these keys in the keys' order, each after its key's place. A key that has no row
    /// brings none.
    pub fn read_keys(&self, keys: &[Key]) -> Result<String, BadShape> {
        let Lookup { keys, matches } = self.lookup(keys)?;
        // The limit keeps the two apart: the server looks up one key after the other, in their order.
        Ok(format!(
            "COPY (SELECT k.n, r.* FROM {keys} CROSS JOIN LATERAL (SELECT {} FROM ONLY {} t WHERE {matches} LIMIT 1) r) TO STDOUT",
            self.select_list(),
            self.table,
        ))
    }

    /// The key's expressions, for ORDER BY.
    pub fn order(&self) -> String {
        self.key.iter().map(|part| part.expression.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The key's columns as they are printed.
    pub fn key_columns(&self) -> String {
        let names = self.key.iter().map(|part| match part.value {
            0 if self.hidden => part.expression.as_str(),
            value => self.columns[value].as_str(),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    /// The columns of a SELECT, in the order of a row's values.
    pub fn select_list(&self) -> String {
        let hidden = self.hidden.then(|| self.order());
        // Owners are numbers that mean nothing elsewhere: large objects belong to the first superuser everywhere.
        let owner = |column: &String| match (self.table.as_str(), column.as_str()) {
            ("\"pg_catalog\".\"pg_largeobject_metadata\"", "\"lomowner\"") => "10".to_owned(),
            _ => column.clone(),
        };
        hidden.into_iter().chain(self.columns.iter().map(owner)).collect::<Vec<_>>().join(", ")
    }

    /// The statement that reads a range in order. Ordinary tables only themselves, not what inherits from them.
    pub fn read(&self, range: &KeyRange) -> Result<String, BadShape> {
        // A scan in physical order is in the order of places by itself; asking for the order would sort it all.
        let order = if self.hidden { String::new() } else { format!(" ORDER BY {}", self.order()) };
        Ok(format!(
            "COPY (SELECT {} FROM ONLY {}{}{order}) TO STDOUT",
            self.select_list(),
            self.table,
            self.condition(range)?
        ))
    }

    /// As [`Self::read`], of a table with a key, and no more rows than these.
    pub fn read_first(&self, range: &KeyRange, rows: u64) -> Result<String, BadShape> {
        Ok(format!(
            "COPY (SELECT {} FROM ONLY {}{} ORDER BY {} LIMIT {rows}) TO STDOUT",
            self.select_list(),
            self.table,
            self.condition(range)?,
            self.order()
        ))
    }

    /// The key of a row, both in text form.
    pub fn key_of(&self, row: &[u8]) -> Vec<u8> {
        let values: Vec<&[u8]> = text::values(row).collect();
        let parts: Vec<&[u8]> =
            self.key.iter().map(|part| values.get(part.value).copied().unwrap_or_default()).collect();
        parts.join(&b'\t')
    }
}

/// Appends a value to the text of an array.
fn add_element(list: &mut Vec<u8>, value: &[u8]) {
    list.push(b'"');
    for &byte in value {
        if byte == b'"' || byte == b'\\' {
            list.push(b'\\');
        }
        list.push(byte);
    }
    list.push(b'"');
}

/// The parts of a table's key. `operators` has a line for each, empty or with the operators of its type.
fn parts(
    spec: &TableSpec,
    bytewise: &BTreeSet<usize>,
    operators: Option<&String>,
) -> Result<Vec<Part>, BadShape> {
    let mut operators = operators.into_iter().flat_map(|lines| lines.split('\n'));
    match &spec.key {
        TableKey::Position => Err(BadShape::Key),
        TableKey::Hidden(_) => Ok(vec![Part {
            expression: "ctid".to_owned(),
            cast: "pg_catalog.tid".to_owned(),
            value: 0,
            operators: OPERATORS.map(str::to_owned),
            own: false,
        }]),
        TableKey::Columns(columns) => columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let value = *column as usize;
                let column = spec.columns.get(value).ok_or(BadShape::Key)?;
                let name = quote(&column.name);
                let collate = if bytewise.contains(&at) { " COLLATE pg_catalog.\"C\"" } else { "" };
                let own: Vec<&str> = operators.next().unwrap_or_default().split('\t').collect();
                let own = <[&str; 5]>::try_from(own).ok();
                Ok(Part {
                    expression: format!("{name}{collate}"),
                    cast: column.declared.clone(),
                    value,
                    operators: own.unwrap_or(OPERATORS).map(str::to_owned),
                    own: own.is_some(),
                })
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use handover_engine::rows::ColumnSpec;
    use std::collections::BTreeMap;

    fn schema(key: TableKey) -> Schema {
        let column =
            |name: &str, declared: &str| ColumnSpec { name: name.to_owned(), declared: declared.to_owned() };
        let table = TableSpec {
            name: TableName { schema: "s".to_owned(), name: "t".to_owned() },
            columns: vec![column("v", "text"), column("a", "integer"), column("b", "text")],
            key,
            estimated_rows: 0,
            estimated_bytes: 0,
            cuts: Vec::new(),
            followed: false,
        };
        Schema {
            engine: "postgres".to_owned(),
            version: String::new(),
            settings: BTreeMap::new(),
            before_load: Vec::new(),
            after_load: Vec::new(),
            state: BTreeMap::new(),
            tables: vec![table],
        }
    }

    fn key(text: &'static str) -> Option<Key> {
        Some(Key(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn reads_ranges_in_order() {
        let schema = schema(TableKey::Columns(vec![1, 2]));
        let shape = Shape::of(&schema, &schema.tables[0].name).unwrap();
        let range = KeyRange { after: key("1\ta\\tb'"), until: key("2\tc") };
        assert_eq!(
            shape.read(&range).unwrap(),
            "COPY (SELECT \"v\", \"a\", \"b\" FROM ONLY \"s\".\"t\" WHERE (\"a\", \"b\") > ('1'::integer, \
             'a\tb'''::text) AND (\"a\", \"b\") <= ('2'::integer, 'c'::text) ORDER BY \"a\", \"b\") TO STDOUT"
        );
        assert_eq!(shape.key_of(b"x\t7\ty"), b"7\ty");
        assert_eq!(shape.condition(&KeyRange { after: key("1"), until: None }), Err(BadShape::Key));
    }

    /// A schema whose table's key has a second column of a type with its own operators.
    fn with_own_operators() -> Schema {
        let mut schema = schema(TableKey::Columns(vec![1, 2]));
        let own = OPERATORS.map(|name| format!("OPERATOR(x.{name})"));
        schema.state.insert("key_operators/s.t".to_owned(), format!("\n{}", own.join("\t")));
        schema
    }

    #[test]
    fn ranges_of_types_with_operators_of_their_own() {
        let schema = with_own_operators();
        let shape = Shape::of(&schema, &schema.tables[0].name).unwrap();
        let range = KeyRange { after: key("1\ta"), until: key("2\tc") };
        assert_eq!(
            shape.condition(&range).unwrap(),
            " WHERE \"a\" >= '1'::integer AND (\"a\" > '1'::integer OR \"a\" = '1'::integer AND \
             \"b\" OPERATOR(x.>) 'a'::text) AND \"a\" <= '2'::integer AND (\"a\" < '2'::integer OR \
             \"a\" = '2'::integer AND \"b\" OPERATOR(x.<=) 'c'::text)"
        );
    }

    #[test]
    fn looks_up_keys_in_their_order() {
        let schema = with_own_operators();
        let shape = Shape::of(&schema, &schema.tables[0].name).unwrap();
        let keys = [key("1\ta\\tb\""), key("2\tc\\\\'")].map(Option::unwrap);
        assert_eq!(
            shape.read_keys(&keys).unwrap(),
            "COPY (SELECT k.n, r.* FROM ROWS FROM (pg_catalog.unnest('{\"1\",\"2\"}'::pg_catalog.text[]), \
             pg_catalog.unnest(E'{\"a\tb\\\\\"\",\"c\\\\\\\\''\"}'::pg_catalog.text[])) WITH ORDINALITY AS k (k0, k1, n) \
             CROSS JOIN LATERAL (SELECT \"v\", \"a\", \"b\" FROM ONLY \"s\".\"t\" t \
             WHERE t.\"a\" = k.k0::integer AND t.\"b\" OPERATOR(x.=) k.k1::text LIMIT 1) r) TO STDOUT"
        );
        for bad in ["1", "1\t2\t3", "1\t\\N", "1\t\\q"] {
            assert_eq!(shape.lookup(&[key(bad).unwrap()]), Err(BadShape::Key), "{bad}");
        }
    }

    #[test]
    fn a_hidden_key_is_the_first_value() {
        let schema = schema(TableKey::Hidden("ctid".to_owned()));
        let shape = Shape::of(&schema, &schema.tables[0].name).unwrap();
        let range = KeyRange { after: key("(0,1)"), until: None };
        assert_eq!(
            shape.read(&range).unwrap(),
            "COPY (SELECT ctid, \"v\", \"a\", \"b\" FROM ONLY \"s\".\"t\" WHERE (ctid) > \
             ('(0,1)'::pg_catalog.tid)) TO STDOUT"
        );
        assert_eq!(shape.key_of(b"(0,9)\tx\t7\ty"), b"(0,9)");
    }
}
