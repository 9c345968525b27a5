//! What a server's errors mean: who can make it right, and how.

use handover_engine::failure::{Class, Failure};
use mysql_async::{DriverError, Error, IoError};

/// A server's message, fit to be shown: without the values that it quotes, and without bytes that are no text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

/// A failure of `item` from what the driver or the server said.
pub fn failed(item: &str, what: &str, error: Error) -> Failure {
    match error {
        Error::Server(error) => {
            let (class, hint) = classify(error.code);
            let text = without_values(error.code, &error.message);
            Failure::new(class, item, what).because(Told(format!("{text} (error {})", error.code))).hint(hint)
        }
        Error::Io(IoError::Io(error)) if is_about_tls(&error) => Failure::operator(item, what)
            .because(Told(format!("TLS: {error}")))
            .hint("check `ca` and that the server's certificate names this host"),
        Error::Io(IoError::Io(error)) => Failure::transient(item, what)
            .because(error)
            .hint("check that the server runs and can be reached"),
        Error::Io(IoError::Tls(error)) => Failure::operator(item, what)
            .because(Told(format!("TLS: {error}")))
            .hint("check `ca` and that the server's certificate names this host"),
        Error::Driver(error) => driver(item, what, &error),
        Error::Other(error) => Failure::operator(item, what).because(Told(error.to_string())),
        Error::Url(_) => Failure::operator(item, what).hint("correct `url` in appliance.toml"),
    }
}

/// A handshake that was refused comes as an error of the connection.
fn is_about_tls(error: &std::io::Error) -> bool {
    let text = error.to_string();
    error.kind() == std::io::ErrorKind::InvalidData
        && (text.contains("certificate") || text.contains("alert"))
}

fn driver(item: &str, what: &str, error: &DriverError) -> Failure {
    // Not the whole text: it may hold rows.
    let (class, told, hint) = match error {
        DriverError::ConnectionClosed | DriverError::PacketOutOfOrder | DriverError::PoolDisconnected => {
            (Class::Transient, "the connection was lost", "check that the server runs and can be reached")
        }
        DriverError::NoClientSslFlagFromServer => (
            Class::NeedsOperator,
            "the server offers no TLS",
            "switch TLS on at the server, or take `tls=required` out of `url`",
        ),
        DriverError::UnknownAuthPlugin { .. } => (
            Class::NeedsOperator,
            "the account signs in by a method that is not supported",
            "use mysql_native_password, or a socket with unix_socket",
        ),
        _ => (Class::NeedsOperator, "the server's answer was not understood", ""),
    };
    Failure::new(class, item, what).because(Told(told.to_owned())).hint(hint)
}

/// Who can make it right, and how, by the server's error number.
fn classify(code: u16) -> (Class, &'static str) {
    use Class::{NeedsOperator, Transient};
    match code {
        1205 | 1213 | 1020 | 3572 | 3058 => (Transient, "another transaction stood in the way"),
        1040 | 1203 | 1226 => {
            (Transient, "raise max_connections or the account's limit, or lower `connections` in `url`")
        }
        1053 | 1077 | 1079 | 1158..=1161 | 2006 | 2013 | 1927 | 1184 | 1152 => {
            (Transient, "check that the server runs and can be reached")
        }
        1317 | 1969 | 3024 => (Transient, "the statement was stopped by someone"),
        1021 | 1114 | 1026 | 1030 | 3 | 28 | 1041 | 1037 | 1038 => {
            (NeedsOperator, "free space at the server's disk or memory, then resume")
        }
        1045 | 1698 | 1524 | 1862 | 1820 | 4151 => (
            NeedsOperator,
            "check user and password in `url` (or its password_file), and that the account may come from this host",
        ),
        1130 | 1129 => {
            (NeedsOperator, "let the account come from this host, or run FLUSH HOSTS at the server")
        }
        1044 | 1142 | 1143 | 1227 | 1370 | 1419 | 1347 | 1410 => {
            (NeedsOperator, "grant what the preflight names (docs/mariadb.md lists it), then resume")
        }
        1049 => (NeedsOperator, "correct the database in `url`, or make it"),
        1146 | 1051 | 1109 | 1932 => (
            NeedsOperator,
            "the table was dropped or renamed during the copy: end that, then resume; a new snapshot is taken",
        ),
        1412 | 1054 => (
            NeedsOperator,
            "the table was altered during the copy: end that, then resume; a new snapshot is taken",
        ),
        1115 | 1273 | 1253 => (
            NeedsOperator,
            "the target's server does not know this character set or collation: install a server of the source's version",
        ),
        1286 | 1911 | 1127 => (NeedsOperator, "install the storage engine or plugin at the target's server"),
        1290 | 1792 | 1836 => {
            (NeedsOperator, "the server is read-only: take read_only off, or name the primary in `url`")
        }
        1153 | 2020 | 1301 => (NeedsOperator, "raise max_allowed_packet at the server, then resume"),
        1418 => (NeedsOperator, "set log_bin_trust_function_creators=1 at the target's server, then resume"),
        1049..=1099 | 1103..=1113 => (NeedsOperator, ""),
        _ => (NeedsOperator, ""),
    }
}

/// The message without quoted values where these may be row data.
pub fn without_values(code: u16, message: &str) -> String {
    let clean: String =
        message.chars().map(|c| if c.is_control() || c == '\u{fffd}' { '?' } else { c }).collect();
    match code {
        1062 | 1586 => match clean.rfind(" for key ") {
            Some(at) => format!("duplicate entry{}", &clean[at..]),
            None => "duplicate entry".to_owned(),
        },
        1264 | 1265 | 1292 | 1366 | 1367 | 1406 | 1411 | 1300 | 1525 | 3854 | 1918 | 4078 => {
            let column = clean.rfind(" for column ").map_or("", |at| &clean[at..]);
            format!("a value does not fit{column}")
        }
        _ => clean,
    }
}

/// The server's error number, if it was the server.
pub fn code(error: &Error) -> Option<u16> {
    if let Error::Server(error) = error { Some(error.code) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_async::ServerError;

    fn server(code: u16, message: &str) -> Failure {
        let error = ServerError { code, message: message.to_owned(), state: "HY000".to_owned() };
        failed("db, table t", "cannot be written", Error::Server(error))
    }

    #[test]
    fn row_data_is_not_shown() {
        for (code, message) in [
            (1062, "Duplicate entry 's3cret for key x' for key 'PRIMARY'"),
            (1366, "Incorrect string value: '\\xE9s3cret' for column `d`.`t`.`c` at row 1"),
        ] {
            let shown = server(code, message).to_string();
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.contains("PRIMARY") || shown.contains("`c`"), "{shown}");
        }
    }

    #[test]
    fn classes_are_right() {
        assert!(server(1213, "Deadlock found").is_transient());
        assert!(server(1040, "Too many connections").is_transient());
        assert!(!server(1045, "Access denied").is_transient());
        assert!(server(1114, "The table 't' is full").hint.contains("free space"));
    }
}
