//! The project's own commands: demo, test, bench, scenario, lab, package, ci.

mod bench;
mod ci;
mod demo;
mod interrupt;
mod lab;
mod package;
mod packages;
mod scenario;
mod shell;
mod suite;
mod workplace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes an appliance, moves it over mTLS, kills the target agent on the way, and shows that it arrived whole
    Demo,
    /// Runs every test; what follows goes to the test runner
    Test(suite::Options),
    /// Measures ours and the peers in turn, and writes target/bench/NAME.json
    Bench(bench::Options),
    /// Runs one end-to-end scenario; its last line is one JSON object
    Scenario(scenario::Options),
    /// Boots whole hosts to try things on, and takes them down
    Lab(lab::Options),
    /// Makes the Debian packages of the agents and the command line, in target/package
    Package,
    /// Runs what continuous integration runs: formatting, lints, docs, dependency rules, tests
    Ci,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let code = interrupt::guard().map_or_else(|error| failed(&error), |()| run(command));
    interrupt::settle();
    code
}

fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Demo => demo::run(),
        Command::Test(options) => suite::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Scenario(options) => return scenario::run(&options),
        Command::Lab(options) => return lab::run(&options).unwrap_or_else(|error| failed(&error)),
        Command::Package => package::run(),
        Command::Ci => ci::run(),
    };
    result.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
