//! How well a migration foretells its own end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handover_tests::bed::Bed;
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use serde_json::json;

use super::live::{acts, make};
use super::{Options, Outcome};
use crate::shell::say;
use crate::workplace::Workplace;

/// The prediction after a quarter of the time may be wrong by this share of the whole time.
const MAX_ERROR: f64 = 0.2;
/// So many rows take long enough that a quarter of the time is more than a moment.
const ROWS: u64 = 6_000_000;
/// At these shares of the time it is looked at.
const QUARTERS: [f64; 3] = [0.25, 0.5, 0.75];
const LOOK: Duration = Duration::from_millis(50);
const ENDS_WITHIN: Duration = Duration::from_secs(1800);

/// What was foretold at a moment.
struct Foretold {
    /// Seconds since the start.
    at: f64,
    /// Seconds that were said to be left.
    left: f64,
}

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    let options = &Options { rows: options.rows.or(Some(ROWS)), ..options.clone() };
    let place = Workplace::fresh("scenario-eta")?;
    let binaries = Binaries::build(Profile::Release)?;
    let (data, _) = make(options, &place)?;
    let bed = Bed::at(place.path(), binaries, vec![data.dataset()], "info")?;
    let plan = bed.json(&["plan"])?;
    let digest = plan["digest"].as_str().unwrap_or_default().to_owned();
    let begun = Instant::now();
    let migration = bed.json(&["start", &digest])?["migration"].as_str().unwrap_or_default().to_owned();
    say(format!("moving it: {migration}"));
    let mut told = Vec::new();
    let total = poll::until("the migration to end", ENDS_WITHIN, || {
        let status = bed.json(&["status"])?;
        let at = begun.elapsed().as_secs_f64();
        ensure!(status["condition"] == "good", "the migration stands still: {status}");
        if let Some(left) = status["progress"]["remaining_ms"].as_u64() {
            told.push(Foretold { at, left: left as f64 / 1000.0 });
        }
        poll::pause(LOOK);
        Ok((status["phase"] == "following" && status["activity"] == "idle").then_some(at))
    })?;
    println!("expected, in ms:{}", expected(&plan));
    println!("taken, in ms:{}", acts(&bed, "prepare")?);
    println!("foretold, in s since the start:{}", course(&told));
    let errors: Vec<f64> = QUARTERS
        .iter()
        .map(|share| error(&told, total, *share).context("nothing was foretold in time"))
        .collect::<Result<_>>()?;
    let percent = |at: usize| (errors[at] * 1000.0).round() / 10.0;
    let found = data.compare()?;
    Ok(Outcome {
        ok: errors[0] <= MAX_ERROR && found.found == 0,
        figures: json!({
            "engine": options.engine,
            "rows": found.rows,
            "differences": found.found,
            "seconds": (total * 100.0).round() / 100.0,
            "error_percent_at_25": percent(0),
            "error_percent_at_50": percent(1),
            "error_percent_at_75": percent(2),
        }),
    })
}

/// How long each step of a plan is expected to take.
fn expected(plan: &serde_json::Value) -> String {
    let steps = plan["plan"]["steps"].as_array().cloned().unwrap_or_default();
    let step = |step: &serde_json::Value| {
        let (kind, dataset) = (&step["step"]["do"], step["step"]["dataset"].as_str());
        let dataset = dataset.map(|name| format!(":{name}")).unwrap_or_default();
        format!(" {}{dataset} {}", kind.as_str().unwrap_or_default(), step["expected_ms"])
    };
    steps.iter().map(step).collect()
}

/// Which end was foretold at which time.
fn course(told: &[Foretold]) -> String {
    told.iter().map(|told| format!(" {:.2}→{:.2}", told.at, told.at + told.left)).collect()
}

/// By what share of the whole time the end that was foretold at a share of it was wrong.
fn error(told: &[Foretold], total: f64, share: f64) -> Option<f64> {
    let then = told.iter().find(|told| told.at >= total * share)?;
    Some((then.at + then.left - total).abs() / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shares_of_the_whole_time() {
        let told = [Foretold { at: 1.0, left: 1.0 }, Foretold { at: 5.0, left: 7.0 }];
        assert_eq!(error(&told, 10.0, 0.1), Some(0.8));
        assert_eq!(error(&told, 10.0, 0.5), Some(0.2));
        assert_eq!(error(&told, 10.0, 0.75), None);
    }
}
