//! Text for people.

mod changeover;
mod dns;
mod fitted;
mod readiness;
pub mod report;

use std::fmt::Write;

use handover_engine::check::{Finding, Severity};
use handover_engine::driver::Status;
use handover_engine::failure::Failure;
use handover_engine::follow::{Figures, TreeFigures};
use handover_engine::inventory::{DatasetFacts, Inventory};
use handover_engine::journal::{Event, Logged};
use handover_engine::kept::Kept;
use handover_engine::licence::{Licence, Standing};
use handover_engine::mode::{Instance, Mode};
use handover_engine::phase::{Condition, Task};
use handover_engine::plan::Plan;
use handover_engine::progress::StepProgress;
use handover_engine::reserve::Room;

pub use self::report::report;

/// A failure's text without its item and hint.
pub fn with_causes(failure: &Failure) -> String {
    failure.causes.iter().fold(failure.what.clone(), |text, cause| format!("{text}: {cause}"))
}

/// A host's licence, on a line of its own.
fn licence(standing: &Standing, out: &mut String) {
    let _ = match standing {
        Standing::Undeclared => Ok(()),
        Standing::None => writeln!(out, "  licence: none"),
        Standing::Invalid { problem, .. } => writeln!(out, "  licence: not valid: {problem}"),
        Standing::Valid(Licence { guid, holder, maintenance_until }) => {
            let holder = if holder.is_empty() { String::new() } else { format!(" of {holder}") };
            let until =
                maintenance_until.map_or_else(String::new, |until| format!(", maintained until {until}"));
            writeln!(out, "  licence {guid}{holder}{until}")
        }
    };
}

/// Bytes in the unit that suits them.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// What a cut-over would do.
pub fn cutover(acts: &[StepProgress], predicted_ms: u64, max_downtime_ms: u64) -> String {
    let mut out = String::from("a cut-over would, in this order,\n");
    for act in acts {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {}", act.title);
    }
    let _ = write!(out, "writers would wait for about {}", time(predicted_ms));
    if predicted_ms > max_downtime_ms {
        let _ = write!(out, ", and --max-downtime is {}", time(max_downtime_ms));
    }
    out
}

/// Milliseconds in the unit that suits them.
pub fn time(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Both hosts.
pub fn inventories(source: &Inventory, target: &Inventory) -> String {
    let mut out = format!("{}\n{}", inventory("source", source), inventory("target", target));
    dns::inspected(source, target, &mut out);
    out
}

fn inventory(side: &str, inventory: &Inventory) -> String {
    let (host, appliance) = (&inventory.host, &inventory.appliance);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{side}: {} ({}, {}), {} cpus, {}",
        host.host_name,
        host.os,
        host.kernel,
        host.cpus,
        bytes(host.memory_bytes)
    );
    let _ = writeln!(
        out,
        "  appliance {} {} ({}), {} {}",
        appliance.name,
        appliance.release,
        appliance.role,
        appliance.host_name,
        appliance.addresses.join(" ")
    );
    licence(&inventory.licence, &mut out);
    changeover::facts(&inventory.changeover, &mut out);
    for disk in &host.disks {
        let _ = writeln!(
            out,
            "  disk {} ({}): {} of {} free",
            disk.mount_point,
            disk.file_system,
            bytes(disk.available_bytes),
            bytes(disk.total_bytes)
        );
    }
    for dataset in &inventory.datasets {
        let facts = match &dataset.facts {
            DatasetFacts::Database(d) => {
                let rows: u64 = d.tables.iter().map(|table| table.rows).sum();
                format!(
                    "{} {} at {}: {} tables, {rows} rows, {}",
                    d.engine,
                    d.version,
                    d.location,
                    d.tables.len(),
                    bytes(d.bytes)
                )
            }
            DatasetFacts::Files(t) => format!("files at {}: {} files, {}", t.root, t.files, bytes(t.bytes)),
            DatasetFacts::Unreadable { problem, .. } => format!("cannot be read: {problem}"),
        };
        let _ = writeln!(out, "  {}: {facts}", dataset.name);
    }
    out
}

/// A preflight's findings.
pub fn findings(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing stands in the way".to_owned();
    }
    let line = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Error => "ERROR  ",
            Severity::Warning => "WARNING",
            Severity::Info => "INFO   ",
        };
        let hint =
            if finding.hint.is_empty() { String::new() } else { format!("\n        {}", finding.hint) };
        format!("{severity} {}: {}{hint}", finding.item, finding.what)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A plan, and how to start it.
pub fn plan(plan: &Plan) -> String {
    let mut out = format!("plan for {}: {} to {}\n", plan.appliance, plan.source.agent, plan.target.agent);
    if plan.options.overwrite {
        out.push_str("what the target holds is REPLACED (abort brings it back until finalize)\n");
    }
    if let Some(decisions) = &plan.options.decisions {
        fitted::planned(decisions, &mut out);
    }
    for step in &plan.steps {
        let mut size = Vec::new();
        for (number, what) in [(step.rows, "rows"), (step.files, "files")] {
            if number > 0 {
                size.push(format!("{number} {what}"));
            }
        }
        if step.bytes > 0 {
            size.push(bytes(step.bytes));
        }
        let _ =
            writeln!(out, "  {:<28} {:>9}  {}", step.step.title(), time(step.expected_ms), size.join(", "));
    }
    if let Some(advice) = &plan.dns {
        dns::advice(advice, &mut out);
    }
    for one in &plan.left_behind {
        let _ = writeln!(out, "  not moved: {}: {}", one.item, one.why);
    }
    let total: u64 = plan.steps.iter().map(|step| step.expected_ms).sum();
    let _ = writeln!(out, "expected time: {}", time(total));
    let digest = plan.digest();
    let _ = write!(out, "digest: {digest}\nstart it with: handover start {}", digest.short());
    out
}

/// What an abort has kept, and how much room that takes.
pub fn kept(kept: &Kept) -> String {
    format!("{} ({})", kept.place, bytes(kept.bytes))
}

/// A migration in a list of them, with what is kept of it.
pub fn line(status: &Status) -> String {
    let mut out = format!("{}  {}", status.migration, status.state);
    for (dataset, kept) in &status.kept {
        let _ = write!(out, "\n  {dataset} is kept: {}", self::kept(kept));
    }
    out
}

/// Where a migration stands.
pub fn status(status: &Status) -> String {
    let mut out = format!("{}: {}", status.migration, status.state);
    let is_followed = matches!(status.state.task, Some(Task::Follow | Task::VerifyLive | Task::FollowBack));
    if status.state.task.is_some_and(|task| !matches!(task, Task::Follow | Task::FollowBack)) {
        let _ = write!(out, ", {}", progress(status));
    }
    if is_followed {
        let whose = if status.state.task == Some(Task::FollowBack) { "the source is " } else { "" };
        for (dataset, figures) in &status.following {
            let _ = write!(out, "\n  {dataset}: {whose}{}", following(figures));
        }
        for (dataset, figures) in &status.following_trees {
            let _ = write!(out, "\n  {dataset}: {}", following_tree(figures));
        }
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
        let _ = write!(out, "\n  writers waited {}", time(downtime));
    }
    for (dataset, kept) in &status.kept {
        let _ = write!(out, "\n  {dataset}: what was migrated is kept: {}", self::kept(kept));
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
pub fn throttled(status: &Status) -> Option<&str> {
    status.throttle.as_ref()?.reason.as_deref()
}

/// How following a database gets on.
fn following(figures: &Figures) -> String {
    let behind = if figures.waiting == 0 {
        "up to date".to_owned()
    } else {
        format!("{} behind", time(figures.lag_ms))
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

/// Something that happened.
pub fn event(logged: &Logged) -> String {
    let text = match &logged.event {
        Event::State { state, by: Some(by) } => format!("{state} (asked for by {by})"),
        Event::State { state, by: None } => state.to_string(),
        Event::StepStarted { step } => format!("{step} begins"),
        Event::StepDone { step } => format!("{step} is done"),
        Event::Note { item, text } => format!("note: {item}: {text}"),
        Event::Retry { step, failure, after_ms } => {
            format!("{step} is tried again in {after_ms} ms: {}: {}", failure.item, with_causes(failure))
        }
    };
    format!("{} {text}", logged.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (ms, text) in
            [(0, "0 s"), (1, "1 s"), (59_000, "59 s"), (60_000, "1 min 00 s"), (3_700_000, "1 h 01 min")]
        {
            assert_eq!(time(ms), text);
        }
    }
}
