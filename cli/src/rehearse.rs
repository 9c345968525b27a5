//! Rehearsing, and showing what the last rehearsal found.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::TryStreamExt;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::report::{DatabaseReport, RehearsalReport};
use handover_transport::control::{Control, Rehearsing};

use crate::exit::Code;
use crate::render;

/// Conflicts of a table that are printed; the document lists more.
const PRINTED: usize = 20;

/// How to rehearse.
#[derive(Debug, Args)]
pub struct RehearseArguments {
    /// What to do about rows that do not fit (TOML, docs/rehearsal.md).
    #[arg(long, value_name = "FILE", conflicts_with = "show")]
    pub decisions: Option<PathBuf>,
    /// Leave the scratch databases for the next rehearsal, which then costs only what has changed, and for looking into them.
    #[arg(long, conflicts_with = "show")]
    pub keep: bool,
    /// Show what the last rehearsal found, and do nothing else.
    #[arg(long)]
    pub show: bool,
}

/// Rehearses, or shows the last report.
pub async fn run(control: &impl Control, asked: RehearseArguments, json: bool) -> Result<Code> {
    let report = if asked.show {
        control.rehearsal().await?
    } else {
        let decisions = asked.decisions.as_deref().map_or_else(|| Ok(Decisions::none()), read)?;
        wait(control, decisions, asked.keep, json).await?
    };
    if json {
        println!("{}", serde_json::json!({ "clean": report.is_clean(), "rehearsal": report }));
    } else {
        println!("{}", text(&report));
    }
    Ok(if report.is_clean() { Code::Done } else { Code::Conflicts })
}

/// Lines as they come; the report at the end.
async fn wait(
    control: &impl Control,
    decisions: Decisions,
    keep: bool,
    json: bool,
) -> Result<RehearsalReport> {
    let mut told = control.rehearse(decisions, keep, "").await?;
    while let Some(told) = told.try_next().await? {
        match told {
            Rehearsing::Line(line) if !json => println!("{line}"),
            Rehearsing::Line(_) => {}
            Rehearsing::Report(report) => return Ok(*report),
        }
    }
    Err(Failure::transient("rehearsal", "the target ended it without a report").hint("see the target's log"))
}

/// Reads a decisions file.
pub fn read(path: &Path) -> Result<Decisions> {
    let item = format!("decisions {}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::operator(&item, "cannot be read").because(error))?;
    let decisions: Decisions = toml::from_str(&text).map_err(|error| {
        Failure::operator(&item, "cannot be understood")
            .because(error)
            .hint("docs/rehearsal.md tells their form")
    })?;
    decisions.check().map_err(|bad| Failure::operator(&item, "cannot be carried out").because(bad))?;
    Ok(decisions)
}

/// A report as people read it.
fn text(report: &RehearsalReport) -> String {
    let mut out = format!("rehearsal of {}, asked for by {}\n", report.began, report.by);
    for database in &report.databases {
        add_database(&mut out, database);
    }
    for check in &report.checks {
        let verdict = if check.well { "well" } else { "NOT WELL" };
        let _ = writeln!(out, "check {} of {}: {verdict}", check.name, check.dataset);
        for line in &check.said {
            let _ = writeln!(out, "    {line}");
        }
    }
    for (what, decisions) in [("decided", &report.used), ("decision that matches nothing", &report.unused)] {
        for decision in decisions {
            let _ = writeln!(out, "{what}: {decision}");
        }
    }
    let conflicts = report.conflicts();
    let verdict =
        if report.is_clean() { "nothing stands in the way" } else { "the target does not take this data" };
    let _ = write!(out, "{conflicts} rows in conflict: {verdict}");
    out
}

fn add_database(out: &mut String, database: &DatabaseReport) {
    let against = if database.own_schema { "the target's own schema" } else { "the source's schema" };
    let (loaded, kept) = (database.chunks_loaded, database.chunks_kept);
    let bytes = render::bytes(database.bytes_loaded);
    let _ = writeln!(
        out,
        "{}: against {against}; {loaded} chunks ({bytes}) came from the source, {kept} stood",
        database.dataset
    );
    for finding in &database.findings {
        let severity = format!("{:?}", finding.severity).to_uppercase();
        let _ = writeln!(out, "  {severity} {}: {} ({})", finding.item, finding.what, finding.hint);
    }
    for table in &database.tables {
        if !table.tried {
            let _ = writeln!(out, "  {}: not tried", table.table);
            continue;
        }
        let _ = write!(out, "  {}: {} of {} rows loaded", table.table, table.loaded, table.rows);
        if table.decided > 0 {
            let _ = write!(out, ", {} as was decided", table.decided);
        }
        for (kind, count) in &table.conflicts {
            let _ = write!(out, ", {count} {kind}");
        }
        out.push('\n');
        for conflict in table.listed.iter().take(PRINTED) {
            let _ = writeln!(out, "    {conflict}");
        }
        let all: u64 = table.conflicts.values().sum();
        let rest = all.saturating_sub(PRINTED as u64);
        if rest > 0 {
            let _ = writeln!(out, "    and {rest} more (--show --json lists the first 1000)");
        }
    }
}

#[cfg(test)]
mod tests {
    use handover_engine::rehearsal::quarantine::{Entry, Fate, Form};
    use handover_engine::rehearsal::report::{FORMAT, TableReport};
    use handover_engine::rehearsal::{Conflict, ConflictKind};
    use handover_engine::rows::TableName;
    use handover_engine::time::Timestamp;

    use super::*;

    #[test]
    fn a_report_tells_all_counts_and_the_first_rows() {
        let table = TableName::plain("users");
        let entry = |number: u64| Entry {
            number,
            values: "".into(),
            form: Form::Source,
            conflict: Conflict {
                kind: ConflictKind::Unique,
                table: table.clone(),
                key: format!("id {number}"),
                constraint: "users.email".to_owned(),
                other: Some("id 0".to_owned()),
            },
            fate: Fate::Open,
        };
        let entries: Vec<Entry> = (1..=25).map(entry).collect();
        let database = DatabaseReport {
            dataset: "main".parse().unwrap(),
            own_schema: true,
            continued: false,
            chunks_loaded: 3,
            chunks_kept: 0,
            bytes_loaded: 10,
            findings: Vec::new(),
            tables: vec![TableReport::of(table.clone(), 100, &entries)],
        };
        let at = Timestamp::from_millis(0);
        let (by, unused) = ("me".to_owned(), vec!["drop: users, id 99".to_owned()]);
        let report = RehearsalReport {
            format: FORMAT,
            by,
            began: at,
            ended: at,
            kept: false,
            databases: vec![database],
            checks: Vec::new(),
            used: Vec::new(),
            unused,
        };
        let text = text(&report);
        for part in [
            "users: 75 of 100 rows loaded, 25 unique",
            "unique users.email: users, id 20 (in its way: id 0)",
            "and 5 more",
            "matches nothing: drop: users, id 99",
            "25 rows in conflict",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("id 21 "), "{text}");
    }
}
