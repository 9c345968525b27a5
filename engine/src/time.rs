//! Wall-clock time. Durations are `tokio::time`'s matter; what is stored or shown comes from a [`Clock`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment: seconds and nanoseconds since the Unix epoch (negative seconds lie before it). As wide as a file
/// system's own time stamps, so that no file's time is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// Milliseconds since the epoch, saturating.
    pub fn millis(&self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }

    /// The moment `millis` milliseconds after the epoch.
    pub fn from_millis(millis: i64) -> Self {
        let nanos = u32::try_from(millis.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
        Self { seconds: millis.div_euclid(1000), nanos }
    }
}

/// A text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time like 2026-01-31T02:30:00+01:00 (RFC 3339)")]
pub struct BadTime(String);

impl FromStr for Timestamp {
    type Err = BadTime;

    /// RFC 3339, with any offset.
    fn from_str(text: &str) -> Result<Self, BadTime> {
        let date = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| BadTime(text.to_owned()))?;
        Ok(Self { seconds: date.unix_timestamp(), nanos: date.nanosecond() })
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC; a moment outside the years it can express is shown as `@seconds`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = OffsetDateTime::from_unix_timestamp(self.seconds).ok();
        let text = date.and_then(|d| d.replace_millisecond((self.nanos / 1_000_000) as u16).ok());
        match text.and_then(|d| d.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "@{}", self.seconds),
        }
    }
}

/// Tells the time. A port, so that tests can set it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}
