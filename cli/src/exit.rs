//! Exit codes. They are part of the interface: scripts rely on them.

use handover_engine::failure::{Class, Failure};
use handover_engine::phase::{Condition, State};

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
}

/// The list, for `--help`. (2 is clap's.)
pub const HELP: &str = "Exit codes: 0 done, 2 wrong usage, 3 the migration failed, 4 it is paused, 5 refused or needs the \
                        operator, 6 the agent cannot be reached, 7 verification found differences";

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

/// The code of a migration that is no longer busy; `None` while it is.
pub fn settled(state: &State, differences: u64) -> Option<Code> {
    match (&state.condition, state.task) {
        (Condition::Failed(_), _) => Some(Code::Failed),
        (Condition::Paused, _) => Some(Code::Paused),
        (Condition::Good, None) if differences > 0 => Some(Code::Differences),
        (Condition::Good, None) => Some(Code::Done),
        (Condition::Good, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::phase::{Phase, Task};

    #[test]
    fn the_table_of_codes() {
        let state = |task, condition| State { phase: Phase::Following, task, condition };
        let failed = Condition::Failed(Failure::operator("a", "b"));
        let table = [
            (state(None, Condition::Good), 0, Some(Code::Done)),
            (state(None, Condition::Good), 2, Some(Code::Differences)),
            (state(Some(Task::Pass), Condition::Good), 0, None),
            (state(Some(Task::Pass), Condition::Paused), 0, Some(Code::Paused)),
            (state(Some(Task::Pass), failed), 0, Some(Code::Failed)),
        ];
        for (state, differences, expected) in table {
            assert_eq!(settled(&state, differences), expected, "{state}");
        }
        assert_eq!(of(&Failure::transient("a", "b")), Code::Unreachable);
        assert_eq!(of(&Failure::permanent("a", "b")), Code::Refused);
    }
}
