//! The text form of a value inside a block: escaping, and splitting a block into rows and values.

use std::borrow::Cow;

/// How NULL is written.
pub const NULL: &[u8] = b"\\N";

/// The letter that stands for an escaped byte after the backslash.
fn letter(byte: u8) -> Option<u8> {
    Some(match byte {
        0 => b'0',
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0b => b'v',
        0x0c => b'f',
        b'\r' => b'r',
        b'\\' => b'\\',
        _ => return None,
    })
}

/// The byte that an escape's letter stands for.
fn unletter(letter: u8) -> Option<u8> {
    Some(match letter {
        b'0' => 0,
        b'b' => 0x08,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'r' => b'\r',
        b'\\' => b'\\',
        _ => return None,
    })
}

/// Appends `value` to `out`, escaped.
pub fn escape_into(out: &mut Vec<u8>, value: &[u8]) {
    let mut clean = 0;
    for (at, &byte) in value.iter().enumerate() {
        // Bytes above the backslash are the common case in text and need no look-up.
        if byte > b'\\' || (byte > b'\r' && byte != b'\\') {
            continue;
        }
        if let Some(letter) = letter(byte) {
            out.extend_from_slice(&value[clean..at]);
            out.extend_from_slice(&[b'\\', letter]);
            clean = at + 1;
        }
    }
    out.extend_from_slice(&value[clean..]);
}

/// The text is not in the block's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// A backslash at the end, or before a letter that stands for nothing.
    #[error("an escape that stands for nothing")]
    Escape,
    /// The last row has no newline.
    #[error("the last row is cut off")]
    CutOff,
    /// A row has another number of values than the table has columns.
    #[error("a row of {found} values where {expected} belong")]
    Width {
        /// Values in the row.
        found: usize,
        /// Columns of the table.
        expected: usize,
    },
}

/// The value behind its escaped form; borrowed where nothing was escaped. NULL must be told apart before.
pub fn unescape(text: &[u8]) -> Result<Cow<'_, [u8]>, BadText> {
    let Some(first) = text.iter().position(|&b| b == b'\\') else { return Ok(Cow::Borrowed(text)) };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut rest = text[first..].iter();
    while let Some(&byte) = rest.next() {
        if byte == b'\\' {
            let letter = *rest.next().ok_or(BadText::Escape)?;
            out.push(unletter(letter).ok_or(BadText::Escape)?);
        } else {
            out.push(byte);
        }
    }
    Ok(Cow::Owned(out))
}

/// The rows of a block, without their newlines.
pub fn rows(block: &[u8]) -> Result<impl Iterator<Item = &[u8]>, BadText> {
    let (rows, count) = match block.split_last() {
        None => (block, 0),
        Some((b'\n', rows)) => (rows, usize::MAX),
        Some(_) => return Err(BadText::CutOff),
    };
    Ok(rows.split(|&b| b == b'\n').take(count))
}

/// The values of a row, still escaped.
pub fn values(row: &[u8]) -> impl Iterator<Item = &[u8]> {
    row.split(|&b| b == b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_what_would_break_a_row() {
        let mut out = Vec::new();
        escape_into(&mut out, b"a\tb\nc\\d\0e\rf\x08\x0b\x0cg");
        assert_eq!(out, b"a\\tb\\nc\\\\d\\0e\\rf\\b\\v\\fg");
    }

    #[test]
    fn refuses_broken_text() {
        for bad in [&b"\\"[..], b"a\\", b"\\q", b"\\N"] {
            assert_eq!(unescape(bad), Err(BadText::Escape), "{}", bad.escape_ascii());
        }
        assert_eq!(rows(b"a\nb").err(), Some(BadText::CutOff));
    }

    #[test]
    fn an_empty_block_has_no_rows_and_a_newline_is_one() {
        assert_eq!(rows(b"").unwrap().count(), 0);
        assert_eq!(rows(b"\n").unwrap().collect::<Vec<_>>(), [b""]);
        assert_eq!(rows(b"\n\n").unwrap().count(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(rows_in in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5), 0..8)) {
            let mut block = Vec::new();
            for row in &rows_in {
                for (at, value) in row.iter().enumerate() {
                    if at > 0 { block.push(b'\t') }
                    escape_into(&mut block, value);
                }
                block.push(b'\n');
            }
            let back: Vec<Vec<Vec<u8>>> = rows(&block).unwrap()
                .map(|row| values(row).map(|v| unescape(v).unwrap().into_owned()).collect()).collect();
            prop_assert_eq!(back, rows_in);
        }

        #[test]
        fn any_text_is_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(rows) = rows(&text) {
                for value in rows.flat_map(values) { let _ = unescape(value); }
            }
        }
    }
}
