//! Tasks of a plan that follows its source: copying while changes are kept, following, cutting over.

use std::time::Duration;

use futures::FutureExt;
use futures::future::try_join_all;
use tokio::time::Instant;

use super::task::Runner;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::journal::Record;
use crate::name::DatasetName;
use crate::pass::{self, Message, TargetDataset};
use crate::phase::Trigger;
use crate::plan::StepKind;
use crate::ports::hooks::Moment;
use crate::ports::{Direction, Result};
use crate::report::When;

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
    /// The first copy, while the source keeps its changes and they are taken into the spool.
    pub(super) async fn live_pass(&self) -> Result<Trigger> {
        self.begin_hooks().await?;
        self.back_up_first().await?;
        self.stage(|kind| *kind == StepKind::Prepare).await?;
        self.stage(|kind| matches!(kind, StepKind::Capture(_))).await?;
        let copy = async {
            self.stage(|kind| matches!(kind, StepKind::Copy(_) | StepKind::Fit(_))).await?;
            self.close_leases().await;
            self.stage(|kind| matches!(kind, StepKind::Index(_))).await?;
            self.stage(|kind| matches!(kind, StepKind::Verify(_))).await?;
            self.refuse_differences()?;
            self.tell_hooks(Moment::AfterCopy).await
        };
        let followers = self.followers().await?;
        let gather = async {
            let gathering = followers.iter().map(|follower| {
                self.persist("gather", || follower.got_on(), || follower.gather().boxed()).boxed()
            });
            try_join_all(gathering).await?;
            // Of trees alone there is nothing to gather: the copy ends by itself.
            std::future::pending().await
        };
        tokio::select! {
            biased;
            result = copy => result.map(|()| Trigger::Copied),
            result = gather => result,
        }
    }

    /// Keeps everything up to date until the work is stopped.
    pub(super) async fn follow(&self) -> Result<Trigger> {
        if self.cutover.finishing {
            self.take_back_finish().await?;
        }
        let followers = self.followers().await?;
        self.keep_up(&followers, async { Ok(()) }).await.map(|()| Trigger::Done)
    }

    /// Keeps everything up to date until the work is stopped; the trees once `first` is done.
    pub(super) async fn keep_up(
        &self,
        followers: &[Follower],
        first: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let databases = try_join_all(followers.iter().map(|follower| {
            self.persist("follow", || follower.carried(), || follower.follow().boxed()).boxed()
        }));
        let trees = async {
            first.await?;
            self.follow_trees().await
        };
        // Where there is nothing to follow: until somebody asks for something else.
        let stopped = async {
            self.work.desk.stopping().await;
            Err::<(), Failure>(pass::stopped())
        };
        tokio::try_join!(databases, trees, stopped).map(drop)
    }

    /// A cut-over that was called off may have left triggers and foreign keys, which must not see what is applied.
    pub(super) async fn take_back_finish(&self) -> Result<()> {
        self.keep_none().await?;
        for (dataset, target) in self.chosen() {
            if let TargetDataset::Database(database) = target {
                let schema = self.held_schema(&dataset).await?;
                database.prepare(&schema).await?;
                database.index(&schema).await?;
            }
        }
        if self.plans(&StepKind::Retain) {
            self.release_settings().await?;
        }
        let cutover = crate::report::Cutover { finishing: false, ..self.cutover };
        self.work.desk.send(Message::Cutover(cutover)).await?;
        self.work.desk.flush().await
    }

    /// The followers of the plan's databases. What does not go where it came from as it is cannot be followed by its keys.
    pub(super) async fn followers(&self) -> Result<Vec<Follower>> {
        if self.fits() { Ok(Vec::new()) } else { self.fencing().await }
    }

    /// What fences the plan's databases off, whether or not they are followed.
    pub(super) async fn fencing(&self) -> Result<Vec<Follower>> {
        let mut out = Vec::new();
        if !self.plan.options.follow {
            return Ok(out);
        }
        for (dataset, target) in self.chosen() {
            if let TargetDataset::Database(_) = target {
                out.push(self.follower(&dataset).await?);
            }
        }
        Ok(out)
    }

    /// The follower of one database.
    pub(super) async fn follower(&self, dataset: &DatasetName) -> Result<Follower> {
        let TargetDataset::Database(database) = self.target(dataset)? else {
            return Err(Failure::permanent(format!("dataset {dataset}"), "it is no database"));
        };
        let spool = self.spools.spool(&self.work.migration, dataset, Direction::Forth).await?;
        Follower::new(self.work.clone(), dataset.clone(), Direction::Forth, database, spool)
    }

    /// Puts the target in the source's place, or calls it off with everything as it was.
    ///
    /// The order keeps at most one side writable: the source is fenced off before anything is published, and is let go again only
    /// as long as it is not journaled that publishing begins.
    pub(super) async fn cut_over(&self) -> Result<Trigger> {
        let mut cutover = self.cutover;
        if !cutover.committed {
            if self.done.iter().any(|done| done == CALLING_OFF) {
                // Writers may have been let in again: what was carried over behind the fence is not all there is any more.
                let item = format!("migration {}", self.work.migration);
                return self.call_off(&cutover, Failure::operator(item, "it was being called off")).await;
            }
            if cutover.fenced_at.is_none() {
                // Users go first; nothing else has begun while somebody is waited for.
                if cutover.terms.when != When::DryRun
                    && let Some(failure) = self.withdraw().await?
                {
                    return self.call_off(&cutover, failure).await;
                }
                if cutover.finishing {
                    self.take_back_finish().await?;
                    cutover.finishing = false;
                }
                cutover.predicted_ms = match self.close_in().await {
                    Ok(predicted) => predicted,
                    Err(failure) => {
                        self.work.desk.checkpoint()?;
                        return self.call_off(&cutover, failure).await;
                    }
                };
                if cutover.terms.when == When::DryRun {
                    self.tell(cutover).await?;
                    let text = format!("a dry run: writers would wait for {} ms", cutover.predicted_ms);
                    return self.go_back(text).await;
                }
                if let Err(failure) = self.refuse_late(&cutover) {
                    return self.call_off(&cutover, failure).await;
                }
                if let Err(failure) = self.tell_hooks(Moment::BeforeFence).await {
                    self.work.desk.checkpoint()?;
                    self.begin_calling_off().await?;
                    self.tell_hooks(Moment::CalledOff).await?;
                    return self.call_off(&cutover, failure).await;
                }
                cutover.fenced_at = Some(self.work.clock.now());
                self.tell(cutover).await?;
            }
            if let Err(failure) = self.behind_the_fence(&mut cutover).await {
                self.work.desk.checkpoint()?;
                return self.call_off(&cutover, failure).await;
            }
            cutover.committed = true;
            self.tell(cutover).await?;
        }
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
        self.stage(|kind| *kind == StepKind::Certify).await?;
        self.stage(|kind| *kind == StepKind::Label).await?;
        if self.plans(&StepKind::Label) {
            self.tell_hooks(Moment::LabelOn).await?;
        }
        self.stage(|kind| *kind == StepKind::Serve).await?;
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

    /// A cut-over that would take too long is not begun.
    fn refuse_late(&self, cutover: &crate::report::Cutover) -> Result<()> {
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

    pub(super) async fn tell(&self, cutover: crate::report::Cutover) -> Result<()> {
        self.work.desk.send(Message::Cutover(cutover)).await?;
        self.work.desk.flush().await
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
        let open = || {
            let all: Vec<_> = followers.iter().map(|follower| follower.try_open().boxed()).collect();
            async move { try_join_all(all).await.map(drop) }.boxed()
        };
        self.persist("cutover", || self.work.desk.recorded(), open).await?;
        let opening = began.elapsed();
        // Behind the fence trees are passed over as a whole: a round does the same, and tells how long that takes.
        let trees = self.tree_followers();
        let mut took = Duration::MAX;
        for _ in 0..ROUNDS {
            self.work.desk.checkpoint()?;
            let began = Instant::now();
            let round = || {
                let rounds =
                    followers.iter().map(|follower| follower.catch_up().boxed()).chain(self.fit_all());
                let passes = trees.iter().map(|tree| async { tree.complete().await.map(drop) }.boxed());
                let rounds: Vec<_> = rounds.chain(passes).collect();
                async move { try_join_all(rounds).await.map(drop) }.boxed()
            };
            self.persist("cutover", || self.work.desk.recorded(), round).await?;
            let before = std::mem::replace(&mut took, began.elapsed());
            // No use in going on once it gets no shorter. What is fitted is read as a whole each time.
            if self.fits() || took < SHORT || took > before.saturating_sub(before / 5) {
                break;
            }
        }
        Ok((took + opening).as_millis() as u64 + FIXED_MS + self.beside_ms() + self.refits_ms())
    }

    /// Everything between the fence and the journaled decision to publish, within the time that was agreed.
    async fn behind_the_fence(&self, cutover: &mut crate::report::Cutover) -> Result<()> {
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
            self.hold_source().await
        };
        tokio::time::timeout(left, work).await.unwrap_or_else(|_| {
            let item = format!("migration {}", self.work.migration);
            let what =
                format!("the cut-over would have taken longer than {} ms", cutover.terms.max_downtime_ms);
            Err(Failure::operator(item, what).hint("`handover cutover --max-downtime` gives it longer"))
        })
    }

    /// From here on the cut-over at hand is called off, whatever comes.
    async fn begin_calling_off(&self) -> Result<()> {
        self.work.desk.record(vec![Record::StepDone(CALLING_OFF.to_owned())]).await?;
        self.work.desk.flush().await
    }

    /// Lets the source's writers back in, and says why.
    async fn call_off(&self, cutover: &crate::report::Cutover, why: Failure) -> Result<Trigger> {
        self.begin_calling_off().await?;
        // It is journaled before it is put up.
        if cutover.fenced_at.is_some() {
            self.change_back().await?;
            let followers = self.fencing().await?;
            let unfence = || {
                let all: Vec<_> = followers.iter().map(|follower| follower.unfence().boxed()).collect();
                async move { try_join_all(all).await.map(drop) }.boxed()
            };
            self.persist("unfence", || self.work.desk.recorded(), unfence).await?;
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
        self.work.desk.send(Message::Note { item: "cutover".to_owned(), text }).await?;
        self.close_leases().await;
        Ok(Trigger::CalledOff)
    }

    /// What is left at the source when the migration has ended: nothing, but for the fence of one that the target has replaced.
    pub(super) async fn end_following(&self, keep_fence: bool) -> Result<()> {
        for follower in self.fencing().await? {
            let end = || follower.end(keep_fence).boxed();
            self.persist("end", || self.work.desk.recorded(), end).await?;
        }
        Ok(())
    }
}
