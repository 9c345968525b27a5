//! Much data, little memory: a file and a table that are far larger than what the agents may hold.

mod server;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use handover_tests::appliance::{Content, wide_table};
use handover_tests::bed::{Bed, appliance_datasets};
use handover_tests::compare::Comparison;
use handover_tests::locate::{Binaries, Profile};
use serde_json::json;

use super::{Options, Outcome};
use crate::shell::{human, say};
use crate::workplace::Workplace;

/// Most that an agent may have resident, in MiB.
const LIMIT_MIB: u64 = 256;
const FILE: u64 = 4 << 30;
const ROWS: u64 = 10_000_000;

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    if options.engine != "sqlite" {
        return server::run(options.server()?, options);
    }
    let place = Workplace::fresh("scenario-memory")?;
    let binaries = Binaries::build(Profile::Release)?;
    let (size, rows) = (options.scaled(FILE), options.scaled(ROWS));
    say(format!("making a file of {} and a table of {rows} rows", human(size)));
    let files = place.path().join("source/data/files");
    fs::create_dir_all(&files)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(files.join("large.bin"))?);
    Content::new(options.seed).write_mixed(size, &mut out)?;
    out.flush()?;
    wide_table(&place.path().join("source/data/app.db"), rows).context("making the table")?;
    rustix::fs::sync();
    let bed = Bed::at(place.path(), binaries, appliance_datasets(place.path()), "info")?;
    let begun = Instant::now();
    say(format!("moving it: {}", bed.start()?));
    bed.settle(Duration::from_secs(3600))?;
    outcome(&bed, "sqlite", begun.elapsed().as_secs_f64(), || bed.compare())
}

fn outcome(
    bed: &Bed,
    engine: &str,
    seconds: f64,
    compare: impl FnOnce() -> Result<Comparison>,
) -> Result<Outcome> {
    let (source, target) = (bed.source.usage(), bed.target.usage());
    say(format!("done after {seconds:.1} s; comparing both sides"));
    let found = compare()?;
    println!("{}", found.describe());
    Ok(Outcome {
        ok: source.peak_mib() <= LIMIT_MIB && target.peak_mib() <= LIMIT_MIB && found.found == 0,
        figures: json!({
            "engine": engine,
            "source_peak_mib": source.peak_mib(),
            "target_peak_mib": target.peak_mib(),
            "limit_mib": LIMIT_MIB,
            "seconds": round(seconds),
            "source_cpu_seconds": round(source.cpu_seconds),
            "target_cpu_seconds": round(target.cpu_seconds),
            "rows": found.rows,
            "bytes": found.bytes,
            "differences": found.found,
        }),
    })
}

fn round(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}
