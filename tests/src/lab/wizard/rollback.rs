//! How soon a host takes its own settings back, as its own journal tells.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Appliance;
use crate::lab::Host;

/// What a host says whose swap nobody has confirmed in time.
pub const UNCONFIRMED: &str = "nobody has confirmed the swap in time";
/// What a source says whose maintenance has lasted too long.
pub const UNRENEWED: &str = "the lease of the maintenance is over";
/// What systemd says when the watch begins.
const WATCHED: [&str; 2] = ["Started ", "the dead-man watch"];

/// The last time that a host took its own settings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// How long its timer ran: since the host had booted, or since the watch began where it was not booted in between.
    pub after: Duration,
    /// Whether the host had booted in between, with the other one's settings.
    pub booted: bool,
    /// From there until it had booted with its own settings.
    pub reboot: Duration,
}

impl Appliance {
    /// A host's, by what it said then. A timer that has begun in a boot of the host before this moment (of its own clock, in
    /// milliseconds) did not begin with that boot.
    pub fn rollback(&self, host: &Host, words: &str, since_ms: i64) -> Result<Rollback> {
        let told = host.sh("journalctl --no-pager --output=json --output-fields=MESSAGE")?;
        let entries: Vec<Entry> = told.lines().filter_map(Entry::read).collect();
        Rollback::among(&entries, words, since_ms)
            .with_context(|| format!("{} has not said, or not booted since: {words}", host.name()))
    }
}

/// A line of a journal.
#[derive(Debug)]
struct Entry {
    boot: String,
    at: Duration,
    message: String,
}

impl Entry {
    fn read(line: &str) -> Option<Self> {
        let entry: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            boot: entry["_BOOT_ID"].as_str()?.to_owned(),
            at: Duration::from_micros(entry["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()?),
            message: entry["MESSAGE"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

impl Rollback {
    fn among(entries: &[Entry], words: &str, since_ms: i64) -> Option<Self> {
        let at = entries.iter().rposition(|entry| entry.message.contains(words))?;
        let (before, then) = (&entries[..at], &entries[at]);
        let booted = before.iter().find(|entry| entry.boot == then.boot)?.at;
        let since = Duration::from_millis(u64::try_from(since_ms).ok()?);
        let began = if booted >= since {
            booted
        } else {
            let begins = |entry: &&Entry| {
                entry.boot == then.boot && WATCHED.iter().all(|words| entry.message.contains(words))
            };
            before.iter().rfind(begins)?.at
        };
        let again = entries[at..].iter().find(|entry| entry.boot != then.boot)?;
        Some(Self {
            after: then.at.saturating_sub(began),
            booted: booted >= since,
            reboot: again.at.saturating_sub(then.at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(boot: &str, at: u64, message: &str) -> Entry {
        Entry { boot: boot.to_owned(), at: Duration::from_secs(at), message: message.to_owned() }
    }

    #[test]
    fn a_timer_runs_from_the_boot_or_from_its_beginning() {
        let entries = [
            entry("one", 10, "Linux version"),
            entry("one", 50, "Started the dead-man watch."),
            entry("two", 60, "Linux version"),
            entry("two", 61, "Started the dead-man watch."),
            entry("two", 80, "WARN nobody has confirmed the swap in time: restoring"),
            entry("three", 83, "Linux version"),
        ];
        let seconds = |since_ms| {
            let found = Rollback::among(&entries, UNCONFIRMED, since_ms).unwrap();
            (found.after.as_secs(), found.reboot.as_secs())
        };
        assert_eq!(seconds(55_000), (20, 3));
        assert_eq!(seconds(60_500), (19, 3));
        assert_eq!(Rollback::among(&entries[..5], UNCONFIRMED, 0), None, "it has not booted since");
        assert_eq!(Rollback::among(&entries, UNRENEWED, 0), None);
    }

    #[test]
    fn lines_of_a_journal_are_read() {
        let line = r#"{"_BOOT_ID":"5f","__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":"up"}"#;
        let read = Entry::read(line).unwrap();
        assert_eq!(
            (read.boot.as_str(), read.at.as_secs(), read.message.as_str()),
            ("5f", 1_700_000_000, "up")
        );
    }
}
