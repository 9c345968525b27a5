//! Whether this agent may be upgraded: not while a migration goes on.

use std::path::Path;
use std::process::ExitCode;

use handover_engine::mode::Mode;
use handover_platform::daemon::{self, allow_upgrade, refuse_upgrade};
use handover_platform::manifest::read_toml;
use handover_platform::store::Store;

use crate::{Config, JOURNAL};

/// Says so, for a package that is about to replace this program. The agent may be running meanwhile.
pub async fn check(config: &Path) -> ExitCode {
    let state = match read_toml::<Config>(config) {
        Ok(config) => config.state,
        Err(error) => return refuse_upgrade(&daemon::with_causes(&error)),
    };
    match Store::unended(&state.join(JOURNAL)).await {
        Ok(Some((id, state))) if !Mode::of(&state).allows_upgrade() => refuse_upgrade(&format!(
            "migration {id} is {state} (mode {}): finalize or abort it first",
            Mode::of(&state)
        )),
        Ok(_) => allow_upgrade(),
        Err(failure) => refuse_upgrade(&failure.to_string()),
    }
}
