//! `cargo xtask test`: every test, after what they need is there.

use anyhow::Result;
use clap::Args;

use crate::packages;
use crate::shell::{cargo, is_installed, run_visibly, say};

/// What to test.
#[derive(Args, Default)]
pub struct Options {
    /// Goes to the test runner: a part of a name, for one
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the programs and runs every test, those in documentation too.
pub fn run(options: &Options) -> Result<()> {
    packages::install(packages::SERVERS)?;
    say("building the programs that the tests run");
    run_cargo(&["build", "--workspace", "--bins"], &[])?;
    if is_installed("cargo-nextest") {
        say("running the tests with cargo-nextest");
        run_cargo(&["nextest", "run", "--workspace", "--no-fail-fast"], &options.rest)?;
        if options.rest.is_empty() {
            say("running the tests in documentation");
            run_cargo(&["test", "--workspace", "--doc", "--quiet"], &[])?;
        }
        return Ok(());
    }
    say("running the tests (cargo-nextest would be faster; it is not installed)");
    run_cargo(&["test", "--workspace", "--no-fail-fast"], &options.rest)
}

fn run_cargo(args: &[&str], rest: &[String]) -> Result<()> {
    run_visibly(cargo(args).args(rest))
}
