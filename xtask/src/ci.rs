//! `cargo xtask ci`: what continuous integration runs, stage by stage.

mod licences;

use std::time::Instant;

use anyhow::{Context, Result};

use crate::shell::{cargo, is_installed, run_visibly, say};
use crate::suite;

type Stage = (&'static str, fn() -> Result<()>);

const STAGES: [Stage; 5] = [
    ("formatting", || run_visibly(&mut cargo(&["fmt", "--all", "--check"]))),
    ("lints", || {
        run_visibly(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    ("documentation", || {
        run_visibly(cargo(&["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("licences and sources of dependencies", dependencies),
    // Among them: which crate may depend on which (tests/tests/e2e/arrows.rs).
    ("tests", || suite::run(&suite::Options::default())),
];

/// Runs every stage; the first that fails ends it.
pub fn run() -> Result<()> {
    let mut times = Vec::new();
    for (name, stage) in STAGES {
        say(name);
        let begun = Instant::now();
        stage().with_context(|| format!("stage `{name}`"))?;
        times.push((name, begun.elapsed().as_secs_f64()));
    }
    say("all stages passed");
    for (name, seconds) in times {
        println!("  {seconds:8.1} s  {name}");
    }
    Ok(())
}

fn dependencies() -> Result<()> {
    if is_installed("cargo-deny") {
        return run_visibly(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]));
    }
    println!("cargo-deny is not installed: a smaller check of our own runs in its place");
    licences::check()
}
