//! What a server shows as `?`: definitions are shown in utf8mb3, and every character of four bytes among the members of an
//! ENUM or SET, or in a literal DEFAULT, becomes a question mark, and so does every byte of a binary DEFAULT
//! that is no text. The values themselves are whole, and can be asked for.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;

use super::WHAT;
use super::create::{body, closing, literal_end, name, scan, split};
use crate::session::{Record, Session};
use crate::sql::quote;

/// A column's line, cut where something is put in another's place.
struct Line<'a> {
    column: String,
    text: &'a str,
    /// The members of an ENUM or SET, without parentheses.
    members: Option<(usize, usize)>,
    /// A literal DEFAULT, with its quotes.
    default: Option<(usize, usize)>,
}

impl<'a> Line<'a> {
    /// A line of a statement's body that shows a question mark where it may have lost something.
    fn read(text: &'a str) -> Option<Self> {
        let column = name(text)?;
        let start = text.find('`')? + quote(&column).len();
        let rest = &text[start..];
        let doubtful = |&(from, to): &(usize, usize)| text[from..to].contains('?');
        let members = [" enum(", " set("].iter().find(|word| rest.starts_with(**word)).and_then(|word| {
            let open = start + word.len() - 1;
            Some((open + 1, closing(text, open)?))
        });
        let from = members.map_or(start, |(_, to)| to);
        let mut default = None;
        scan(&text[from..], |at, _, rest| {
            if rest.starts_with(" DEFAULT '") {
                default = Some(from + at + " DEFAULT ".len());
            }
            default.is_none()
        });
        let default = default.and_then(|at| Some((at, literal_end(text, at)?)));
        let line =
            Self { column, text, members: members.filter(doubtful), default: default.filter(doubtful) };
        (line.members.is_some() || line.default.is_some()).then_some(line)
    }

    fn replaced(&self, members: Option<&str>, default: Option<&str>) -> String {
        let mut out = self.text.to_owned();
        // From the right: what stands before keeps its place.
        for (place, new) in [(self.default, default), (self.members, members)] {
            if let (Some((from, to)), Some(new)) = (place, new) {
                out.replace_range(from..to, new);
            }
        }
        out
    }
}

/// Members, as SHOW CREATE would print them if it could.
async fn members(session: &mut Session, table: &str, line: &Line<'_>, shown: &str) -> Result<String> {
    let count = split(shown, ',').len();
    let is_set = line.text[..line.members.map_or(0, |(from, _)| from)].ends_with("set(");
    let value = if is_set { "CAST(1 AS UNSIGNED) << (n - 1)" } else { "n" };
    // A variable of the column's type is set to one number after the other. It needs no row and writes nothing.
    let query = format!(
        "BEGIN NOT ATOMIC DECLARE x TYPE OF {}.{}; DECLARE r LONGTEXT CHARACTER SET ascii DEFAULT ''; \
         FOR n IN 1..{count} DO SET x = {value}; SET r = CONCAT(r, HEX(CONVERT(x USING utf8mb4)), ','); END FOR; SELECT r; END",
        quote(table),
        quote(&line.column)
    );
    let row = ask(session, table, &line.column, &query).await?;
    let told = row.text(0);
    let members: Option<Vec<String>> = told.split_terminator(',').map(printed).collect();
    members
        .filter(|members| members.len() == count)
        .map(|members| members.join(","))
        .ok_or_else(|| unshown(session, table, &line.column))
}

/// A literal default, as SHOW CREATE would print it; bytes in hexadecimal digits. None where it cannot be asked for: that takes a
/// column that may be NULL, or a row.
async fn default(session: &mut Session, table: &str, column: &str) -> Result<Option<String>> {
    let (table_name, value) = (quote(table), format!("DEFAULT({}.{})", quote(table), quote(column)));
    let value = format!("CHARSET({value}), HEX({value}), HEX(CONVERT({value} USING utf8mb4))");
    for from in
        [format!("{table_name} LIMIT 1"), format!("(SELECT 1) one LEFT JOIN {table_name} ON FALSE LIMIT 1")]
    {
        let row = session.try_record(&format!("SELECT {value} FROM {from}")).await;
        let row = row.map_err(|error| session.failed(Some(table), WHAT, error))?;
        if let Some((row, hex)) = row.and_then(|row| row.maybe(2).map(|hex| (row, hex))) {
            return Ok(match row.text(0).as_str() {
                "binary" => Some(format!("x'{}'", row.text(1))),
                _ => printed(&hex),
            });
        }
    }
    Ok(None)
}

/// The one member that is shown so.
fn shown_as(shown: &str, members: &str) -> Option<String> {
    let mask =
        |text: &str| text.chars().map(|c| if u32::from(c) > 0xffff { '?' } else { c }).collect::<String>();
    let mut found = split(members, ',').into_iter().filter(|member| mask(member) == shown);
    found.next().filter(|_| found.next().is_none()).map(str::to_owned)
}

async fn ask(session: &mut Session, table: &str, column: &str, query: &str) -> Result<Record> {
    match session.try_record(query).await {
        Ok(Some(row)) => Ok(row),
        Ok(None) => Err(unshown(session, table, column)),
        // 1064: a server that is too old for the question.
        Err(error) if crate::error::code(&error) == Some(1064) => Err(unshown(session, table, column)),
        Err(error) => Err(session.failed(Some(table), WHAT, error)),
    }
}

fn unshown(session: &Session, table: &str, column: &str) -> Failure {
    Failure::operator(
        format!("{}, table {table}, column {column}", session.item()),
        "the server shows a `?` among its members or in its default, which may stand for a character that it cannot show",
    )
    .hint("rename the member, or name the table in `exclude`")
}

/// A value in quotes from its UTF-8 in hexadecimal digits.
fn printed(hex: &str) -> Option<String> {
    let digit = |at: usize| hex.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digit).collect();
    let mut out = "'".to_owned();
    for c in String::from_utf8(bytes?).ok()?.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('\'');
    Some(out)
}

/// A table's SHOW CREATE with what its server could not show. The session must be in the table's database.
pub async fn restore(session: &mut Session, table: &str, statement: String) -> Result<String> {
    let Some((open, close)) = body(&statement).filter(|_| statement.contains('?')) else {
        return Ok(statement);
    };
    let mut lines = Vec::new();
    for text in split(&statement[open + 1..close], ',') {
        let Some(line) = Line::read(text) else {
            lines.push(text.to_owned());
            continue;
        };
        let real_members = match line.members {
            Some((from, to)) => Some(members(session, table, &line, &text[from..to]).await?),
            None => None,
        };
        let real_default = match line.default {
            Some((from, to)) => default(session, table, &line.column)
                .await?
                .or_else(|| shown_as(&text[from..to], real_members.as_deref()?)),
            None => None,
        };
        lines.push(line.replaced(real_members.as_deref(), real_default.as_deref()));
    }
    Ok(format!("{}{}{}", &statement[..=open], lines.join(","), &statement[close..]))
}

/// The type of a column as a statement declares it, if it is an ENUM or SET.
pub fn member_type(statement: &str, column: &str) -> Option<String> {
    let (open, close) = body(statement)?;
    split(&statement[open + 1..close], ',').into_iter().find_map(|text| {
        if name(text)? != column {
            return None;
        }
        let rest = text.trim_start().strip_prefix(&quote(column))?.trim_start();
        let end =
            closing(rest, rest.find('(').filter(|_| rest.starts_with("enum(") || rest.starts_with("set("))?)?;
        Some(rest[..=end].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_are_found_where_they_count() {
        let table = [
            ("`e` enum('a','?','x,)') DEFAULT '?' COMMENT '?'", "`e` enum(M) DEFAULT D COMMENT '?'"),
            ("\n  `s` set('a','?') DEFAULT 'a'", "\n  `s` set(M) DEFAULT 'a'"),
            (
                "`v?` varchar(3) DEFAULT 'it''s ?' CHECK (`v` <> '?')",
                "`v?` varchar(3) DEFAULT D CHECK (`v` <> '?')",
            ),
            ("`v` varchar(3) DEFAULT concat('?') COMMENT ' DEFAULT ''?'", ""),
            ("`e` enum('a') DEFAULT 'a' COMMENT '?'", ""),
            ("PRIMARY KEY (`e?`)", ""),
        ];
        for (line, expected) in table {
            let found = Line::read(line).map(|line| line.replaced(Some("M"), Some("D"))).unwrap_or_default();
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn values_are_printed_as_the_server_does() {
        assert_eq!(printed("F09F98802727").as_deref(), Some("'😀'''''"));
        assert_eq!(printed("5C0A0D00").as_deref(), Some("'\\\\\\n\\r\\0'"));
        assert_eq!(printed("F0"), None);
    }

    #[test]
    fn a_default_is_known_by_its_member() {
        assert_eq!(shown_as("'?x'", "'a','😀x','?'").as_deref(), Some("'😀x'"));
        assert_eq!(shown_as("'?'", "'😀','?'"), None);
    }

    #[test]
    fn types_with_members_are_told() {
        let sql = "CREATE TABLE `t` (\n  `a``` enum('x','(,') NOT NULL,\n  `b` int(11),\n  PRIMARY KEY (`b`)\n) ENGINE=InnoDB";
        assert_eq!(member_type(sql, "a`").as_deref(), Some("enum('x','(,')"));
        assert_eq!(member_type(sql, "b"), None);
    }
}
