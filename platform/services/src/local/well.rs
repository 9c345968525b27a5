//! A service comes up: started, and asked until it is well.

use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::time::{Instant, sleep};

use super::{LocalServices, item};
use crate::probe;
use crate::section::ServiceSection;
use crate::systemd::told;
use crate::units::UnitState;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(250);
/// A question takes so long at most, though the time is over: its answer tells more than that there was none.
const LEAST: Duration = Duration::from_secs(2);
/// A service that has no check is up when it is found so, this many times.
const LOOKS: u32 = 2;

impl LocalServices {
    /// Starts it unless it runs, and waits until it is well.
    pub(super) async fn bring_up(&self, section: &ServiceSection) -> Result<()> {
        let deadline = Instant::now() + section.check_limit();
        let state = self.units.look(&section.unit).await?;
        if let Some((what, hint)) = state.problem(&section.unit) {
            return Err(Failure::operator(item(&section.unit), what).hint(hint));
        }
        if !matches!(state.active.as_str(), "active" | "reloading") {
            tracing::info!(unit = section.unit, "starting a service");
            self.units.start(&section.unit, section.check_limit()).await?;
        }
        self.wait(section, deadline, true).await
    }

    /// Waits until one that is started when it is called for is well; its check calls for it.
    pub(super) async fn wait_for_triggered(&self, section: &ServiceSection) -> Result<()> {
        if section.check.is_none() {
            return Ok(());
        }
        self.wait(section, Instant::now() + section.check_limit(), false).await
    }

    async fn wait(&self, section: &ServiceSection, deadline: Instant, must_run: bool) -> Result<()> {
        let mut looks = 0;
        loop {
            let state = self.units.look(&section.unit).await?;
            let problem = match &section.check {
                _ if must_run && !state.is_up() => None,
                None if looks + 1 == LOOKS => return Ok(()),
                None => {
                    looks += 1;
                    None
                }
                Some(check) => match probe::ask(check, (deadline - Instant::now()).max(LEAST)).await {
                    Ok(()) => return Ok(()),
                    Err(problem) => Some(problem),
                },
            };
            // What systemd has given up does not come up by itself.
            if state.active == "failed" || Instant::now() >= deadline {
                return Err(self.not_well(section, &state, problem).await);
            }
            sleep(EVERY).await;
        }
    }

    async fn not_well(
        &self,
        section: &ServiceSection,
        state: &UnitState,
        problem: Option<String>,
    ) -> Failure {
        let UnitState { active, sub, result, .. } = state;
        let result = if result.is_empty() { String::new() } else { format!(", result `{result}`") };
        let problem = problem.map(|problem| format!(", and its check fails: {problem}")).unwrap_or_default();
        let journal = told(&self.units.last_lines(&section.unit).await);
        let what = match active.as_str() {
            "failed" => format!("it did not come up: it is {active} ({sub}){result}{journal}"),
            _ => format!(
                "it is not well after {} s: it is {active} ({sub}){result}{problem}{journal}",
                section.check_seconds
            ),
        };
        let hint = format!("look at systemctl status {}, put it right, then resume", section.unit);
        Failure::operator(item(&section.unit), what).hint(hint)
    }
}
