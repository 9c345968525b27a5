//! What is planned for an appliance otherwise: downtimes that a migration must not run into, billing closes that a cut-over must
//! not go across.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::ports::Result;
use crate::time::Timestamp;

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nobody can rely on the hosts meanwhile.
    Downtime,
    /// Bills are closed on the hosts that are in use.
    BillingClose,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, for messages.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// When it begins.
    pub begin: Timestamp,
    /// When it is over.
    pub end: Timestamp,
}

impl Entry {
    /// Whether it is on at some time of `[from, until]`.
    fn meets(&self, from: Timestamp, until: Timestamp) -> bool {
        self.begin <= until && from < self.end
    }
}

/// The entries, and how near the next downtime may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Nothing is started or accepted while the next downtime is nearer than so many hours. Where it is 0, only what is
    /// expected to run into one is refused.
    pub safety_hours: u32,
    /// The entries, in any order.
    pub entries: Vec<Entry>,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { safety_hours: 24, entries: Vec::new() }
    }
}

const HOUR_MS: i64 = 3_600_000;

impl Calendar {
    /// Refuses what begins at `at` and is expected to take `takes`, where a downtime is nearer than the safety time or begins before it
    /// is over.
    pub fn refuse_start(&self, at: Timestamp, takes: Duration) -> Result<()> {
        let takes = i64::try_from(takes.as_millis()).unwrap_or(i64::MAX);
        let reach = takes.max(i64::from(self.safety_hours) * HOUR_MS);
        let (hours, until) = (reach.saturating_add(HOUR_MS - 1) / HOUR_MS, after(at, reach));
        let met = self.entries.iter().filter(|entry| entry.kind == Kind::Downtime && entry.meets(at, until));
        // What begins just then is not nearer.
        let met =
            met.filter(|entry| entry.begin < until || entry.begin <= at).min_by_key(|entry| entry.begin);
        let Some(entry) = met else { return Ok(()) };
        let Entry { name, begin, end, .. } = entry;
        let what = if *begin <= at {
            "A maintenance window has started. Process cannot be started.".to_owned()
        } else {
            let unit = if hours == 1 { "hour" } else { "hours" };
            format!("In less than {hours} {unit} a maintenance window will start. Process cannot be started.")
        };
        let hint = format!("`{name}` is planned from {begin} to {end}: [calendar] in the target's manifest");
        Err(Failure::operator("calendar", what).hint(hint))
    }

    /// Refuses a cut-over that begins at `at` and leaves writers waiting up to `takes`, where `refuse_start` would, or where it went across
    /// a billing close.
    pub fn refuse_cutover(&self, at: Timestamp, takes: Duration) -> Result<()> {
        self.refuse_start(at, takes)?;
        let until = after(at, i64::try_from(takes.as_millis()).unwrap_or(i64::MAX));
        let mut closes = self.entries.iter().filter(|entry| entry.kind == Kind::BillingClose);
        let Some(close) = closes.find(|entry| entry.meets(at, until)) else { return Ok(()) };
        let what = format!("the cut-over would go across the billing close `{}`", close.name);
        let hint = format!("it lasts from {} to {}: cut over before or afterwards", close.begin, close.end);
        Err(Failure::operator("calendar", what).hint(hint))
    }
}

fn after(at: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_millis(at.millis().saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many minutes after the time at which everything begins.
    fn minutes(minutes: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + minutes * 60_000)
    }

    fn calendar(safety_hours: u32, kind: Kind, begin: i64, end: i64) -> Calendar {
        let entry = Entry { name: "kernel".to_owned(), kind, begin: minutes(begin), end: minutes(end) };
        Calendar { safety_hours, entries: vec![entry] }
    }

    const DAY: i64 = 24 * 60;
    const NEAR: &str = "In less than 24 hours a maintenance window will start. Process cannot be started.";

    #[test]
    fn the_table_of_starts() {
        let long = "In less than 30 hours a maintenance window will start. Process cannot be started.";
        let short = "In less than 1 hour a maintenance window will start. Process cannot be started.";
        let now = "A maintenance window has started. Process cannot be started.";
        for (safety, begin, end, takes_minutes, refusal) in [
            (24, DAY - 1, DAY + 9, 0, Some(NEAR)),
            (24, DAY, DAY + 9, 0, None),
            (24, 1, 2, 0, Some(NEAR)),
            (24, 0, 60, 0, Some(now)),
            (24, -60, 1, 0, Some(now)),
            (24, -60, 0, 0, None),
            (24, DAY + 60, DAY + 90, 25 * 60, None),
            (24, DAY + 60, DAY + 90, 30 * 60, Some(long)),
            (24, 60, 90, 5, Some(NEAR)),
            (1, 59, 90, 5, Some(short)),
            (1, 61, 90, 5, None),
            (0, 1, 90, 0, None),
            (0, 1, 90, 5, Some(short)),
            (0, -1, 90, 0, Some(now)),
            (0, 6, 90, 5, None),
        ] {
            let calendar = calendar(safety, Kind::Downtime, begin, end);
            let told = calendar.refuse_start(minutes(0), Duration::from_secs(takes_minutes * 60));
            let told = told.err().map(|failure| failure.what);
            assert_eq!(told.as_deref(), refusal, "{safety} h, {begin} to {end}, {takes_minutes} min");
        }
    }

    #[test]
    fn the_first_downtime_is_named() {
        let mut calendar = calendar(24, Kind::Downtime, 600, 700);
        calendar.entries.push(Entry {
            name: "disks".to_owned(),
            begin: minutes(300),
            ..calendar.entries[0].clone()
        });
        let refused = calendar.refuse_start(minutes(0), Duration::ZERO).unwrap_err();
        assert!(refused.hint.starts_with("`disks` is planned from 2027-01-15T13:00:00Z"), "{}", refused.hint);
        assert_eq!(Calendar::default().refuse_start(minutes(0), Duration::MAX), Ok(()));
    }

    #[test]
    fn a_cutover_does_not_go_across_a_billing_close() {
        let takes = Duration::from_secs(30);
        for (begin, end, refused) in [(-60, 0, false), (-60, 1, true), (0, 60, true), (1, 60, false)] {
            let calendar = calendar(24, Kind::BillingClose, begin, end);
            assert_eq!(calendar.refuse_cutover(minutes(0), takes).is_err(), refused, "{begin} to {end}");
            assert_eq!(calendar.refuse_start(minutes(0), takes), Ok(()));
        }
        let downtime = calendar(24, Kind::Downtime, 60, 90);
        assert_eq!(downtime.refuse_cutover(minutes(0), takes).unwrap_err().what, NEAR);
    }
}
