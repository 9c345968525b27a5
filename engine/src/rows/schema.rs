//! A database's schema as it travels: what to run before the load, the tables, what to run after it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Key, TableName};
use crate::digest::Digest;

/// A database's schema, in two halves around the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The engine: `sqlite`, `mariadb`, `postgres`. Target and source must agree.
    pub engine: String,
    /// The engine's version at the source.
    pub version: String,
    /// Settings of the database itself (SQLite: page size, encoding, journal mode, …), by the engine's own names.
    pub settings: BTreeMap<String, String>,
    /// Tables and their primary keys, in the order to run.
    pub before_load: Vec<Ddl>,
    /// Secondary indexes, foreign keys, views, triggers, in the order to run.
    pub after_load: Vec<Ddl>,
    /// What changes with the data and is set at the end: sequence positions, statistics, the database file's owner. By
    /// the engine's own names.
    #[serde(default)]
    pub state: BTreeMap<String, String>,
    /// The tables whose rows are copied.
    pub tables: Vec<TableSpec>,
}

impl Schema {
    /// Digest of all that must not change between approval and the end of the copy: the statements and the tables'
    /// shapes, but neither their sizes and cuts nor the engine's version.
    pub fn structure(&self) -> Digest {
        let mut bare = self.clone();
        bare.state.clear();
        bare.version.clear();
        for table in &mut bare.tables {
            (table.estimated_rows, table.estimated_bytes) = (0, 0);
            table.cuts.clear();
            // Depends on the source's settings too.
            table.followed = false;
        }
        // Sizes aside, a schema is plain data: strings, numbers and lists, which always serialize.
        Digest::of(&serde_json::to_vec(&bare).unwrap_or_default())
    }

    /// What differs in a schema that is to be this one: each object, and how. Empty where [`Self::structure`] is the same.
    pub fn differences(&self, here: &Self) -> Vec<(String, &'static str)> {
        let told = |unlike| match unlike {
            Unlike::Missing => "it is missing",
            Unlike::Other => "it is not made as at the source",
            Unlike::Extra => "it is not in the source",
            Unlike::Setting => "it is not the source's",
            Unlike::Order => "its tables or the order of its statements are not the source's",
        };
        self.unlike(here).into_iter().map(|(object, unlike)| (object, told(unlike))).collect()
    }

    /// What has become of a schema that was this one: each object, and how it has changed. Empty where [`Self::structure`] is the same.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let told = |unlike| match unlike {
            Unlike::Missing => "is gone",
            Unlike::Other | Unlike::Setting => "was changed",
            Unlike::Extra => "is new",
            Unlike::Order => "has other tables, or its statements another order",
        };
        self.unlike(now).into_iter().map(|(object, unlike)| format!("{object} {}", told(unlike))).collect()
    }

    fn unlike(&self, here: &Self) -> Vec<(String, Unlike)> {
        if self.structure() == here.structure() {
            return Vec::new();
        }
        let (wanted, found) = (self.objects(), here.objects());
        let mut out = Vec::new();
        for (object @ (kind, name), statements) in &wanted {
            match found.get(object) {
                None => out.push((format!("{kind} {name}"), Unlike::Missing)),
                Some(other) if other != statements => out.push((format!("{kind} {name}"), Unlike::Other)),
                Some(_) => {}
            }
        }
        let extra = found.keys().filter(|object| !wanted.contains_key(*object));
        out.extend(extra.map(|(kind, name)| (format!("{kind} {name}"), Unlike::Extra)));
        let names = self.settings.keys().chain(here.settings.keys()).collect::<BTreeSet<_>>();
        let unlike = names.into_iter().filter(|name| self.settings.get(*name) != here.settings.get(*name));
        out.extend(unlike.map(|name| (format!("setting {name} of the database"), Unlike::Setting)));
        if out.is_empty() {
            out.push(("schema".to_owned(), Unlike::Order));
        }
        out
    }

    /// What it is made of: the statements of each object, by kind and name. Some have several, functions of one name among
    /// them.
    fn objects(&self) -> BTreeMap<(&str, &str), Vec<&str>> {
        let mut out = BTreeMap::<_, Vec<&str>>::new();
        for ddl in self.before_load.iter().chain(&self.after_load) {
            out.entry((ddl.kind.as_str(), ddl.name.as_str())).or_default().push(&ddl.sql);
        }
        out.values_mut().for_each(|statements| statements.sort_unstable());
        out
    }

    /// Whether a key of the state tells whose something is, who may use it, or as whom it runs.
    pub fn is_ownership(key: &str) -> bool {
        ["owner/", "grant/", "definer/", "large_object/", "large_object_grant/", "database/owner"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
    }

    /// The part of the state that tells whose objects are and who may use them.
    pub fn ownership(&self) -> BTreeMap<String, String> {
        let own = self.state.iter().filter(|(key, _)| Self::is_ownership(key));
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What belongs to others in a schema that is to be this one, runs as others, or may not be used by those who might at
    /// the source. Targets leave out what roles and accounts do not exist there for, so these are no [`Self::differences`].
    pub fn left_out(&self, here: &Self) -> Vec<String> {
        // Grants have no names: their numbers depend on what else there is.
        let unnumbered = |schema: &Self| -> BTreeSet<(String, String)> {
            let bare = |(key, value): (String, String)| match key.split_once('/') {
                Some(("grant", _)) => ("grant".to_owned(), value),
                _ => (key, value),
            };
            schema.ownership().into_iter().map(bare).collect()
        };
        let name = |(key, value): &(String, String)| match key.split_once('/') {
            Some(("definer", object)) => format!("{} does not run as {value}", object.replacen('/', " ", 1)),
            Some(("owner", object)) => format!("{object} is not {value}'s"),
            Some(("database", _)) => format!("the database is not {value}'s"),
            Some(("large_object", numbers)) => format!("large objects {numbers} are not {value}'s"),
            Some((_, numbers)) => format!("large objects {numbers} lack {value}"),
            None => value.trim_end_matches(';').to_owned(),
        };
        unnumbered(self).difference(&unnumbered(here)).map(name).collect()
    }

    /// Moves what goes on by itself (sequences, AUTO_INCREMENT) to where `other` has it, wherever that is further on. What is not in this
    /// schema is left out.
    pub fn advance(&mut self, other: &BTreeMap<String, String>) {
        for (key, position) in &mut self.state {
            let is_position = key.starts_with("sequence/") || key.starts_with("auto_increment/");
            if let Some(there) = other.get(key).filter(|_| is_position)
                && further(there) > further(position)
            {
                position.clone_from(there);
            }
        }
    }

    /// The table called `name`.
    pub fn table(&self, name: &TableName) -> Option<&TableSpec> {
        self.tables.iter().find(|table| table.name == *name)
    }
}

/// How an object of one schema is found in another.
#[derive(Clone, Copy)]
enum Unlike {
    /// It is not there.
    Missing,
    /// It is made by other statements.
    Other,
    /// It is only there.
    Extra,
    /// A setting has another value.
    Setting,
    /// All objects are the same, and the schemas are not.
    Order,
}

/// Where a position is: a number, which PostgreSQL follows by whether it was given out.
fn further(position: &str) -> (Option<i128>, bool) {
    let (number, given) = position.split_once(' ').unwrap_or((position, ""));
    (number.parse().ok(), given == "t" || given == "true")
}

/// One statement that makes one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ddl {
    /// What kind of object: `table`, `index`, `view`, `trigger`, ….
    pub kind: String,
    /// Its name, for messages.
    pub name: String,
    /// The statement, in the engine's own dialect.
    pub sql: String,
}

/// A table whose rows are copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// Its name.
    pub name: TableName,
    /// The columns that a row of a block carries, in order (generated columns are left out).
    pub columns: Vec<ColumnSpec>,
    /// How its rows are ordered and found.
    pub key: TableKey,
    /// The engine's estimate, for progress.
    pub estimated_rows: u64,
    /// The engine's estimate of the text bytes, for progress.
    pub estimated_bytes: u64,
    /// Keys that cut a large table into parts, in key order; each part is copied by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<Key>,
    /// The source can tell which of its rows change, by key. Those of any other table are read again at cut-over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub followed: bool,
}

/// A column that travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its name as the engine stores it.
    pub name: String,
    /// Its declared type, as declared (may be empty in SQLite).
    pub declared: String,
}

/// How the rows of a table are ordered and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TableKey {
    /// By these columns (positions in `TableSpec::columns`), unique and not null together.
    Columns(Vec<u32>),
    /// By a hidden key of the engine under this name (SQLite's rowid). It travels as the first value of every row.
    Hidden(String),
    /// By nothing: read in one sweep of one snapshot; keys are positions in that sweep.
    Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(ddl: &[(&str, &str, &str)], state: &[(&str, &str)]) -> Schema {
        let ddl = ddl.iter().map(|(kind, name, sql)| Ddl {
            kind: (*kind).to_owned(),
            name: (*name).to_owned(),
            sql: (*sql).to_owned(),
        });
        Schema {
            engine: "postgres".to_owned(),
            version: String::new(),
            settings: BTreeMap::new(),
            before_load: ddl.collect(),
            after_load: Vec::new(),
            state: state.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            tables: Vec::new(),
        }
    }

    #[test]
    fn differences_name_their_objects() {
        let source = schema(
            &[("table", "a", "1"), ("function", "f", "2"), ("function", "f", "3"), ("view", "v", "4")],
            &[],
        );
        assert_eq!(source.differences(&source), []);
        let here = schema(&[("table", "a", "1"), ("function", "f", "2"), ("index", "i", "5")], &[]);
        assert_eq!(
            source.differences(&here),
            [
                ("function f".to_owned(), "it is not made as at the source"),
                ("view v".to_owned(), "it is missing"),
                ("index i".to_owned(), "it is not in the source"),
            ]
        );
        assert_eq!(source.changes(&source), Vec::<String>::new());
        assert_eq!(source.changes(&here), ["function f was changed", "view v is gone", "index i is new"]);
        let mut other = source.clone();
        other.before_load.reverse();
        assert_eq!(source.differences(&other).len(), 1);
        assert_eq!(source.changes(&other), ["schema has other tables, or its statements another order"]);
        other = source.clone();
        other.settings.insert("encoding".to_owned(), "UTF8".to_owned());
        assert_eq!(source.differences(&other)[0].0, "setting encoding of the database");
    }

    #[test]
    fn positions_only_go_on() {
        let mut schema = schema(
            &[],
            &[
                ("sequence/a", "7 f"),
                ("sequence/b", "9 t"),
                ("auto_increment/t", "3"),
                ("owner/a", "1"),
                ("sequence/e", "5 f"),
            ],
        );
        let other = [
            ("sequence/a", "12 t"),
            ("sequence/b", "8 t"),
            ("sequence/c", "1 t"),
            ("auto_increment/t", "40"),
            ("owner/a", "2"),
            ("sequence/e", "5 t"),
        ];
        schema.advance(&other.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        let positions: Vec<_> = schema.state.iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(
            positions,
            ["auto_increment/t 40", "owner/a 1", "sequence/a 12 t", "sequence/b 9 t", "sequence/e 5 t"]
        );
    }

    #[test]
    fn what_is_left_out_is_told_whatever_its_number() {
        let source = schema(
            &[],
            &[
                ("owner/TABLE a", "shop"),
                ("grant/000001", "GRANT SELECT ON a TO b;"),
                ("grant/000002", "GRANT SELECT ON a TO c;"),
                ("definer/view/v", "`x`@`y`"),
                ("sequence/s", "1 t"),
            ],
        );
        let here = schema(
            &[],
            &[("owner/TABLE a", "mover"), ("grant/000000", "GRANT SELECT ON a TO c;"), ("sequence/s", "9 t")],
        );
        assert_eq!(source.left_out(&source), Vec::<String>::new());
        assert_eq!(
            source.left_out(&here),
            ["view v does not run as `x`@`y`", "GRANT SELECT ON a TO b", "TABLE a is not shop's"]
        );
    }
}
