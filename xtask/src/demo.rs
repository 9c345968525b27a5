//! What a newcomer sees first: an appliance is moved, the target agent dies on the way, and nothing is lost.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handover_tests::appliance::{Appliance, Spec, TreeSpec};
use handover_tests::bed::{Bed, appliance_datasets};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;

use crate::shell::{human, say};
use crate::workplace::Workplace;

/// The target agent is killed as soon as this share has arrived.
const KILL_AT: f64 = 0.25;
/// Later than this would not be the middle.
const MIDDLE_ENDS: f64 = 0.7;

/// Runs the demonstration.
pub fn run() -> Result<()> {
    let place = Workplace::fresh("demo")?;
    say("building the programs (--release; this takes a while the first time)");
    let binaries = Binaries::build(Profile::Release)?;
    let begun = Instant::now();
    make_appliance(&place)?;
    say("issuing certificates and starting two agents, which know each other by mutual TLS only");
    let mut bed = Bed::at(place.path(), binaries, appliance_datasets(place.path()), "info")?;
    prepare(&bed)?;
    let digest = plan(&bed)?;
    say(format!("approving plan {digest}"));
    bed.json(&["start", &digest])?;
    ride_through_a_crash(&mut bed)?;
    bed.settle(Duration::from_secs(60))?;
    show(bed.command().arg("report"))?;
    finish(&bed, begun)
}

fn make_appliance(place: &Workplace) -> Result<()> {
    say("making an appliance: an SQLite database of 210,000 rows and 2,000 files, one of 256 MiB");
    let tree = TreeSpec { files: 2_000, bytes: 60 << 20, large: 256 << 20, oddities: true };
    Appliance::make(&place.path().join("source/data"), &Spec { seed: 1, rows: 210_000, wal: true, tree })?;
    Ok(())
}

fn prepare(bed: &Bed) -> Result<()> {
    show(bed.command().arg("inspect"))?;
    show(bed.command().arg("check"))
}

fn plan(bed: &Bed) -> Result<String> {
    show(bed.command().arg("plan"))?;
    bed.plan()
}

/// Runs a command on the user's terminal, after showing its line.
fn show(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status()?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn announce(command: &Command) {
    // The first four words say where the target is and who asks: the same every time.
    let words: Vec<_> = command.get_args().skip(4).map(|word| word.to_string_lossy()).collect();
    println!("\n\x1b[1m$ handover {}\x1b[0m", words.join(" "));
}

fn ride_through_a_crash(bed: &mut Bed) -> Result<()> {
    let mut watch = watch(bed)?;
    let share = wait_for_the_middle(bed)?;
    bed.target.kill()?;
    println!();
    say(format!("killed the target agent (kill -9) at {:.0} %, and starting it again", share * 100.0));
    bed.target.restart()?;
    for _ in 0..10 {
        let status = watch.wait()?;
        match status.code() {
            Some(0) => return Ok(()),
            Some(7) => {
                bed.command().arg("report").status()?;
                anyhow::bail!("verification found differences");
            }
            Some(3 | 4) => anyhow::bail!("the migration did not go on: `watch` ended with {status}"),
            _ => watch = self::watch(bed)?,
        }
    }
    anyhow::bail!("`watch` finds no agent to watch")
}

fn watch(bed: &Bed) -> Result<Child> {
    let mut command = bed.command();
    command.arg("watch");
    announce(&command);
    command.spawn().context("starting `watch`")
}

fn wait_for_the_middle(bed: &Bed) -> Result<f64> {
    let share = poll::until("the middle of the copy", Duration::from_secs(60), || {
        let status = bed.status()?;
        ensure!(!status.is_stuck(), "the migration stands still: {status:?}");
        ensure!(!status.is_settled(), "the copy was done before its middle was seen");
        Ok((status.share() >= KILL_AT).then(|| status.share()))
    })?;
    if share > MIDDLE_ENDS {
        eprintln!("warning: the copy went so fast that it was seen only at {:.0} %", share * 100.0);
    }
    Ok(share)
}

fn finish(bed: &Bed, begun: Instant) -> Result<()> {
    say("comparing both sides row by row and file by file, without the programs' own code");
    let found = bed.compare()?;
    for difference in &found.named {
        println!("  {difference}");
    }
    ensure!(found.found == 0, "{} differences", found.found);
    say(format!(
        "moved {} in all; {:.1} s since the build",
        human(found.bytes),
        begun.elapsed().as_secs_f64()
    ));
    let (rows, tables, files, bytes) = (found.rows, found.tables, found.files, found.bytes);
    println!("verified: {rows} rows in {tables} tables, {files} files, {bytes} bytes; 0 differences");
    Ok(())
}
