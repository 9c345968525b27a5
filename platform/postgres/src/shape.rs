//! A table in SQL: its columns, its key, the condition of a range.

use std::collections::BTreeSet;

use handover_engine::rows::{Key, KeyRange, Schema, TableKey, TableName, TableSpec, text};

use crate::sql::{literal_bytes, quote};

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
            key: parts(spec, &bytewise)?,
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
        for (key, operator) in [(&range.after, ">"), (&range.until, "<=")] {
            if let Some(key) = key {
                terms.push(self.compare(key, operator)?);
            }
        }
        Ok(if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) })
    }

    fn compare(&self, key: &Key, operator: &str) -> Result<String, BadShape> {
        let values: Vec<&[u8]> = text::values(&key.0).collect();
        if values.len() != self.key.len() {
            return Err(BadShape::Key);
        }
        let literals = self.key.iter().zip(values).map(|(part, value)| {
            let value = text::unescape(value).map_err(|_| BadShape::Key)?;
            Ok(format!("{}::{}", literal_bytes(&value, &self.encoding), part.cast))
        });
        let literals = literals.collect::<Result<Vec<_>, _>>()?.join(", ");
        let expressions: Vec<&str> = self.key.iter().map(|part| part.expression.as_str()).collect();
        Ok(format!("({}) {operator} ({literals})", expressions.join(", ")))
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

    /// The key of a row, both in text form.
    pub fn key_of(&self, row: &[u8]) -> Vec<u8> {
        let values: Vec<&[u8]> = text::values(row).collect();
        let parts: Vec<&[u8]> =
            self.key.iter().map(|part| values.get(part.value).copied().unwrap_or_default()).collect();
        parts.join(&b'\t')
    }
}

fn parts(spec: &TableSpec, bytewise: &BTreeSet<usize>) -> Result<Vec<Part>, BadShape> {
    match &spec.key {
        TableKey::Position => Err(BadShape::Key),
        TableKey::Hidden(_) => {
            Ok(vec![Part { expression: "ctid".to_owned(), cast: "pg_catalog.tid".to_owned(), value: 0 }])
        }
        TableKey::Columns(columns) => columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let value = *column as usize;
                let column = spec.columns.get(value).ok_or(BadShape::Key)?;
                let name = quote(&column.name);
                let collate = if bytewise.contains(&at) { " COLLATE pg_catalog.\"C\"" } else { "" };
                Ok(Part { expression: format!("{name}{collate}"), cast: column.declared.clone(), value })
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
