//! Values for columns that may be declared otherwise than where they come from.

use super::{Kind, kind, word};
use crate::sql::string;

/// A column as it is read.
pub fn selected(declared: &str, column: &str) -> String {
    kind(declared).select(column)
}

/// Whether a column holds bytes that are no text.
pub fn is_binary(declared: &str) -> bool {
    kind(declared) == Kind::Bytes || word(declared) == "bit"
}

/// A value of a column that is declared so, in SQL, for a column that is declared as `wanted`. None where it is none of its type.
///
/// A member of an ENUM or SET travels as its number: for a column with other members it is told by its name.
pub fn converted(declared: &str, wanted: &str, value: &[u8]) -> Option<String> {
    let is_named = matches!(word(declared).as_str(), "enum" | "set") && type_of(declared) != type_of(wanted);
    if !is_named {
        return kind(declared).stored(value);
    }
    let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    let members = members(declared)?;
    let name = if word(declared) == "enum" {
        match number.checked_sub(1) {
            Some(at) => members.get(usize::try_from(at).ok()?)?.clone(),
            None => String::new(),
        }
    } else {
        let chosen = members.iter().enumerate().filter(|(at, _)| number & (1 << at) != 0);
        chosen.map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(",")
    };
    Some(string("utf8mb4", name.as_bytes()))
}

/// A declaration without its character set.
fn type_of(declared: &str) -> &str {
    declared.rsplit_once(" CHARACTER SET ").map_or(declared, |(column_type, _)| column_type)
}

/// The members of an ENUM or SET.
fn members(declared: &str) -> Option<Vec<String>> {
    let mut rest = type_of(declared).split_once('(')?.1.strip_suffix(')')?;
    let mut out = Vec::new();
    loop {
        let mut name = String::new();
        rest = rest.strip_prefix('\'')?;
        loop {
            let end = rest.find('\'')?;
            name.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('\'') {
                Some(more) => {
                    name.push('\'');
                    rest = more;
                }
                None => break,
            }
        }
        out.push(name);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.is_empty().then_some(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_go_by_their_names_where_they_are_others() {
        let old = "enum('a','it''s, b','c') CHARACTER SET latin1 COLLATE latin1_bin";
        for (declared, wanted, value, expected) in [
            ("int(11)", "varchar(5)", "7", Some("7".to_owned())),
            ("int(11)", "int(11)", "x", None),
            (old, old, "2", Some("2".to_owned())),
            (old, "enum('c','a')", "3", Some(string("utf8mb4", b"c"))),
            (old, "varchar(9)", "2", Some(string("utf8mb4", b"it's, b"))),
            (old, "varchar(9)", "0", Some(string("utf8mb4", b""))),
            (old, "varchar(9)", "4", None),
            ("set('x','y','z')", "text", "5", Some(string("utf8mb4", b"x,z"))),
        ] {
            assert_eq!(
                converted(declared, wanted, value.as_bytes()),
                expected,
                "{declared} {wanted} {value}"
            );
        }
    }
}
