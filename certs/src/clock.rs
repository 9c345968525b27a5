//! The wall clock, read here and nowhere else in this crate.

use time::OffsetDateTime;

/// Now, by the host's clock. Certificates are checked against it, so it is worth an NTP daemon.
#[expect(clippy::disallowed_methods, reason = "the one place in this crate that reads the clock")]
pub(crate) fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}
