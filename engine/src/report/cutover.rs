//! A cut-over: what was asked of it, when it is to begin, and how far it has got.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// When a cut-over is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At once.
    #[default]
    Now,
    /// At this time.
    At(Timestamp),
    /// Never: everything up to the fence is done, and the prediction made.
    DryRun,
    /// One that was planned is planned no more.
    Never,
}

/// A cut-over that is planned for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// When it begins, by the target's clock.
    pub at: Timestamp,
    /// What is asked of it.
    pub terms: Terms,
    /// Notice of it was given.
    #[serde(default)]
    pub is_told: bool,
}

/// What an operator asks of a cut-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Unless the target has taken over so long after the source was fenced off, all is undone and following goes on.
    pub max_downtime_ms: u64,
    /// The source is not fenced off while the copy is further behind.
    pub max_lag_ms: u64,
    /// When it is to begin.
    #[serde(default)]
    pub when: When,
    /// Of an abort: what was written at the target since it took over is given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// Of an abort: the source is gone for good. Nothing is asked of it, and nothing of it is put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { max_downtime_ms: 30_000, max_lag_ms: 5_000, when: When::Now, discard: false, alone: false }
    }
}

/// A cut-over, by the target's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cutover {
    /// What was asked.
    pub terms: Terms,
    /// How long writers were expected to wait.
    #[serde(default)]
    pub predicted_ms: u64,
    /// When the source began to be fenced off.
    #[serde(default)]
    pub fenced_at: Option<Timestamp>,
    /// What acts on rows by itself (triggers) may be in the unpublished databases.
    #[serde(default)]
    pub finishing: bool,
    /// The databases are being published: from here on it only goes forward, or is aborted.
    #[serde(default)]
    pub committed: bool,
    /// When the target had taken over.
    #[serde(default)]
    pub live_at: Option<Timestamp>,
    /// It has, and its services are still being started: nobody is served yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_services: bool,
    /// When users were served again: its services were up and found healthy. As `live_at` where the plan starts none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_at: Option<Timestamp>,
    /// Whether the source follows the target since.
    #[serde(default)]
    pub back: Back,
}

/// How the source follows the target that has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Back {
    /// It does not, or not yet.
    #[default]
    Not,
    /// It does: what is written at the target is carried to it.
    Following,
    /// All of it has been carried, and the target takes no more writes.
    Returned,
    /// No more: the target was accepted, or what was written there was given up.
    Ended,
}

impl Cutover {
    /// How long users found neither side, in milliseconds; none before the target serves them. Of records that do not tell when that was:
    /// until it had taken over.
    pub fn downtime_ms(&self) -> Option<u64> {
        if self.awaits_services {
            return None;
        }
        let (fenced, serving) = (self.fenced_at?.millis(), self.serving_at.or(self.live_at)?.millis());
        Some(u64::try_from(serving - fenced).unwrap_or(0))
    }
}
