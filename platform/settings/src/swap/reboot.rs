//! Rebooting this host.

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;

/// Who can reboot this host.
#[async_trait]
pub trait Reboot: Send + Sync {
    /// Reboots. Returns as soon as it is sure to come, before the host goes down. Asked twice, the host reboots once.
    async fn now(&self) -> Result<()>;
}

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
