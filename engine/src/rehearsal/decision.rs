//! What operators decide about rows in quarantine. A decision names a conflict, as a report tells it, and is replayed by every later
//! rehearsal; one that matches nothing is told.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Conflict, ConflictKind};
use crate::name::DatasetName;
use crate::rows::text;

/// The format of a decisions file.
pub const FORMAT: u32 = 1;
/// A key that was too long to be shown ends so: it may be that of several rows.
const CUT: char = '…';

/// A decisions file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decisions {
    /// The file's format.
    pub format: u32,
    /// The decisions; of two that match a conflict the first is taken.
    #[serde(default)]
    pub decision: Vec<Decision>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Only in this database; in every one where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatasetName>,
    /// The row's table, as the report names it.
    pub table: String,
    /// The row's key, as the report shows it.
    pub key: String,
    /// Only conflicts of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ConflictKind>,
    /// Only conflicts with this constraint or column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// What is done.
    pub action: Verb,
    /// The column that `merge` and `rename` change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The value it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// It takes NULL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub null: bool,
    /// It takes the value that the row in the way has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other: bool,
    /// Its value takes this at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
}

/// What is done, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// The row is left out.
    Drop,
    /// The row is loaded, and the one in its way goes.
    Keep,
    /// The row is loaded with a value of its own or of the row in its way; that one goes, where there is one.
    Merge,
    /// The row is loaded with another value, beside the one that was in its way.
    Rename,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// As [`Verb::Drop`].
    Drop,
    /// As [`Verb::Keep`].
    Keep,
    /// As [`Verb::Merge`].
    Merge(&'a str, Value<'a>),
    /// As [`Verb::Rename`].
    Rename(&'a str, Value<'a>),
}

/// A value that a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// This one.
    Given(&'a str),
    /// NULL.
    Null,
    /// That of the row in the way.
    Other,
    /// Its own with this at its end.
    Suffix(&'a str),
}

/// Why a decision makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDecisions {
    /// Another format.
    #[error("`format = {0}`: this release knows format {FORMAT}")]
    Format(u32),
    /// A decision.
    #[error("decision {number} ({table}, {key}): {problem}")]
    Decision {
        /// Which, from 1.
        number: usize,
        /// Its table.
        table: String,
        /// Its key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Decisions {
    /// None.
    pub fn none() -> Self {
        Self { format: FORMAT, decision: Vec::new() }
    }

    /// Checks every one, so that no rehearsal begins with decisions that cannot be carried out.
    pub fn check(&self) -> Result<(), BadDecisions> {
        if self.format != FORMAT {
            return Err(BadDecisions::Format(self.format));
        }
        for (at, decision) in self.decision.iter().enumerate() {
            let Decision { table, key, .. } = decision.clone();
            decision.action().map_err(|problem| BadDecisions::Decision {
                number: at + 1,
                table,
                key,
                problem,
            })?;
        }
        Ok(())
    }

    /// The first decision about a conflict in a database that `may` be taken, by its place.
    pub fn about(
        &self,
        database: &DatasetName,
        conflict: &Conflict,
        may: impl Fn(usize) -> bool,
    ) -> Option<(usize, Action<'_>)> {
        let found = self.decision.iter().enumerate();
        let mut found = found.filter(|(at, decision)| decision.is_about(database, conflict) && may(*at));
        found.find_map(|(at, decision)| Some((at, decision.action().ok()?)))
    }
}

impl Decision {
    fn is_about(&self, database: &DatasetName, conflict: &Conflict) -> bool {
        self.database.as_ref().is_none_or(|name| name == database)
            && self.table == conflict.table.to_string()
            && self.key == conflict.key
            && self.kind.is_none_or(|kind| kind == conflict.kind)
            && self.constraint.as_ref().is_none_or(|constraint| *constraint == conflict.constraint)
    }

    /// In a few words, as reports name it.
    pub fn shown(&self) -> String {
        let verb = match self.action {
            Verb::Drop => "drop",
            Verb::Keep => "keep",
            Verb::Merge => "merge",
            Verb::Rename => "rename",
        };
        let column = self.column.as_ref().map(|column| format!(" {column}")).unwrap_or_default();
        format!("{verb}{column}: {}, {}", self.table, self.key)
    }

    /// What is done; what is wrong with it, where that cannot be told.
    pub fn action(&self) -> Result<Action<'_>, &'static str> {
        if self.key.ends_with(CUT) {
            return Err("the key is too long to be told apart: change the row at the source");
        }
        let Self { column, value, null, other, suffix, .. } = self;
        let values = [value.is_some(), *null, *other, suffix.is_some()].into_iter().filter(|is| *is).count();
        if let Verb::Drop | Verb::Keep = self.action {
            let is_plain = column.is_none() && values == 0;
            let action = if self.action == Verb::Drop { Action::Drop } else { Action::Keep };
            return is_plain.then_some(action).ok_or("`drop` and `keep` change no column");
        }
        let column = column.as_deref().ok_or("write the `column` that changes")?;
        let value = match (value, null, other, suffix) {
            _ if values != 1 => return Err("write one of `value`, `null`, `other` and `suffix`"),
            (Some(value), ..) => Value::Given(value),
            (_, true, ..) => Value::Null,
            (_, _, true, _) => Value::Other,
            (.., suffix) => Value::Suffix(suffix.as_deref().unwrap_or_default()),
        };
        match (self.action, value) {
            (Verb::Merge, Value::Suffix(_)) => Err("`suffix` is for `rename`"),
            (Verb::Rename, Value::Other | Value::Null) => Err("`other` and `null` are for `merge`"),
            (Verb::Merge, value) => Ok(Action::Merge(column, value)),
            (_, value) => Ok(Action::Rename(column, value)),
        }
    }
}

/// A row with another value in one place. `other` is that of the row in the way. None where the value cannot be had.
pub fn changed(
    engine: &str,
    row: &[u8],
    place: usize,
    value: Value<'_>,
    other: Option<&[u8]>,
) -> Option<Bytes> {
    let mut values: Vec<Cow<'_, [u8]>> = text::values(row).map(Cow::Borrowed).collect();
    let old = values.get(place)?.clone();
    let new = match value {
        Value::Given(given) => printed(engine, given.as_bytes()),
        Value::Null => text::NULL.to_vec(),
        Value::Other => other?.to_vec(),
        Value::Suffix(suffix) => suffixed(engine, &old, suffix)?,
    };
    values[place] = Cow::Owned(new);
    Some(values.join(&b'\t').into())
}

/// A value as a block writes it. SQLite's begin with their storage class; the column's affinity makes a number of a text that is one.
fn printed(engine: &str, value: &[u8]) -> Vec<u8> {
    let mut out = if engine == "sqlite" { vec![b't'] } else { Vec::new() };
    text::escape_into(&mut out, value);
    out
}

fn suffixed(engine: &str, old: &[u8], suffix: &str) -> Option<Vec<u8>> {
    let class = if engine == "sqlite" { 1 } else { 0 };
    if old == text::NULL || class == 1 && !matches!(old.first(), Some(b't' | b'i')) {
        return None;
    }
    let mut value = text::unescape(old.get(class..)?).ok()?.into_owned();
    value.extend_from_slice(suffix.as_bytes());
    Some(printed(engine, &value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::TableName;

    fn decision(action: Verb) -> Decision {
        Decision {
            database: None,
            table: "users".to_owned(),
            key: "id 7".to_owned(),
            kind: None,
            constraint: None,
            action,
            column: None,
            value: None,
            null: false,
            other: false,
            suffix: None,
        }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let column = text("email");
        for (decision, expected) in [
            (decision(Verb::Drop), Ok(Action::Drop)),
            (decision(Verb::Keep), Ok(Action::Keep)),
            (Decision { key: "id xxx…".to_owned(), ..decision(Verb::Drop) }, Err("too long")),
            (Decision { column: column.clone(), ..decision(Verb::Drop) }, Err("change no column")),
            (Decision { other: true, ..decision(Verb::Keep) }, Err("change no column")),
            (Decision { null: true, ..decision(Verb::Merge) }, Err("`column`")),
            (Decision { column: column.clone(), ..decision(Verb::Rename) }, Err("one of")),
            (
                Decision {
                    column: column.clone(),
                    value: text("a"),
                    suffix: text("b"),
                    ..decision(Verb::Rename)
                },
                Err("one of"),
            ),
            (
                Decision { column: column.clone(), suffix: text("b"), ..decision(Verb::Merge) },
                Err("for `rename`"),
            ),
            (Decision { column: column.clone(), other: true, ..decision(Verb::Rename) }, Err("for `merge`")),
            (
                Decision { column: column.clone(), other: true, ..decision(Verb::Merge) },
                Ok(Action::Merge("email", Value::Other)),
            ),
            (
                Decision { column: column.clone(), null: true, ..decision(Verb::Merge) },
                Ok(Action::Merge("email", Value::Null)),
            ),
            (
                Decision { column: column.clone(), value: text("x"), ..decision(Verb::Rename) },
                Ok(Action::Rename("email", Value::Given("x"))),
            ),
            (
                Decision { column, suffix: text("-2"), ..decision(Verb::Rename) },
                Ok(Action::Rename("email", Value::Suffix("-2"))),
            ),
        ] {
            match (decision.action(), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{expected}: {got}"),
                (got, expected) => panic!("{expected:?}: {got:?}"),
            }
        }
        let other = Decisions { format: 2, ..Decisions::none() };
        assert_eq!(other.check(), Err(BadDecisions::Format(2)));
    }

    #[test]
    fn a_decision_is_about_its_conflict_alone() {
        let conflict = Conflict {
            kind: ConflictKind::Unique,
            table: TableName::plain("users"),
            key: "id 7".to_owned(),
            constraint: "users.email".to_owned(),
            other: None,
        };
        let main: DatasetName = "main".parse().unwrap();
        let of = |decision: Decision| Decisions { format: FORMAT, decision: vec![decision] };
        let plain = decision(Verb::Drop);
        for (decision, is_about) in [
            (plain.clone(), true),
            (Decision { kind: Some(ConflictKind::Unique), ..plain.clone() }, true),
            (Decision { kind: Some(ConflictKind::Check), ..plain.clone() }, false),
            (Decision { constraint: text("users.email"), ..plain.clone() }, true),
            (Decision { constraint: text("users.name"), ..plain.clone() }, false),
            (Decision { key: "id 70".to_owned(), ..plain.clone() }, false),
            (Decision { table: "user".to_owned(), ..plain.clone() }, false),
            (Decision { database: Some(main.clone()), ..plain.clone() }, true),
            (Decision { database: "tickets".parse().ok(), ..plain.clone() }, false),
        ] {
            assert_eq!(of(decision).about(&main, &conflict, |_| true).is_some(), is_about);
        }
        let two = Decisions { format: FORMAT, decision: vec![plain, decision(Verb::Keep)] };
        assert_eq!(two.about(&main, &conflict, |_| true), Some((0, Action::Drop)));
        assert_eq!(two.about(&main, &conflict, |at| at != 0), Some((1, Action::Keep)));
    }

    #[test]
    fn values_change_in_the_block_s_form() {
        for (engine, row, value, other, expected) in [
            ("mariadb", "7\ta@b\t\\N", Value::Suffix("-2"), None, Some("7\ta@b-2\t\\N")),
            ("mariadb", "7\ta@b\tx", Value::Given("c\td"), None, Some("7\tc\\td\tx")),
            ("postgres", "7\ta@b\tx", Value::Null, None, Some("7\t\\N\tx")),
            ("postgres", "7\ta@b\tx", Value::Other, Some("o"), Some("7\to\tx")),
            ("postgres", "7\ta@b\tx", Value::Other, None, None),
            ("sqlite", "i7\tta@b\t\\N", Value::Suffix("-2"), None, Some("i7\tta@b-2\t\\N")),
            ("sqlite", "i7\ti5", Value::Suffix("0"), None, Some("i7\tt50")),
            ("sqlite", "i7\t\\N", Value::Suffix("0"), None, None),
            ("sqlite", "i7\tb00", Value::Suffix("0"), None, None),
            ("sqlite", "i7\t\\N", Value::Given("5"), None, Some("i7\tt5")),
            ("sqlite", "i7", Value::Given("5"), None, None),
        ] {
            let got = changed(engine, row.as_bytes(), 1, value, other.map(str::as_bytes));
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{engine} {row} {value:?}");
        }
    }
}
