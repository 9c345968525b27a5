//! Why the server refused a row, and which row is in its way.

use handover_engine::ports::scratch::{Batch, Refusal};
use handover_engine::rehearsal::ConflictKind;
use mysql_async::Error;

use super::make::Known;
use crate::session::Session;
use crate::shape::POSITION;
use crate::sql::{qualified, quote};

/// The reason, by the server's error number; none where it is no matter of the row.
pub fn of(table: &str, error: &Error) -> Option<Refusal> {
    let Error::Server(error) = error else { return None };
    let message = error.message.as_str();
    let (kind, constraint) = match error.code {
        1062 | 1586 | 1022 => (ConflictKind::Unique, after(message, " for key ")),
        1048 => (ConflictKind::NotNull, after(message, "Column ")),
        1364 => (ConflictKind::NotNull, after(message, "Field ")),
        1406 => (ConflictKind::Length, after(message, " for column ")),
        1118 | 1713 => (ConflictKind::Length, None),
        1264 | 1265 | 1292 | 1300 | 1366 | 1367 | 1411 | 1416 | 1918 | 4078 => {
            (ConflictKind::Type, after(message, " for column "))
        }
        4025 => (ConflictKind::Check, after(message, "CONSTRAINT ")),
        1526 => (ConflictKind::Check, Some("partition".to_owned())),
        _ => return None,
    };
    let constraint = constraint.unwrap_or_else(|| table.to_owned());
    Some(Refusal { kind, constraint, in_the_way: None })
}

/// The name that follows the last `word`: in quotes of either kind, of several the last. The values that stand before it may hold anything.
fn after(message: &str, word: &str) -> Option<String> {
    let rest = &message[message.rfind(word)? + word.len()..];
    let mark = rest.chars().next().filter(|c| matches!(c, '\'' | '`'))?;
    let (mut name, mut rest) = ("", rest);
    while let Some(quoted) = rest.strip_prefix(mark) {
        let end = quoted.find(mark)?;
        name = &quoted[..end];
        rest = quoted[end + 1..].strip_prefix('.').unwrap_or_default();
    }
    Some(name.to_owned())
}

/// The number of the row that has the same unique value. None where it cannot be told.
pub async fn in_the_way(
    session: &mut Session,
    database: &str,
    known: &Known,
    batch: &Batch,
    literals: &[String],
    why: &Refusal,
) -> Option<u64> {
    if why.kind != ConflictKind::Unique {
        return None;
    }
    let mut terms = Vec::new();
    for (column, prefix) in known.unique(&batch.table, &why.constraint)? {
        let place = batch.columns.iter().position(|spec| spec.name.eq_ignore_ascii_case(column))?;
        let (column, literal) = (quote(column), &literals[place]);
        terms.push(match prefix {
            Some(length) => format!("LEFT({column}, {length}) = LEFT({literal}, {length})"),
            None => format!("{column} = {literal}"),
        });
    }
    let query = format!(
        "SELECT {POSITION} FROM {} WHERE {} LIMIT 1",
        qualified(database, &batch.table.name),
        terms.join(" AND ")
    );
    // What cannot be compared cannot be told.
    let row = session.try_record(&query).await.ok()??;
    Some(row.number(0)).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use handover_engine::rehearsal::ConflictKind::{Check, Length, NotNull, Type, Unique};
    use mysql_async::ServerError;

    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        for (code, message, expected) in [
            (1062, "Duplicate entry 'x' for key 'y' for key 'email'", Some((Unique, "email"))),
            (1048, "Column 'name' cannot be null", Some((NotNull, "name"))),
            (1364, "Field 'name' doesn't have a default value", Some((NotNull, "name"))),
            (1406, "Data too long for column 'code' at row 1", Some((Length, "code"))),
            (
                1366,
                "Incorrect integer value: 'x' for column `to_1`.`customer`.`age` at row 1",
                Some((Type, "age")),
            ),
            (1265, "Data truncated for column 'state' at row 3", Some((Type, "state"))),
            (
                4025,
                "CONSTRAINT `customer.score` failed for `to_1`.`customer`",
                Some((Check, "customer.score")),
            ),
            (1118, "Row size too large", Some((Length, "t"))),
            (1213, "Deadlock found", None),
            (1114, "The table 't' is full", None),
        ] {
            let error = ServerError { code, message: message.to_owned(), state: "HY000".to_owned() };
            let why = of("t", &Error::Server(error));
            let why = why.as_ref().map(|why| (why.kind, why.constraint.as_str()));
            assert_eq!(why, expected, "{message}");
        }
    }
}
