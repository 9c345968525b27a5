//! What SQLite refuses, in the operator's terms.

use std::path::Path;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::DatasetName;
use rusqlite::ffi::ErrorCode;

/// A failure of SQLite on the database at `path`.
pub fn failed(dataset: &DatasetName, path: &Path, what: &str, error: rusqlite::Error) -> Failure {
    let (class, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Class::Transient, "another process holds it locked: it is tried again")
        }
        Some(ErrorCode::DiskFull) => (Class::NeedsOperator, "free space on its file system, then resume"),
        Some(ErrorCode::DatabaseCorrupt) => {
            (Class::NeedsOperator, "run `PRAGMA integrity_check` on it and repair it")
        }
        Some(ErrorCode::NotADatabase) => {
            (Class::NeedsOperator, "correct `url` in appliance.toml: this is no SQLite database")
        }
        Some(ErrorCode::CannotOpen) => (Class::NeedsOperator, "does it exist, and may the agent read it?"),
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => (Class::NeedsOperator, "give the agent's user the right to write there"),
        Some(ErrorCode::SystemIoFailure) => {
            (Class::NeedsOperator, "the disk reports an error: see the kernel's log")
        }
        _ if error.to_string().contains("no such module") => (
            Class::NeedsOperator,
            "this release is built without that virtual-table module: exclude the table",
        ),
        _ => (Class::NeedsOperator, ""),
    };
    Failure::new(class, format!("{dataset}, {}", path.display()), what).because(error).hint(hint)
}
