//! Entry point.

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments = handover_agent_source::Arguments::parse();
    handover_agent_source::main(&arguments).await
}
