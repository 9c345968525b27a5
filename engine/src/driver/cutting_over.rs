//! Cutting over: up to the fence, behind it, and past the decision to publish. Or calling it off.

use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt, TryFutureExt};
use tokio::time::Instant;

use super::task::Runner;
use crate::failure::Failure;
use crate::follow::{Follower, TreeFollower};
use crate::journal::Record;
use crate::pass::Message;
use crate::phase::Trigger;
use crate::plan::StepKind;
use crate::ports::Result;
use crate::ports::hooks::Moment;
use crate::report::{Cutover, When};

/// Before the fence: a round that carries all that waits is short enough when it takes no longer. What is written meanwhile is what
/// writers will wait for.
const SHORT: Duration = Duration::from_millis(50);
/// Rounds before the fence.
const ROUNDS: u32 = 20;
/// Journaled before a cut-over is called off: one that is taken up again goes on with that.
const CALLING_OFF: &str = "calling-off";
/// What fencing, finishing and publishing are expected to take together, for the prediction.
const FIXED_MS: u64 = 250;

impl Runner {
    /// Puts the target in the source's place, or calls it off with everything as it was.
    ///
    /// The order keeps at most one side writable: the source is fenced off before anything is published, and is let go again only
    /// as long as it is not journaled that publishing begins.
    pub(super) async fn cut_over(&self) -> Result<Trigger> {
        let mut cutover = self.cutover;
        if !cutover.committed {
            if let Some(ended) = self.up_to_the_decision(&mut cutover).await? {
                return Ok(ended);
            }
            cutover.committed = true;
            self.tell(cutover).await?;
        }
        self.take_over(cutover).await
    }

    /// All that can be called off; how it has ended, where it was.
    async fn up_to_the_decision(&self, cutover: &mut Cutover) -> Result<Option<Trigger>> {
        if self.done.iter().any(|done| done == CALLING_OFF) {
            // Writers may have been let in again: what was carried over behind the fence is not all there is any more.
            let item = format!("migration {}", self.work.migration);
            let failure = Failure::operator(item, "it was being called off");
            return self.call_off(cutover, failure).await.map(Some);
        }
        if cutover.fenced_at.is_none()
            && let Some(ended) = self.up_to_the_fence(cutover).await?
        {
            return Ok(Some(ended));
        }
        if let Err(failure) = self.behind_the_fence(cutover).await {
            self.work.desk.checkpoint()?;
            return self.call_off(cutover, failure).await.map(Some);
        }
        Ok(None)
    }

    /// Until it is journaled that the fence is put up; how it has ended, where it goes no further.
    async fn up_to_the_fence(&self, cutover: &mut Cutover) -> Result<Option<Trigger>> {
        // Users go first; nothing else has begun while somebody is waited for.
        if cutover.terms.when != When::DryRun
            && let Some(failure) = self.withdraw().await?
        {
            return self.call_off(cutover, failure).await.map(Some);
        }
        if cutover.finishing {
            self.take_back_finish().await?;
            cutover.finishing = false;
        }
        cutover.predicted_ms = match self.close_in().await {
            Ok(predicted) => predicted,
            Err(failure) => {
                self.work.desk.checkpoint()?;
                return self.call_off(cutover, failure).await.map(Some);
            }
        };
        if cutover.terms.when == When::DryRun {
            self.tell(*cutover).await?;
            if let Err(failure) = self.may_fence().await {
                self.work.desk.checkpoint()?;
                let unless = "unless a hook at before-fence sees to it";
                self.note("cutover", format!("no fence can be put up as it is now, {unless}: {failure}"))
                    .await?;
            }
            let text = format!("a dry run: writers would wait for {} ms", cutover.predicted_ms);
            return self.go_back(text).await.map(Some);
        }
        if let Err(failure) = self.refuse_late(cutover) {
            return self.call_off(cutover, failure).await.map(Some);
        }
        // Hooks may see to what is in the fence's way; services are not stopped for one that cannot be put up.
        let last = async {
            self.tell_hooks(Moment::BeforeFence).await?;
            self.may_fence().await
        };
        if let Err(failure) = last.await {
            self.work.desk.checkpoint()?;
            self.begin_calling_off().await?;
            self.tell_hooks(Moment::CalledOff).await?;
            return self.call_off(cutover, failure).await.map(Some);
        }
        cutover.fenced_at = Some(self.work.clock.now());
        self.tell(*cutover).await?;
        Ok(None)
    }

    /// All that only goes forward, or is undone as by an abort.
    async fn take_over(&self, mut cutover: Cutover) -> Result<Trigger> {
        self.stage(|kind| *kind == StepKind::Publish).await?;
        if cutover.live_at.is_none() {
            cutover.live_at = Some(self.work.clock.now());
            cutover.awaits_services = self.plans(&StepKind::Serve);
            cutover.serving_at = cutover.live_at.filter(|_| !cutover.awaits_services);
            cutover.back = self.back();
            self.tell(cutover).await?;
        }
        self.close_leases().await;
        self.repoint_early().await?;
        if let Some(given_up) = self.let_users_in().await? {
            return Ok(given_up);
        }
        if cutover.awaits_services {
            cutover.serving_at = Some(self.work.clock.now());
            cutover.awaits_services = false;
            self.tell(cutover).await?;
        }
        self.stage(|kind| *kind == StepKind::Licence).await?;
        self.tell_hooks(Moment::AfterPublish).await?;
        self.stage(|kind| matches!(kind, StepKind::Settle(_))).await?;
        self.stage(|kind| *kind == StepKind::Replicate).await?;
        // Updates were made before; the operator is waited for last.
        self.stage(|kind| *kind == StepKind::Repoint).await?;
        self.stage(|kind| *kind == StepKind::Rejoin).await?;
        Ok(self.taken_over())
    }

    /// Carries all that waits, round by round, until a round is short; how long writers will have to wait, in milliseconds.
    async fn close_in(&self) -> Result<u64> {
        self.licence_may_move().await?;
        self.stage(|kind| *kind == StepKind::Stage).await?;
        self.certificates_are_fit().await?;
        let followers = self.followers().await?;
        // The schema is read once more behind the fence: how long does that take? Asked first: what is written meanwhile is carried
        // by the rounds.
        let began = Instant::now();
        self.with_each("cutover", &followers, |follower| follower.try_open().boxed()).await?;
        let opening = began.elapsed();
        // Behind the fence trees are passed over as a whole: a round does the same, and tells how long that takes.
        let trees = self.tree_followers();
        let mut took = self.rounds(&followers, &trees).await?;
        let flushed = self.with_each("cutover", &followers, |follower| follower.flush().boxed()).await?;
        if flushed.contains(&true) {
            // That took a while, too.
            let again = self.rounds(&followers, &[]).await?;
            took = if trees.is_empty() { again } else { took.max(again) };
        }
        Ok((took + opening).as_millis() as u64 + FIXED_MS + self.beside_ms() + self.refits_ms())
    }

    /// Carries all that waits, again and again, until that takes no time to speak of; how long the last time took.
    async fn rounds(&self, followers: &[Follower], trees: &[TreeFollower]) -> Result<Duration> {
        let mut took = Duration::MAX;
        for _ in 0..ROUNDS {
            self.work.desk.checkpoint()?;
            let began = Instant::now();
            let round = || {
                let rounds =
                    followers.iter().map(|follower| follower.catch_up().boxed()).chain(self.fit_all());
                let passes = trees.iter().map(|tree| async { tree.complete().await.map(drop) }.boxed());
                let rounds: Vec<_> = rounds.chain(passes).collect();
                try_join_all(rounds).map_ok(drop).boxed()
            };
            self.persist("cutover", || self.work.desk.recorded(), round).await?;
            let before = std::mem::replace(&mut took, began.elapsed());
            // No use in going on once it gets no shorter. What is fitted is read as a whole each time.
            if self.fits() || took < SHORT || took > before.saturating_sub(before / 5) {
                break;
            }
        }
        Ok(took)
    }

    /// A cut-over that would take too long is not begun.
    fn refuse_late(&self, cutover: &Cutover) -> Result<()> {
        let (takes, terms, beside) = (cutover.predicted_ms, cutover.terms, self.beside_ms());
        let late = |what: String| Err(Failure::operator(format!("migration {}", self.work.migration), what));
        // How much of it is new is not known of rows that are fitted: all are read.
        if !self.fits() && takes > terms.max_lag_ms + FIXED_MS + beside {
            return late(format!("the copy is too far behind: {takes} ms would be needed")).map_err(
                |failure| {
                    failure.hint("wait until less is written at the source, or allow more with --max-lag")
                },
            );
        }
        if takes > terms.max_downtime_ms {
            let what = format!(
                "it would take {takes} ms, {beside} of them beside the data, and {} are allowed",
                terms.max_downtime_ms
            );
            return late(what)
                .map_err(|failure| failure.hint("`handover cutover --max-downtime` gives it longer"));
        }
        Ok(())
    }

    /// Everything between the fence and the journaled decision to publish, within the time that was agreed.
    async fn behind_the_fence(&self, cutover: &mut Cutover) -> Result<()> {
        let begun = cutover.fenced_at.map_or(0, |at| at.millis());
        let gone = u64::try_from(self.work.clock.now().millis() - begun).unwrap_or(0);
        let left = Duration::from_millis(cutover.terms.max_downtime_ms.saturating_sub(gone));
        let work = async {
            self.stage(|kind| *kind == StepKind::Maintain).await?;
            self.stage(|kind| *kind == StepKind::Deactivate).await?;
            self.stage(|kind| *kind == StepKind::Fence).await?;
            self.tell_hooks(Moment::AfterFence).await?;
            self.stage(|kind| matches!(kind, StepKind::CatchUp(_) | StepKind::Refit(_))).await?;
            cutover.finishing = true;
            self.tell(*cutover).await?;
            // Before triggers are there, and before changes are kept for the source: it is none of theirs.
            self.stage(|kind| *kind == StepKind::Retain).await?;
            self.stage(|kind| matches!(kind, StepKind::Finish(_))).await?;
            self.stage(|kind| matches!(kind, StepKind::Keep(_))).await?;
            self.stage(|kind| *kind == StepKind::Configure).await?;
            self.stage(|kind| *kind == StepKind::Reboot).await?;
            self.tell_hooks(Moment::BeforePublish).await?;
            self.at_rest().await?;
            self.hold_source().await
        };
        tokio::time::timeout(left, work).await.unwrap_or_else(|_| {
            let item = format!("migration {}", self.work.migration);
            let what =
                format!("the cut-over would have taken longer than {} ms", cutover.terms.max_downtime_ms);
            Err(Failure::operator(item, what).hint("`handover cutover --max-downtime` gives it longer"))
        })
    }

    /// Whatever passes the fence was to be in the target by now. As late as can be, and no step of the plan: whoever takes this up again
    /// looks again.
    async fn at_rest(&self) -> Result<()> {
        self.with_each("cutover", &self.followers().await?, |follower| follower.at_rest().boxed())
            .await
            .map(drop)
    }

    /// Does something with all of them at once, until it is done; what each came to.
    async fn with_each<T: Send>(
        &self,
        step: &str,
        followers: &[Follower],
        act: for<'f> fn(&'f Follower) -> BoxFuture<'f, Result<T>>,
    ) -> Result<Vec<T>> {
        let all = || try_join_all(followers.iter().map(act)).boxed();
        self.persist(step, || self.work.desk.recorded(), all).await
    }

    /// Asks whether the source's writers can be fenced off.
    async fn may_fence(&self) -> Result<()> {
        self.with_each("cutover", &self.fencing().await?, |follower| follower.may_fence().boxed())
            .await
            .map(drop)
    }

    /// From here on the cut-over at hand is called off, whatever comes.
    async fn begin_calling_off(&self) -> Result<()> {
        self.work.desk.record(vec![Record::StepDone(CALLING_OFF.to_owned())]).await?;
        self.work.desk.flush().await
    }

    /// Lets the source's writers back in, and says why.
    async fn call_off(&self, cutover: &Cutover, why: Failure) -> Result<Trigger> {
        self.begin_calling_off().await?;
        // It is journaled before it is put up.
        if cutover.fenced_at.is_some() {
            self.change_back().await?;
            self.with_each("unfence", &self.fencing().await?, |follower| follower.unfence().boxed()).await?;
            self.services_back().await?;
            self.replicas_there_back().await?;
        }
        self.records_back().await?;
        if cutover.fenced_at.is_some() {
            self.forget_changes().await?;
        }
        if cutover.fenced_at.is_some() || self.was_told(Moment::BeforeFence) {
            self.tell_hooks(Moment::CalledOff).await?;
        }
        self.go_back(format!("the cut-over was called off, and following goes on: {why}")).await
    }

    async fn go_back(&self, text: String) -> Result<Trigger> {
        self.note("cutover", text).await?;
        self.close_leases().await;
        Ok(Trigger::CalledOff)
    }

    /// Journals how the cut-over gets on.
    pub(super) async fn tell(&self, cutover: Cutover) -> Result<()> {
        self.work.desk.send(Message::Cutover(cutover)).await?;
        self.work.desk.flush().await
    }
}
