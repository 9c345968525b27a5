//! Reading chunks of a table.

use bytes::Bytes;
use handover_engine::digest::Digest;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, Schema, TableName};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::error::Result;
use super::shape::{Shape, position, position_key};
use super::value::print;

/// Reads the next chunk of a range.
pub fn chunk(
    db: &Connection,
    schema: &Schema,
    table: &TableName,
    range: &KeyRange,
    budget: u64,
) -> Result<RowsChunk> {
    let shape = Shape::of(db, schema, table)?;
    if shape.by_position() && shape.positions().is_none() {
        return by_position(db, &shape, range, budget);
    }
    let confined = shape.confine(range)?;
    let mut statement = db.prepare_cached(&shape.select(&confined.sql))?;
    for (n, value) in confined.values.iter().enumerate() {
        shape.bind(&mut statement, n, value)?;
    }
    let read = Block::new(&shape).fill(statement.raw_query(), budget)?;
    let until = if !read.more {
        range.until.clone()
    } else if shape.by_position() {
        Some(position_key(position(range.after.as_ref())? + read.rows))
    } else {
        Some(read.last_key())
    };
    Ok(read.chunk(table, range, until))
}

/// Reads the rows of keys; the chunk's range ends at the last key that was looked up.
pub fn keyed(
    db: &Connection,
    schema: &Schema,
    table: &TableName,
    keys: &[Key],
    budget: u64,
) -> Result<RowsChunk> {
    let shape = Shape::of(db, schema, table)?;
    let mut statement = db.prepare_cached(&shape.select(&shape.confine_to_key()))?;
    let (mut block, mut until) = (Block::new(&shape), None);
    for key in keys {
        for (n, value) in shape.parse_key(key)?.iter().enumerate() {
            shape.bind(&mut statement, n, value)?;
        }
        block = block.fill(statement.raw_query(), u64::MAX)?;
        until = Some(key.clone());
        if block.bytes.len() as u64 >= budget {
            break;
        }
    }
    Ok(block.chunk(table, &KeyRange::default(), until))
}

/// A row's values from a statement made with [`value`](super::shape::value), as a row of a block.
pub fn print_row(row: &Row<'_>, first: usize, width: usize, utf16: bool) -> Result<Bytes> {
    let mut out = Vec::new();
    for n in 0..width {
        if n > 0 {
            out.push(b'\t');
        }
        print_value(&mut out, row, first, n, utf16)?;
    }
    Ok(out.into())
}

fn print_value(out: &mut Vec<u8>, row: &Row<'_>, first: usize, n: usize, utf16: bool) -> Result<()> {
    if utf16 {
        let is_text = row.get_ref(first + 2 * n + 1)? == ValueRef::Integer(1);
        print(out, row.get_ref(first + 2 * n)?, is_text);
    } else {
        print(out, row.get_ref(first + n)?, false);
    }
    Ok(())
}

/// Reads rows by counting them, in the order in which they are stored.
fn by_position(db: &Connection, shape: &Shape<'_>, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
    let skipped = position(range.after.as_ref())?;
    let limit = match &range.until {
        Some(until) => position(Some(until))?.saturating_sub(skipped).to_string(),
        None => "-1".to_owned(),
    };
    let mut statement = db.prepare(&shape.select(&format!(" LIMIT {limit} OFFSET {skipped}")))?;
    let read = Block::new(shape).fill(statement.raw_query(), budget)?;
    let until = if read.more { Some(position_key(skipped + read.rows)) } else { range.until.clone() };
    Ok(read.chunk(&shape.table.name, range, until))
}

/// A block in the making.
struct Block {
    bytes: Vec<u8>,
    rows: u64,
    /// There are more rows in the range than the budget allowed.
    more: bool,
    /// Values in a row.
    width: usize,
    utf16: bool,
    key: Vec<usize>,
    /// Where the last row's values begin and end.
    last: Vec<(usize, usize)>,
}

impl Block {
    fn new(shape: &Shape<'_>) -> Self {
        let width = shape.columns().len();
        let (utf16, key) = (shape.utf16, shape.key_values());
        Self { bytes: Vec::new(), rows: 0, more: false, width, utf16, key, last: vec![(0, 0); width] }
    }

    fn fill(mut self, mut rows: rusqlite::Rows<'_>, budget: u64) -> Result<Self> {
        while let Some(row) = rows.next()? {
            if self.rows > 0 && self.bytes.len() as u64 >= budget {
                self.more = true;
                break;
            }
            self.add(row)?;
        }
        Ok(self)
    }

    fn add(&mut self, row: &Row<'_>) -> Result<()> {
        for n in 0..self.width {
            if n > 0 {
                self.bytes.push(b'\t');
            }
            let start = self.bytes.len();
            print_value(&mut self.bytes, row, 0, n, self.utf16)?;
            self.last[n] = (start, self.bytes.len());
        }
        self.bytes.push(b'\n');
        self.rows += 1;
        Ok(())
    }

    fn last_key(&self) -> Key {
        let parts: Vec<&[u8]> =
            self.key.iter().map(|n| &self.bytes[self.last[*n].0..self.last[*n].1]).collect();
        Key(Bytes::from(parts.join(&b'\t')))
    }

    fn chunk(self, table: &TableName, range: &KeyRange, until: Option<Key>) -> RowsChunk {
        let header = RowsHeader {
            table: table.clone(),
            range: KeyRange { after: range.after.clone(), until },
            rows: self.rows,
            bytes: self.bytes.len() as u64,
            digest: Digest::of(&self.bytes),
            unchanged: false,
        };
        RowsChunk { header, block: self.bytes.into() }
    }
}
