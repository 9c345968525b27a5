//! Whether a copy is fit to take the source's place: a cut-over of one that is known to differ, or is too far behind, does not begin.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::busy::{Busy, next_messages};
use super::{Driver, TICK};
use crate::failure::Failure;
use crate::name::DatasetName;
use crate::phase::{Operation, Task};
use crate::plan::StepKind;
use crate::ports::Result;
use crate::readiness::behind;
use crate::report::{Terms, When};

/// A cut-over that is asked for waits for so long until it is known how far the copy is behind.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

impl Driver {
    /// Refuses a cut-over that is asked for, where the copy is not fit for it. One that is planned may still catch up.
    pub(super) fn refuse_unfit(&self, operation: Operation, terms: &Terms) -> Result<()> {
        match (operation, terms.when) {
            (Operation::Cutover, When::Now | When::DryRun) => {
                self.refuse_different().and_then(|()| self.refuse_behind(terms))
            }
            (Operation::Cutover, When::At(_)) => self.refuse_different(),
            _ => Ok(()),
        }
    }

    /// Refuses what would put a copy in place that verification has found to differ.
    pub(super) fn refuse_different(&self) -> Result<()> {
        let known = self.migration.outcome.known_differences();
        if known == 0 {
            return Ok(());
        }
        let what = format!("verification found {known} differences, which were not put right");
        Err(Failure::operator(format!("migration {}", self.migration.id), what).hint(
            "`handover report` names them, `handover verify --repair` puts them right; `handover verify` looks again",
        ))
    }

    /// Refuses what would let users wait for a copy that is further behind than was said, or may be.
    pub(super) fn refuse_behind(&self, terms: &Terms) -> Result<()> {
        if let Some(dataset) = self.unknown_lag() {
            let what = "how far it is behind is not known yet: the source's log was not read to its end since following began";
            return Err(Failure::operator(format!("dataset {dataset}"), what)
                .hint("`handover status` shows when it is; then try again"));
        }
        let Some((dataset, lag_ms)) = behind(&self.seen.following, terms).next() else { return Ok(()) };
        let what = format!("it is {lag_ms} ms behind, and a cut-over takes {} ms", terms.max_lag_ms);
        Err(Failure::operator(format!("dataset {dataset}"), what)
            .hint("wait until it has caught up (`handover status`), or allow more with --max-lag"))
    }

    /// A followed database of which it is not known how far it is behind.
    fn unknown_lag(&self) -> Option<&DatasetName> {
        let mut followed = self.migration.plan.steps.iter().filter_map(|step| match &step.step {
            StepKind::Capture(dataset) => Some(dataset),
            _ => None,
        });
        let is_known =
            |dataset: &DatasetName| self.seen.following.get(dataset).is_some_and(|figures| figures.known);
        followed.find(|dataset| !is_known(dataset))
    }

    /// Takes what workers tell until it is known how far the copy is behind: that takes a moment where following has just begun. A cut-over
    /// that is asked for meanwhile is not refused for that.
    pub(super) async fn learn_lag(&mut self, busy: &mut Option<Busy>) -> Result<()> {
        let is_followed = matches!(self.migration.state.task, Some(Task::Follow | Task::VerifyLive));
        let until = Instant::now() + KNOWN_WITHIN;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while is_followed && busy.is_some() && self.unknown_lag().is_some() {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = sleep_until(until) => return Ok(()),
                messages = next_messages(busy) => match messages {
                    Some(messages) => self.take(messages).await?,
                    None => *busy = self.end_task(busy.take()).await?,
                },
                _ = tick.tick() => self.show().await?,
            }
        }
        Ok(())
    }
}
