//! Foreign keys: which rows change along with others, by actions that the log does not tell of.

use std::collections::BTreeSet;

use handover_engine::ports::Result;
use handover_engine::rows::{TableKey, TableSpec};

use super::WHAT;
use crate::session::Session;
use crate::sql;

/// A foreign key with an action: CASCADE, SET NULL or SET DEFAULT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The referencing table.
    pub child: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The referenced table and its database.
    pub parent: (String, String),
    /// Its columns.
    pub parent_columns: Vec<String>,
    /// Acts when a referenced row is deleted; with CASCADE, deletes.
    pub on_delete: Option<Action>,
    /// Acts when the referenced columns change.
    pub on_update: Option<Action>,
}

/// What happens to the referencing rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// As to the referenced row.
    Cascade,
    /// Their columns become NULL, or what is their default.
    Set,
}

fn action(rule: &str) -> Option<Action> {
    match rule {
        "CASCADE" => Some(Action::Cascade),
        "SET NULL" | "SET DEFAULT" => Some(Action::Set),
        _ => None,
    }
}

/// The foreign keys of a database that act.
pub async fn read(session: &mut Session, database: &str) -> Result<Vec<Reference>> {
    let here = sql::text(database);
    let query = format!(
        "SELECT k.table_name, k.constraint_name, k.column_name, k.referenced_table_schema, k.referenced_table_name, \
         k.referenced_column_name, r.delete_rule, r.update_rule \
         FROM information_schema.key_column_usage k JOIN information_schema.referential_constraints r \
         ON r.constraint_schema = k.constraint_schema AND r.table_name = k.table_name AND r.constraint_name = k.constraint_name \
         WHERE k.table_schema = {here} AND k.constraint_schema = {here} AND r.constraint_schema = {here} \
         AND k.referenced_table_name IS NOT NULL ORDER BY k.table_name, k.constraint_name, k.ordinal_position"
    );
    let mut out: Vec<(String, Reference)> = Vec::new();
    for row in session.records(WHAT, &query).await? {
        let (child, name) = (row.text(0), row.text(1));
        if out.last().is_none_or(|(last, reference)| *last != name || reference.child != child) {
            let reference = Reference {
                child,
                columns: Vec::new(),
                parent: (row.text(3), row.text(4)),
                parent_columns: Vec::new(),
                on_delete: action(&row.text(6)),
                on_update: action(&row.text(7)),
            };
            out.push((name, reference));
        }
        if let Some((_, reference)) = out.last_mut() {
            reference.columns.push(row.text(2));
            reference.parent_columns.push(row.text(5));
        }
    }
    let acts = |reference: &Reference| reference.on_delete.is_some() || reference.on_update.is_some();
    Ok(out.into_iter().map(|(_, reference)| reference).filter(acts).collect())
}

impl Reference {
    /// What an action of `other` does to its rows may be a reason for this one to act in turn.
    fn follows(&self, other: &Self) -> bool {
        let touches = |name: &String| other.columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        other.child == self.parent.1
            && (self.on_delete.is_some() && other.on_delete == Some(Action::Cascade)
                || self.on_update.is_some() && self.parent_columns.iter().any(touches))
    }
}

/// Tables whose rows may change unseen: along with rows that changed along with others themselves, with rows of another database, or
/// by columns that do not travel.
pub fn unseen(database: &str, references: &[Reference], tables: &[TableSpec]) -> BTreeSet<String> {
    let travels = |table: &str, column: &String| {
        let spec = tables.iter().find(|spec| spec.name.name == table);
        spec.is_some_and(|spec| spec.columns.iter().any(|own| own.name.eq_ignore_ascii_case(column)))
    };
    let is_unseen = |reference: &&Reference| {
        reference.parent.0 != database
            || references.iter().any(|other| reference.follows(other))
            || !reference.columns.iter().all(|column| travels(&reference.child, column))
    };
    references.iter().filter(is_unseen).map(|reference| reference.child.clone()).collect()
}

/// Whether an action may give rows of the table another key.
pub fn is_in_key(spec: &TableSpec, columns: &[String]) -> bool {
    let TableKey::Columns(key) = &spec.key else { return false };
    key.iter()
        .filter_map(|at| spec.columns.get(*at as usize))
        .any(|own| columns.iter().any(|column| column.eq_ignore_ascii_case(&own.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::rows::{ColumnSpec, TableName};

    fn table(name: &str) -> TableSpec {
        let columns =
            ["id", "p"].map(|name| ColumnSpec { name: name.to_owned(), declared: "int(11)".to_owned() });
        TableSpec {
            name: TableName::plain(name),
            columns: columns.into(),
            key: TableKey::Columns(vec![0]),
            estimated_rows: 0,
            estimated_bytes: 0,
            cuts: Vec::new(),
            followed: false,
        }
    }

    fn reference(child: &str, column: &str, parent: &str, on_delete: Action) -> Reference {
        Reference {
            child: child.to_owned(),
            columns: vec![column.to_owned()],
            parent: ("d".to_owned(), parent.to_owned()),
            parent_columns: vec!["id".to_owned()],
            on_delete: Some(on_delete),
            on_update: None,
        }
    }

    #[test]
    fn changes_behind_changes_are_unseen() {
        let tables = ["a", "b", "c"].map(table);
        let check = |references: &[Reference], expected: &[&str]| {
            let unseen = unseen("d", references, &tables);
            assert!(unseen.iter().eq(expected), "{unseen:?}");
        };
        let (b, c) = (reference("b", "p", "a", Action::Cascade), reference("c", "p", "b", Action::Set));
        check(&[b.clone(), c.clone()], &["c"]);
        check(&[Reference { on_delete: Some(Action::Set), ..b.clone() }, c], &[]);
        check(&[reference("a", "p", "a", Action::Cascade)], &["a"]);
        check(&[Reference { parent: ("e".to_owned(), "a".to_owned()), ..b }], &["b"]);
        check(&[reference("b", "generated", "a", Action::Cascade)], &["b"]);
    }
}
