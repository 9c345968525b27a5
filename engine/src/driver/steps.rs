//! Which of a plan's steps belong to the task at hand, and which of them are done.

use crate::journal::Migration;
use crate::phase::{Phase, Task};
use crate::plan::StepKind;
use crate::progress::{Meter, StepProgress, StepState};

/// What measures the task at hand, or shows a migration that has ended.
pub(super) fn meter(migration: &Migration) -> Meter {
    Meter::new(steps(migration), migration.shown)
}

/// The steps of the task at hand, with those that are done marked.
fn steps(migration: &Migration) -> Vec<StepProgress> {
    let done = |step: &str| migration.steps_done.iter().any(|done| done == step);
    let planned = migration.plan.steps.iter().filter(|step| match migration.state.task {
        Some(Task::Verify | Task::VerifyLive) => matches!(step.step, StepKind::Verify(_)),
        Some(Task::Undo | Task::Finalize | Task::Follow | Task::FollowBack) => false,
        Some(Task::Part) => is_of_accepting(&step.step),
        // What was undone is no longer there.
        None if migration.state.phase == Phase::Aborted => false,
        Some(Task::Pass) => is_of_pass(migration, &step.step),
        Some(Task::CutOver) => is_of_cutover(migration, &step.step),
        None => migration.state.phase != Phase::Trial || !is_of_accepting(&step.step),
    });
    let finished = migration.state.task.is_none();
    planned
        .map(|step| {
            let mut progress = StepProgress::planned(step);
            if finished || done(&progress.step) {
                progress.state = StepState::Done;
                progress.bytes = progress.bytes_total;
                progress.rows = progress.rows_total;
                progress.files = progress.files_total;
            } else if migration.pass > 1 && matches!(step.step, StepKind::Copy(_) | StepKind::Fit(_)) {
                // What a later pass has to move is not known before it has looked.
                (progress.bytes_total, progress.rows_total, progress.files_total) = (0, 0, 0);
            }
            progress
        })
        .collect()
}

/// Whether a step belongs to a pass: what is backed up is so once.
fn is_of_pass(migration: &Migration, step: &StepKind) -> bool {
    let is_over = matches!(step, StepKind::BackUp(_)) && migration.pass > 1;
    !is_over && !is_of_cutover(migration, step) && !is_of_accepting(step)
}

/// Whether a step belongs to the cut-over; in a plan that does not follow its source none does.
fn is_of_cutover(migration: &Migration, step: &StepKind) -> bool {
    use StepKind::{BackUp, Capture, Copy, Fit, Index, Prepare, Verify};
    let is_before =
        matches!(step, BackUp(_) | Prepare | Capture(_) | Copy(_) | Fit(_) | Index(_) | Verify(_));
    migration.plan.options.follow && !is_before && !is_of_accepting(step)
}

/// Whether a step belongs to what comes with the target's being accepted.
fn is_of_accepting(step: &StepKind) -> bool {
    matches!(step, StepKind::BackUpAgain(_))
}
