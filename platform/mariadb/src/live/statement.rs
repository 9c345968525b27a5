//! What a statement in the log means for a database whose rows are followed.

/// What a statement does.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing that matters: other objects, sessions, accounts.
    Nothing,
    /// Ends a transaction.
    End,
    /// Empties a table.
    Clears(Name),
    /// Defines these tables anew.
    Defines(Vec<Name>),
    /// Makes a table unless it is there already.
    Ensures(Name),
    /// Changes or drops a database.
    Database(String),
    /// Changes rows of a table, which the log does not tell.
    Writes(Option<Name>),
}

/// A table, with the database where one is written.
pub type Name = (Option<String>, String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Name(String),
    Sign(char),
}

/// The tokens of a statement's beginning, without comments. What MariaDB's executable comments hold counts.
struct Tokens<'a> {
    rest: &'a str,
    ahead: Option<Token>,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, ahead: None }
    }

    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let is_line = self.rest.starts_with('#')
                || self.rest.strip_prefix("--").is_some_and(|rest| rest.starts_with(char::is_whitespace));
            let executable = self.rest.strip_prefix("/*!").or_else(|| self.rest.strip_prefix("/*M!"));
            self.rest = if let Some(inside) = executable {
                inside.trim_start_matches(|c: char| c.is_ascii_digit())
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                comment.split_once("*/").map_or("", |(_, rest)| rest)
            } else if let Some(rest) = self.rest.strip_prefix("*/") {
                rest
            } else if is_line {
                self.rest.split_once('\n').map_or("", |(_, rest)| rest)
            } else {
                return;
            };
        }
    }

    fn next(&mut self) -> Option<Token> {
        if let Some(token) = self.ahead.take() {
            return Some(token);
        }
        self.skip_space();
        let first = self.rest.chars().next()?;
        if matches!(first, '`' | '"') {
            let (name, rest) = crate::catalog::create::unquote(self.rest)?;
            self.rest = rest;
            return Some(Token::Name(name));
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len()).max(first.len_utf8());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(if is_part(first) { Token::Word(token.to_owned()) } else { Token::Sign(first) })
    }

    fn peek(&mut self) -> Option<&Token> {
        if self.ahead.is_none() {
            self.ahead = self.next();
        }
        self.ahead.as_ref()
    }

    fn takes(&mut self, is_it: impl Fn(&Token) -> bool) -> bool {
        let found = self.peek().is_some_and(is_it);
        if found {
            self.ahead = None;
        }
        found
    }

    /// Takes any of these words, if it is the next.
    fn word(&mut self, words: &[&str]) -> bool {
        self.takes(|token| {
            matches!(token, Token::Word(own) if words.iter().any(|word| own.eq_ignore_ascii_case(word)))
        })
    }

    fn sign(&mut self, sign: char) -> bool {
        self.takes(|token| *token == Token::Sign(sign))
    }

    fn plain(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(name) | Token::Name(name) => Some(name),
            Token::Sign(_) => None,
        }
    }

    fn name(&mut self) -> Option<Name> {
        let first = self.plain()?;
        if !self.sign('.') {
            return Some((None, first));
        }
        Some((Some(first), self.plain()?))
    }

    /// IF EXISTS, IF NOT EXISTS: whether one stood there.
    fn condition(&mut self) -> bool {
        let found = self.word(&["if"]);
        if found {
            self.word(&["not"]);
            self.word(&["exists"]);
        }
        found
    }

    /// Names up to the end of a list.
    fn names(&mut self) -> Vec<Name> {
        let mut out = Vec::new();
        while let Some(name) = self.name() {
            out.push(name);
            if self.word(&["wait"]) {
                self.next();
            }
            self.word(&["nowait"]);
            if !self.sign(',') && !self.word(&["to"]) {
                break;
            }
        }
        out
    }

    fn find(&mut self, words: &[&str]) -> bool {
        loop {
            if self.word(words) {
                return true;
            }
            if self.next().is_none() {
                return false;
            }
        }
    }
}

/// Reads a statement.
pub fn meaning(statement: &str) -> Meaning {
    let mut tokens = Tokens::new(statement);
    if tokens.word(&["set"]) && (!tokens.word(&["statement"]) || !tokens.find(&["for"])) {
        return Meaning::Nothing;
    }
    let Some(Token::Word(verb)) = tokens.next() else { return Meaning::Nothing };
    let found = match verb.to_ascii_lowercase().as_str() {
        "commit" => Some(Meaning::End),
        "xa" => tokens.word(&["commit", "rollback"]).then_some(Meaning::End),
        "rollback" => Some(if tokens.find(&["to"]) { Meaning::Nothing } else { Meaning::End }),
        "truncate" => {
            tokens.word(&["table"]);
            tokens.name().map(Meaning::Clears)
        }
        "create" => definition(&mut tokens, true),
        "alter" | "drop" | "rename" => definition(&mut tokens, false),
        "insert" | "replace" => {
            while tokens.word(&["low_priority", "delayed", "high_priority", "ignore", "into"]) {}
            Some(Meaning::Writes(tokens.name()))
        }
        "update" => {
            while tokens.word(&["low_priority", "ignore"]) {}
            let name = tokens.name();
            // Several tables: any of them.
            Some(Meaning::Writes(name.filter(|_| tokens.word(&["set"]))))
        }
        "delete" => {
            while tokens.word(&["low_priority", "quick", "ignore"]) {}
            let is_single = tokens.word(&["from"]);
            let name = tokens.name();
            let is_single = is_single && !tokens.sign(',') && !tokens.word(&["using"]);
            Some(Meaning::Writes(name.filter(|_| is_single)))
        }
        "load" => {
            let found = tokens.find(&["into"]) && tokens.word(&["table"]);
            Some(Meaning::Writes(tokens.name().filter(|_| found)))
        }
        "with" | "call" | "do" => Some(Meaning::Writes(None)),
        _ => None,
    };
    found.unwrap_or(Meaning::Nothing)
}

fn definition(tokens: &mut Tokens<'_>, creates: bool) -> Option<Meaning> {
    let is_replaced = tokens.word(&["or"]) && tokens.word(&["replace"]);
    let modifiers = ["online", "offline", "ignore", "unique", "fulltext", "spatial"];
    while tokens.word(&modifiers) {}
    if tokens.word(&["temporary"]) {
        return None;
    }
    if tokens.word(&["database", "schema"]) {
        tokens.condition();
        return tokens.plain().map(Meaning::Database);
    }
    if tokens.word(&["index"]) {
        return if tokens.find(&["on"]) {
            tokens.name().map(|name| Meaning::Defines(vec![name]))
        } else {
            None
        };
    }
    if !tokens.word(&["table", "tables"]) {
        return None;
    }
    let may_be_there = tokens.condition();
    let names = tokens.names();
    match names.as_slice() {
        [] => None,
        [name] if creates && may_be_there && !is_replaced => Some(Meaning::Ensures(name.clone())),
        _ => Some(Meaning::Defines(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        match text.split_once('.') {
            Some((database, table)) => (Some(database.to_owned()), table.to_owned()),
            None => (None, text.to_owned()),
        }
    }

    #[test]
    fn statements_are_understood_however_they_are_typed() {
        let defines = |names: &[&str]| Meaning::Defines(names.iter().map(|n| name(n)).collect());
        let writes = |table: &str| Meaning::Writes(Some(name(table)));
        let table = [
            ("COMMIT", Meaning::End),
            ("rollback", Meaning::End),
            ("ROLLBACK TO `s`", Meaning::Nothing),
            ("SAVEPOINT `s`", Meaning::Nothing),
            ("XA COMMIT X'61',X'',1", Meaning::End),
            ("XA END X'61',X'',1", Meaning::Nothing),
            ("truncate/* x */`a b`", Meaning::Clears(name("a b"))),
            ("TRUNCATE TABLE d.t", Meaning::Clears(name("d.t"))),
            ("/* app */ ALTER ONLINE TABLE `t` ADD x INT", defines(&["t"])),
            ("SET STATEMENT lock_wait_timeout=1 FOR alter table t WAIT 5 drop x", defines(&["t"])),
            ("/*!50000 DROP TABLE */ `d`.`t` , u /* generated by server */", defines(&["d.t", "u"])),
            ("DROP TABLE IF EXISTS t", defines(&["t"])),
            ("RENAME TABLE a TO b, c TO e.d", defines(&["a", "b", "c", "e.d"])),
            ("CREATE OR REPLACE TABLE IF NOT EXISTS t (a INT)", defines(&["t"])),
            ("CREATE TABLE t (a INT)", defines(&["t"])),
            ("CREATE TABLE IF NOT EXISTS t (a INT)", Meaning::Ensures(name("t"))),
            ("CREATE TEMPORARY TABLE t (a INT)", Meaning::Nothing),
            ("DROP TEMPORARY TABLE t", Meaning::Nothing),
            ("CREATE UNIQUE INDEX `i` USING BTREE ON t (a)", defines(&["t"])),
            (
                "CREATE DEFINER=`root`@`localhost` TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @a = 1",
                Meaning::Nothing,
            ),
            ("DROP DATABASE IF EXISTS d", Meaning::Database("d".to_owned())),
            ("INSERT IGNORE INTO t VALUES (1)", writes("t")),
            ("REPLACE d.t VALUES (1)", writes("d.t")),
            ("UPDATE `t` SET a = 1", writes("t")),
            ("UPDATE t, u SET t.a = u.a", Meaning::Writes(None)),
            ("DELETE FROM t WHERE a", writes("t")),
            ("DELETE t FROM t JOIN u", Meaning::Writes(None)),
            ("LOAD DATA INFILE 'x' INTO TABLE `t` FIELDS", writes("t")),
            ("GRANT SELECT ON d.t TO u", Meaning::Nothing),
            ("OPTIMIZE TABLE t", Meaning::Nothing),
        ];
        for (statement, expected) in table {
            assert_eq!(meaning(statement), expected, "{statement}");
        }
    }
}
