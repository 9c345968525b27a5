//! A database in use, at either host: its rows, its log, and who keeps its users away.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::failure::Failure;
use handover_engine::name::CaptureId;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, Schema, TableName};

use crate::model::{self, Rows, Table};

/// In the schema's state: the next number that is given to a row.
const NEXT: &str = "next";
/// What stands for a table that was emptied, among the keys of a log.
pub type Logged = (TableName, Option<i64>);

/// The table whose changes are told of.
pub fn orders() -> TableName {
    TableName::plain("orders")
}

/// One whose changes are not: it is copied as a whole, behind the fence.
pub fn notes() -> TableName {
    TableName::plain("notes")
}

/// A database that users may write to.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    pub rows: Rows,
    /// The number of the next row.
    pub next: i64,
    pub log: Vec<Logged>,
    /// For whom changes are kept, and from where on.
    pub captures: BTreeMap<CaptureId, u64>,
    /// Who keeps users from writing.
    pub fences: BTreeSet<CaptureId>,
    /// Triggers are put away.
    pub disarmed: bool,
}

impl Base {
    /// One without rows.
    pub fn empty() -> Self {
        Self {
            rows: [orders(), notes()].map(|table| (table, Table::new())).into(),
            next: 1,
            log: Vec::new(),
            captures: BTreeMap::new(),
            fences: BTreeSet::new(),
            disarmed: false,
        }
    }

    pub fn is_writable(&self) -> bool {
        self.fences.is_empty()
    }

    /// A user's change of a row, or of all of them.
    pub fn write(&mut self, table: &TableName, key: Option<i64>, value: Option<String>) {
        let rows = self.rows.get_mut(table).expect("a table");
        match (key, value) {
            (Some(key), Some(value)) => drop(rows.insert(key, value)),
            (Some(key), None) => drop(rows.remove(&key)),
            (None, _) => rows.clear(),
        }
        if *table == orders() && !self.captures.is_empty() {
            self.log.push((table.clone(), key));
        }
    }

    /// The schema, with how far its numbers are.
    pub fn schema(&self) -> Schema {
        let mut schema = model::schema(&self.rows, 1);
        for table in &mut schema.tables {
            table.followed = table.name == orders();
            table.cuts.clear();
        }
        schema.state.insert(NEXT.to_owned(), self.next.to_string());
        schema
    }

    /// Numbers go on where they stood in this schema.
    pub fn set_positions(&mut self, schema: &Schema) {
        self.next = schema.state[NEXT].parse().expect("a number");
    }

    /// What was logged after a position.
    pub fn logged(&self, capture: &CaptureId, after: u64) -> Result<&[Logged]> {
        let kept = self.captures.get(capture).ok_or_else(|| Failure::operator("log", "nothing is kept"))?;
        if after < *kept {
            return Err(Failure::operator("log", "it does not reach back so far"));
        }
        Ok(&self.log[usize::try_from(after).expect("a short log")..])
    }

    /// Where the log ends.
    pub fn end(&self) -> u64 {
        self.log.len() as u64
    }

    /// Puts rows in place of those of some keys.
    pub fn put(&mut self, table: &TableName, keys: &[Key], block: &[u8]) {
        let rows = self.rows.get_mut(table).expect("a table");
        keys.iter().for_each(|key| drop(rows.remove(&number(key))));
        rows.extend(model::parse(block));
    }

    /// The fence of somebody goes, and what was put away behind it comes back.
    pub fn unfence(&mut self, capture: &CaptureId) {
        self.fences.remove(capture);
        self.disarmed = false;
    }
}

/// A key as a number.
pub fn number(key: &Key) -> i64 {
    std::str::from_utf8(&key.0).ok().and_then(|text| text.parse().ok()).expect("keys are decimal digits")
}

/// A number as a key.
pub fn key(number: i64) -> Key {
    Key(number.to_string().into())
}
