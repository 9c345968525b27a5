//! Entry point.

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments = handover_agent_target::Arguments::parse();
    handover_agent_target::main(&arguments).await
}
