//! The contents of a record: a line of JSON that says what it is, and a line for each change.
//!
//! `R<tab>table<tab>key`, `C<tab>table`, `X<tab>table<tab>column,column<tab>values`; tables are places in the head's list.

use std::io::Write;

use bytes::Bytes;
use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::ports::Window;
use handover_engine::rows::{Key, TableName};
use handover_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What a record is.
#[derive(Serialize, Deserialize)]
pub struct Head {
    pub until: LogPosition,
    pub at: Timestamp,
    pub changes: u64,
    tables: Vec<TableName>,
}

/// A part of a log as a record's contents.
pub fn print(part: &Changes) -> Vec<u8> {
    let head = Head {
        until: part.until.clone(),
        at: part.at,
        changes: part.changes.len() as u64,
        tables: part.tables.clone(),
    };
    // Plain data always serializes, and a vector always takes what is written.
    let mut out = serde_json::to_vec(&head).unwrap_or_default();
    out.push(b'\n');
    for change in &part.changes {
        let _ = match change {
            Change::Row { table, key } => write!(out, "R\t{table}\t").and_then(|()| out.write_all(&key.0)),
            Change::Cleared { table } => write!(out, "C\t{table}"),
            Change::Children { table, columns, values } => {
                let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
                write!(out, "X\t{table}\t{}\t", columns.join(",")).and_then(|()| out.write_all(&values.0))
            }
        };
        out.push(b'\n');
    }
    out
}

fn split(contents: &[u8]) -> Option<(Head, &[u8])> {
    let end = contents.iter().position(|byte| *byte == b'\n')?;
    Some((serde_json::from_slice(&contents[..end]).ok()?, &contents[end + 1..]))
}

/// What a record is; none when it is malformed.
pub fn parse_head(contents: &[u8]) -> Option<Head> {
    split(contents).map(|(head, _)| head)
}

/// Adds a record's changes to a window; none when it is malformed.
pub fn add(contents: &[u8], window: &mut Window) -> Option<()> {
    let (head, rest) = split(contents)?;
    let mut places = Vec::with_capacity(head.tables.len());
    for table in head.tables {
        let at = window.tables.iter().position(|known| *known == table).unwrap_or_else(|| {
            window.tables.push(table);
            window.tables.len() - 1
        });
        places.push(u32::try_from(at).ok()?);
    }
    let lines = rest.strip_suffix(b"\n").unwrap_or(rest);
    if lines.is_empty() {
        return (head.changes == 0).then_some(());
    }
    let before = window.changes.len();
    for line in lines.split(|byte| *byte == b'\n') {
        window.changes.push(change(line, &places)?);
    }
    (window.changes.len() - before == usize::try_from(head.changes).ok()?).then_some(())
}

fn change(line: &[u8], places: &[u32]) -> Option<Change> {
    let mut parts = line.splitn(3, |byte| *byte == b'\t');
    let kind = parts.next()?;
    let table = *places.get(number(parts.next()?)?)?;
    let bytes = |bytes: &[u8]| Key(Bytes::copy_from_slice(bytes));
    match kind {
        b"R" => Some(Change::Row { table, key: bytes(parts.next()?) }),
        b"C" => Some(Change::Cleared { table }),
        b"X" => {
            let rest = parts.next()?;
            let tab = rest.iter().position(|byte| *byte == b'\t')?;
            let columns =
                rest[..tab].split(|byte| *byte == b',').map(|text| u32::try_from(number(text)?).ok());
            Some(Change::Children {
                table,
                columns: columns.collect::<Option<_>>()?,
                values: bytes(&rest[tab + 1..]),
            })
        }
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
