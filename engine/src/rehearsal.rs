//! Rehearsals: production's data is loaded into a scratch database beside the target's, as often as wanted. What the target's
//! constraints refuse is collected in quarantine, with the reason, instead of failing the load; what the operator decides about it is
//! replayed by every later rehearsal.
//!
//! [`run`] is one rehearsal of one database; [`decision`] what operators decide; [`fit`] which columns go where; [`report`]
//! what is told at the end; [`fitted`] what of it a migration tells that loads rows as was decided.

pub mod bisect;
pub mod decision;
pub mod fit;
pub mod fitted;
pub mod quarantine;
pub mod report;
pub mod run;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rows::TableName;

/// What kind of constraint a row breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// Another row has the value that must be unique (a primary key's too).
    Unique,
    /// It refers to a row that is not there.
    ForeignKey,
    /// It has no value where one must be.
    NotNull,
    /// A value is not of the column's type.
    Type,
    /// A value is too long for its column.
    Length,
    /// It breaks a check constraint.
    Check,
}

impl ConflictKind {
    /// As it is written in decisions and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::ForeignKey => "foreign-key",
            Self::NotNull => "not-null",
            Self::Type => "type",
            Self::Length => "length",
            Self::Check => "check",
        }
    }
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A row of production that the target's schema does not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conflict {
    /// The kind of constraint.
    pub kind: ConflictKind,
    /// The row's table.
    pub table: TableName,
    /// The row's key, with its columns' names.
    pub key: String,
    /// The constraint or the column.
    pub constraint: String,
    /// The key of the row that is in the way, where there is one and it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, table, key, constraint, other } = self;
        write!(f, "{kind} {constraint}: {table}, {key}")?;
        match other {
            Some(other) => write!(f, " (in its way: {other})"),
            None => Ok(()),
        }
    }
}
