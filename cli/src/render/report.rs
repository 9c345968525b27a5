//! Reports and audit entries as text.

use std::fmt::Write;

use handover_certs::signed::Signer;
use handover_engine::audit::{Act, Entry};
use handover_engine::journal::Event;
use handover_engine::report::{Made, Report};

use super::{bytes, dns, event, fitted, operations, time, with_causes};

/// What was moved and how it was verified.
pub fn report(report: &Report) -> String {
    let totals = &report.totals;
    let mut out = format!("{} ({}): {}\n", report.migration, report.appliance, report.state);
    let (plan, by, at) = (report.plan.short(), &report.started_by, report.started_at);
    let _ = writeln!(out, "plan {plan}, started by {by} at {at}");
    let _ = writeln!(out, "from {} to {}, {} passes", report.agents.0, report.agents.1, report.passes);
    timings(report, &mut out);
    if let Some(failure) = &report.outcome.undone_because {
        let _ = writeln!(out, "undone because of {}: {}", failure.item, with_causes(failure));
    }
    for (name, held) in &report.datasets {
        let verified = report.outcome.verified.get(name).map_or("not verified yet".to_owned(), |v| {
            format!("verified {} rows, {} files, {}", v.read.rows, v.read.files, bytes(v.read.bytes))
        });
        let unsettled = report.outcome.verified.get(name).map_or(0, |verified| verified.unsettled);
        let verified = match unsettled {
            0 => verified,
            rows => format!("{verified}; {rows} rows changed each time they were looked at"),
        };
        let _ = writeln!(
            out,
            "  {name}: {} rows in {} tables, {} files, {}; {verified}",
            held.rows,
            held.tables,
            held.files,
            bytes(held.bytes)
        );
    }
    let outcome = &report.outcome;
    for (title, list, found) in [
        ("differs", &outcome.differences, totals.differences),
        ("repaired", &outcome.repaired, totals.repaired),
        ("left out", &outcome.left_out, totals.left_out),
    ] {
        for item in list {
            let _ = writeln!(out, "  {title}: {}, {}: {}", item.dataset, item.item, item.what);
        }
        let more = found.saturating_sub(list.len() as u64);
        if more > 0 {
            let _ = writeln!(out, "  {title}: {more} more");
        }
    }
    for made in &outcome.backups {
        let names: Vec<&str> = made.datasets.iter().map(|name| name.as_str()).collect();
        let (id, host, size) = (&made.id, made.host, bytes(made.bytes));
        let _ = writeln!(out, "  backup of the {host}: {id} ({}, {size})", names.join(", "));
    }
    for (dataset, kept) in &outcome.kept {
        let _ = writeln!(out, "  {dataset} is kept: {}", super::kept(kept));
    }
    for (dataset, fitted) in &outcome.fitted {
        fitted::told(dataset, fitted, &mut out);
    }
    if let Some(why) = &outcome.verifying_ended {
        let _ = writeln!(out, "  {why}");
    }
    if let Some(advice) = &report.dns {
        dns::advice(advice, &mut out);
    }
    for one in &report.left_behind {
        let _ = writeln!(out, "  not moved: {}: {}", one.item, one.why);
    }
    operations::changed(&report.changed, &mut out);
    operations::operations(&report.operations, &mut out);
    account(report, &mut out);
    let _ = write!(
        out,
        "in all {} rows in {} tables, {} files, {}; {} differences{}{}",
        totals.rows,
        totals.tables,
        totals.files,
        bytes(totals.bytes),
        totals.differences,
        if totals.repaired > 0 { format!(", {} repaired", totals.repaired) } else { String::new() },
        if totals.left_out > 0 { format!(", {} left out", totals.left_out) } else { String::new() }
    );
    out
}

/// How long it took, and how long users found neither side.
fn timings(report: &Report, out: &mut String) {
    let _ = write!(out, "worked for {}", time(report.outcome.working_ms));
    if let Some(ended) = report.ended_at {
        let _ = write!(out, ", ended at {ended}");
    }
    if let Some(downtime) = report.downtime_ms {
        let _ = write!(out, ", users found neither side for {downtime} ms at the cut-over");
    }
    out.push('\n');
}

/// Its states, and who asked for them.
fn account(report: &Report, out: &mut String) {
    if report.history_left_out > 0 {
        let _ = writeln!(out, "  ({} events before that)", report.history_left_out);
    }
    for logged in &report.history {
        if matches!(logged.event, Event::State { .. } | Event::Note { .. }) {
            let _ = writeln!(out, "  {}", event(logged));
        }
    }
}

/// Who has signed a report.
pub fn signed(made: &Made, signer: &Signer) -> String {
    format!(
        "signed by {} at {} with certificate {} of {}\nthe audit log ended with {} then",
        signer.identity, made.at, signer.serial, signer.issuer, made.audit
    )
}

/// An entry of the audit log.
pub fn entry(entry: &Entry) -> String {
    let mut out = format!("{} {} {}", entry.seq, entry.at, entry.by);
    if let Some(id) = &entry.migration {
        let _ = write!(out, " [{id}]");
    }
    let _ = match &entry.act {
        Act::Began { release, source } => write!(out, " serves: release {release}, source {source}"),
        Act::Asked { what } => write!(out, " asks: {what}"),
        Act::Answered { asked, done, refused: None, .. } => {
            write!(out, " has done what {asked} asked: {}", done.as_deref().unwrap_or_default())
        }
        Act::Answered { asked, refused: Some(why), .. } => {
            write!(out, " has refused what {asked} asked: {why}")
        }
        Act::Ended { asked, what, failed: Some(why), .. } => {
            write!(out, " has not done what {asked} asked ({what}): {why}")
        }
        Act::Ended { asked, what, done, failed: None } => {
            write!(out, " has ended what {asked} asked ({what}): {}", done.as_deref().unwrap_or_default())
        }
        Act::Happened { event: Event::State { state, .. } } => write!(out, " -> {state}"),
        Act::Happened { event: Event::StepDone { step } } => write!(out, " {step} is done"),
        Act::Happened { event: Event::Note { item, text } } => write!(out, " {item}: {text}"),
        Act::Happened { event: Event::StepStarted { step } | Event::Retry { step, .. } } => {
            write!(out, " {step}")
        }
    };
    out
}
