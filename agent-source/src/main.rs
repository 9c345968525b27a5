//! Entry point.

use std::process::ExitCode;

use clap::Parser;
use handover_agent_source::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    handover_platform::daemon::complete_environment();
    run(&arguments)
}

#[tokio::main]
async fn run(arguments: &Arguments) -> ExitCode {
    handover_agent_source::main(arguments).await
}
