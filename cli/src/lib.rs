//! The operator's command line: a client of the control API, and the keeper of the CA.

pub mod arguments;
mod backups;
mod certs;
mod documents;
pub mod exit;
mod proof;
mod rehearse;
mod render;
mod report;
mod run;
mod throttle;
mod watch;

use std::process::ExitCode;

use self::arguments::Arguments;

/// Runs one command; the exit code is one of [`exit`].
pub async fn main(arguments: Arguments) -> ExitCode {
    let json = arguments.json;
    match run::run(arguments).await {
        Ok(code) => code.into(),
        Err(failure) => {
            if json {
                println!("{}", serde_json::json!({ "error": failure }));
            } else {
                eprintln!("error: {}: {}", failure.item, render::with_causes(&failure));
                if !failure.hint.is_empty() {
                    eprintln!("hint: {}", failure.hint);
                }
            }
            exit::of(&failure).into()
        }
    }
}
