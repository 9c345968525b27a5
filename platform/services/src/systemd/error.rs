//! What the bus and systemd refuse, as failures.

use handover_engine::failure::Failure;
use zbus::{DBusError, Error};

/// The name of an error that was sent as an answer.
fn name(error: &Error) -> String {
    match error {
        Error::MethodError(name, _, _) => name.to_string(),
        Error::FDO(known) => known.name().to_string(),
        _ => String::new(),
    }
}

/// The unit has no file of its own.
pub fn has_no_file(error: &Error) -> bool {
    let name = name(error);
    name == "org.freedesktop.systemd1.NoSuchUnit"
        || name == "org.freedesktop.DBus.Error.FileNotFound"
        || name.ends_with(".ENOENT")
}

/// The object that was asked for is not there any more.
pub fn has_gone(error: &Error) -> bool {
    matches!(
        name(error).as_str(),
        "org.freedesktop.DBus.Error.UnknownObject"
            | "org.freedesktop.DBus.Error.UnknownMethod"
            | "org.freedesktop.DBus.Error.UnknownInterface"
            | "org.freedesktop.systemd1.NoSuchJob"
    )
}

/// What is to be made of an error.
pub fn failed(item: &str, what: &str, error: Error) -> Failure {
    let name = name(&error);
    let operator = |hint: &str| Failure::operator(item, what).hint(hint);
    let failure = match name.rsplit('.').next().unwrap_or_default() {
        _ if has_no_file(&error) => {
            operator("is the unit installed on this host, under this name? systemctl cat tells")
        }
        "LoadFailed" | "BadUnitSetting" => {
            operator("its file has a mistake: systemd-analyze verify tells where")
        }
        "UnitMasked" => operator("systemctl unmask it"),
        "AccessDenied" | "AuthFailed" | "InteractiveAuthorizationRequired" | "EPERM" | "EACCES" => operator(
            "the agent lacks the right to manage units: run it as root, or have a polkit rule grant its user \
             org.freedesktop.systemd1.manage-units, .manage-unit-files and .reload-daemon",
        ),
        "OnlyByDependency" | "NoIsolation" => {
            operator("its unit refuses to be started or stopped by hand: name another one")
        }
        "ShuttingDown" | "TransactionIsDestructive" => {
            Failure::transient(item, what).hint("this host is going down, or another job is in the way")
        }
        _ if is_of_the_bus(&error, &name) => {
            Failure::transient(item, what).hint("does the system's D-Bus run on this host?")
        }
        _ => operator("put right what systemd complains of, then resume"),
    };
    // Its text holds those of its causes.
    failure.because(std::io::Error::other(error.to_string()))
}

/// The bus is away, or systemd does not answer on it: who asks again may be answered.
fn is_of_the_bus(error: &Error, name: &str) -> bool {
    let is_told = matches!(
        name.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or_default(),
        "NoReply"
            | "Disconnected"
            | "Timeout"
            | "TimedOut"
            | "ServiceUnknown"
            | "NameHasNoOwner"
            | "NoServer"
            | "IOError"
            | "LimitsExceeded"
            | "NoMemory"
    );
    let is_own = matches!(
        error,
        Error::InputOutput(_)
            | Error::Connection(..)
            | Error::Handshake(_)
            | Error::Address(_)
            | Error::InvalidReply
    );
    is_told || is_own || has_gone(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::failure::Class;
    use zbus::fdo;

    #[test]
    fn errors_are_told_by_who_can_help() {
        let io = |kind| Error::InputOutput(std::io::Error::from(kind).into());
        let known = |error: fdo::Error| Error::FDO(Box::new(error));
        for (error, class, hint) in [
            (io(std::io::ErrorKind::BrokenPipe), Class::Transient, "D-Bus run on this host"),
            (Error::Handshake("x".into()), Class::Transient, "D-Bus run on this host"),
            (known(fdo::Error::NoReply("x".into())), Class::Transient, "D-Bus run on this host"),
            (known(fdo::Error::ServiceUnknown("x".into())), Class::Transient, "D-Bus run on this host"),
            (known(fdo::Error::AccessDenied("x".into())), Class::NeedsOperator, "manage-units"),
            (
                known(fdo::Error::InteractiveAuthorizationRequired("x".into())),
                Class::NeedsOperator,
                "manage-units",
            ),
            (known(fdo::Error::FileNotFound("x".into())), Class::NeedsOperator, "installed on this host"),
            (known(fdo::Error::InvalidArgs("x".into())), Class::NeedsOperator, "complains of"),
        ] {
            let failure = failed("service x.service", "systemd cannot start it", error);
            assert_eq!(failure.class, class, "{failure}");
            assert!(failure.hint.contains(hint) && failure.causes.len() == 1, "{failure}");
            assert!(
                failure.to_string().starts_with("service x.service: systemd cannot start it: "),
                "{failure}"
            );
        }
    }
}
