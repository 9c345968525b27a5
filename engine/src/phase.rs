//! The life of a migration as one pure function: [`State::next`] makes every transition there is.
//!
//! ```text
//! Copying ──done──► Following ──cutover──► CuttingOver ──done──► Trial ──accept──► Accepted
//!    │                │ ▲ ▲ sync, verify       │ │                 │                  │
//!    │                │ └─┴─────called off─────┘ │                 │                  ├─finalize─► Finalized
//!    │                └────────────finalize──────┼─────────────────┼──────────────────┘
//!    └──────abort─────┴─────────────abort────────┴─────────────────┴──► Aborting ──done──► Aborted
//! ```
//! In trial the source follows the target, where the plan says so; accepting ends that, and an abort brings home what was written.
//!
//! Paused and failed are conditions on a phase, not phases. `Draft` and `Approved` are plans, not yet migrations;
//! `Rehearsing` is reserved and cannot be reached yet. A plan that follows the source's changes is finalized after its
//! cut-over, any other while it is up to date.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::{Class, Failure};

/// Where a migration stands. Every phase survives a restart of either agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A plan nobody has approved.
    Draft,
    /// A plan whose digest the operator gave; about to run.
    Approved,
    /// The first pass over the data. Set by start; ends in `Following`.
    Copying,
    /// The target holds a verified copy; further passes bring it up to date.
    Following,
    /// A trial load beside the copy.
    Rehearsing,
    /// The source is fenced, the target takes over.
    CuttingOver,
    /// The target serves, the source follows it.
    Trial,
    /// The operator has accepted the target.
    Accepted,
    /// The end: undo records are gone.
    Finalized,
    /// Undo records are being carried out, newest first.
    Aborting,
    /// The other end: the target is as it was before. What users had worked on is kept aside until somebody removes it.
    Aborted,
}

impl Phase {
    /// True when nothing can happen any more.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Finalized | Phase::Aborted)
    }
}

/// What a migration is busy with; `None` when it waits for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A pass over every dataset, with verification and publication.
    Pass,
    /// Keeping the copy up to date with a source that is in use. Has no end of its own.
    Follow,
    /// Fencing the source off, carrying over what is left, and putting the target in its place.
    CutOver,
    /// Having the source follow the target, which has taken over. Has no end of its own.
    FollowBack,
    /// Ending that: the target stays.
    Part,
    /// Reading the target's data again.
    Verify,
    /// Reading the target's data again while it is kept up to date with a source that is in use.
    VerifyLive,
    /// Carrying out the undo records.
    Undo,
    /// Dropping the undo records.
    Finalize,
}

/// Whether the task is being worked on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is, or there is nothing to do.
    Good,
    /// The operator paused it.
    Paused,
    /// It stopped on a failure; resume tries again.
    Failed(Failure),
}

/// A migration's state, as journaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// What it is busy with.
    pub task: Option<Task>,
    /// Whether that goes on.
    pub condition: Condition,
}

/// What an operator may ask of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Finish the chunks at hand and stop.
    Pause,
    /// Go on.
    Resume,
    /// Another pass: bring the target up to date.
    Sync,
    /// Read the target's data again and compare.
    Verify,
    /// Fence the source off, and let the target take over.
    Cutover,
    /// The target is good: it stays.
    Accept,
    /// Undo everything.
    Abort,
    /// Keep everything; undo is no longer possible.
    Finalize,
    /// Remove what an abort has kept. Of a migration that has ended, it changes no state.
    Terminate,
}

impl Operation {
    /// Every operation, in the order they are shown.
    pub const ALL: [Operation; 9] = [
        Operation::Pause,
        Operation::Resume,
        Operation::Sync,
        Operation::Verify,
        Operation::Cutover,
        Operation::Accept,
        Operation::Abort,
        Operation::Finalize,
        Operation::Terminate,
    ];

    /// The one of this word; none where this release knows no such one.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == word)
    }

    /// The word a user types, and documents hold.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Pause => "pause",
            Operation::Resume => "resume",
            Operation::Sync => "sync",
            Operation::Verify => "verify",
            Operation::Cutover => "cutover",
            Operation::Accept => "accept",
            Operation::Abort => "abort",
            Operation::Finalize => "finalize",
            Operation::Terminate => "terminate",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What moves a migration from one state to the next.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// The operator asked.
    Asked(Operation),
    /// The task is done.
    Done,
    /// The first copy is done, and the source is followed from now on.
    Copied,
    /// The target has taken over, and the source follows it from now on.
    TakenOver,
    /// The cut-over was undone before the target took over; following goes on.
    CalledOff,
    /// The task stopped on a failure.
    Failed(Failure),
}

/// The operation is not allowed now.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{what} is not possible while the migration is {state}")]
pub struct Refused {
    /// What was asked.
    pub what: String,
    /// The state it was asked in.
    pub state: String,
}

impl State {
    /// The state of a migration that has just been started.
    pub fn started() -> Self {
        Self { phase: Phase::Copying, task: Some(Task::Pass), condition: Condition::Good }
    }

    /// True when work is going on (or should be, after a restart).
    pub fn is_busy(&self) -> bool {
        self.task.is_some() && self.condition == Condition::Good
    }

    /// The operations allowed now.
    pub fn allowed(&self) -> Vec<Operation> {
        Operation::ALL.into_iter().filter(|op| self.next(Trigger::Asked(*op)).is_ok()).collect()
    }

    /// The one place where states change.
    pub fn next(&self, trigger: Trigger) -> Result<State, Refused> {
        use Operation::{Abort, Accept, Cutover, Finalize, Pause, Resume, Sync, Verify};
        use Phase::{Aborting, Accepted, Copying, CuttingOver, Following, Trial};
        let to = |phase, task, condition| Ok(State { phase, task, condition });
        match (&trigger, self.phase, self.task, &self.condition) {
            (Trigger::Asked(Pause), Copying | Following | Trial, Some(task), Condition::Good) => {
                to(self.phase, Some(task), Condition::Paused)
            }
            (Trigger::Asked(Resume), phase, Some(task), Condition::Paused) => {
                to(phase, Some(task), Condition::Good)
            }
            (Trigger::Asked(Resume), phase, Some(task), Condition::Failed(f))
                if f.class != Class::Permanent =>
            {
                to(phase, Some(task), Condition::Good)
            }
            (Trigger::Asked(Sync), Following, None, Condition::Good) => {
                to(Following, Some(Task::Pass), Condition::Good)
            }
            (Trigger::Asked(Verify), Following, None, Condition::Good) => {
                to(Following, Some(Task::Verify), Condition::Good)
            }
            (Trigger::Asked(Verify), Following, Some(Task::Follow), Condition::Good) => {
                to(Following, Some(Task::VerifyLive), Condition::Good)
            }
            (Trigger::Asked(Cutover), Following, Some(Task::Follow | Task::VerifyLive), Condition::Good) => {
                to(CuttingOver, Some(Task::CutOver), Condition::Good)
            }
            // Whatever became of following back: the source is not needed any more.
            (Trigger::Asked(Accept), Trial, Some(Task::FollowBack), _) => {
                to(Accepted, Some(Task::Part), Condition::Good)
            }
            (Trigger::Asked(Accept), Trial, None, Condition::Good) => {
                to(Accepted, Some(Task::Part), Condition::Good)
            }
            (Trigger::Asked(Finalize), Accepted, Some(Task::Part), Condition::Good)
            | (Trigger::Asked(Finalize), Following | Accepted, None, Condition::Good) => {
                to(self.phase, Some(Task::Finalize), Condition::Good)
            }
            // May be asked for again, with other terms.
            (Trigger::Asked(Abort), Aborting, Some(Task::Undo), _) => {
                to(Aborting, Some(Task::Undo), Condition::Good)
            }
            (Trigger::Asked(Abort), Copying | Following | CuttingOver | Trial | Accepted, task, _)
                if task != Some(Task::Finalize) =>
            {
                to(Aborting, Some(Task::Undo), Condition::Good)
            }
            (Trigger::Failed(failure), phase, Some(task), Condition::Good) => {
                to(phase, Some(task), Condition::Failed(failure.clone()))
            }
            (Trigger::Done, Copying | Following, Some(Task::Pass | Task::Verify), Condition::Good) => {
                to(Following, None, Condition::Good)
            }
            (Trigger::Copied, Copying, Some(Task::Pass), Condition::Good)
            | (Trigger::Done, Following, Some(Task::VerifyLive), Condition::Good)
            | (Trigger::CalledOff, CuttingOver, Some(Task::CutOver), Condition::Good) => {
                to(Following, Some(Task::Follow), Condition::Good)
            }
            (Trigger::Done, CuttingOver, Some(Task::CutOver), Condition::Good) => {
                to(Trial, None, Condition::Good)
            }
            (Trigger::TakenOver, CuttingOver, Some(Task::CutOver), Condition::Good) => {
                to(Trial, Some(Task::FollowBack), Condition::Good)
            }
            (Trigger::Done, Accepted, Some(Task::Part), Condition::Good) => {
                to(Accepted, None, Condition::Good)
            }
            (Trigger::Done, Following | Accepted, Some(Task::Finalize), Condition::Good) => {
                to(Phase::Finalized, None, Condition::Good)
            }
            (Trigger::Done, Aborting, Some(Task::Undo), Condition::Good) => {
                to(Phase::Aborted, None, Condition::Good)
            }
            _ => Err(self.refuse(&trigger)),
        }
    }

    fn refuse(&self, trigger: &Trigger) -> Refused {
        let what = match trigger {
            Trigger::Asked(operation) => operation.to_string(),
            Trigger::Done | Trigger::Copied | Trigger::TakenOver => "done".to_owned(),
            Trigger::CalledOff => "calling it off".to_owned(),
            Trigger::Failed(_) => "failing".to_owned(),
        };
        Refused { what, state: self.to_string() }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Draft => "draft",
            Phase::Approved => "approved",
            Phase::Copying => "copying",
            Phase::Following => "following",
            Phase::Rehearsing => "rehearsing",
            Phase::CuttingOver => "cutting over",
            Phase::Trial => "in trial",
            Phase::Accepted => "accepted",
            Phase::Finalized => "finalized",
            Phase::Aborting => "aborting",
            Phase::Aborted => "aborted",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.phase)?;
        match (&self.condition, self.task) {
            (Condition::Paused, _) => f.write_str(" (paused)"),
            (Condition::Failed(_), _) => f.write_str(" (failed)"),
            (Condition::Good, Some(Task::Pass)) if self.phase == Phase::Following => {
                f.write_str(" (syncing)")
            }
            (Condition::Good, Some(Task::Verify)) => f.write_str(" (verifying)"),
            (Condition::Good, Some(Task::Follow)) => f.write_str(" (live)"),
            (Condition::Good, Some(Task::FollowBack)) => f.write_str(" (followed)"),
            (Condition::Good, Some(Task::VerifyLive)) => f.write_str(" (live, verifying)"),
            (Condition::Good, Some(Task::Finalize)) => f.write_str(" (finalizing)"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
