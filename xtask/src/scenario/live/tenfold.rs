//! Ten times the rows, and writers wait no longer.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::{Options, Outcome};
use crate::bench::measure::median;
use crate::shell::say;

/// How much longer they may wait with ten times the rows.
const LONGER: f64 = 1.2;

/// Runs the scenario: by turns with a tenth of the rows and with all of them, since what a machine does beside changes with the hours.
pub fn run(options: &Options) -> Result<Outcome> {
    ensure!(options.pairs > 0, "no pairs, no medians");
    let all = options.scaled(options.rows());
    let (mut waits, mut all_ok) = ([Vec::new(), Vec::new()], true);
    for pair in 1..=options.pairs {
        for (waits, rows) in waits.iter_mut().zip([all / 10, all]) {
            say(format!("pair {pair} of {}: {rows} rows", options.pairs));
            let once = Options { rows: Some(rows), scale: 1.0, ..options.clone() };
            let outcome = super::run(&once)?;
            println!("{}", outcome.figures);
            all_ok &= outcome.ok;
            waits.push(outcome.figures["downtime_ms"].as_f64().context("how long writers waited")?);
        }
    }
    let [tenth, whole] = waits.each_ref().map(|waits| median(waits.clone()));
    let ratio = whole / tenth;
    Ok(Outcome {
        ok: all_ok && ratio <= LONGER,
        figures: json!({
            "engine": options.engine,
            "rows": [all / 10, all],
            "downtimes_ms": waits,
            "downtime_ms": [tenth, whole],
            "ratio": (ratio * 100.0).round() / 100.0,
        }),
    })
}
