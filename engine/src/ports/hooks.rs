//! What an appliance has done at certain moments of a migration, beside what the agents do.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

use super::Result;
use crate::name::MigrationId;
use crate::time::Timestamp;

/// A moment of a migration at which hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing was read or written yet.
    BeforeStart,
    /// A pass over all data is through.
    AfterCopy,
    /// A cut-over was planned for a time, or is planned no more.
    Notice,
    /// The source is about to be fenced off: users are told.
    BeforeFence,
    /// Nobody writes to the source any more.
    AfterFence,
    /// The target's data is about to be put in its place: the last moment at which a cut-over can be called off.
    BeforePublish,
    /// The target is about to serve on trial, and shows its label.
    LabelOn,
    /// The target has taken over.
    AfterPublish,
    /// A cut-over was called off, and the source is in use again.
    CalledOff,
    /// The trial is over, and the label is gone.
    LabelOff,
    /// The operator has accepted the target.
    AfterAccept,
    /// Everything was undone.
    AfterAbort,
    /// Undo records are gone: the end.
    AfterFinalize,
}

impl Moment {
    /// Every moment, in the order of a migration.
    pub const ALL: [Moment; 13] = [
        Moment::BeforeStart,
        Moment::AfterCopy,
        Moment::Notice,
        Moment::BeforeFence,
        Moment::AfterFence,
        Moment::BeforePublish,
        Moment::LabelOn,
        Moment::AfterPublish,
        Moment::CalledOff,
        Moment::LabelOff,
        Moment::AfterAccept,
        Moment::AfterAbort,
        Moment::AfterFinalize,
    ];

    /// As it is written in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Moment::BeforeStart => "before-start",
            Moment::AfterCopy => "after-copy",
            Moment::Notice => "notice",
            Moment::BeforeFence => "before-fence",
            Moment::AfterFence => "after-fence",
            Moment::BeforePublish => "before-publish",
            Moment::LabelOn => "label-on",
            Moment::AfterPublish => "after-publish",
            Moment::CalledOff => "called-off",
            Moment::LabelOff => "label-off",
            Moment::AfterAccept => "after-accept",
            Moment::AfterAbort => "after-abort",
            Moment::AfterFinalize => "after-finalize",
        }
    }

    /// It is told at the target alone: the label is the target's.
    pub fn is_of_target(self) -> bool {
        matches!(self, Moment::LabelOn | Moment::LabelOff)
    }

    /// Whether a failing hook can keep what comes next from happening. Where something has happened already, it only warns.
    pub fn can_stop(self) -> bool {
        use Moment::{AfterCopy, AfterFence, BeforeFence, BeforePublish, BeforeStart};
        matches!(self, BeforeStart | AfterCopy | BeforeFence | AfterFence | BeforePublish)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no moment of a migration: write one of {names}", names = Moment::ALL.map(Moment::as_str).join(", "))]
pub struct BadMoment(String);

impl FromStr for Moment {
    type Err = BadMoment;

    fn from_str(text: &str) -> Result<Self, BadMoment> {
        let found = Moment::ALL.into_iter().find(|moment| moment.as_str() == text);
        found.ok_or_else(|| BadMoment(text.to_owned()))
    }
}

/// What hooks are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    /// The migration.
    pub migration: MigrationId,
    /// The moment.
    pub moment: Moment,
    /// Of a notice: when the cut-over is planned for; none once it is planned no more.
    pub at: Option<Timestamp>,
}

/// Runs what one host has been set up to run.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// Runs this host's hooks for an occasion, one after another; what went wrong with those that only warn. A failure is that of
    /// a hook which stops the migration, and those after it have not run.
    ///
    /// Which executables these are, the host's own manifest says: nobody else can name one. May be told twice, since answers get
    /// lost: hooks must bear that. Dropped, it ends what runs.
    async fn run(&self, occasion: &Occasion) -> Result<Vec<String>>;
}

/// A host without hooks.
#[derive(Debug, Clone, Copy)]
pub struct NoHooks;

#[async_trait]
impl Hooks for NoHooks {
    async fn run(&self, _: &Occasion) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written() {
        for moment in Moment::ALL {
            assert_eq!(moment.as_str().parse(), Ok(moment));
        }
        let bad = "before-lunch".parse::<Moment>().unwrap_err().to_string();
        assert!(bad.contains("`before-lunch`") && bad.contains("before-fence, after-fence"), "{bad}");
    }

    #[test]
    fn only_what_has_not_happened_can_be_stopped() {
        let stops: Vec<_> = Moment::ALL.into_iter().filter(|m| m.can_stop()).map(Moment::as_str).collect();
        assert_eq!(stops, ["before-start", "after-copy", "before-fence", "after-fence", "before-publish"]);
    }
}
