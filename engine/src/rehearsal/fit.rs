//! Which columns of the source's tables go where in the wanted schema, and what finds no place there.

use std::sync::Arc;

use bytes::Bytes;

use crate::check::{Finding, Severity};
use crate::ports::scratch::{Wanted, WantedColumn, WantedTable};
use crate::rows::{ColumnSpec, TableKey, TableName, TableSpec, text};

/// How the rows of a source's table are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The table, as the wanted schema names it.
    pub table: TableName,
    /// Which of a row's values are tried, by their places in the row.
    pub values: Vec<usize>,
    /// The columns they go to, declared as at the source.
    pub columns: Arc<[ColumnSpec]>,
    /// The same, declared as in the wanted schema.
    pub wanted: Arc<[ColumnSpec]>,
    /// The columns of the source's key, where the wanted table has all of them.
    pub key: Option<Vec<ColumnSpec>>,
}

/// How a table fits; none where its rows cannot be tried. Also what does not fit.
pub fn fit(engine: &str, source: &TableSpec, wanted: &Wanted) -> (Option<Fit>, Vec<Finding>) {
    let item = format!("table {}", source.name);
    let found = |severity, what: String, hint| Finding::new(severity, &item, what, hint);
    if wanted.untried.contains(&source.name) {
        let what = "its rows are kept by a module of the engine: it is not tried".to_owned();
        return (None, vec![found(Severity::Info, what, "compare it by hand")]);
    }
    let Some(table) = wanted.tables.iter().find(|table| is_same_table(engine, &table.name, &source.name))
    else {
        let what = "the new system has no such table: its rows have no place".to_owned();
        let hint = "add the table there, or exclude it in the source's manifest";
        return (None, vec![found(Severity::Warning, what, hint)]);
    };
    let mut findings = Vec::new();
    let pairs = pairs(engine, source, table);
    for column in &source.columns {
        if !table.columns.iter().any(|other| is_same(engine, &other.spec.name, &column.name)) {
            let what = format!("the new system has no column {}: its values have no place", column.name);
            findings.push(found(Severity::Warning, what, "add the column there, or let its values go"));
        }
    }
    let mut is_possible = true;
    for column in additional(engine, source, table) {
        let name = &column.spec.name;
        if column.needed {
            is_possible = false;
            let what = format!(
                "the new column {name} needs a value that production does not have: no row can be loaded"
            );
            findings.push(found(Severity::Error, what, "give the column a default there"));
        } else {
            let what = format!("the new column {name} takes its default");
            findings.push(found(Severity::Info, what, "see that the default suits the rows that come"));
        }
    }
    let columns: Arc<[ColumnSpec]> = pairs
        .iter()
        .map(|(_, source, wanted)| ColumnSpec {
            name: wanted.name.clone(),
            declared: source.declared.clone(),
        })
        .collect();
    let fit = Fit {
        table: table.name.clone(),
        values: pairs.iter().map(|(at, ..)| *at).collect(),
        columns,
        wanted: pairs.iter().map(|(.., wanted)| wanted.clone()).collect(),
        key: key(engine, source, table),
    };
    let has_columns = !fit.values.is_empty();
    if is_possible && !has_columns {
        findings.push(found(
            Severity::Error,
            "no column of it is in the new system's".to_owned(),
            "compare both schemas",
        ));
    }
    ((is_possible && has_columns).then_some(fit), findings)
}

/// The columns that both have: the place in a source's row, the source's column, the wanted one.
fn pairs(engine: &str, source: &TableSpec, table: &WantedTable) -> Vec<(usize, ColumnSpec, ColumnSpec)> {
    let mut out = Vec::new();
    let mut first = 0;
    if let TableKey::Hidden(name) = &source.key {
        first = 1;
        if let Some(hidden) = &table.hidden {
            let spec = |name: &str| ColumnSpec { name: name.to_owned(), declared: "INTEGER".to_owned() };
            out.push((0, spec(name), spec(hidden)));
        }
    }
    for (at, column) in source.columns.iter().enumerate() {
        let other = table.columns.iter().find(|other| is_same(engine, &other.spec.name, &column.name));
        out.extend(other.map(|other| (first + at, column.clone(), other.spec.clone())));
    }
    out
}

/// The columns that the source does not have.
fn additional<'a>(
    engine: &'a str,
    source: &'a TableSpec,
    table: &'a WantedTable,
) -> impl Iterator<Item = &'a WantedColumn> {
    let is_new = move |column: &&WantedColumn| {
        !source.columns.iter().any(|other| is_same(engine, &other.name, &column.spec.name))
    };
    table.columns.iter().filter(is_new)
}

fn key(engine: &str, source: &TableSpec, table: &WantedTable) -> Option<Vec<ColumnSpec>> {
    match &source.key {
        TableKey::Position => None,
        TableKey::Hidden(_) => {
            let name = table.hidden.clone()?;
            Some(vec![ColumnSpec { name, declared: "INTEGER".to_owned() }])
        }
        TableKey::Columns(columns) => columns
            .iter()
            .map(|at| {
                let name = &source.columns.get(*at as usize)?.name;
                let found = table.columns.iter().find(|other| is_same(engine, &other.spec.name, name));
                found.map(|column| column.spec.clone())
            })
            .collect(),
    }
}

/// Whether two columns' names are the same: PostgreSQL alone tells upper and lower case apart.
pub fn is_same(engine: &str, a: &str, b: &str) -> bool {
    a == b || engine != "postgres" && a.eq_ignore_ascii_case(b)
}

/// Whether two tables' names are the same: SQLite does not tell upper and lower case apart.
pub fn is_same_table(engine: &str, a: &TableName, b: &TableName) -> bool {
    a == b || engine == "sqlite" && a.schema == b.schema && a.name.eq_ignore_ascii_case(&b.name)
}

impl Fit {
    /// The values of a source's row that are tried.
    pub fn project(&self, row: &[u8]) -> Bytes {
        let all: Vec<&[u8]> = text::values(row).collect();
        if self.values.len() == all.len() && self.values.iter().enumerate().all(|(at, value)| at == *value) {
            return Bytes::copy_from_slice(row);
        }
        let picked: Vec<&[u8]> = self.values.iter().filter_map(|at| all.get(*at).copied()).collect();
        picked.join(&b'\t').into()
    }

    /// The place of a column among the values that are tried.
    pub fn place(&self, engine: &str, column: &str) -> Option<usize> {
        self.columns.iter().position(|spec| is_same(engine, &spec.name, column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> ColumnSpec {
        ColumnSpec { name: name.to_owned(), declared: "int".to_owned() }
    }

    fn source(columns: &[&str], key: TableKey) -> TableSpec {
        TableSpec {
            name: TableName::plain("t"),
            columns: columns.iter().map(|name| column(name)).collect(),
            key,
            estimated_rows: 0,
            estimated_bytes: 0,
            cuts: Vec::new(),
            followed: true,
        }
    }

    fn wanted(columns: &[(&str, bool)], hidden: Option<&str>) -> Wanted {
        let columns = columns
            .iter()
            .map(|(name, needed)| WantedColumn { spec: column(name), needed: *needed })
            .collect();
        let table = WantedTable { name: TableName::plain("t"), columns, hidden: hidden.map(str::to_owned) };
        Wanted { tables: vec![table], ..Wanted::default() }
    }

    #[test]
    fn columns_find_their_places_by_name() {
        let keyed = |columns: &[&str]| source(columns, TableKey::Columns(vec![0]));
        let rowid = source(&["a", "b"], TableKey::Hidden("rowid".to_owned()));
        for (source, wanted, row, projected, findings) in [
            (keyed(&["a", "b"]), wanted(&[("a", true), ("b", false)], None), "1\t2", Some("1\t2"), vec![]),
            (keyed(&["a", "b"]), wanted(&[("B", false), ("a", true)], None), "1\t2", Some("1\t2"), vec![]),
            (
                keyed(&["a", "b", "c"]),
                wanted(&[("c", true)], None),
                "1\t2\t3",
                Some("3"),
                vec!["no column a", "no column b"],
            ),
            (
                keyed(&["a"]),
                wanted(&[("a", true), ("d", false)], None),
                "1",
                Some("1"),
                vec!["column d takes its default"],
            ),
            (
                keyed(&["a"]),
                wanted(&[("a", true), ("d", true)], None),
                "1",
                None,
                vec!["column d needs a value"],
            ),
            (keyed(&["a"]), Wanted::default(), "1", None, vec!["no such table"]),
            (
                rowid.clone(),
                wanted(&[("a", true), ("b", false)], Some("rowid")),
                "i7\ti1\ti2",
                Some("i7\ti1\ti2"),
                vec![],
            ),
            (rowid, wanted(&[("a", true), ("b", false)], None), "i7\ti1\ti2", Some("i1\ti2"), vec![]),
        ] {
            let (fit, found) = fit("mariadb", &source, &wanted);
            let got = fit.map(|fit| fit.project(row.as_bytes()));
            assert_eq!(got.as_deref(), projected.map(str::as_bytes), "{row}");
            assert_eq!(found.len(), findings.len(), "{found:?}");
            for (found, expected) in found.iter().zip(findings) {
                assert!(found.what.contains(expected), "{expected}: {found:?}");
            }
        }
    }

    #[test]
    fn only_postgres_tells_cases_apart() {
        let keyed = source(&["a"], TableKey::Columns(vec![0]));
        let upper = wanted(&[("A", true)], None);
        assert!(fit("mariadb", &keyed, &upper).0.is_some_and(|fit| fit.key.is_some()));
        assert!(fit("postgres", &keyed, &upper).0.is_none());
    }
}
