//! Where a migration stands, and how it gets on.

use std::fmt::Write;

use handover_engine::driver::Status;
use handover_engine::follow::{Figures, TreeFigures};
use handover_engine::mode::{Instance, Mode};
use handover_engine::phase::{Condition, Task};
use handover_engine::reserve::Room;

use super::{bytes, readiness, time, with_causes};

/// Where a migration stands.
pub fn status(status: &Status) -> String {
    let mut out = format!("{}: {}", status.migration, status.state);
    if status.state.task.is_some_and(|task| !matches!(task, Task::Follow | Task::FollowBack)) {
        let _ = write!(out, ", {}", progress(status));
    }
    if matches!(status.state.task, Some(Task::Follow | Task::VerifyLive | Task::FollowBack)) {
        followed(status, &mut out);
    }
    let instance = Instance::of(&status.state).or_kept(!status.kept.is_empty());
    let mode = Mode::of(&status.state);
    let _ = write!(out, "\n  mode {mode}, instance {instance}");
    if let Some(reason) = throttled(status) {
        let _ = write!(out, "\n  {reason}");
    }
    if let Some(room) = status.room.as_ref().filter(|_| status.state.task.is_some()) {
        out.push_str(&self::room(room));
    }
    if let Some(planned) = status.planned {
        let _ = write!(out, "\n  the cut-over is planned for {}", planned.at);
    }
    if let Some(downtime) = status.cutover.and_then(|cutover| cutover.downtime_ms()) {
        let _ = write!(out, "\n  users found neither side for {}", time(downtime));
    }
    for (dataset, kept) in &status.kept {
        let _ = write!(out, "\n  {dataset}: what was migrated is kept: {}", super::kept(kept));
    }
    if let Some(failure) = &status.undone_because {
        let _ = write!(out, "\n  undone because of {}: {}", failure.item, with_causes(failure));
    }
    if let Condition::Failed(failure) = &status.state.condition {
        let _ = write!(out, "\n  {}: {}", failure.item, with_causes(failure));
        if !failure.hint.is_empty() {
            let _ = write!(out, "\n  {}", failure.hint);
        }
    }
    if let Some(found) = &status.readiness {
        out.push_str(&readiness::text(found));
    }
    let allowed: Vec<&str> = status.allowed.iter().map(|operation| operation.as_str()).collect();
    let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
    let _ = write!(out, "\n  possible now: {allowed}");
    out
}

/// What is followed, and how that gets on.
fn followed(status: &Status, out: &mut String) {
    let whose = if status.state.task == Some(Task::FollowBack) { "the source is " } else { "" };
    for (dataset, figures) in &status.following {
        let _ = write!(out, "\n  {dataset}: {whose}{}", following(figures));
    }
    for (dataset, figures) in &status.following_trees {
        let _ = write!(out, "\n  {dataset}: {}", following_tree(figures));
    }
}

/// What may run out.
fn room(room: &Room) -> String {
    let mut out = String::new();
    for (dataset, waiting) in &room.waiting {
        let _ = write!(out, "\n  {dataset}: {} of {} wait", bytes(waiting.bytes), bytes(waiting.limit));
        let log = room.logs.get(dataset).copied().unwrap_or_default();
        if let Some(kept) = log.bytes {
            let _ = write!(out, ", the source keeps {}", bytes(kept));
        }
        if let Some(more) = log.room {
            let _ = write!(out, " and may keep {} more", bytes(more));
        }
        if let Some(left) = log.left_ms() {
            let _ = write!(out, ", for {}", time(left));
        }
    }
    for (side, disks) in [("source", &room.source), ("target", &room.target)] {
        for disk in disks {
            let _ = write!(
                out,
                "\n  free at the {side}: {} of {} ({})",
                bytes(disk.free),
                bytes(disk.total),
                disk.place
            );
        }
    }
    out
}

/// Why the source is not read as fast as it could be, where it is not.
fn throttled(status: &Status) -> Option<&str> {
    status.throttle.as_ref()?.reason.as_deref()
}

/// How following a database gets on.
fn following(figures: &Figures) -> String {
    let behind = match figures.waiting {
        _ if !figures.known => "behind, by how much is not known yet".to_owned(),
        0 => "up to date".to_owned(),
        _ => format!("{} behind", time(figures.lag_ms)),
    };
    format!(
        "{behind}, {} changes wait ({}), {} rows carried",
        figures.waiting,
        bytes(figures.spool_bytes),
        figures.applied
    )
}

/// How following a tree gets on.
fn following_tree(figures: &TreeFigures) -> String {
    let behind = match figures.pending {
        0 if figures.told => "up to date".to_owned(),
        _ => format!("{} behind", time(figures.lag_ms)),
    };
    let complete = figures.complete_ms.map_or_else(
        || "not yet passed over as a whole".to_owned(),
        |ms| format!("passed over as a whole {} ago", time(ms)),
    );
    let how = if figures.told { "" } else { ", scanned for each pass" };
    format!(
        "{behind}, {} places pending, last pass: {} files ({}) in {}, {complete}{how}",
        figures.pending,
        figures.files,
        bytes(figures.bytes),
        time(figures.took_ms)
    )
}

/// How much is done, how fast, and when it should end; why it is not faster.
pub fn share(status: &Status) -> String {
    let progress = progress(status);
    throttled(status).map_or_else(|| progress.clone(), |reason| format!("{progress}; {reason}"))
}

/// How much is done, how fast, and when it should end.
fn progress(status: &Status) -> String {
    let progress = &status.progress;
    let mut out = format!("{:.1} %", (progress.share * 100.0).min(100.0));
    let _ = write!(out, ", {}", bytes(progress.bytes_done));
    if progress.rows_done > 0 {
        let _ = write!(out, ", {} rows", progress.rows_done);
    }
    if progress.files_done > 0 {
        let _ = write!(out, ", {} files", progress.files_done);
    }
    if progress.bytes_per_second > 0.0 {
        let _ = write!(out, ", {}/s", bytes(progress.bytes_per_second as u64));
    }
    if let Some(remaining) = progress.remaining_ms {
        let _ = write!(out, ", {} left", time(remaining));
    }
    out
}
