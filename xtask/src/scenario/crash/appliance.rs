//! An SQLite database and a file tree.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use handover_tests::appliance::{Appliance, Changed, Spec, TreeSpec};
use handover_tests::bed::{Bed, SERVED, appliance_datasets};
use handover_tests::compare::Comparison;
use handover_tests::locate::Binaries;
use rand::rngs::StdRng;

use super::Data;
use crate::scenario::Options;
use crate::shell::say;
use crate::workplace::remove;

struct Files;

/// Makes an appliance and its bed.
pub fn make(options: &Options, place: &Path, binaries: Binaries) -> Result<(Bed, Box<dyn Data>)> {
    let tree = TreeSpec {
        files: u32::try_from(options.scaled(6_000))?,
        bytes: options.scaled(1_200 << 20),
        large: options.scaled(300 << 20),
        oddities: true,
    };
    say(format!("making an appliance: {} rows, {} files", options.scaled(1_000_000), tree.files));
    let spec = Spec { seed: options.seed, rows: options.scaled(1_000_000), wal: true, tree };
    Appliance::make(&place.join("source/data"), &spec)?;
    Ok((Bed::at(place, binaries, appliance_datasets(place), SERVED)?, Box::new(Files)))
}

impl Data for Files {
    fn compare(&self, bed: &Bed) -> Result<Comparison> {
        bed.compare()
    }

    fn change(&mut self, bed: &Bed, seed: u64) -> Result<Changed> {
        bed.original().change(seed)
    }

    fn empty_target(&mut self, bed: &Bed) -> Result<()> {
        remove(&bed.root().join("target/data"))?;
        Ok(std::fs::create_dir_all(bed.copy().files)?)
    }

    fn strike(&mut self, _: &mut StdRng, _: Duration) -> Result<Option<&'static str>> {
        Ok(None)
    }
}
