//! Incompressible bytes from one agent's memory to the other's, over mTLS.
//!
//! There is no peer to run: ours is held against a rate. `peer_s` is the time that rate would have taken for the same
//! bytes, so the ratio reads as everywhere else: below 1 is faster than asked for.

use std::fs;

use anyhow::{Context, Result};
use handover_tests::bed::{Bed, Dataset};
use handover_tests::locate::Binaries;

use super::{Case, Options};
use crate::shell::say;
use crate::workplace::Workplace;

const PEER: &str = "1.2 GB/s";
const RATE: f64 = 1.2e9;
const BYTES: u64 = 4 << 30;

/// Runs the case.
pub fn run(binaries: &Binaries, options: &Options) -> Result<Vec<Case>> {
    let place = Workplace::fresh("bench/wire")?;
    let [source, target] = ["from", "to"].map(|dir| place.path().join(dir));
    fs::create_dir_all(&source)?;
    let dataset = Dataset::Files { name: "nothing".to_owned(), source, target };
    let bed = Bed::at(place.path(), binaries.clone(), vec![dataset], "info")?;
    let bytes = ((BYTES as f64 * options.scale) as u64).max(1 << 20);
    say(format!("{} probes of {bytes} bytes", options.pairs));
    probe(&bed, bytes)?;
    let measured = (0..options.pairs).map(|_| probe(&bed, bytes)).collect::<Result<Vec<_>>>()?;
    Ok(vec![Case::of("wire", PEER, &measured)])
}

/// Seconds that the bytes took, and would have taken at the rate asked for.
fn probe(bed: &Bed, bytes: u64) -> Result<(f64, f64)> {
    let document = bed.json(&["probe", "--bytes", &bytes.to_string()])?;
    let rate = document["bytes_per_second"].as_f64().context("`probe` says no bytes_per_second")?;
    println!("{:.2} GB/s", rate / 1e9);
    Ok((bytes as f64 / rate, bytes as f64 / RATE))
}
