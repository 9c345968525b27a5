//! One part of a change log, as it is put together.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use handover_engine::change::Change;
use handover_engine::rows::{Key, TableName, text};

use super::known::Followed;
use super::pgoutput::Value;

/// Changes in a part.
const CHANGES: usize = 20_000;
/// Bytes of keys in a part.
const BYTES: usize = 8 << 20;

/// A part of the log.
#[derive(Default)]
pub struct Part {
    tables: Vec<TableName>,
    places: HashMap<u32, u32>,
    /// The keys, one after the other.
    text: Vec<u8>,
    told: Vec<Told>,
    /// The transactions that it tells of, by their numbers without the epoch.
    pub xids: Vec<u32>,
    /// When the last transaction was committed, in microseconds since 2000.
    pub at: Option<i64>,
}

enum Told {
    Row(u32, Range<usize>),
    Cleared(u32),
}

/// A row of the log lacks a value of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the change log tells of a row without its key")]
pub struct NoKey;

impl Part {
    /// Nothing is told yet.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// It has grown large enough.
    pub fn is_full(&self) -> bool {
        self.told.len() >= CHANGES || self.text.len() >= BYTES
    }

    /// Notes whose changes follow.
    pub fn of_transaction(&mut self, xid: u32) {
        if self.xids.last() != Some(&xid) {
            self.xids.push(xid);
        }
    }

    fn place(&mut self, number: u32, table: &Followed) -> u32 {
        *self.places.entry(number).or_insert_with(|| {
            self.tables.push(table.name.clone());
            u32::try_from(self.tables.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Tells of a row by its values, those of the key; where one is not told since it did not change, by `old`'s.
    pub fn add_row(
        &mut self,
        number: u32,
        table: &Followed,
        new: &[Value<'_>],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), NoKey> {
        let place = self.place(number, table);
        let start = self.text.len();
        for (at, column) in table.key.iter().enumerate() {
            if at > 0 {
                self.text.push(b'\t');
            }
            let value = match new.get(*column) {
                Some(Value::Unchanged) => old.and_then(|old| old.get(*column)),
                value => value,
            };
            let Some(Value::Text(value)) = value else { return Err(NoKey) };
            text::escape_into(&mut self.text, value);
        }
        // The old and the new key of a row are mostly the same.
        if let Some(Told::Row(last, range)) = self.told.last()
            && *last == place
            && self.text[range.clone()] == self.text[start..]
        {
            self.text.truncate(start);
            return Ok(());
        }
        self.told.push(Told::Row(place, start..self.text.len()));
        Ok(())
    }

    /// Tells that a table was emptied.
    pub fn add_cleared(&mut self, number: u32, table: &Followed) {
        let place = self.place(number, table);
        self.told.push(Told::Cleared(place));
    }

    /// The tables, and what was told of them.
    pub fn into_changes(self) -> (Vec<TableName>, Vec<Change>) {
        let text = Bytes::from(self.text);
        let change = |told| match told {
            Told::Row(table, range) => Change::Row { table, key: Key(text.slice(range)) },
            Told::Cleared(table) => Change::Cleared { table },
        };
        (self.tables, self.told.into_iter().map(change).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_chunks_write_them() {
        let column = |name: &str| (name.as_bytes().to_vec(), 25, -1);
        let table = Followed {
            name: TableName::plain("t"),
            columns: vec![column("b"), column("v"), column("a")],
            key: vec![2, 0],
            published: Vec::new(),
        };
        let mut part = Part::default();
        let row = [Value::Text(b"x\ty\\"), Value::Null, Value::Text(b"1")];
        part.add_row(7, &table, &row, None).unwrap();
        part.add_row(7, &table, &[Value::Unchanged, Value::Null, Value::Text(b"1")], Some(&row)).unwrap();
        part.add_cleared(7, &table);
        part.add_row(7, &table, &row, None).unwrap();
        assert_eq!(part.add_row(7, &table, &[Value::Unchanged, Value::Null, Value::Null], None), Err(NoKey));
        let (tables, changes) = part.into_changes();
        let key = Key(Bytes::from_static(b"1\tx\\ty\\\\"));
        let row = Change::Row { table: 0, key };
        assert_eq!(tables, [TableName::plain("t")]);
        assert_eq!(changes, [row.clone(), Change::Cleared { table: 0 }, row]);
    }
}
