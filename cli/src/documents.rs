//! The JSON documents that `--json` prints. Their shape is stable: fields are added, never changed.

use handover_engine::driver::Status;
use handover_engine::mode::{Instance, Mode};
use handover_engine::phase::{Condition, Phase, Task};
use serde_json::{Value, json};

/// What a migration is busy with, in a word.
fn activity(status: &Status) -> &'static str {
    match status.state.task {
        None => "idle",
        Some(Task::Pass) if status.state.phase == Phase::Copying => "copying",
        Some(Task::Pass) => "syncing",
        Some(Task::Follow) => "following",
        Some(Task::FollowBack) => "following_back",
        Some(Task::Part) => "parting",
        Some(Task::CutOver) => "cutting_over",
        Some(Task::Verify | Task::VerifyLive) => "verifying",
        Some(Task::Undo) => "undoing",
        Some(Task::Finalize) => "finalizing",
    }
}

/// The status document.
pub fn status(status: &Status) -> Value {
    let (condition, failure) = match &status.state.condition {
        Condition::Good => ("good", None),
        Condition::Paused => ("paused", None),
        Condition::Failed(failure) => ("failed", Some(failure)),
    };
    json!({
        "migration": status.migration,
        "phase": status.state.phase,
        "mode": Mode::of(&status.state),
        "instance": Instance::of(&status.state).or_kept(!status.kept.is_empty()),
        "kept": status.kept,
        "condition": condition,
        "failure": failure,
        "activity": activity(status),
        "progress": status.progress,
        "allowed": status.allowed,
        "differences": status.differences,
        "readiness": status.readiness,
        "last_event": status.last_event,
        "following": status.following,
        "following_trees": status.following_trees,
        "throttle": status.throttle,
        "room": status.room,
        "planned_at": status.planned.map(|planned| planned.at.to_string()),
        "cutover": status.cutover.map(|cutover| json!({
            "predicted_ms": cutover.predicted_ms,
            "downtime_ms": cutover.downtime_ms(),
            "fenced_at": cutover.fenced_at.map(|at| at.to_string()),
            "live_at": cutover.live_at.map(|at| at.to_string()),
            "serving_at": cutover.serving_at.map(|at| at.to_string()),
            "back": cutover.back,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::failure::Failure;
    use handover_engine::phase::State;
    use handover_engine::progress::Progress;

    #[test]
    fn the_status_document() {
        let condition = Condition::Failed(Failure::operator("disk", "full"));
        let state = State { condition, ..State::started() };
        let document = status(&Status {
            migration: "m-1".parse().unwrap(),
            allowed: state.allowed(),
            state,
            progress: Progress::default(),
            last_event: 7,
            following: Default::default(),
            following_trees: Default::default(),
            cutover: None,
            planned: None,
            throttle: None,
            room: None,
            differences: 0,
            kept: Default::default(),
            readiness: None,
        });
        assert_eq!(document["phase"], "copying");
        assert_eq!(
            (&document["mode"], &document["instance"]),
            (&json!("Migration"), &json!("Miscellaneous"))
        );
        assert_eq!(document["condition"], "failed");
        assert_eq!(document["failure"]["item"], "disk");
        assert_eq!(document["activity"], "copying");
        assert_eq!(document["allowed"], json!(["resume", "abort"]));
        assert_eq!(document["last_event"], 7);
    }
}
