//! SQL text: names, literals, and what statements a source's schema may hold.

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
fn skip_token(bytes: &[u8], at: usize) -> usize {
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

/// What a source's schema may make, by the words after CREATE or ALTER. Nothing that belongs to the whole server (roles,
/// databases, table spaces, settings), and nothing that connects to elsewhere by itself (subscriptions).
const OBJECTS: [&str; 41] = [
    "access",
    "aggregate",
    "cast",
    "collation",
    "constraint",
    "conversion",
    "default",
    "domain",
    "event",
    "extension",
    "foreign",
    "function",
    "global",
    "index",
    "language",
    "large",
    "materialized",
    "operator",
    "or",
    "policy",
    "procedural",
    "procedure",
    "publication",
    "recursive",
    "routine",
    "rule",
    "schema",
    "sequence",
    "server",
    "statistics",
    "table",
    "text",
    "transform",
    "trigger",
    "trusted",
    "type",
    "unique",
    "unlogged",
    "user",
    "view",
    "if",
];

/// Why a statement of the source's schema is refused; `None` when it may run.
pub fn refused(statement: &str) -> Option<String> {
    let words = words(statement, 6);
    let word = |n: usize| words.get(n).map(String::as_str).unwrap_or_default();
    let allowed = match word(0) {
        "create" | "alter" => {
            OBJECTS.contains(&word(1))
                && (word(1) != "user" || word(2) == "mapping")
                && !(word(1) == "or" && word(2) != "replace")
        }
        "comment" => {
            word(1) == "on" && !["database", "role", "tablespace", "subscription"].contains(&word(2))
        }
        "grant" | "revoke" => words.iter().any(|w| w == "on"),
        "refresh" => word(1) == "materialized",
        "security" => word(1) == "label",
        _ => false,
    };
    if !allowed {
        return Some(format!("a schema may not hold a statement that begins with {}", words.join(" ")));
    }
    let what = if word(1) == "or" { word(3) } else { word(1) };
    if word(0) == "create" && ["function", "procedure"].contains(&what) && may_be_in_c(statement) {
        return Some("a schema may not bring functions in C: install the extension that has them".to_owned());
    }
    None
}

/// Whether a CREATE FUNCTION may name the languages C or internal, however they are written.
fn may_be_in_c(statement: &str) -> bool {
    let bytes = statement.as_bytes();
    let (mut at, mut asked) = (0, false);
    while at < bytes.len() {
        let from = at;
        at = skip_token(bytes, at);
        let token = statement[from..at].to_ascii_lowercase();
        if token.trim().is_empty() || token.starts_with("--") || token.starts_with("/*") {
            continue;
        }
        if asked {
            let is_string = token.starts_with('$')
                || (["e", "u", "n", "b", "x"].contains(&token.as_str())
                    && matches!(bytes.get(at), Some(b'\'' | b'&')));
            let name = token.trim_matches(['"', '\'']);
            if is_string || ["c", "internal"].contains(&name) {
                return true;
            }
        }
        asked = token == "language";
    }
    false
}

/// Whether a text is a type as `format_type` prints one (`numeric(10,2)`, `app."My Type"[]`), and nothing beyond.
pub fn is_type(text: &str) -> bool {
    let (mut quoted, mut inside, mut pieces) = (false, false, 0);
    for c in text.chars() {
        match c {
            '"' if !inside => quoted = !quoted,
            _ if quoted => {}
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            ',' | '-' if inside => {}
            '.' | '[' | ']' if !inside => {}
            ' ' => {}
            c if c.is_alphanumeric() || c == '_' || c == '$' => {}
            _ => return false,
        }
        pieces += 1;
    }
    pieces > 0 && !quoted && !inside
}

/// Settings that would make a server load code, or let sessions act as somebody else.
const DANGEROUS: [&str; 5] = [
    "session_preload_libraries",
    "local_preload_libraries",
    "shared_preload_libraries",
    "role",
    "session_authorization",
];
/// Settings whose value is a list of names.
const LISTS: [&str; 2] = ["search_path", "temp_tablespaces"];

/// `name = value` for a SET clause; none for a name that is none, and for settings that must not come from elsewhere. Names of
/// settings mean the same in capitals.
pub fn assignment(name: &str, value: &str) -> Option<String> {
    let known = name.to_ascii_lowercase();
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    if !is_plain || name.is_empty() || DANGEROUS.contains(&known.as_str()) {
        return None;
    }
    // The value of a list is told as it would be written.
    let value = if LISTS.contains(&known.as_str()) {
        list(value).iter().map(|item| literal(item)).collect::<Vec<_>>().join(", ")
    } else {
        literal(value)
    };
    let name = name.split('.').map(quote).collect::<Vec<_>>().join(".");
    Some(format!("{name} = {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn refuses_what_is_no_schema() {
        for fine in [
            "CREATE TABLE t (a integer)",
            "ALTER TABLE ONLY t ADD CONSTRAINT k PRIMARY KEY (a)",
            "COMMENT ON TABLE t IS 'x'",
            "GRANT SELECT ON TABLE t TO PUBLIC",
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "REFRESH MATERIALIZED VIEW v",
        ] {
            assert_eq!(refused(fine), None, "{fine}");
        }
        for bad in [
            "DO $$ BEGIN END $$",
            "COPY t FROM PROGRAM 'id'",
            "SET ROLE postgres",
            "RESET SESSION AUTHORIZATION",
            "CREATE ROLE r SUPERUSER",
            "CREATE USER u",
            "ALTER SYSTEM SET x = 1",
            "ALTER DATABASE d OWNER TO x",
            "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
            "GRANT postgres TO me",
            "SELECT lo_export(1, '/tmp/x')",
            "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/x.so', 'f'",
            "COMMENT ON DATABASE d IS 'x'",
            "",
        ] {
            assert!(refused(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn settings_from_elsewhere_load_no_code() {
        assert_eq!(assignment("work_mem", "4'MB").as_deref(), Some("\"work_mem\" = '4''MB'"));
        assert_eq!(assignment("my.Setting", "x").as_deref(), Some("\"my\".\"Setting\" = 'x'"));
        assert_eq!(
            assignment("search_path", "\"a b\", public").as_deref(),
            Some("\"search_path\" = 'a b', 'public'")
        );
        for name in
            ["role", "ROLE", "Session_Preload_Libraries", "local_preload_libraries", "a b", "a\"; x", ""]
        {
            assert_eq!(assignment(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn types_are_types_and_nothing_beyond() {
        for text in [
            "integer",
            "numeric(10,2)",
            "numeric(3,-2)",
            "timestamp(3) without time zone",
            "app.\"My; (Type\"[]",
            "\"a\"\"b\"",
            "interval day to second(3)",
            "geometry(Point,4326)",
            "größe",
        ] {
            assert!(is_type(text), "{text}");
        }
        for text in [
            "",
            "integer); DROP TABLE t; SELECT (1",
            "text;",
            "text --",
            "a'b'",
            "\"a",
            "int(",
            "f((1))",
            "int/**/",
        ] {
            assert!(!is_type(text), "{text}");
        }
    }

    #[test]
    fn functions_in_c_are_found_however_they_are_written() {
        let made = |rest: &str| refused(&format!("CREATE {rest}")).is_some();
        for rest in [
            "FUNCTION f() RETURNS int LANGUAGE c AS 'x'",
            "OR REPLACE FUNCTION f() RETURNS int LANGUAGE C AS 'x'",
            "FUNCTION f(language text) RETURNS int LANGUAGE internal AS 'x'",
            "FUNCTION f() RETURNS int LANGUAGE/**/c AS 'x'",
            "FUNCTION f() RETURNS int LANGUAGE \"c\" AS 'x'",
            "PROCEDURE f() LANGUAGE E'\\x63' AS 'x'",
            "FUNCTION f() RETURNS int LANGUAGE U&\"\\0063\" AS 'x'",
            "FUNCTION f() RETURNS int LANGUAGE $$c$$ AS 'x'",
        ] {
            assert!(made(rest), "{rest}");
        }
        for rest in [
            "FUNCTION f(language text) RETURNS int LANGUAGE sql AS $$SELECT 1 -- LANGUAGE c$$",
            "OR REPLACE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
            "FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a.language = 'c' FROM a; END",
        ] {
            assert!(!made(rest), "{rest}");
        }
    }
}
