//! Text for people.

mod changeover;
mod dns;
mod fitted;
mod inventory;
mod operations;
mod readiness;
pub mod report;
mod status;
mod units;

use std::fmt::Write;

use handover_engine::check::{Finding, Severity};
use handover_engine::driver::Status;
use handover_engine::failure::Failure;
use handover_engine::journal::{Event, Logged};
use handover_engine::kept::Kept;
use handover_engine::plan::{OnFailure, Plan, StepKind};
use handover_engine::progress::StepProgress;

pub use self::inventory::inventories;
pub use self::report::report;
pub use self::status::{share, status};
pub use self::units::{bytes, time};

/// A failure's text without its item and hint.
pub fn with_causes(failure: &Failure) -> String {
    failure.causes.iter().fold(failure.what.clone(), |text, cause| format!("{text}: {cause}"))
}

/// What a cut-over would do.
pub fn cutover(
    acts: &[StepProgress],
    predicted_ms: u64,
    max_downtime_ms: u64,
    in_the_way: &[String],
) -> String {
    let mut out = String::from("a cut-over would, in this order,\n");
    for act in acts {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {}", act.title);
    }
    let _ = write!(out, "writers would wait for about {}", time(predicted_ms));
    if predicted_ms > max_downtime_ms {
        let _ = write!(out, ", and --max-downtime is {}", time(max_downtime_ms));
    }
    for text in in_the_way {
        let _ = write!(out, "\n{text}");
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
    if plan.options.follow {
        out.push_str(on_failure(plan.options.on_failure));
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
    if !plan.steps.iter().any(|step| matches!(step.step, StepKind::BackUp(_))) {
        out.push_str("nothing is backed up before the start ([backups] of a manifest has it done)\n");
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

/// What a target that does not come up leads to.
fn on_failure(on_failure: OnFailure) -> &'static str {
    match on_failure {
        OnFailure::Stop => {
            "on failure: stop (if the target has taken over and does not come up, that is left to the operator)\n"
        }
        OnFailure::Undo => {
            "on failure: undo (if the target has taken over and does not come up, everything goes back to the source by itself)\n"
        }
    }
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
