//! Rebooting this host.

use std::time::Duration;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;

/// Who can reboot this host.
#[async_trait]
pub trait Reboot: Send + Sync {
    /// Reboots. Returns as soon as it is sure to come, before the host goes down. Asked twice, the host reboots once.
    async fn now(&self) -> Result<()>;
}

/// A host that boots is let finish that for so long. A service that is told to stop while it starts may not hear it: MariaDB's server was seen to
/// hold a reboot up for more than a minute, and systemd lets it for a quarter of an hour.
const BOOTS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Rebooting by `systemctl`.
#[derive(Debug, Clone, Copy)]
pub struct SystemctlReboot;

#[async_trait]
impl Reboot for SystemctlReboot {
    async fn now(&self) -> Result<()> {
        let failed = || {
            Failure::operator("reboot", "`systemctl reboot` failed")
                .hint("reboot this host by hand, then resume")
        };
        // Whatever comes of that: a host that does not come up is rebooted, too.
        let _ = tokio::time::timeout(BOOTS_WITHIN, has_booted()).await;
        let mut command = tokio::process::Command::new("systemctl");
        let output =
            command.args(["--no-block", "--no-ask-password", "reboot"]).kill_on_drop(true).output().await;
        let output = output.map_err(|error| failed().because(error))?;
        // Ended by a signal: it goes down with the agent, and so with the host.
        if output.status.success() || output.status.code().is_none() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(failed().because(std::io::Error::other(told)))
    }
}

/// Returns once the host has come up as far as it will, or it cannot be told.
async fn has_booted() {
    loop {
        let mut command = tokio::process::Command::new("systemctl");
        let output = command.arg("is-system-running").kill_on_drop(true).output().await;
        // It ends with a status of its own for most of the states.
        if !output.is_ok_and(|output| is_booting(&String::from_utf8_lossy(&output.stdout))) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What `systemctl is-system-running` says until the boot has ended (systemctl(1)).
fn is_booting(told: &str) -> bool {
    ["initializing", "starting"].contains(&told.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_still_boots_is_waited_for() {
        assert!(is_booting("starting\n") && is_booting("initializing\n"));
        for up in ["running\n", "degraded\n", "stopping\n", "maintenance\n", "offline\n", "unknown\n", ""] {
            assert!(!is_booting(up), "{up}");
        }
    }
}
