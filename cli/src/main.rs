//! Entry point.

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    handover_cli::main(handover_cli::arguments::Arguments::parse()).await
}
