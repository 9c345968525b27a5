//! What each step does: to the data here, and beside it in modules of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;

use super::task::Runner;
use crate::backup::Occasion;
use crate::dns::Stage;
use crate::failure::Failure;
use crate::name::DatasetName;
use crate::pass::{self, Message, TargetDataset, Work};
use crate::plan::StepKind;
use crate::ports::{Result, TreeTarget};

impl Runner {
    /// Does what a step says, once.
    pub(super) async fn act(&self, kind: &StepKind, work: &Work) -> Result<()> {
        // What a failed try has sent must be journaled before the next one asks what is held.
        self.work.desk.flush().await?;
        match kind {
            StepKind::BackUp(host) => self.back_up(*host, Occasion::Start, &kind.id(), work).await,
            StepKind::BackUpAgain(host) => self.back_up(*host, Occasion::Accept, &kind.id(), work).await,
            StepKind::Prepare => self.prepare().await,
            StepKind::Capture(dataset) => self.follower(dataset).await?.begin().await,
            StepKind::Copy(dataset) => self.copy(dataset, work).await,
            StepKind::Fit(dataset) => self.fit(dataset, work).await,
            StepKind::Index(dataset) => self.index(dataset).await,
            StepKind::Verify(dataset) => self.verify(dataset, work).await,
            StepKind::Withdraw => self.change_records(Stage::Before).await,
            StepKind::Stage => self.stage_settings().await,
            StepKind::Maintain => self.maintain().await,
            StepKind::Deactivate => self.deactivate_replicas().await,
            StepKind::Fence => self.fence().await,
            StepKind::CatchUp(dataset) => self.catch_up(dataset, work).await,
            StepKind::Refit(dataset) => self.refit(dataset, work).await,
            StepKind::Retain => self.retain_settings().await,
            StepKind::Finish(dataset) => self.finish(dataset).await,
            StepKind::Keep(dataset) => self.keep(dataset).await,
            StepKind::Configure => self.configure().await,
            StepKind::Reboot => self.reboot().await,
            StepKind::Publish => self.publish().await,
            StepKind::Certify => self.certify().await,
            StepKind::Label => self.show_label().await,
            StepKind::Serve => self.serve().await,
            StepKind::Licence => self.carry_licence().await,
            StepKind::Settle(dataset) => self.settle(dataset, work).await,
            StepKind::Replicate => self.replicate(&kind.id()).await,
            StepKind::Repoint => self.change_records(Stage::Cutover).await,
            StepKind::Rejoin => self.change_records(Stage::End).await,
        }?;
        self.tell_changed(kind).await
    }

    /// The first pass finds the target as the plan allows it, or goes no further.
    async fn prepare(&self) -> Result<()> {
        for (dataset, target) in self.chosen() {
            let (is_ours, occupied) = match &target {
                TargetDataset::Database(database) => (
                    self.work.holdings.schema(&self.work.migration, &dataset).await?.is_some(),
                    database.occupied().await?.is_some(),
                ),
                TargetDataset::Tree(tree) => (tree.is_prepared().await?, tree.occupied().await?),
            };
            if occupied && !is_ours && self.work.pass == 1 && !self.plan.options.overwrite {
                return Err(Failure::operator(format!("dataset {dataset}"), "the target holds data of it already").hint(
                    "abort, then plan with --overwrite to replace it (abort brings it back until finalize), or empty it",
                ));
            }
        }
        Ok(())
    }

    async fn copy(&self, dataset: &DatasetName, work: &Work) -> Result<()> {
        match self.target(dataset)? {
            TargetDataset::Database(database) => {
                work.desk.send(Message::CopyBegins(dataset.clone())).await?;
                let copy = pass::database::copy(work.clone(), dataset.clone(), database);
                self.renewing(dataset, copy).await
            }
            TargetDataset::Tree(tree) => self.copy_tree(dataset, tree, work).await,
        }
    }

    /// A pass over a tree.
    pub(super) async fn copy_tree(
        &self,
        dataset: &DatasetName,
        tree: Arc<dyn TreeTarget>,
        work: &Work,
    ) -> Result<()> {
        work.desk.send(Message::CopyBegins(dataset.clone())).await?;
        pass::tree::copy(work.clone(), dataset.clone(), tree).await.map(drop)
    }

    async fn index(&self, dataset: &DatasetName) -> Result<()> {
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        database.index(&self.held_schema(dataset).await?).await
    }

    async fn verify(&self, dataset: &DatasetName, work: &Work) -> Result<()> {
        let differences = match self.target(dataset)? {
            TargetDataset::Database(database) => {
                // Behind a followed copy the rest of its schema waits for the cut-over.
                let is_finished = !self.plan.options.follow;
                pass::verify::database(work.clone(), dataset.clone(), database, is_finished).await
            }
            TargetDataset::Tree(tree) => {
                let since = self.verified_passes.get(dataset).copied().unwrap_or(0);
                pass::verify::tree(work.clone(), dataset.clone(), tree, since).await
            }
        }?;
        self.differs.fetch_or(differences > 0, Ordering::Relaxed);
        Ok(())
    }

    async fn fence(&self) -> Result<()> {
        // Half of the time that there is: what it leads to needs some too.
        let wait = Duration::from_millis(self.cutover.terms.max_downtime_ms / 2);
        let followers = self.fencing().await?;
        let fences: Vec<_> = followers.iter().map(|follower| follower.fence(wait).boxed()).collect();
        futures::future::try_join_all(fences).await.map(drop)
    }

    async fn catch_up(&self, dataset: &DatasetName, work: &Work) -> Result<()> {
        match self.target(dataset)? {
            TargetDataset::Database(database) => {
                let follower = self.follower(dataset).await?;
                let rest = pass::database::recopy(work.clone(), dataset.clone(), database.clone());
                tokio::try_join!(follower.catch_up(), rest)?;
                // Nothing else has read them yet: what is followed is verified under load.
                pass::verify::recopied(work.clone(), dataset.clone(), database).await
            }
            TargetDataset::Tree(tree) => self.copy_tree(dataset, tree, work).await,
        }
    }

    async fn finish(&self, dataset: &DatasetName) -> Result<()> {
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        database.finish(&self.held_schema(dataset).await?).await
    }

    async fn publish(&self) -> Result<()> {
        self.each(|target| {
            async move {
                match target {
                    TargetDataset::Database(database) => database.publish().await,
                    TargetDataset::Tree(_) => Ok(()),
                }
            }
            .boxed()
        })
        .await
    }

    async fn settle(&self, dataset: &DatasetName, work: &Work) -> Result<()> {
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        database.settle().await?;
        pass::verify::schema(work, dataset, &*database).await
    }
}
