//! Views that read another database. Of such a view the server prints every name with its database, its own among them: those
//! go, so that it can be made under another name, and the others stay.

use std::collections::BTreeSet;

use super::create::unquote;

/// A part of a statement, as it stands there.
enum Part<'a> {
    /// Names in backticks with dots between.
    Names(Vec<&'a str>),
    /// Anything else.
    Text(&'a str),
}

/// The statement of a view as its server prints it, without the name of the database that it stands in. Unchanged where
/// that name is also something else's in it.
pub fn without(statement: &str, database: &str) -> String {
    let parts = parts(statement);
    let own = |name: &str| unquote(name).is_some_and(|(name, _)| name == database);
    let is_alias = |part: &Part<'_>| matches!(part, Part::Names(names) if names.len() == 1 && own(names[0]));
    if parts.iter().any(is_alias) {
        return statement.to_owned();
    }
    let print = |part: &Part<'_>| match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Names(names) if names.len() > 1 && own(names[0]) => names[1..].join("."),
        Part::Names(names) => names.join("."),
    };
    parts.iter().map(print).collect()
}

/// The other databases that a view of no database's name reads: the first of three names is one.
pub fn databases(statement: &str) -> BTreeSet<String> {
    let first = |part: &Part<'_>| match part {
        Part::Names(names) if names.len() == 3 => unquote(names[0]).map(|(name, _)| name),
        _ => None,
    };
    parts(statement).iter().filter_map(first).collect()
}

fn parts(statement: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let (mut rest, mut text) = (statement, 0);
    while let Some(sign) = rest[text..].chars().next() {
        match sign {
            '\'' | '"' => text += quoted(&rest[text..], sign, true),
            '`' => {
                if text > 0 {
                    out.push(Part::Text(&rest[..text]));
                }
                rest = &rest[text..];
                let mut names = Vec::new();
                loop {
                    let end = quoted(rest, '`', false);
                    names.push(&rest[..end]);
                    rest = &rest[end..];
                    match rest.strip_prefix('.').filter(|next| next.starts_with('`')) {
                        Some(next) => rest = next,
                        None => break,
                    }
                }
                out.push(Part::Names(names));
                text = 0;
            }
            other => text += other.len_utf8(),
        }
    }
    out.push(Part::Text(rest));
    out
}

/// Where what is quoted at the beginning of `text` ends. The sign itself stands there twice, or behind a backslash.
fn quoted(text: &str, sign: char, backslashes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslashes {
            chars.next();
        } else if c == sign && chars.next_if(|(_, next)| *next == sign).is_none() {
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_database_goes_and_others_stay() {
        let printed = "CREATE VIEW `a``b`.`v` AS select `a``b`.`t`.`c` AS `c`,'`a``b`.`t`' AS `x`,`a``b`.`f`(`o`.`u`.`d`) AS `y` from \
                       (`a``b`.`t` join `o`.`u` `z` on(`z`.`c` = 'it\\'s `'))";
        assert_eq!(
            without(printed, "a`b"),
            "CREATE VIEW `v` AS select `t`.`c` AS `c`,'`a``b`.`t`' AS `x`,`f`(`o`.`u`.`d`) AS `y` from \
             (`t` join `o`.`u` `z` on(`z`.`c` = 'it\\'s `'))"
        );
        assert_eq!(databases(&without(printed, "a`b")), BTreeSet::from(["o".to_owned()]));
        let plain = "CREATE VIEW `v` AS select `t`.`c` AS `c` from `t`";
        assert_eq!(without(plain, "db"), plain);
        assert!(databases(plain).is_empty());
        let alias = "CREATE VIEW `db`.`v` AS select `db`.`c` AS `c` from `o`.`t` `db`";
        assert_eq!(without(alias, "db"), alias);
    }
}
