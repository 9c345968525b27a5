//! Whether a copy is fit to take the source's place: a cut-over of one that is known to differ, or is too far behind, does not begin.

use super::Driver;
use crate::failure::Failure;
use crate::phase::Operation;
use crate::ports::Result;
use crate::readiness::behind;
use crate::report::{Terms, When};

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

    /// Refuses what would let users wait for a copy that is further behind than was said.
    pub(super) fn refuse_behind(&self, terms: &Terms) -> Result<()> {
        let Some((dataset, lag_ms)) = behind(&self.seen.following, terms).next() else { return Ok(()) };
        let what = format!("it is {lag_ms} ms behind, and a cut-over takes {} ms", terms.max_lag_ms);
        Err(Failure::operator(format!("dataset {dataset}"), what)
            .hint("wait until it has caught up (`handover status`), or allow more with --max-lag"))
    }
}
