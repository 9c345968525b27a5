//! What a report says of itself: who made it and when, and what had happened by then.

use serde::{Deserialize, Serialize};

use super::{NAMED, Report};
use crate::audit::Head;
use crate::journal::{Event, Logged};
use crate::time::Timestamp;

/// Who made a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The agent's SPIFFE id. Of a signed report, the signer's.
    pub by: String,
    /// When, by its clock.
    pub at: Timestamp,
    /// Where the audit log ended then: what is cut off of it, or written anew, is found by this.
    pub audit: Head,
}

impl Report {
    /// With what has happened, all of which `events` are: when its steps were worked on, and the last of it but tries and beginnings.
    pub fn with_history(mut self, mut events: Vec<Logged>) -> Self {
        for operation in &mut self.operations {
            events.iter().for_each(|logged| operation.take(logged));
        }
        events.retain(|logged| !matches!(logged.event, Event::Retry { .. } | Event::StepStarted { .. }));
        let ended =
            |logged: &Logged| matches!(&logged.event, Event::State { state, .. } if state.phase.is_final());
        self.ended_at = events.iter().rev().find(|logged| ended(logged)).map(|logged| logged.at);
        let left_out = events.len().saturating_sub(NAMED);
        events.drain(..left_out);
        (self.history, self.history_left_out) = (events, left_out as u64);
        self
    }

    /// As made by somebody.
    pub fn made(mut self, made: Made) -> Self {
        self.made = Some(made);
        self
    }
}
