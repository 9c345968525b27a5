//! What SQLite refuses, in the operator's terms.

use std::path::Path;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::DatasetName;
use rusqlite::ffi::ErrorCode;

use super::value::BadValue;

/// Why a database could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A block or key is not of the form.
    #[error("malformed: {0}")]
    Malformed(BadValue),
    /// The table is not in the schema, or the key is none of it.
    #[error("{0}")]
    Unknown(&'static str),
    /// A virtual table whose module is not compiled in.
    #[error("the virtual table {table} needs the module {module}, which this release does not have")]
    Module {
        /// The table.
        table: String,
        /// The module.
        module: String,
    },
    /// A statement of the source's schema is not exactly one CREATE.
    #[error("a schema statement that makes nothing")]
    Statement,
    /// A table that is to be left out is not there.
    #[error("`exclude` names the table {0}, which is not there")]
    Excluded(String),
    /// The integrity check of the finished database found something.
    #[error("its integrity check says: {0}")]
    Check(String),
}

impl From<BadValue> for Error {
    fn from(bad: BadValue) -> Self {
        Error::Malformed(bad)
    }
}

/// What the adapter's inner functions answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure on the database at `path`.
pub fn failed(dataset: &DatasetName, path: &Path, what: &str, error: impl Into<Error>) -> Failure {
    let error = error.into();
    let (class, hint) = judge(&error);
    Failure::new(class, item(dataset, path), what).because(error).hint(hint)
}

/// How messages name the database at `path`.
pub fn item(dataset: &DatasetName, path: &Path) -> String {
    format!("{dataset}, {}", path.display())
}

fn judge(error: &Error) -> (Class, &'static str) {
    match error {
        Error::Sqlite(error) => judge_sqlite(error),
        Error::Malformed(_) | Error::Unknown(_) | Error::Statement => {
            (Class::Permanent, "source and target disagree: report this as an error")
        }
        Error::Module { .. } => (Class::NeedsOperator, "exclude the table in appliance.toml"),
        Error::Excluded(_) => (Class::NeedsOperator, "correct appliance.toml"),
        Error::Check(_) => (Class::Permanent, "abort, and look after the target's disk and memory"),
    }
}

fn judge_sqlite(error: &rusqlite::Error) -> (Class, &'static str) {
    use Class::{NeedsOperator, Permanent, Transient};
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Transient, "another process holds it locked: it is tried again")
        }
        Some(ErrorCode::DiskFull) => (NeedsOperator, "free space on its file system, then resume"),
        Some(ErrorCode::DatabaseCorrupt) => (Permanent, "run `PRAGMA integrity_check` on it and repair it"),
        Some(ErrorCode::NotADatabase) => {
            (NeedsOperator, "correct `url` in appliance.toml: this is no SQLite database")
        }
        Some(ErrorCode::CannotOpen) => (NeedsOperator, "does it exist, and may the agent read it?"),
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => (NeedsOperator, "give the agent's user the right to write there"),
        Some(ErrorCode::SystemIoFailure) => {
            (NeedsOperator, "the disk reports an error: see the kernel's log")
        }
        Some(ErrorCode::ConstraintViolation) => (
            NeedsOperator,
            "the table holds values that its own declaration forbids: repair them at the source",
        ),
        _ => (NeedsOperator, "the table may need a function or collation of its application: exclude it"),
    }
}
