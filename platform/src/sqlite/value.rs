//! Values in their text form.

use std::borrow::Cow;

use handover_engine::rows::text::{self, BadText, NULL};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

/// A value that came in a block is not of the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Broken escapes, or a row of the wrong width.
    #[error(transparent)]
    Text(#[from] BadText),
    /// No storage class, or what follows is not of it.
    #[error("a value that is not of its storage class")]
    Class,
}

/// Appends a value's text form. `as_text`: the bytes of a blob are those of a text in the database's own encoding.
pub fn print(out: &mut Vec<u8>, value: ValueRef<'_>, as_text: bool) {
    match value {
        ValueRef::Null => out.extend_from_slice(NULL),
        ValueRef::Integer(integer) => {
            out.push(b'i');
            print_integer(out, integer);
        }
        ValueRef::Real(real) => {
            out.push(b'r');
            print_hex(out, real.to_bits());
        }
        ValueRef::Text(bytes) => {
            out.push(b't');
            text::escape_into(out, bytes);
        }
        ValueRef::Blob(bytes) => {
            out.push(if as_text { b't' } else { b'b' });
            text::escape_into(out, bytes);
        }
    }
}

/// Decimal digits, without going through a formatter: integers are what most columns hold.
fn print_integer(out: &mut Vec<u8>, integer: i64) {
    let mut digits = [0_u8; 20];
    let (mut rest, mut at) = (integer.unsigned_abs(), digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if integer < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn print_hex(out: &mut Vec<u8>, bits: u64) {
    let mut digits = [0_u8; 16];
    for (at, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(bits >> (60 - 4 * at)) as usize & 15];
    }
    out.extend_from_slice(&digits);
}

/// Digits, for the parsers of the standard library, which would take a plus sign.
fn digits(text: &[u8]) -> Result<&str, BadValue> {
    if text.first() == Some(&b'+') {
        Err(BadValue::Class)
    } else {
        std::str::from_utf8(text).map_err(|_| BadValue::Class)
    }
}

/// A value as it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A real.
    Real(f64),
    /// A text, in the encoding that the two sides agree on.
    Text(Cow<'a, [u8]>),
    /// A blob.
    Blob(Cow<'a, [u8]>),
}

impl<'a> Value<'a> {
    /// Reads a value's text form.
    pub fn parse(text: &'a [u8]) -> Result<Self, BadValue> {
        if text == NULL {
            return Ok(Value::Null);
        }
        let (class, rest) = text.split_first().ok_or(BadValue::Class)?;
        match class {
            b'i' => Ok(Value::Integer(digits(rest)?.parse().map_err(|_| BadValue::Class)?)),
            b'r' if rest.len() == 16 => {
                let bits = u64::from_str_radix(digits(rest)?, 16).map_err(|_| BadValue::Class)?;
                Ok(Value::Real(f64::from_bits(bits)))
            }
            b't' => Ok(Value::Text(text::unescape(rest)?)),
            b'b' => Ok(Value::Blob(text::unescape(rest)?)),
            _ => Err(BadValue::Class),
        }
    }

    /// True for a text.
    pub fn is_text(&self) -> bool {
        matches!(self, Value::Text(_))
    }

    /// The same bytes as a blob, to be cast to text by the database (in its own encoding).
    pub fn as_blob(&self) -> Value<'_> {
        match self {
            Value::Text(bytes) | Value::Blob(bytes) => Value::Blob(Cow::Borrowed(bytes)),
            other => other.clone(),
        }
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(integer) => ValueRef::Integer(*integer),
            Value::Real(real) => ValueRef::Real(*real),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// The values of a row (or key) of `width` values. Never panics, whatever the bytes are.
pub fn parse_row(row: &[u8], width: usize) -> Result<Vec<Value<'_>>, BadValue> {
    let values = text::values(row).map(Value::parse).collect::<Result<Vec<_>, _>>()?;
    if values.len() != width {
        return Err(BadText::Width { found: values.len(), expected: width }.into());
    }
    Ok(values)
}

/// Reads every value of a block whose rows have `width` values: how many rows there are. Never panics, whatever the bytes
/// are; a fuzzer's way in.
pub fn check_block(block: &[u8], width: usize) -> Result<u64, BadValue> {
    text::rows(block)?.try_fold(0, |count, row| parse_row(row, width).map(|_| count + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(value: ValueRef<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        print(&mut out, value, false);
        out
    }

    #[test]
    fn the_text_form() {
        let table: [(ValueRef<'_>, &[u8]); 8] = [
            (ValueRef::Null, b"\\N"),
            (ValueRef::Integer(i64::MIN), b"i-9223372036854775808"),
            (ValueRef::Integer(0), b"i0"),
            (ValueRef::Real(-0.0), b"r8000000000000000"),
            (ValueRef::Text(b"a\tb\xff"), b"ta\\tb\xff"),
            (ValueRef::Text(b""), b"t"),
            (ValueRef::Blob(b"\0\\"), b"b\\0\\\\"),
            (ValueRef::Blob(b"N"), b"bN"),
        ];
        for (value, text) in table {
            assert_eq!(printed(value), text, "{value:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_value() {
        for bad in [
            &b""[..],
            b"x",
            b"i",
            b"i1x",
            b"r12",
            b"rzzzzzzzzzzzzzzzz",
            b"t\\",
            b"N",
            b"i+1",
            b"r+00000000000000f",
        ] {
            assert!(Value::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(parse_row(b"i1\ti2", 3).is_err());
    }

    proptest! {
        #[test]
        fn values_round_trip(integer: i64, bits: u64, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let real = f64::from_bits(bits);
            for (value, expected) in [
                (ValueRef::Integer(integer), Value::Integer(integer)),
                (ValueRef::Text(&bytes), Value::Text(bytes.clone().into())),
                (ValueRef::Blob(&bytes), Value::Blob(bytes.clone().into())),
            ] {
                let text = printed(value);
                prop_assert_eq!(Value::parse(&text), Ok(expected));
            }
            let text = printed(ValueRef::Real(real));
            let Ok(Value::Real(back)) = Value::parse(&text) else { panic!("a real is read as one") };
            prop_assert_eq!(back.to_bits(), bits);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60), width in 0_usize..5) {
            let _ = parse_row(&bytes, width);
            let _ = check_block(&bytes, width);
        }
    }
}
