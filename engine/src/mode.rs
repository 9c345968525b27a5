//! What a migration means to those who run the appliance: the mode it is in, and how its new instance does. Both are derived from the
//! migration's state and nothing else; nothing of them is stored.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::phase::{Condition, Phase, State, Task};

/// The mode that an appliance is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// No migration goes on.
    Operational,
    /// A migration is copying, following, or on trial. Users are at work.
    Migration,
    /// Users are kept out, or may be: the source hands over to the target, or gets everything back.
    Maintenance,
}

/// How the instance does that a migration builds at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instance {
    /// It is being made.
    Launching,
    /// It holds a whole copy, and can serve.
    Inservice,
    /// It is being taken apart, or what it was built with.
    Terminating,
    /// There is none: it was taken apart, or has become the appliance itself.
    Terminated,
    /// It stands still, half made or set aside by an abort, and somebody must look.
    Miscellaneous,
    /// Nothing is known of it: there is a plan at most.
    Unknown,
}

impl Mode {
    /// The mode that a migration in this state puts its appliance in.
    pub fn of(state: &State) -> Self {
        match state.phase {
            Phase::Draft | Phase::Finalized | Phase::Aborted => Mode::Operational,
            Phase::Approved
            | Phase::Copying
            | Phase::Following
            | Phase::Rehearsing
            | Phase::Trial
            | Phase::Accepted => Mode::Migration,
            Phase::CuttingOver | Phase::Aborting => Mode::Maintenance,
        }
    }

    /// Whether the agents may be upgraded: not while a migration relies on how they are.
    pub fn allows_upgrade(self) -> bool {
        self == Mode::Operational
    }
}

impl Instance {
    /// How the instance of a migration in this state does.
    pub fn of(state: &State) -> Self {
        let has_failed = matches!(state.condition, Condition::Failed(_));
        match (state.phase, state.task) {
            (Phase::Draft, _) => Instance::Unknown,
            (Phase::Finalized | Phase::Aborted, _) => Instance::Terminated,
            // It serves, whatever becomes of the way back.
            (Phase::Trial, _) => Instance::Inservice,
            _ if has_failed => Instance::Miscellaneous,
            (Phase::Aborting, _) | (_, Some(Task::Finalize)) => Instance::Terminating,
            (Phase::Approved | Phase::Copying, _) => Instance::Launching,
            (Phase::Following | Phase::Rehearsing | Phase::CuttingOver | Phase::Accepted, _) => {
                Instance::Inservice
            }
        }
    }
}

impl Instance {
    /// The same once it is known whether an abort has kept something of it.
    pub fn or_kept(self, is_kept: bool) -> Self {
        if is_kept && self == Instance::Terminated { Instance::Miscellaneous } else { self }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use Instance::{Inservice, Launching, Miscellaneous, Terminated, Terminating, Unknown};
    use Mode::{Maintenance, Migration, Operational};

    #[test]
    fn the_table_of_modes_and_instances() {
        let table = [
            (Phase::Draft, None, Operational, Unknown, Unknown),
            (Phase::Approved, None, Migration, Launching, Miscellaneous),
            (Phase::Copying, Some(Task::Pass), Migration, Launching, Miscellaneous),
            (Phase::Following, None, Migration, Inservice, Miscellaneous),
            (Phase::Following, Some(Task::Follow), Migration, Inservice, Miscellaneous),
            (Phase::Following, Some(Task::VerifyLive), Migration, Inservice, Miscellaneous),
            (Phase::Following, Some(Task::Finalize), Migration, Terminating, Miscellaneous),
            (Phase::Rehearsing, None, Migration, Inservice, Miscellaneous),
            (Phase::CuttingOver, Some(Task::CutOver), Maintenance, Inservice, Miscellaneous),
            (Phase::Trial, None, Migration, Inservice, Inservice),
            (Phase::Trial, Some(Task::FollowBack), Migration, Inservice, Inservice),
            (Phase::Accepted, Some(Task::Part), Migration, Inservice, Miscellaneous),
            (Phase::Accepted, None, Migration, Inservice, Miscellaneous),
            (Phase::Accepted, Some(Task::Finalize), Migration, Terminating, Miscellaneous),
            (Phase::Aborting, Some(Task::Undo), Maintenance, Terminating, Miscellaneous),
            (Phase::Finalized, None, Operational, Terminated, Terminated),
            (Phase::Aborted, None, Operational, Terminated, Terminated),
        ];
        for (phase, task, mode, instance, failed) in table {
            let good = State { phase, task, condition: Condition::Good };
            assert_eq!((Mode::of(&good), Instance::of(&good)), (mode, instance), "{good}");
            let paused = State { condition: Condition::Paused, ..good.clone() };
            assert_eq!((Mode::of(&paused), Instance::of(&paused)), (mode, instance), "{paused}");
            let is_over = Instance::of(&good) == Terminated;
            let kept = if is_over { Miscellaneous } else { instance };
            assert_eq!(Instance::of(&good).or_kept(true), kept, "{good}");
            assert_eq!(Instance::of(&good).or_kept(false), instance, "{good}");
            let condition = Condition::Failed(Failure::operator("x", "y"));
            let bad = State { condition, ..good };
            assert_eq!((Mode::of(&bad), Instance::of(&bad)), (mode, failed), "{bad}");
        }
    }

    #[test]
    fn agents_are_upgraded_while_nothing_goes_on() {
        let allowed = [Operational, Migration, Maintenance].map(Mode::allows_upgrade);
        assert_eq!(allowed, [true, false, false]);
    }

    #[test]
    fn names_are_shown_as_they_are_called() {
        assert_eq!(
            (Maintenance.to_string(), Miscellaneous.to_string()),
            ("Maintenance".into(), "Miscellaneous".into())
        );
        assert_eq!(serde_json::to_string(&(Migration, Inservice)).unwrap(), "[\"Migration\",\"Inservice\"]");
    }
}
