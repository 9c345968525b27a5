//! SQL text: names, literals, and where statements and their tokens end.

use std::fmt::Write;

/// A name in SQL. Other than ASCII is written by its code points, so that it means the same in any client encoding.
pub fn quote(name: &str) -> String {
    if name.is_ascii() {
        return format!("\"{}\"", name.replace('"', "\"\""));
    }
    let mut out = String::from("U&\"");
    for c in name.chars() {
        match c {
            '"' => out.push_str("\"\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_ascii() => out.push(c),
            // Writing to a string cannot fail.
            c => {
                let _ = write!(out, "\\+{:06x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// A text in SQL.
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// A text in SQL that is bytes of the database's own encoding.
pub fn literal_bytes(bytes: &[u8], encoding: &str) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => literal(text),
        _ => {
            let mut hex = String::with_capacity(bytes.len() * 2);
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
            }
            // The name of the encoding has a collation, "C", which would win over the column's: through a type that has none,
            // the text comes back with the default one, which yields.
            format!(
                "pg_catalog.textin(pg_catalog.textout(pg_catalog.convert_from('\\x{hex}'::pg_catalog.bytea, {})))",
                literal(encoding)
            )
        }
    }
}

/// The names of a list, as the server keeps it: separated by commas, quoted where need be.
pub fn list(value: &str) -> Vec<String> {
    let (mut out, mut current, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                current.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut current)),
            ' ' if !quoted => {}
            c => current.push(c),
        }
    }
    out.push(current);
    out
}

/// Cuts text into its statements, without comments around them. Semicolons inside strings, names, dollar quotes,
/// comments, parentheses and the bodies of SQL-standard functions (`BEGIN ATOMIC … END`) do not end a statement.
pub fn statements(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut out, mut start, mut at) = (Vec::new(), 0, 0);
    let mut body = Body::default();
    while at < bytes.len() {
        let from = at;
        at = skip_token(bytes, at);
        match &text[from..at] {
            ";" if body.depth == 0 => {
                out.push(&text[start..from]);
                start = at;
                body = Body::default();
            }
            token => body.take(token),
        }
    }
    out.push(&text[start..]);
    out.into_iter().map(strip_comments).filter(|statement| !statement.is_empty()).collect()
}

/// How deep inside `BEGIN ATOMIC … END` a place is.
#[derive(Default)]
struct Body {
    depth: u32,
    after_begin: bool,
}

impl Body {
    fn take(&mut self, token: &str) {
        if token.starts_with(|c: char| c.is_whitespace())
            || token.starts_with("--")
            || token.starts_with("/*")
        {
            return;
        }
        let word = token.to_ascii_lowercase();
        match word.as_str() {
            "atomic" if self.after_begin => self.depth += 1,
            "case" if self.depth > 0 => self.depth += 1,
            "end" if self.depth > 0 => self.depth -= 1,
            _ => {}
        }
        self.after_begin = word == "begin";
    }
}

/// The end of the token that begins at `at`.
pub fn skip_token(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let until = |n: Option<usize>| n.map_or(bytes.len(), |n| at + n);
    match rest[0] {
        b'-' if rest.starts_with(b"--") => until(rest.iter().position(|b| matches!(b, b'\n' | b'\r'))),
        b'/' if rest.starts_with(b"/*") => skip_comment(bytes, at),
        b'\'' => {
            let escapes =
                at > 0 && matches!(bytes[at - 1], b'e' | b'E') && (at < 2 || !is_word(bytes[at - 2]));
            skip_quoted(bytes, at, b'\'', escapes)
        }
        b'"' => skip_quoted(bytes, at, b'"', false),
        b'$' => skip_dollar(bytes, at),
        b if is_word(b) => until(rest.iter().position(|b| !is_word(*b) && *b != b'$')),
        b if b.is_ascii_whitespace() => until(rest.iter().position(|b| !b.is_ascii_whitespace())),
        _ => at + 1,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn skip_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn skip_quoted(bytes: &[u8], start: usize, quote: u8, escapes: bool) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        if escapes && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] == quote {
            // A doubled quote begins the next token of the same kind, which is as good.
            return at + 1;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn skip_dollar(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start + 1..];
    let tag = rest.iter().position(|b| !is_word(*b)).unwrap_or(rest.len());
    if rest.get(tag) != Some(&b'$') || rest.first().is_some_and(u8::is_ascii_digit) {
        return start + 1;
    }
    let mark = &bytes[start..start + tag + 2];
    let body = start + mark.len();
    let end = bytes[body..].windows(mark.len()).position(|window| window == mark);
    end.map_or(bytes.len(), |end| body + end + mark.len())
}

fn strip_comments(statement: &str) -> &str {
    let mut rest = statement.trim();
    while rest.starts_with("--") || rest.starts_with("/*") {
        rest = rest[skip_token(rest.as_bytes(), 0)..].trim_start();
    }
    rest
}

/// The first `count` words of a statement, in lower case.
pub fn words(statement: &str, count: usize) -> Vec<String> {
    let bytes = statement.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() && out.len() < count {
        let from = at;
        at = skip_token(bytes, at);
        let token = &statement[from..at];
        let blank = token.trim().is_empty() || token.starts_with("--") || token.starts_with("/*");
        if !blank {
            out.push(token.to_ascii_lowercase());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_taken_apart() {
        assert_eq!(list("\"$user\", public, \"a\"\"b, c\""), ["$user", "public", "a\"b, c"]);
    }

    #[test]
    fn quotes_names_and_texts() {
        assert_eq!(quote("a\"b c"), "\"a\"\"b c\"");
        assert_eq!(quote("é\\"), "U&\"\\+0000e9\\\\\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
        assert_eq!(
            literal_bytes(b"\xe9", "LATIN1"),
            "pg_catalog.textin(pg_catalog.textout(pg_catalog.convert_from('\\xe9'::pg_catalog.bytea, 'LATIN1')))"
        );
    }

    #[test]
    fn cuts_statements_where_they_end() {
        let table: [(&str, &[&str]); 7] = [
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]),
            ("-- a; b\nSELECT ';' /* ; /* ; */ ; */;\n", &["SELECT ';' /* ; /* ; */ ; */"]),
            ("A -- ;\r; B", &["A -- ;", "B"]),
            ("SELECT $$;$$, $a$;$$;$a$; B", &["SELECT $$;$$, $a$;$$;$a$", "B"]),
            (r"SELECT E'\';', 'a\'; B", &[r"SELECT E'\';', 'a\'", "B"]),
            ("SELECT \";\", 'it''s;'; B", &["SELECT \";\", 'it''s;'", "B"]),
            (
                "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END; B",
                &["CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END", "B"],
            ),
        ];
        for (text, expected) in table {
            assert_eq!(statements(text), expected, "{text}");
        }
    }
}
