//! What PostgreSQL refuses, in the operator's terms.

use handover_engine::failure::{Class, Failure};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// A server's error, without what may be row data: details, contexts and values in messages.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The server's own words.
    #[error("{message} (SQLSTATE {code})")]
    Server {
        /// Its primary message.
        message: String,
        /// Its code.
        code: String,
    },
    /// The connection's.
    #[error("{0}")]
    Connection(String),
}

/// A failure of the server or the connection to it on `item`.
pub fn failed(item: impl Into<String>, what: impl Into<String>, error: &Error) -> Failure {
    let (class, hint) = judge(error);
    Failure::new(class, item, what).because(cause(error)).hint(hint)
}

/// A failure to reach the server at all.
pub fn unreachable(item: &str, error: std::io::Error) -> Failure {
    let (class, hint) = io_error(&error);
    Failure::new(class, item, "it cannot be connected to").because(error).hint(hint)
}

fn cause(error: &Error) -> Cause {
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(inner) = next {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            next = inner.source();
        }
        return Cause::Connection(text);
    };
    Cause::Server { message: without_values(db), code: db.code().code().to_owned() }
}

/// Messages about data hold the data at their end, after a colon.
fn without_values(db: &DbError) -> String {
    let message = db.message();
    let about_data = db.code().code().starts_with("22");
    let mut out = match message.split_once(": \"") {
        Some((before, _)) if about_data => before.to_owned(),
        _ => message.to_owned(),
    };
    for (kind, name) in [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())] {
        if let Some(name) = name.filter(|name| !out.contains(*name)) {
            out.push_str(&format!(", {kind} {name}"));
        }
    }
    out
}

/// Who can make it right, and how.
fn judge(error: &Error) -> (Class, &'static str) {
    use Class::{NeedsOperator, Transient};
    let Some(code) = error.code() else {
        return connection(error);
    };
    let table: [(&[SqlState], Class, &str); 15] = [
        (
            &[SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION],
            NeedsOperator,
            "correct the user or password in `url`, or the server's pg_hba.conf",
        ),
        (
            &[SqlState::INVALID_CATALOG_NAME],
            NeedsOperator,
            "correct the database's name in `url`, or make it",
        ),
        (
            &[SqlState::INSUFFICIENT_PRIVILEGE],
            NeedsOperator,
            "grant it to the role of `url`: the preflight shows the statements",
        ),
        (
            &[SqlState::TOO_MANY_CONNECTIONS],
            Transient,
            "raise max_connections at the server, or close other connections",
        ),
        (
            &[SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW],
            Transient,
            "the server is stopping or starting: it is tried again",
        ),
        (
            &[SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED],
            Transient,
            "it collided with other work at the server: it is tried again",
        ),
        (
            &[SqlState::LOCK_NOT_AVAILABLE, SqlState::OBJECT_IN_USE, SqlState::QUERY_CANCELED],
            Transient,
            "somebody else holds it, or ended the query: it is tried again",
        ),
        (
            &[SqlState::DISK_FULL],
            NeedsOperator,
            "free space on the file system of the server's data directory, then resume",
        ),
        (
            &[SqlState::OUT_OF_MEMORY, SqlState::INSUFFICIENT_RESOURCES],
            Transient,
            "the server is short of memory: lower its load",
        ),
        (
            &[SqlState::READ_ONLY_SQL_TRANSACTION],
            NeedsOperator,
            "the server is read only (a standby, or default_transaction_read_only): name the primary in `url`",
        ),
        (
            &[SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_SCHEMA],
            NeedsOperator,
            "it was dropped or altered in between: leave the schema alone during a migration, then resume",
        ),
        (
            &[SqlState::UNDEFINED_FILE, SqlState::UNDEFINED_OBJECT, SqlState::FEATURE_NOT_SUPPORTED],
            NeedsOperator,
            "something that the schema needs is missing at this server: install the same packages as at the source",
        ),
        (
            // "invalid snapshot identifier": the snapshot's holder is gone.
            &[SqlState::INVALID_PARAMETER_VALUE],
            NeedsOperator,
            "the server does not accept a value: compare both servers' versions and settings",
        ),
        (
            &[SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED, SqlState::IO_ERROR],
            NeedsOperator,
            "the server reports damage: see its log, and check its disk",
        ),
        (&[SqlState::DUPLICATE_DATABASE], NeedsOperator, "drop or rename the database that is in the way"),
    ];
    for (codes, class, hint) in table {
        if codes.contains(code) {
            return (class, hint);
        }
    }
    if code.code().starts_with("08") {
        return (Transient, "the connection broke: it is tried again");
    }
    (NeedsOperator, "see the server's log")
}

fn connection(error: &Error) -> (Class, &'static str) {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = next {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return io_error(io);
        }
        next = inner.source();
    }
    let text = error.to_string();
    if error.is_closed() || text.contains("timed out") {
        (Class::Transient, "the connection broke: it is tried again")
    } else if text.contains("password") || text.contains("authentication") {
        (Class::NeedsOperator, "correct the user or password in `url`: the server asks for one")
    } else {
        (Class::NeedsOperator, "see the server's log")
    }
}

fn io_error(error: &std::io::Error) -> (Class, &'static str) {
    use std::io::ErrorKind::{InvalidData, InvalidInput, PermissionDenied};
    match error.kind() {
        InvalidData => {
            (Class::NeedsOperator, "the server's certificate is not trusted: name its authority with `?ca=`")
        }
        InvalidInput => (Class::NeedsOperator, "correct `url` in appliance.toml"),
        PermissionDenied => (Class::NeedsOperator, "give the agent's user the right to use the socket"),
        _ => (Class::Transient, "is the server running, and reachable at this address?"),
    }
}

/// True when the server knows no such snapshot any more.
pub fn is_lost_snapshot(error: &Error) -> bool {
    let lost = |db: &DbError| db.message().contains("snapshot") && !db.message().contains("too old");
    error.as_db_error().is_some_and(lost)
}

/// An error in one line, without row data.
pub fn describe(error: &Error) -> String {
    cause(error).to_string()
}
