//! SQL text: names and values, quoted.

use std::fmt::Write as _;

/// A name in backticks.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Ends statements of ours that whoever follows the database is to pass over: they put in place what is known already.
pub const OURS: &str = " /* handover: put in place */";

/// A name with its database.
pub fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", quote(database), quote(name))
}

/// Bytes as a string of this character set, whatever the session's.
pub fn string(charset: &str, bytes: &[u8]) -> String {
    let mut out = String::with_capacity(charset.len() + 5 + bytes.len() * 2);
    let _ = write!(out, "_{charset} {}", hex(bytes));
    out
}

/// Text as a string, whatever the session's `sql_mode` says of backslashes.
pub fn text(text: &str) -> String {
    string("utf8mb4", text.as_bytes())
}

/// Bytes as a binary literal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2 + 3);
    out.push_str("x'");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)].into());
        out.push(DIGITS[usize::from(byte & 15)].into());
    }
    out.push('\'');
    out
}

/// One statement, and no second one behind it: run by the server's `EXECUTE IMMEDIATE`.
pub fn immediate(statement: &str) -> String {
    format!("EXECUTE IMMEDIATE {}", text(statement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_its_quotes() {
        assert_eq!(quote("a`b"), "`a``b`");
        assert_eq!(text("'\\"), "_utf8mb4 x'275c'");
    }
}
