//! Tasks of a plan that follows its source: copying while changes are kept, and following.

use futures::FutureExt;
use futures::future::try_join_all;

use super::task::Runner;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::name::DatasetName;
use crate::pass::{self, TargetDataset};
use crate::phase::Trigger;
use crate::plan::StepKind;
use crate::ports::hooks::Moment;
use crate::ports::{Direction, Result};
use crate::report::Cutover;

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
        self.tell(Cutover { finishing: false, ..self.cutover }).await
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

    /// What is left at the source when the migration has ended: nothing, but for the fence of one that the target has replaced.
    pub(super) async fn end_following(&self, keep_fence: bool) -> Result<()> {
        for follower in self.fencing().await? {
            let end = || follower.end(keep_fence).boxed();
            self.persist("end", || self.work.desk.recorded(), end).await?;
        }
        Ok(())
    }
}
