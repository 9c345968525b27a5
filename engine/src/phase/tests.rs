//! The tables of phases: what may be asked when, and what it leads to.

use super::*;
use Operation::{Abort, Accept, Cutover, Finalize, Pause, Resume, Sync, Verify};
use Phase::{Aborted, Aborting, Accepted, CuttingOver, Finalized, Following, Trial};

fn state(phase: Phase, task: Option<Task>) -> State {
    State { phase, task, condition: Condition::Good }
}

fn with(condition: Condition, state: State) -> State {
    State { condition, ..state }
}

#[test]
fn the_table_of_operations() {
    let failed = Condition::Failed(Failure::operator("x", "y"));
    let lost = Condition::Failed(Failure::permanent("x", "y"));
    let table = [
        (State::started(), &[Pause, Abort][..]),
        (with(Condition::Paused, State::started()), &[Resume, Abort]),
        (with(failed.clone(), State::started()), &[Resume, Abort]),
        (with(lost, State::started()), &[Abort]),
        (state(Following, None), &[Sync, Verify, Abort, Finalize]),
        (state(Following, Some(Task::Pass)), &[Pause, Abort]),
        (state(Following, Some(Task::Verify)), &[Pause, Abort]),
        (with(Condition::Paused, state(Following, Some(Task::Verify))), &[Resume, Abort]),
        (with(failed.clone(), state(Following, Some(Task::Finalize))), &[Resume]),
        (state(Following, Some(Task::Follow)), &[Pause, Verify, Cutover, Abort]),
        (state(Following, Some(Task::VerifyLive)), &[Pause, Cutover, Abort]),
        (with(Condition::Paused, state(Following, Some(Task::VerifyLive))), &[Resume, Abort]),
        (with(failed.clone(), state(Following, Some(Task::VerifyLive))), &[Resume, Abort]),
        (with(Condition::Paused, state(Following, Some(Task::Follow))), &[Resume, Abort]),
        (state(CuttingOver, Some(Task::CutOver)), &[Abort]),
        (with(failed.clone(), state(CuttingOver, Some(Task::CutOver))), &[Resume, Abort]),
        (state(Trial, None), &[Accept, Abort]),
        (state(Trial, Some(Task::FollowBack)), &[Pause, Accept, Abort]),
        (with(Condition::Paused, state(Trial, Some(Task::FollowBack))), &[Resume, Accept, Abort]),
        (with(failed.clone(), state(Trial, Some(Task::FollowBack))), &[Resume, Accept, Abort]),
        (state(Accepted, Some(Task::Part)), &[Abort, Finalize]),
        (state(Accepted, None), &[Abort, Finalize]),
        (state(Accepted, Some(Task::Finalize)), &[]),
        (state(Aborting, Some(Task::Undo)), &[Abort]),
        (with(failed, state(Aborting, Some(Task::Undo))), &[Resume, Abort]),
        (state(Aborted, None), &[]),
        (state(Finalized, None), &[]),
    ];
    for (state, allowed) in table {
        assert_eq!(state.allowed(), allowed, "{state}");
    }
}

#[test]
fn the_table_of_ends() {
    let table = [
        (State::started(), state(Following, None)),
        (state(Following, Some(Task::Pass)), state(Following, None)),
        (state(Following, Some(Task::Verify)), state(Following, None)),
        (state(Following, Some(Task::VerifyLive)), state(Following, Some(Task::Follow))),
        (state(Following, Some(Task::Finalize)), state(Finalized, None)),
        (state(Accepted, Some(Task::Finalize)), state(Finalized, None)),
        (state(CuttingOver, Some(Task::CutOver)), state(Trial, None)),
        (state(Accepted, Some(Task::Part)), state(Accepted, None)),
        (state(Aborting, Some(Task::Undo)), state(Aborted, None)),
    ];
    for (from, to) in table {
        assert_eq!(from.next(Trigger::Done), Ok(to), "{from}");
    }
    assert!(state(Following, None).next(Trigger::Done).is_err());
    let live = state(Following, Some(Task::Follow));
    assert!(live.next(Trigger::Done).is_err(), "following has no end of its own");
    assert_eq!(State::started().next(Trigger::Copied), Ok(live.clone()));
    assert_eq!(state(CuttingOver, Some(Task::CutOver)).next(Trigger::CalledOff), Ok(live));
    let followed = state(Trial, Some(Task::FollowBack));
    assert_eq!(state(CuttingOver, Some(Task::CutOver)).next(Trigger::TakenOver), Ok(followed));
}

#[test]
fn a_failure_keeps_phase_and_task() {
    let failure = Failure::transient("x", "y");
    let next = State::started().next(Trigger::Failed(failure.clone())).unwrap();
    assert_eq!(next, with(Condition::Failed(failure), State::started()));
    assert_eq!(next.next(Trigger::Asked(Resume)), Ok(State::started()));
}

#[test]
fn a_refusal_says_what_and_when() {
    let refused = state(Finalized, None).next(Trigger::Asked(Abort)).unwrap_err();
    assert_eq!(refused.to_string(), "abort is not possible while the migration is finalized");
}
