//! The key of a row, and how people read it.

use std::borrow::Cow;

use bytes::Bytes;

use super::text::{NULL, unescape, values};
use super::{Key, TableKey, TableSpec};

/// Characters of a key that are shown.
const SHOWN: usize = 200;

impl TableSpec {
    /// The key of a row of a block; none where the table has no key, or this is no row of it.
    pub fn key_of(&self, row: &[u8]) -> Option<Key> {
        let key = match &self.key {
            TableKey::Hidden(_) => values(row).next()?.to_vec(),
            TableKey::Columns(columns) => {
                let row: Vec<&[u8]> = values(row).collect();
                let parts: Option<Vec<&[u8]>> =
                    columns.iter().map(|column| row.get(*column as usize).copied()).collect();
                parts?.join(&b'\t')
            }
            TableKey::Position => return None,
        };
        Some(Key(Bytes::from(key)))
    }

    /// A key with its columns' names, as people read it. `engine` is the schema's.
    pub fn show_key(&self, key: &Key, engine: &str) -> String {
        let names: Vec<&str> = match &self.key {
            TableKey::Hidden(name) => vec![name],
            TableKey::Columns(columns) => {
                let column = |n: &u32| self.columns.get(*n as usize).map_or("?", |c| c.name.as_str());
                columns.iter().map(column).collect()
            }
            TableKey::Position => vec!["row"],
        };
        let parts = names.iter().zip(values(&key.0));
        let shown: Vec<String> =
            parts.map(|(name, value)| format!("{name} {}", show(value, engine))).collect();
        let shown = shown.join(", ");
        match shown.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &shown[..end]),
            None => shown,
        }
    }
}

fn show(value: &[u8], engine: &str) -> String {
    if value == NULL {
        return "NULL".to_owned();
    }
    let plain = unescape(value).unwrap_or(Cow::Borrowed(value));
    // SQLite's values begin with their storage class.
    let plain = match (engine, plain.split_first()) {
        ("sqlite", Some((b'i' | b't', rest))) => rest,
        _ => &plain,
    };
    match std::str::from_utf8(plain) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => plain.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ColumnSpec, TableName};

    fn table(key: TableKey) -> TableSpec {
        let column = |name: &str| ColumnSpec { name: name.to_owned(), declared: String::new() };
        TableSpec {
            name: TableName::plain("t"),
            columns: vec![column("a"), column("b"), column("c")],
            key,
            estimated_rows: 0,
            estimated_bytes: 0,
            cuts: Vec::new(),
            followed: true,
        }
    }

    #[test]
    fn a_row_has_the_key_of_its_columns() {
        let row = b"1\tx\\ty\t3";
        let key = |key: TableKey| table(key).key_of(row).map(|key| key.0.to_vec());
        assert_eq!(key(TableKey::Columns(vec![2, 1])), Some(b"3\tx\\ty".to_vec()));
        assert_eq!(key(TableKey::Hidden("rowid".to_owned())), Some(b"1".to_vec()));
        assert_eq!(key(TableKey::Columns(vec![5])), None);
        assert_eq!(key(TableKey::Position), None);
    }

    #[test]
    fn keys_are_shown_with_their_columns() {
        let both = table(TableKey::Columns(vec![1, 2]));
        let one = table(TableKey::Hidden("rowid".to_owned()));
        let key = |text: &'static [u8]| Key(Bytes::from_static(text));
        for (spec, text, engine, expected) in [
            (&both, &b"x\\ty\t42"[..], "mariadb", "b x\\ty, c 42"),
            (&both, b"M\xc3\xbcller\t\\N", "postgres", "b Müller, c NULL"),
            (&both, b"\xff\t1", "mariadb", "b \\xff, c 1"),
            (&one, b"i-7", "sqlite", "rowid -7"),
            (&both, b"tann\tr3ff0000000000000", "sqlite", "b ann, c r3ff0000000000000"),
        ] {
            assert_eq!(spec.show_key(&key(text), engine), expected);
        }
        let long = Key(Bytes::from(vec![b'x'; 1000]));
        assert_eq!(one.show_key(&long, "mariadb").chars().count(), SHOWN + 1);
    }
}
