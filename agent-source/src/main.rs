//! Entry point.

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments = handover_agent_source::Arguments::parse();
    handover_agent_source::main(&arguments).await
}
