//! What a source may bring into a target's server: which statements, types and settings.

use crate::sql::{list, literal, quote, skip_token, words};

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
