//! `handover report` and `handover audit`.

use std::path::{Path, PathBuf};

use clap::Args;
use handover_certs::file;
use handover_engine::audit::{self, Entry, Head};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_transport::control::Control;
use serde_json::{Value, json};

use crate::arguments::Which;
use crate::proof::{self, TrustArguments};
use crate::render;

/// What to report.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Which migration.
    #[command(flatten)]
    pub which: Which,
    /// Write the report to this file, signed by the target.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Check a signed report instead. Needs no agent.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "out"])]
    pub verify: Option<PathBuf>,
    /// Whom to believe.
    #[command(flatten)]
    pub trust: TrustArguments,
}

/// What of the audit log to show or to check.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Write the log to this file, an entry a line.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Check that no entry was changed, removed, moved or put in: of the target's log, or of the one in a file (then no agent is
    /// needed).
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "out")]
    pub verify: Option<Option<PathBuf>>,
    /// The log must go on from where it ended when this report was signed: nothing before that is written anew or cut off.
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub report: Option<PathBuf>,
    /// Whom to believe about the report.
    #[command(flatten)]
    pub trust: TrustArguments,
}

/// Text and document to print.
pub type Printed = (String, Value);

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    file::replace(path, bytes, file::PUBLIC)
        .map_err(|error| Failure::operator(path.display().to_string(), "it cannot be written").because(error))
}

/// Checks a signed report.
pub fn verify(path: &Path, trust: &TrustArguments, identity: Option<&Path>) -> Result<Printed> {
    let proven = proof::report(path, trust, identity)?;
    let document = json!({
        "verified": true,
        "signed_by": proven.signer,
        "signed_at": proven.made.at,
        "audit": proven.made.audit,
        "report": proven.report,
    });
    let text = format!(
        "{}\n{}",
        render::report(&proven.report),
        render::report::signed(&proven.made, &proven.signer)
    );
    Ok((text, document))
}

/// A migration's report; written to a file as the target has signed it, where one is named.
pub async fn report(control: &dyn Control, id: &MigrationId, out: Option<&Path>) -> Result<Printed> {
    if let Some(path) = out {
        write(path, &control.signed_report(id).await?)?;
    }
    let report = control.report(id).await?;
    Ok((render::report(&report), json!(report)))
}

/// The whole log of a target.
async fn fetch(control: &dyn Control) -> Result<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let more = control.audit(all.len() as u64).await?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

/// The log that is meant: the one in a file, or the target's.
async fn log(control: Option<&dyn Control>, arguments: &AuditArguments) -> Result<(String, Vec<String>)> {
    match (&arguments.verify, control) {
        (Some(Some(path)), _) => Ok((path.display().to_string(), proof::log(path)?)),
        (_, Some(control)) => Ok(("audit log".to_owned(), fetch(control).await?)),
        (_, None) => Err(Failure::operator("audit log", "say which target").hint("--target HOST:PORT")),
    }
}

/// Shows or checks an audit log; the target's needs a way to it.
pub async fn audit(
    control: Option<&dyn Control>,
    arguments: &AuditArguments,
    identity: Option<&Path>,
) -> Result<Printed> {
    let told = match &arguments.report {
        Some(path) => Some(proof::report(path, &arguments.trust, identity)?.made.audit),
        None => None,
    };
    let (item, lines) = log(control, arguments).await?;
    if arguments.verify.is_some() {
        let head = proof::chain(&item, &lines, told)?;
        return Ok((verified(head, told), json!({ "verified": true, "head": head, "report": told })));
    }
    if let Some(path) = &arguments.out {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        write(path, text.as_bytes())?;
    }
    // A line that is none is shown as it is: only `--verify` judges.
    let text: Vec<String> = lines
        .iter()
        .map(|line| {
            serde_json::from_str::<Entry>(line)
                .map_or_else(|_| line.clone(), |entry| render::report::entry(&entry))
        })
        .collect();
    let entries: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line))).collect();
    let head = audit::check(&lines).ok();
    Ok((text.join("\n"), json!({ "entries": entries, "head": head })))
}

fn verified(head: Head, told: Option<Head>) -> String {
    let end = format!("the log is whole: {} entries, the last one {head}", head.seq);
    match told {
        Some(told) => format!("{end}\nit goes on from where the report saw its end: {told}"),
        None => format!(
            "{end}\nwhether its end was cut off or written anew tells only a signed report (--report FILE)"
        ),
    }
}
