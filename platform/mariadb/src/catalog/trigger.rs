//! A trigger's statement. The server keeps it as it was typed, from the word TRIGGER on: in any case, with comments, and with
//! names of the database that it stood in. All but those names stays as it is.

use std::ops::Range;

use super::create::unquote;
use crate::sql::quote;

/// A trigger's statement, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Who it runs as, in backticks.
    pub definer: Option<String>,
    /// What makes it in the database that the session is in, without the definer.
    pub statement: String,
}

/// A word or a quoted name of the head, or a sign.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Name(String),
    Sign(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own.eq_ignore_ascii_case(word))
    }

    fn name(self) -> Option<String> {
        match self {
            Self::Word(name) | Self::Name(name) => Some(name),
            Self::Sign(_) => None,
        }
    }
}

/// What is left to be read.
#[derive(Clone, Copy)]
struct Head<'a>(&'a str);

impl Head<'_> {
    fn skip_space(&mut self) -> Option<()> {
        loop {
            self.0 = self.0.trim_start();
            let is_line = self.0.starts_with('#')
                || self.0.strip_prefix("--").is_some_and(|rest| rest.starts_with(char::is_whitespace));
            let end = match self.0.strip_prefix("/*") {
                Some(comment) => 2 + comment.find("*/")? + 2,
                None if is_line => self.0.find('\n')?,
                None => return Some(()),
            };
            self.0 = &self.0[end..];
        }
    }

    fn next(&mut self) -> Option<Token> {
        self.skip_space()?;
        let first = self.0.chars().next()?;
        if matches!(first, '`' | '"') {
            let (name, rest) = unquote(self.0)?;
            self.0 = rest;
            return Some(Token::Name(name));
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len()).max(first.len_utf8());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(if is_part(first) { Token::Word(token.to_owned()) } else { Token::Sign(first) })
    }

    /// Takes this word, if it is the next.
    fn word(&mut self, word: &str) -> Option<()> {
        let mut ahead = *self;
        ahead.next().filter(|token| token.is(word))?;
        *self = ahead;
        Some(())
    }

    fn sign(&mut self, sign: char) -> Option<()> {
        let mut ahead = *self;
        ahead.next().filter(|token| *token == Token::Sign(sign))?;
        *self = ahead;
        Some(())
    }

    fn name(&mut self) -> Option<String> {
        self.next()?.name()
    }

    /// Passes over a name; where the name of its database stands, with the dot.
    fn object(&mut self, whole: &str) -> Option<Range<usize>> {
        self.skip_space()?;
        let start = self.at(whole);
        if self.sign('.').is_none() {
            self.name()?;
            if self.sign('.').is_none() {
                return Some(start..start);
            }
        }
        self.skip_space()?;
        let end = self.at(whole);
        self.name().map(|_| start..end)
    }

    /// How much of the whole text has been read.
    fn at(&self, whole: &str) -> usize {
        whole.len() - self.0.len()
    }

    /// Which trigger it comes behind or before: triggers are made in their order, and need not be told.
    fn neighbour(&mut self, whole: &str) -> Option<Range<usize>> {
        let start = self.at(whole);
        if self.word("FOLLOWS").or_else(|| self.word("PRECEDES")).is_some() {
            self.name()?;
        }
        Some(start..self.at(whole))
    }

    /// `user@host`, or a role's name alone.
    fn account(&mut self) -> Option<String> {
        let user = quote(&self.name()?);
        Some(match self.sign('@') {
            Some(()) => format!("{user}@{}", quote(&self.name()?)),
            None => user,
        })
    }
}

/// Reads what SHOW CREATE TRIGGER tells.
pub fn read(statement: &str) -> Option<Trigger> {
    let mut head = Head(statement);
    head.word("CREATE")?;
    if head.word("OR").is_some() {
        head.word("REPLACE")?;
    }
    let mut definer = None;
    if head.word("DEFINER").is_some() {
        head.sign('=')?;
        definer = Some(head.account()?);
    }
    head.skip_space()?;
    let from = head.at(statement);
    head.word("TRIGGER")?;
    if head.word("IF").is_some() && (head.word("NOT").is_none() || head.word("EXISTS").is_none()) {
        return None;
    }
    let mut cuts = vec![head.object(statement)?];
    // Its time and its events.
    while !head.next()?.is("ON") {}
    cuts.push(head.object(statement)?);
    for word in ["FOR", "EACH", "ROW"] {
        head.word(word)?;
    }
    cuts.push(head.neighbour(statement)?);
    Some(Trigger { definer, statement: format!("CREATE {}", without(statement, from, &cuts)) })
}

/// The text from a place on, without these parts of it, which are in their order.
fn without(text: &str, from: usize, cuts: &[Range<usize>]) -> String {
    let (mut out, mut at) = (String::new(), from);
    for cut in cuts {
        out.push_str(&text[at..cut.start]);
        at = cut.end;
    }
    out + &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_understood_however_they_are_typed() {
        let table = [
            (
                "CREATE DEFINER=`root`@`localhost` trigger `app`.`t r` before insert ON `app`.`t``x` FOR EACH ROW SET @x = 'TRIGGER '",
                "CREATE trigger `t r` before insert ON `t``x` FOR EACH ROW SET @x = 'TRIGGER '",
                Some("`root`@`localhost`"),
            ),
            (
                "CREATE OR REPLACE DEFINER=\"a`b\"@\"%\" TRIGGER \"app\" . \"on\" AFTER UPDATE ON\"app\".\"t\"FOR EACH ROW BEGIN END",
                "CREATE TRIGGER \"on\" AFTER UPDATE ON\"t\"FOR EACH ROW BEGIN END",
                Some("`a``b`@`%`"),
            ),
            (
                "CREATE DEFINER=role Trigger /* ON x.y */ if not exists app /* . */ . tr # FOR\n BEFORE -- each\n DELETE ON app.t for each row\n  follows `x` /* c */ BEGIN END",
                "CREATE Trigger /* ON x.y */ if not exists tr # FOR\n BEFORE -- each\n DELETE ON t for each row /* c */ BEGIN END",
                Some("`role`"),
            ),
            (
                "CREATE TRIGGER ü BEFORE INSERT OR UPDATE OF a, `b c` ON .t FOR EACH ROW CALL app.follow()",
                "CREATE TRIGGER ü BEFORE INSERT OR UPDATE OF a, `b c` ON t FOR EACH ROW CALL app.follow()",
                None,
            ),
        ];
        for (statement, expected, definer) in table {
            let trigger = read(statement).unwrap();
            assert_eq!((trigger.statement.as_str(), trigger.definer.as_deref()), (expected, definer));
            assert_eq!(read(expected).unwrap().statement, expected);
        }
    }

    #[test]
    fn other_statements_are_refused() {
        for statement in [
            "CREATE PROCEDURE p() SELECT 1",
            "CREATE TRIGGER t",
            "CREATE TRIGGER `t BEFORE INSERT ON t FOR EACH ROW x",
            "CREATE TRIGGER t BEFORE INSERT ON t /* FOR EACH ROW x",
        ] {
            assert_eq!(read(statement), None, "{statement}");
        }
    }
}
