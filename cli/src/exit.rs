//! Exit codes. They are part of the interface: scripts rely on them.

use handover_engine::failure::{Class, Failure};
use handover_engine::phase::{Condition, Phase, State, Task};
use handover_engine::report::Totals;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done; a watched migration has settled and verification found no difference.
    Done = 0,
    /// A watched migration failed (resume tries again).
    Failed = 3,
    /// A watched migration is paused.
    Paused = 4,
    /// Refused, or somebody must act first. Also a preflight with errors.
    Refused = 5,
    /// The agent cannot be reached.
    Unreachable = 6,
    /// Verification found differences.
    Differences = 7,
    /// A watched migration has settled, but items were left out (files that kept changing).
    LeftOut = 8,
    /// A rehearsal found what stands in the way.
    Conflicts = 9,
}

/// The list, for `--help`. (2 is clap's.)
pub const HELP: &str = "Exit codes: 0 done, 2 wrong usage, 3 the migration failed, 4 it is paused, 5 refused or needs the \
                        operator, 6 the agent cannot be reached, 7 verification found differences, 8 items were left out, \
                        9 a rehearsal found what stands in the way";

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The code of a failed command.
pub fn of(failure: &Failure) -> Code {
    match failure.class {
        Class::Transient => Code::Unreachable,
        Class::NeedsOperator | Class::Permanent => Code::Refused,
    }
}

/// True when a migration is no longer busy, or does what has no end of its own.
pub fn is_settled(state: &State) -> bool {
    !state.is_busy() || matches!(state.task, Some(Task::Follow | Task::FollowBack))
}

/// The code of a migration that is no longer busy.
pub fn settled(state: &State, totals: &Totals) -> Code {
    match (&state.condition, state.task) {
        (Condition::Paused, _) => Code::Paused,
        // What was found no longer stands there.
        (Condition::Good, None) if state.phase == Phase::Aborted => Code::Done,
        // A pass that was not taken over because of them, or a copy that is followed all the same.
        (_, None | Some(Task::Pass | Task::Follow)) if totals.differences > 0 => Code::Differences,
        (Condition::Failed(_), _) => Code::Failed,
        _ if totals.left_out > 0 => Code::LeftOut,
        _ => Code::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_codes() {
        let state = |task, condition| State { phase: Phase::Following, task, condition };
        let failed = Condition::Failed(Failure::operator("a", "b"));
        let table = [
            (state(None, Condition::Good), 0, 0, Code::Done),
            (state(None, Condition::Good), 0, 1, Code::LeftOut),
            (state(None, Condition::Good), 2, 1, Code::Differences),
            (state(Some(Task::Pass), Condition::Paused), 2, 0, Code::Paused),
            (state(Some(Task::Pass), failed.clone()), 0, 1, Code::Failed),
            (state(Some(Task::Pass), failed.clone()), 2, 0, Code::Differences),
            (state(Some(Task::Finalize), failed), 2, 0, Code::Failed),
            (state(Some(Task::Follow), Condition::Good), 0, 0, Code::Done),
            (state(Some(Task::Follow), Condition::Good), 2, 0, Code::Differences),
        ];
        for (state, differences, left_out, expected) in table {
            assert!(is_settled(&state), "{state}");
            let totals = Totals { differences, left_out, ..Totals::default() };
            assert_eq!(settled(&state, &totals), expected, "{state}");
        }
        let undone = State { phase: Phase::Aborted, task: None, condition: Condition::Good };
        assert_eq!(settled(&undone, &Totals { differences: 1, ..Totals::default() }), Code::Done);
        for task in [Task::Pass, Task::VerifyLive] {
            assert!(!is_settled(&state(Some(task), Condition::Good)));
        }
        assert_eq!(of(&Failure::transient("a", "b")), Code::Unreachable);
        assert_eq!(of(&Failure::permanent("a", "b")), Code::Refused);
    }
}
