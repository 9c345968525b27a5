//! The audit log: who did what and what came of it. Each entry is a line of JSON that holds the digest of the line before, so that a
//! line that is changed, removed, moved or put in no longer fits its neighbours. Who rewrites all lines from some place on is found
//! by a head of the chain that somebody else holds: a signed report carries one.

mod chain;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::chain::{Broken, check, lines, of_head};
use crate::backup::Host;
use crate::digest::Digest;
use crate::journal::Event;
use crate::name::MigrationId;
use crate::ports::backups::Order;
use crate::time::Timestamp;

/// The end of a log at some time: the number of its last entry, and the digest of that entry's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last entry's number; 0 where there is none.
    pub seq: u64,
    /// The digest of its line, without the line's end; all zeros where there is none.
    pub digest: Digest,
}

impl Head {
    /// The head of an empty log.
    pub const NONE: Head = Head { seq: 0, digest: Digest([0; 32]) };

    /// The head after `line` was added as entry `seq`.
    pub fn after(seq: u64, line: &str) -> Self {
        Self { seq, digest: Digest::of(line.as_bytes()) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} ({})", self.seq, self.digest.short())
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// When, by the target's clock.
    pub at: Timestamp,
    /// Who: the SPIFFE id of the caller's verified certificate, or of the agent itself.
    pub by: String,
    /// The migration it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationId>,
    /// What.
    pub act: Act,
    /// The digest of the line before; all zeros in the first entry.
    pub before: Digest,
}

impl Entry {
    /// Its line: the bytes that the digest covers.
    pub fn line(&self) -> String {
        // Plain data with string keys: it always serializes.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Work that goes on once it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// Who asked: the SPIFFE id.
    pub by: String,
    /// Where.
    pub host: Host,
    /// What.
    pub order: Order,
}

/// What is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Act {
    /// The agent began to serve.
    Began {
        /// Its release.
        release: String,
        /// The source it takes from.
        source: String,
    },
    /// Somebody asked for something. Written before it is done.
    Asked {
        /// What.
        what: String,
    },
    /// What came of it. Where this is missing, the agent ended meanwhile.
    Answered {
        /// The entry that asked.
        asked: u64,
        /// What was done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<String>,
        /// Or why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// What was only begun, where its end is written down too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        begun: Option<Begun>,
    },
    /// What was begun is at its end.
    Ended {
        /// The entry that asked.
        asked: u64,
        /// What it was, and who asked.
        what: String,
        /// What was done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<String>,
        /// Or why it was not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// Something happened to the migration: written with it, in one transaction.
    Happened {
        /// What.
        event: Event,
    },
}

impl Act {
    /// What of an event belongs in the log: all but its tries and beginnings.
    pub fn of(event: &Event) -> Option<Self> {
        match event {
            Event::State { .. } | Event::StepDone { .. } | Event::Note { .. } => {
                Some(Act::Happened { event: event.clone() })
            }
            Event::StepStarted { .. } | Event::Retry { .. } => None,
        }
    }
}
