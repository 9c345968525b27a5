//! Ours and the peers in turn, on the same data, in one run.
//!
//! Both sides find the data in the page cache (the first, unmeasured copy brings it there), and the file system is
//! synced before every measurement, so that neither pays for what the other wrote.

mod delta;
mod files;
mod follow;
pub mod measure;
mod servers;
mod sshd;
mod wire;

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use handover_tests::bed::Bed;
use handover_tests::locate::{Binaries, Profile, target_dir};
use handover_tests::server::Engine;

use crate::shell::{run_quietly, say, seconds};
use measure::{Bench, Case};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// The benchmark; all of them without one
    name: Option<Name>,
    /// Pairs of runs, ours and the peer's
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Share of the full amount of data, for a quick look
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Of a server's benchmark, this case alone (`sysbench`, `pgbench`, `one-table`, `blobs`; of `follow`: `uniform`, `skewed`)
    #[arg(long)]
    case: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// A file tree, and a second pass over it with nothing changed
    Files,
    /// A changed large file
    Delta,
    /// Bytes from memory to memory
    Wire,
    /// MariaDB databases
    Mariadb,
    /// PostgreSQL databases
    Postgres,
    /// A backlog of changes, worked off
    Follow,
}

/// Runs the benchmarks asked for.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.pairs > 0, "no pairs, no medians");
    let names = options.name.map_or_else(|| Name::value_variants().to_vec(), |name| vec![name]);
    let binaries = Binaries::build(Profile::Release)?;
    for name in names {
        let cases = match name {
            Name::Files => files::run(&binaries, options)?,
            Name::Delta => delta::run(&binaries, options)?,
            Name::Wire => wire::run(&binaries, options)?,
            Name::Mariadb => servers::run(Engine::Mariadb, &binaries, options)?,
            Name::Follow => follow::run(&binaries, options)?,
            Name::Postgres => servers::run(Engine::Postgres, &binaries, options)?,
        };
        let name = name.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        publish(&Bench { name, cases })?;
    }
    Ok(())
}

fn publish(bench: &Bench) -> Result<()> {
    let path = bench_dir()?.join(format!("{}.json", bench.name));
    fs::write(&path, serde_json::to_string_pretty(bench)? + "\n")?;
    println!("\n{}", bench.table());
    say(format!("written to {}", path.display()));
    Ok(())
}

fn bench_dir() -> Result<PathBuf> {
    let dir = target_dir()?.join("bench");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Measures pairs: `ours` and `peer` by turns, each first in every other pair.
fn pairs(
    count: u32,
    mut ours: impl FnMut(u32) -> Result<Vec<f64>>,
    mut peer: impl FnMut(u32) -> Result<Vec<f64>>,
) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
    let mut measured = Vec::new();
    for n in 0..count {
        let pair = if n % 2 == 0 {
            let first = ours(n)?;
            (first, peer(n)?)
        } else {
            let first = peer(n)?;
            (ours(n)?, first)
        };
        println!("pair {}: ours {:.3?} s, peer {:.3?} s", n + 1, pair.0, pair.1);
        measured.push(pair);
    }
    Ok(measured)
}

/// Seconds from the operator's command to the settled migration, start-up of the command line included.
fn timed_pass(bed: &Bed, verb: &[&str]) -> Result<f64> {
    rustix::fs::sync();
    seconds(|| pass(bed, verb))
}

/// Runs a pass until its migration has settled. One command line watches: many that ask would take time from what they measure.
fn pass(bed: &Bed, verb: &[&str]) -> Result<()> {
    run_quietly(bed.command().args(verb))?;
    run_quietly(bed.command().arg("watch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_order_is_swapped_every_pair() {
        let order = RefCell::new(String::new());
        let side = |name: char| {
            let order = &order;
            move |_| {
                order.borrow_mut().push(name);
                Ok(vec![1.0])
            }
        };
        assert_eq!(pairs(3, side('o'), side('p')).unwrap().len(), 3);
        assert_eq!(*order.borrow(), "oppoop");
    }
}
