//! `SHOW CREATE TABLE`, taken apart: what must stand before the load, and what is made after it.

use crate::sql::quote;

/// A table's statement in parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    /// `CREATE TABLE …` with its columns, checks, options, and the keys that must stand before the load.
    pub before: String,
    /// Indexes to be added after the load: name, and what follows `ALTER TABLE t `.
    pub indexes: Vec<(String, String)>,
    /// Foreign keys to be added after the indexes, likewise.
    pub foreign_keys: Vec<(String, String)>,
    /// The next AUTO_INCREMENT value, where it is told.
    pub auto_increment: Option<String>,
}

/// Splits at `separator` outside of quotes and parentheses.
pub fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut out, mut from, mut depth) = (Vec::new(), 0, 0_usize);
    scan(text, |at, c, _| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if c == separator && depth == 0 => {
                out.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            _ => {}
        }
        true
    });
    out.push(&text[from..]);
    out
}

/// Calls `see` with every character outside of quotes, until it returns false.
pub fn scan(text: &str, mut see: impl FnMut(usize, char, &str) -> bool) {
    let mut chars = text.char_indices();
    let mut quoted = None;
    while let Some((at, c)) = chars.next() {
        match (quoted, c) {
            (None, '`' | '\'' | '"') => quoted = Some(c),
            (None, _) if !see(at, c, &text[at..]) => return,
            (None, _) => {}
            (Some('\'' | '"'), '\\') => {
                chars.next();
            }
            // A doubled quote ends one and begins the next.
            (Some(open), c) if c == open => quoted = None,
            _ => {}
        }
    }
}

/// Where the parenthesis that opens at `open` closes.
pub fn closing(text: &str, open: usize) -> Option<usize> {
    let (mut depth, mut found) = (0, None);
    scan(&text[open..], |at, c, _| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 && c == ')' {
            found = Some(open + at);
        }
        found.is_none()
    });
    found
}

/// Where the parenthesis around a statement's body opens and closes.
pub fn body(statement: &str) -> Option<(usize, usize)> {
    let mut open = None;
    scan(statement, |at, c, _| {
        if c == '(' {
            open = Some(at);
        }
        open.is_none()
    });
    Some((open?, closing(statement, open?)?))
}

/// Where the quoted literal that begins at `from` ends, behind its quote.
pub fn literal_end(text: &str, from: usize) -> Option<usize> {
    let mut chars = text[from + 1..].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => drop(chars.next()),
            '\'' => return Some(from + 1 + at + 1),
            _ => {}
        }
    }
    None
}

/// The name at the beginning of `text`, which is in backticks.
pub fn name(text: &str) -> Option<String> {
    let text = text.trim_start();
    unquote(text).filter(|_| text.starts_with('`')).map(|(name, _)| name)
}

/// The name in backticks, or in the quotes of ANSI_QUOTES, at the beginning of `text`, and what follows it.
pub fn unquote(text: &str) -> Option<(String, &str)> {
    let mark = text.chars().next().filter(|mark| matches!(mark, '`' | '"'))?;
    let (mut name, mut rest) = (String::new(), &text[1..]);
    loop {
        let (part, behind) = rest.split_once(mark)?;
        name.push_str(part);
        let Some(more) = behind.strip_prefix(mark) else { return Some((name, behind)) };
        // A doubled one belongs to the name.
        name.push(mark);
        rest = more;
    }
}

/// The options without the next AUTO_INCREMENT value, and that value.
fn options(text: &str) -> (String, Option<String>) {
    const WORD: &str = " AUTO_INCREMENT=";
    let mut found = None;
    scan(text, |at, _, rest| {
        if rest.starts_with(WORD) {
            found = Some(at);
        }
        found.is_none()
    });
    let Some(at) = found else { return (text.to_owned(), None) };
    let value: String = text[at + WORD.len()..].chars().take_while(char::is_ascii_digit).collect();
    let end = at + WORD.len() + value.len();
    (format!("{}{}", &text[..at], &text[end..]), Some(value))
}

/// What a line of the statement's body is.
enum Item {
    Column,
    Primary,
    Index(String),
    ForeignKey(String),
    Other,
}

fn item(line: &str) -> Item {
    let line = line.trim();
    if line.starts_with('`') {
        return Item::Column;
    }
    if line.starts_with("PRIMARY KEY") {
        return Item::Primary;
    }
    for word in ["UNIQUE KEY ", "FULLTEXT KEY ", "SPATIAL KEY ", "KEY "] {
        if let Some(index) = line.strip_prefix(word).and_then(name) {
            return Item::Index(index);
        }
    }
    if let Some(rest) = line.strip_prefix("CONSTRAINT ") {
        let is_foreign = rest.find('`').is_some_and(|_| {
            let after = name(rest).map_or(0, |n| quote(&n).len());
            rest[after..].trim_start().starts_with("FOREIGN KEY")
        });
        if let (true, Some(constraint)) = (is_foreign, name(rest)) {
            return Item::ForeignKey(constraint);
        }
    }
    Item::Other
}

/// Takes a statement apart. `key` is the index that rows are found by; it and an index that AUTO_INCREMENT needs stay.
pub fn parts(statement: &str, key: Option<&str>) -> Option<Parts> {
    let (open, close) = body(statement)?;
    let lines: Vec<&str> = split(&statement[open + 1..close], ',').into_iter().map(str::trim).collect();
    let auto = lines.iter().find(|l| matches!(item(l), Item::Column) && is_auto(l)).and_then(|l| name(l));
    let mut is_served = auto.is_none();
    let serves = |line: &str| {
        let (Some(auto), Some(from)) = (&auto, line.find('(')) else { return false };
        // The first column, or any of them in an engine that counts within groups.
        line[from + 1..].split(',').any(|column| name(column).as_ref() == Some(auto))
    };
    is_served |= lines.iter().any(|line| match item(line) {
        Item::Primary => serves(line),
        Item::Index(index) => Some(index.as_str()) == key && serves(line),
        _ => false,
    });
    let (mut before, mut indexes, mut foreign_keys) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        match item(line) {
            Item::Index(index) if Some(index.as_str()) != key => {
                if !is_served && serves(line) {
                    is_served = true;
                    before.push(line);
                } else {
                    indexes.push((index, format!("ADD {line}")));
                }
            }
            Item::ForeignKey(constraint) => foreign_keys.push((constraint, format!("ADD {line}"))),
            _ => before.push(line),
        }
    }
    let (tail, auto_increment) = options(&statement[close + 1..]);
    let before = format!("{} (\n  {}\n){tail}", statement[..open].trim_end(), before.join(",\n  "));
    Some(Parts { before, indexes, foreign_keys, auto_increment })
}

fn is_auto(line: &str) -> bool {
    let mut found = false;
    scan(line, |_, _, rest| {
        found |= rest.starts_with(" AUTO_INCREMENT");
        !found
    });
    found
}

/// Takes `DEFINER=…` out of a view's, routine's or event's statement, as the server prints it; the account, in backticks.
pub fn without_definer(statement: &str) -> (String, Option<String>) {
    let at = definer_place(statement);
    let Some(rest) = statement[at..].strip_prefix("DEFINER=") else { return (statement.to_owned(), None) };
    // `user`@`host`, or a role's `name` alone.
    let Some((user, mut after)) = unquote(rest) else { return (statement.to_owned(), None) };
    let mut account = quote(&user);
    if let Some((host, rest)) = after.strip_prefix('@').and_then(unquote) {
        account = format!("{account}@{}", quote(&host));
        after = rest;
    }
    (format!("{}{}", &statement[..at], after.trim_start()), Some(account))
}

/// Puts a definer into a statement without one.
pub fn with_definer(statement: &str, account: &str) -> String {
    let (head, rest) = statement.split_at(definer_place(statement));
    format!("{head}DEFINER={account} {rest}")
}

/// Where a definer stands, or would: behind CREATE, OR REPLACE and a view's algorithm.
fn definer_place(statement: &str) -> usize {
    let mut rest = statement;
    for word in ["CREATE ", "OR REPLACE "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    if rest.starts_with("ALGORITHM=") {
        rest = rest.split_once(' ').map_or(rest, |(_, rest)| rest);
    }
    statement.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "CREATE TABLE `t,(` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `b``c` varchar(20) DEFAULT 'x),(\\',' COMMENT 'AUTO_INCREMENT=3',\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u,1` (`b``c`(3)),\n  KEY `k` (`id`),\n  CONSTRAINT `f` FOREIGN KEY (`id`) REFERENCES `p` (`id`),\n  CONSTRAINT `c` CHECK (`id` > 0 and `b``c` <> 'a,b')\n) ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=latin1 COMMENT='a AUTO_INCREMENT=5)'";

    #[test]
    fn takes_a_table_apart() {
        let parts = parts(TABLE, Some("PRIMARY")).unwrap();
        assert_eq!(parts.auto_increment.as_deref(), Some("17"));
        assert_eq!(parts.indexes[0], ("u,1".to_owned(), "ADD UNIQUE KEY `u,1` (`b``c`(3))".to_owned()));
        assert_eq!(parts.indexes[1].0, "k");
        assert_eq!(parts.foreign_keys[0].0, "f");
        assert!(
            parts.before.ends_with(") ENGINE=InnoDB DEFAULT CHARSET=latin1 COMMENT='a AUTO_INCREMENT=5)'")
        );
        assert!(
            parts.before.contains("CONSTRAINT `c` CHECK") && !parts.before.contains("KEY `k`"),
            "{}",
            parts.before
        );
    }

    #[test]
    fn keeps_the_index_that_auto_increment_needs() {
        let sql = "CREATE TABLE `t` (\n  `a` int(11) NOT NULL,\n  `n` int(11) NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`a`),\n  KEY `k` (`a`),\n  KEY `n` (`n`),\n  KEY `n2` (`n`)\n) ENGINE=InnoDB";
        let parts = parts(sql, Some("PRIMARY")).unwrap();
        assert!(parts.before.contains("KEY `n` (`n`)"));
        assert_eq!(parts.indexes.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["k", "n2"]);
    }

    #[test]
    fn moves_definers() {
        for (full, bare, account) in [
            (
                "CREATE ALGORITHM=MERGE DEFINER=`a``b`@`%` SQL SECURITY INVOKER VIEW `v` AS select 1",
                "CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW `v` AS select 1",
                "`a``b`@`%`",
            ),
            (
                "CREATE DEFINER=`r` PROCEDURE `p`() select 'DEFINER='",
                "CREATE PROCEDURE `p`() select 'DEFINER='",
                "`r`",
            ),
            (
                "CREATE DEFINER=`r`@`h` AGGREGATE FUNCTION `VIEW `() x",
                "CREATE AGGREGATE FUNCTION `VIEW `() x",
                "`r`@`h`",
            ),
        ] {
            assert_eq!(without_definer(full), (bare.to_owned(), Some(account.to_owned())));
            assert_eq!(with_definer(bare, account), full);
        }
        let ansi = "CREATE DEFINER=\"a\"\"`\"@\"%\" PROCEDURE \"p\"() x";
        assert_eq!(
            without_definer(ansi),
            ("CREATE PROCEDURE \"p\"() x".to_owned(), Some("`a\"```@`%`".to_owned()))
        );
        assert_eq!(
            with_definer("CREATE TRIGGER `t` BEFORE INSERT ON `x` FOR EACH ROW y", "`a`@`h`"),
            "CREATE DEFINER=`a`@`h` TRIGGER `t` BEFORE INSERT ON `x` FOR EACH ROW y"
        );
        assert_eq!(without_definer("CREATE TRIGGER `t`").1, None);
    }
}
