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
    packages::install(packages::MAIL)?;
    let lab = lab_tests();
    say("building the programs that the tests run");
    // With the tests: programs alone are built with other features of what they share, and everything would be built twice.
    run_cargo(&["build", "--workspace", "--bins", "--tests"], &[])?;
    if is_installed("cargo-nextest") {
        say("running the tests with cargo-nextest");
        // With a filter of the user's own, which the runner would join to ours, only what it names is run.
        let mut args = vec!["nextest", "run", "--workspace", "--no-fail-fast"];
        if !lab && options.rest.is_empty() {
            args.extend(["-E", "not (binary(e2e) & test(/^lab::/))"]);
        }
        run_cargo(&args, &options.rest)?;
        if options.rest.is_empty() {
            say("running the tests in documentation");
            run_cargo(&["test", "--workspace", "--doc", "--quiet"], &[])?;
        }
        return Ok(());
    }
    say("running the tests (cargo-nextest would be faster; it is not installed)");
    let mut args = vec!["test", "--workspace", "--no-fail-fast"];
    if !lab && options.rest.is_empty() {
        args.extend(["--", "--skip", "lab::"]);
    }
    run_cargo(&args, &options.rest)
}

/// Whether the lab's tests can run; if not, says so.
fn lab_tests() -> bool {
    // Without root nothing can be installed, and the lab says so itself.
    let installed =
        if rustix::process::geteuid().is_root() { packages::install(packages::LAB) } else { Ok(()) };
    let reason = installed.err().map(|error| format!("{error:#}")).or_else(handover_tests::lab::why_not);
    if let Some(reason) = &reason {
        say(format!("NOT RUN: the tests on whole hosts (`lab::…` in `e2e`), because {reason}"));
    }
    reason.is_none()
}

fn run_cargo(args: &[&str], rest: &[String]) -> Result<()> {
    run_visibly(cargo(args).args(rest))
}
