//! One large file of which a little changes between two passes.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use handover_tests::appliance::{Content, seeded};
use handover_tests::bed::{Bed, Dataset};
use handover_tests::compare;
use handover_tests::locate::Binaries;
use rand::{Rng, RngCore};

use super::{Case, Options, pairs, sshd::Sshd, timed_pass};
use crate::packages;
use crate::shell::{human, say, seconds};
use crate::workplace::Workplace;

const PEER: &str = "rsync -aHAX --no-whole-file -z --zc=zstd over ssh";
const RSYNC: [&str; 4] = ["-aHAX", "--no-whole-file", "-z", "--zc=zstd"];
const SIZE: u64 = 1 << 30;
const PLACES: u32 = 100;

/// Runs the case.
pub fn run(binaries: &Binaries, options: &Options) -> Result<Vec<Case>> {
    packages::install(packages::FILE_PEERS)?;
    let place = Workplace::fresh("bench/delta")?;
    let [from, ours_to, peer_to] = ["from", "bed/target/data/ours", "peer"].map(|dir| place.path().join(dir));
    for dir in [&from, &ours_to, &peer_to] {
        fs::create_dir_all(dir)?;
    }
    let size = ((SIZE as f64 * options.scale) as u64).max(1 << 20);
    say(format!("making a file of {}, half random, half log text", human(size)));
    let file = from.join("large.bin");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&file)?);
    Content::new(1).write_mixed(size, &mut out)?;
    out.flush()?;
    let sshd = Sshd::start(&place.path().join("ssh"))?;
    let dataset = Dataset::Files { name: "large".to_owned(), source: from.clone(), target: ours_to.clone() };
    let bed = Bed::at(&place.path().join("bed"), binaries.clone(), vec![dataset], "info")?;
    say("the first copy of either side (not measured)");
    bed.start()?;
    bed.settle(Duration::from_secs(600))?;
    sshd.rsync(&["-aHAX"], &from, &peer_to)?;
    let measured = measure(&bed, &sshd, &from, &peer_to, options.pairs)?;
    let arrived = compare::trees(&from, &ours_to)?;
    ensure!(arrived.found == 0, "our copy is not the same: {}", arrived.describe());
    Ok(vec![Case::of("delta", PEER, &measured)])
}

fn measure(bed: &Bed, sshd: &Sshd, from: &Path, peer_to: &Path, count: u32) -> Result<Vec<(f64, f64)>> {
    say(format!("{PLACES} places of 4 KiB change before every pair: {count} pairs"));
    // The side that comes first makes the change; both then carry the same one.
    let changed = std::cell::Cell::new(None);
    let change_once = |n: u32| -> Result<()> {
        if changed.replace(Some(n)) != Some(n) {
            change(&from.join("large.bin"), n.into())?;
        }
        rustix::fs::sync();
        Ok(())
    };
    let measured = pairs(
        count,
        |n| {
            change_once(n)?;
            Ok(vec![timed_pass(bed, &["sync"])?])
        },
        |n| {
            change_once(n)?;
            Ok(vec![seconds(|| sshd.rsync(&RSYNC, from, peer_to))?])
        },
    )?;
    Ok(measured.iter().map(|(ours, peer)| (ours[0], peer[0])).collect())
}

/// Overwrites random places with random bytes.
fn change(path: &Path, seed: u64) -> Result<()> {
    let mut rng = seeded(seed, "delta");
    let file = OpenOptions::new().write(true).open(path)?;
    let pages = file.metadata()?.len() / 4096;
    let mut page = [0; 4096];
    for _ in 0..PLACES {
        rng.fill_bytes(&mut page);
        file.write_all_at(&page, rng.random_range(0..pages) * 4096)?;
    }
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_some_pages_and_not_the_size() {
        let place = Workplace::fresh("delta-test").unwrap();
        let path = place.path().join("f");
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        change(&path, 1).unwrap();
        let bytes = fs::read(&path).unwrap();
        let touched = bytes.chunks(4096).filter(|page| page.iter().any(|b| *b != 0)).count();
        assert!(bytes.len() == 1 << 20 && (50..=100).contains(&touched), "{touched}");
    }
}
