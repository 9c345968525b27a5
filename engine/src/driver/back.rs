//! After the cut-over: the source follows the target, until the target is accepted, or an abort takes everything back.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{FutureExt, TryFutureExt};

use super::task::Runner;
use crate::failure::Failure;
use crate::follow::{BehindFence, Follower, capture_id};
use crate::journal::Record;
use crate::name::DatasetName;
use crate::pass::{self, TargetDataset, Work};
use crate::phase::Trigger;
use crate::plan::StepKind;
use crate::ports::{Direction, Fence, Result};
use crate::report::{Back, Cutover};

/// How long the target's writers are waited for, when they are fenced off.
const FENCE_WAIT: Duration = Duration::from_secs(30);
/// Journaled once both hosts know that the target stays.
const PARTED: &str = "parted";

/// What can be done once the way back is blocked, in trial…
const IN_TRIAL: &str = "`handover accept` keeps what was written at the target; `handover abort --discard` leaves it in what is kept aside";
/// …and in an abort that has begun.
const IN_ABORT: &str =
    "`handover abort --discard` leaves what was written at the target in what is kept aside";

/// One database's way back.
struct Way {
    follower: Follower,
    home: Arc<BehindFence>,
}

impl Runner {
    /// Whether the plan has the source follow the target.
    fn goes_back(&self) -> bool {
        self.plan.has(|kind| matches!(kind, StepKind::Keep(_)))
    }

    async fn way(&self, dataset: &DatasetName) -> Result<Way> {
        let capture = capture_id(&self.work.migration, dataset, Direction::Forth)?;
        let fence = Fence { dataset: dataset.clone(), capture };
        let home = Arc::new(BehindFence { source: self.work.source.fenced.clone(), fence });
        let spool = self.spools.spool(&self.work.migration, dataset, Direction::Back).await?;
        let work = Work { source: self.here.clone(), ..self.work.clone() };
        let follower = Follower::new(work, dataset.clone(), Direction::Back, home.clone(), spool)?;
        Ok(Way { follower, home })
    }

    async fn ways(&self) -> Result<Vec<Way>> {
        let mut out = Vec::new();
        if self.goes_back() {
            for (dataset, target) in self.chosen() {
                if let TargetDataset::Database(_) = target {
                    out.push(self.way(&dataset).await?);
                }
            }
        }
        Ok(out)
    }

    /// Has the target keep what will be written to it, and the source made ready to take that. Nothing is published yet.
    pub(super) async fn keep(&self, dataset: &DatasetName) -> Result<()> {
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        let way = self.way(dataset).await?;
        way.home.source.make_ready(&way.home.fence).await?;
        let position = database.keep(way.follower.capture()).await?;
        // One that a cut-over has left that was called off tells of nothing that anybody has written.
        way.follower.forget().await?;
        way.follower.begin_at(&position).await
    }

    /// Takes `keep` back.
    pub(super) async fn keep_none(&self) -> Result<()> {
        for way in self.ways().await? {
            if let TargetDataset::Database(database) = self.target(way.follower.dataset())? {
                database.keep_none(way.follower.capture()).await?;
                way.follower.forget().await?;
            }
        }
        Ok(())
    }

    /// What a cut-over that is through leads to.
    pub(super) fn taken_over(&self) -> Trigger {
        if self.goes_back() { Trigger::TakenOver } else { Trigger::Done }
    }

    /// How the source follows once the target has taken over.
    pub(super) fn back(&self) -> Back {
        if self.goes_back() { Back::Following } else { Back::Not }
    }

    /// Carries what is written at the target to the source until the work is stopped.
    pub(super) async fn follow_back(&self) -> Result<Trigger> {
        // Its log is not read any more, and must not be kept for that.
        self.end_following(true).await?;
        let ways = self.ways().await?;
        let followers = try_join_all(ways.iter().map(|way| {
            let follower = &way.follower;
            self.persist("follow", || follower.carried(), || follower.follow().boxed()).boxed()
        }));
        let stopped = async {
            self.work.desk.stopping().await;
            Err::<(), Failure>(pass::stopped())
        };
        let done = tokio::try_join!(followers, stopped).map(|_| Trigger::Done);
        done.map_err(|failure| blocked(failure, IN_TRIAL))
    }

    /// The target keeps nothing for the source any more. Journaled first: an abort would ask for what is not kept any more.
    pub(super) async fn part(&self) -> Result<()> {
        let mut cutover = self.cutover;
        let is_parted = self.done.iter().any(|done| done == PARTED);
        if is_parted || !matches!(cutover.back, Back::Following | Back::Ended) {
            return Ok(());
        }
        if cutover.back == Back::Following {
            cutover.back = Back::Ended;
            self.tell(cutover).await?;
        }
        let ways = self.ways().await?;
        for way in &ways {
            let end = || way.follower.end(false).boxed();
            self.persist("end", || self.work.desk.recorded(), end).await?;
        }
        for way in &ways {
            // The source may be gone for good by now: the target stays whatever becomes of it.
            if let Err(failure) = way.home.source.stand_down(&way.home.fence).await {
                let text = format!("the source was not told that the target stays: {failure}");
                self.note("accept", text).await?;
            }
        }
        self.work.desk.record(vec![Record::StepDone(PARTED.to_owned())]).await?;
        self.work.desk.flush().await
    }

    /// Brings everything home that was written at the target, whose writers are fenced off from then on: nothing is lost when it goes.
    pub(super) async fn bring_back(&self) -> Result<()> {
        let mut cutover = self.cutover;
        let ways = self.ways().await?;
        if cutover.committed && cutover.live_at.is_none() && !ways.is_empty() {
            // It may have been used already, in part: all of it is put in place, so that it can be fenced off.
            self.stage(|kind| *kind == StepKind::Publish).await?;
            cutover = Cutover { live_at: Some(self.work.clock.now()), back: Back::Following, ..cutover };
            self.tell(cutover).await?;
        }
        if cutover.back != Back::Following {
            return Ok(());
        }
        self.carry_home(&ways).await.map_err(|failure| blocked(failure, IN_ABORT))?;
        cutover.back = Back::Returned;
        self.tell(cutover).await?;
        let text = "everything that was written at the target is at the source again".to_owned();
        self.note("abort", text).await?;
        for way in &ways {
            // It goes with the database, which still takes no writes.
            if let Err(failure) = way.follower.end(true).await {
                tracing::debug!(dataset = %way.follower.dataset(), %failure, "its changes are still kept");
            }
        }
        Ok(())
    }

    /// Fences the target's writers off, and carries over what the source has not.
    async fn carry_home(&self, ways: &[Way]) -> Result<()> {
        let counted = || ways.iter().map(|way| way.follower.carried()).sum();
        let fence =
            || try_join_all(ways.iter().map(|way| way.follower.fence(FENCE_WAIT))).map_ok(drop).boxed();
        self.persist("fence", counted, fence).await?;
        let catch_up = || try_join_all(ways.iter().map(|way| way.follower.catch_up())).map_ok(drop).boxed();
        self.persist("bring-back", counted, catch_up).await?;
        let rest =
            || try_join_all(ways.iter().map(|way| way.follower.bring_rest(&way.home))).map_ok(drop).boxed();
        self.persist("bring-back", || self.work.desk.recorded(), rest).await?;
        let at_rest = || try_join_all(ways.iter().map(|way| way.follower.at_rest())).map_ok(drop).boxed();
        self.persist("bring-back", || self.work.desk.recorded(), at_rest).await
    }
}

/// Says what can be done where nothing more comes home.
fn blocked(failure: Failure, ways_out: &str) -> Failure {
    if failure.is_transient() || failure.hint.contains("--discard") {
        return failure;
    }
    // What whoever follows advises is for the way there.
    let hint = if failure.hint.is_empty() || failure.begins_anew() {
        ways_out.to_owned()
    } else {
        format!("{}, then `handover resume`; or else: {ways_out}", failure.hint)
    };
    failure.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_that_is_for_the_way_there_is_not_given_on_the_way_back() {
        let stopped = || Failure::operator("table t", "it was altered");
        let hint = |failure| blocked(failure, IN_ABORT).hint;
        assert_eq!(hint(stopped()), IN_ABORT);
        assert_eq!(hint(stopped().begin_anew("whatever it says")), IN_ABORT);
        let mended = format!("start the server again, then `handover resume`; or else: {IN_ABORT}");
        assert_eq!(hint(stopped().hint("start the server again")), mended);
        assert!(!blocked(stopped().begin_anew("abort"), IN_TRIAL).begins_anew());
        // Somebody has said it already, or it may pass.
        assert_eq!(hint(stopped().hint("`handover abort --discard`")), "`handover abort --discard`");
        assert_eq!(hint(Failure::transient("source", "it is away").hint("wait")), "wait");
    }
}
