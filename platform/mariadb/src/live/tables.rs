//! The tables whose row events are read, and what is wanted of their rows.

use std::collections::HashMap;

use handover_engine::change::Change;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, TableKey, TableName, TableSpec, text};

use super::event::{Action, Rows, TableMap};
use super::part::{Lookup, Part};
use super::value::{Column, extent};
use crate::catalog::{Catalog, Reference, references};
use crate::session::Session;
use crate::sql;

/// Tables of a database.
pub struct Tables(HashMap<String, Table>);

/// A table whose row events are read.
pub struct Table {
    name: TableName,
    /// Columns in all, so that a change of the table is noticed.
    width: usize,
    /// What is read of a row: first the columns of the key.
    wanted: Vec<Column>,
    /// How many of them are the key; none of a table that is read for its children alone.
    key: usize,
    children: Vec<Children>,
}

/// A table with a foreign key to this one that acts.
struct Children {
    table: TableName,
    /// Its columns, as places in its specification.
    columns: Vec<u32>,
    /// The referenced ones, as places in `wanted`.
    referenced: Vec<usize>,
    on_delete: bool,
    on_update: bool,
    /// The action gives its rows other keys.
    rekeys: bool,
}

/// A value of a row event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen<'a> {
    Absent,
    Null,
    Value(&'a [u8]),
}

const WHAT: &str = "the columns cannot be listed";

impl Tables {
    /// Of what a catalog knows. The session must be in the database.
    pub async fn read(session: &mut Session, database: &str, catalog: &Catalog) -> Result<Self> {
        let query = format!(
            "SELECT table_name, column_name, column_type FROM information_schema.columns WHERE table_schema = {} \
             ORDER BY table_name, ordinal_position",
            sql::text(database)
        );
        let mut columns: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for row in session.records(WHAT, &query).await? {
            columns.entry(row.text(0)).or_default().push((row.text(1), row.text(2)));
        }
        let mut out = HashMap::new();
        for (name, columns) in columns {
            if let Some(table) = Table::new(&name, &columns, catalog) {
                out.insert(name, table);
            }
        }
        Ok(Self(out))
    }

    /// The table of this name, if its row events are read.
    pub fn get(&self, name: &str) -> Option<&Table> {
        self.0.get(name)
    }
}

impl Table {
    fn new(name: &str, columns: &[(String, String)], catalog: &Catalog) -> Option<Self> {
        let place = |name: &str| columns.iter().position(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut wanted = Vec::new();
        let spec = catalog.schema.table(&TableName::plain(name)).filter(|spec| spec.followed);
        if let Some((TableSpec { columns: own, .. }, TableKey::Columns(key))) = spec.map(|s| (s, &s.key)) {
            for at in key {
                wanted.push(place(&own.get(*at as usize)?.name)?);
            }
        }
        let (key, mut children) = (wanted.len(), Vec::new());
        for reference in catalog.references.iter().filter(|reference| reference.parent.1 == name) {
            let Some(child) = catalog.schema.table(&TableName::plain(&reference.child)) else { continue };
            if child.followed {
                children.push(Children::new(reference, child, &mut wanted, place)?);
            }
        }
        if wanted.is_empty() {
            return None;
        }
        let wanted = wanted.into_iter().map(|at| Column::new(at, &columns[at].1)).collect();
        Some(Self { name: TableName::plain(name), width: columns.len(), wanted, key, children })
    }

    /// Its changes are told by key.
    pub fn is_followed(&self) -> bool {
        self.key > 0
    }

    fn altered(&self) -> Failure {
        Failure::operator(
            format!("table {}", self.name),
            "the log holds rows of it in another form: its definition was changed",
        )
        .begin_anew("abort this migration and start again: a new copy has the new definition")
    }

    /// Adds what an event tells.
    pub fn tell(&self, map: &TableMap, rows: &Rows<'_>, part: &mut Part) -> Result<()> {
        // Hidden columns of the server's own stand behind the others.
        if map.columns.len() < self.width {
            return Err(self.altered());
        }
        let mut slots = vec![None; map.columns.len()];
        for (n, column) in self.wanted.iter().enumerate() {
            slots[column.at] = slots[column.at].or(Some(n));
        }
        let mut data: &[u8] = &rows.data;
        while !data.is_empty() {
            let mut image =
                |present: &[u8]| self.image(map, &slots, present, &mut data).ok_or_else(|| self.altered());
            let first = image(rows.present[0])?;
            let second = if rows.action == Action::Update { Some(image(rows.present[1])?) } else { None };
            self.row(map, rows, &first, second.as_deref(), part).ok_or_else(|| self.altered())?;
        }
        Ok(())
    }

    /// The wanted values of one image of a row, which it is read to the end of.
    fn image<'a>(
        &self,
        map: &TableMap,
        slots: &[Option<usize>],
        present: &[u8],
        data: &mut &'a [u8],
    ) -> Option<Vec<Seen<'a>>> {
        let is_set = |bits: &[u8], at: usize| bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        let here: usize = (0..map.columns.len()).filter(|at| is_set(present, *at)).count();
        let (nulls, mut rest) = data.split_at_checked(here.div_ceil(8))?;
        let (mut out, mut nth) = (vec![Seen::Absent; self.wanted.len()], 0);
        for (at, column) in map.columns.iter().enumerate() {
            if !is_set(present, at) {
                continue;
            }
            let value = if is_set(nulls, nth) {
                Seen::Null
            } else {
                let (from, to) = extent(*column, rest)?;
                let (value, behind) = rest.split_at_checked(to)?;
                rest = behind;
                Seen::Value(&value[from..])
            };
            nth += 1;
            if slots[at].is_some() {
                // A column may be wanted twice.
                for (n, _) in self.wanted.iter().enumerate().filter(|(_, wanted)| wanted.at == at) {
                    out[n] = value;
                }
            }
        }
        *data = rest;
        Some(out)
    }

    fn row(
        &self,
        map: &TableMap,
        rows: &Rows<'_>,
        first: &[Seen<'_>],
        second: Option<&[Seen<'_>]>,
        part: &mut Part,
    ) -> Option<()> {
        // What an image of fewer columns leaves out has not changed.
        let after: Option<Vec<Seen<'_>>> = second.map(|second| {
            second
                .iter()
                .zip(first)
                .map(|(new, old)| if *new == Seen::Absent { *old } else { *new })
                .collect()
        });
        for children in self.children.iter().filter(|_| !rows.unchecked) {
            self.children(map, rows.action, children, first, after.as_deref(), part)?;
        }
        if self.key == 0 {
            return Some(());
        }
        let key: Vec<usize> = (0..self.key).collect();
        let before = self.values(map, &key, first)??;
        let after = match &after {
            Some(after) => Some(self.values(map, &key, after)??),
            None => None,
        };
        let table = part.table(&self.name);
        if let Some(after) = after.filter(|after| *after != before) {
            part.push(Change::Row { table, key: after });
        }
        part.push(Change::Row { table, key: before });
        Some(())
    }

    fn children(
        &self,
        map: &TableMap,
        action: Action,
        children: &Children,
        before: &[Seen<'_>],
        after: Option<&[Seen<'_>]>,
        part: &mut Part,
    ) -> Option<()> {
        let changes = |at: &usize| after.is_some_and(|after| after[*at] != before[*at]);
        let acts = match action {
            Action::Insert => false,
            Action::Delete => children.on_delete,
            Action::Update => children.on_update && children.referenced.iter().any(changes),
        };
        if !acts {
            return Some(());
        }
        let columns = children.columns.clone();
        if let Some(values) = self.values(map, &children.referenced, before)? {
            let table = part.table(&children.table);
            part.push(Change::Children { table, columns: columns.clone(), values });
        }
        if let Some(after) = after.filter(|_| children.rekeys)
            && let Some(values) = self.values(map, &children.referenced, after)?
        {
            part.look_up(Lookup { table: children.table.clone(), columns, values });
        }
        Some(())
    }

    /// Values as a row of a block writes them; none where one is NULL, which references nothing.
    fn values(&self, map: &TableMap, wanted: &[usize], seen: &[Seen<'_>]) -> Option<Option<Key>> {
        let mut out = Vec::new();
        for (n, at) in wanted.iter().enumerate() {
            if n > 0 {
                out.push(b'\t');
            }
            let column = &self.wanted[*at];
            match seen[*at] {
                Seen::Absent => return None,
                Seen::Null => return Some(None),
                Seen::Value(raw) => text::escape_into(&mut out, &column.print(map.columns[column.at], raw)?),
            }
        }
        Some(Some(Key(out.into())))
    }
}

impl Children {
    /// Appends the referenced columns to those that are wanted.
    fn new(
        reference: &Reference,
        child: &TableSpec,
        wanted: &mut Vec<usize>,
        place: impl Fn(&str) -> Option<usize>,
    ) -> Option<Self> {
        let (mut columns, mut referenced) = (Vec::new(), Vec::new());
        for (column, parent) in reference.columns.iter().zip(&reference.parent_columns) {
            let at = child.columns.iter().position(|own| own.name.eq_ignore_ascii_case(column))?;
            columns.push(u32::try_from(at).ok()?);
            referenced.push(wanted.len());
            wanted.push(place(parent)?);
        }
        Some(Self {
            table: child.name.clone(),
            columns,
            referenced,
            on_delete: reference.on_delete.is_some(),
            on_update: reference.on_update.is_some(),
            rekeys: references::is_in_key(child, &reference.columns),
        })
    }
}
