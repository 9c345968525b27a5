//! Why the server refused a row, and which row is in its way.

use handover_engine::ports::scratch::{Batch, Refusal, TriedRow};
use handover_engine::rehearsal::ConflictKind;
use handover_engine::rows::text;
use tokio_postgres::Error;

use super::{ROW, full};
use crate::connect::Conn;
use crate::sql::{literal, literal_bytes, quote};

/// The reason, by SQLSTATE; none where it is no matter of the row.
pub fn of(table: &str, error: &Error) -> Option<Refusal> {
    let told = error.as_db_error()?;
    let context = told.where_().unwrap_or_default();
    let (kind, named) =
        kind(told.code().code(), told.constraint(), told.column().or_else(|| column(context)))?;
    let constraint = named.unwrap_or(table).to_owned();
    Some(Refusal { kind, constraint, in_the_way: None })
}

/// The kind of constraint that a code is about, and which of the two names names it.
fn kind<'a>(
    code: &str,
    constraint: Option<&'a str>,
    column: Option<&'a str>,
) -> Option<(ConflictKind, Option<&'a str>)> {
    Some(match code {
        "23505" | "23P01" => (ConflictKind::Unique, constraint),
        "23502" => (ConflictKind::NotNull, column),
        // A row of another partition breaks a constraint without a name.
        "23514" => (ConflictKind::Check, constraint.or(Some("partition"))),
        "22001" => (ConflictKind::Length, column),
        // An index entry that is too large.
        "54000" => (ConflictKind::Length, constraint),
        // The block itself is malformed.
        "22P04" => return None,
        _ if code.starts_with("22") => (ConflictKind::Type, column),
        _ => return None,
    })
}

/// The column in `COPY t, line 1, column c: "value"`.
fn column(context: &str) -> Option<&str> {
    let line = context.lines().find(|line| line.starts_with("COPY "))?;
    let (_, rest) = line.split_once(", column ")?;
    Some(rest.split_once(": ").map_or(rest, |(name, _)| name))
}

/// The number of the row that has the same unique value. None where the constraint is one of expressions, or excludes more than
/// equal values.
pub async fn in_the_way(
    conn: &Conn,
    encoding: &str,
    batch: &Batch,
    row: &TriedRow,
    why: &Refusal,
) -> Result<Option<u64>, Error> {
    if why.kind != ConflictKind::Unique {
        return Ok(None);
    }
    let Some(columns) = columns(conn, batch, &why.constraint).await? else { return Ok(None) };
    let values: Vec<&[u8]> = text::values(&row.values).collect();
    let mut terms = Vec::new();
    for (column, declared) in &columns {
        let place = batch.columns.iter().position(|spec| spec.name == *column);
        let Some(value) = place.and_then(|place| values.get(place)) else { return Ok(None) };
        let Ok(value) = text::unescape(value) else { return Ok(None) };
        terms.push(format!("{} = CAST({} AS {declared})", quote(column), literal_bytes(&value, encoding)));
    }
    let sql = format!("SELECT {ROW} FROM {} WHERE {} LIMIT 1", full(&batch.table), terms.join(" AND "));
    Ok(conn.text(&sql).await?.and_then(|number| number.parse().ok()))
}

/// The columns of a unique index on the table, with their types. None where it has expressions.
async fn columns(conn: &Conn, batch: &Batch, index: &str) -> Result<Option<Vec<(String, String)>>, Error> {
    let sql = format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         CROSS JOIN LATERAL unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(number, place) \
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0 \
         WHERE i.indrelid = {}::pg_catalog.regclass AND c.relname = {} AND i.indisunique AND i.indpred IS NULL \
         AND k.place <= i.indnkeyatts ORDER BY k.place",
        literal(&full(&batch.table)),
        literal(index)
    );
    let rows = conn.rows(&sql).await?;
    let pairs = rows.into_iter().map(|row| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next()??))
    });
    let pairs: Option<Vec<(String, String)>> = pairs.collect();
    Ok(pairs.filter(|pairs| !pairs.is_empty()))
}

#[cfg(test)]
mod tests {
    use handover_engine::rehearsal::ConflictKind::{Check, Length, NotNull, Type, Unique};

    use super::*;

    #[test]
    fn refusals_are_told_apart_by_their_codes() {
        for (code, constraint, column, expected) in [
            ("23505", Some("t_email_key"), None, Some((Unique, Some("t_email_key")))),
            ("23502", None, Some("name"), Some((NotNull, Some("name")))),
            ("23514", Some("small"), None, Some((Check, Some("small")))),
            ("23514", None, None, Some((Check, Some("partition")))),
            ("22001", None, Some("code"), Some((Length, Some("code")))),
            ("22P02", None, Some("age"), Some((Type, Some("age")))),
            ("22003", None, None, Some((Type, None))),
            ("22P04", None, None, None),
            ("53100", None, None, None),
            ("40P01", None, None, None),
        ] {
            assert_eq!(kind(code, constraint, column), expected, "{code}");
        }
    }

    #[test]
    fn a_context_names_its_column() {
        for (context, expected) in [
            ("COPY customer, line 1, column age: \"unknown\"", Some("age")),
            ("COPY customer, line 12, column age: \", column x: \"", Some("age")),
            ("COPY customer, line 3", None),
            ("PL/pgSQL function f() line 3\nCOPY t, line 1, column b: \"x\"", Some("b")),
        ] {
            assert_eq!(column(context), expected, "{context}");
        }
    }
}
