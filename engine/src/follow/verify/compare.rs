//! Which rows of two blocks differ.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::rows::text::{BadText, rows};
use crate::rows::{Key, TableSpec};

/// The keys of the rows that only one of two blocks of a table has. Rows that are in both need no key: they are told by their
/// bytes, in little memory.
pub fn differing(table: &TableSpec, there: &[u8], here: &[u8]) -> Result<HashSet<Key>, BadText> {
    let (there, here) = (sorted(there)?, sorted(here)?);
    let (mut a, mut b) = (there.iter().peekable(), here.iter().peekable());
    let mut keys = HashSet::new();
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return Ok(keys),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(there), Some(here)) => there.cmp(here),
        };
        let only = match order {
            Ordering::Equal => {
                let _ = (a.next(), b.next());
                continue;
            }
            Ordering::Less => a.next(),
            Ordering::Greater => b.next(),
        };
        keys.extend(only.and_then(|row| table.key_of(row)));
    }
}

fn sorted(block: &[u8]) -> Result<Vec<&[u8]>, BadText> {
    let mut rows: Vec<&[u8]> = rows(block)?.collect();
    rows.sort_unstable();
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ColumnSpec, TableKey, TableName};

    #[test]
    fn rows_of_one_side_are_told_by_their_keys() {
        let column = |name: &str| ColumnSpec { name: name.to_owned(), declared: String::new() };
        let table = TableSpec {
            name: TableName::plain("t"),
            columns: vec![column("id"), column("v")],
            key: TableKey::Columns(vec![0]),
            estimated_rows: 0,
            estimated_bytes: 0,
            cuts: Vec::new(),
            followed: true,
        };
        let keys = |there: &[u8], here: &[u8]| {
            let mut keys: Vec<String> = differing(&table, there, here)
                .unwrap()
                .into_iter()
                .map(|key| String::from_utf8_lossy(&key.0).into_owned())
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(b"1\ta\n2\tb\n3\tc\n", b"1\ta\n2\tb\n3\tc\n"), Vec::<String>::new());
        assert_eq!(keys(b"1\ta\n2\tb\n3\tc\n", b"1\ta\n2\tx\n4\td\n"), ["2", "3", "4"]);
        assert_eq!(keys(b"", b"9\tz\n"), ["9"]);
        assert!(differing(&table, b"1\ta", b"").is_err());
    }
}
