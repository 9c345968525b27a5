//! Verifying a copy while it is kept up to date.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Driver;
use super::task::Runner;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::follow::verify::Check;
use crate::name::DatasetName;
use crate::pass::{self, Message, TargetDataset, Work};
use crate::phase::{Task, Trigger};
use crate::plan::StepKind;
use crate::ports::Result;

impl Driver {
    /// What differs is put right by the changes that are followed, or else by another pass.
    pub(super) fn refuse_repair(&self, repair: bool) -> Result<()> {
        if !repair || self.migration.state.task == Some(Task::Follow) {
            return Ok(());
        }
        let what = "what differs is put right by a pass, since nothing is followed";
        Err(Failure::operator(format!("migration {}", self.migration.id), what)
            .hint("`handover verify`, then `handover sync`, which copies again what differs"))
    }

    /// A verification was asked for.
    pub(super) fn begin_verifying(&mut self, repair: bool) {
        if self.migration.state.task == Some(Task::Follow) {
            self.migration.outcome.begin_verifying(repair);
        }
    }
}

impl Runner {
    /// Reads everything again that is followed, while following goes on.
    ///
    /// A verification that cannot go on ends and says why: the copy is followed all the same.
    pub(super) async fn verify_live(&self) -> Result<Trigger> {
        if self.cutover.finishing {
            self.take_back_finish().await?;
        }
        let (beside, stop) = self.beside();
        let followers = beside.followers().await?;
        let (done, trees) = oneshot::channel();
        // A tree is read again between two passes over it, since a pass lands what it finds.
        let first = async {
            let _ = done.send(self.verify_trees().await);
            Ok(())
        };
        let follow = beside.keep_up(&followers, first);
        tokio::pin!(follow);
        let check = async {
            for follower in &followers {
                self.verify_followed(follower).await?;
            }
            trees.await.unwrap_or_else(|_| Err(pass::stopped()))
        };
        let checked = tokio::select! {
            biased;
            ended = &mut follow => return ended.map(|()| Trigger::Done),
            checked = check => checked,
        };
        // Following ends between two windows, and goes on as the next task.
        stop.cancel();
        let _ = follow.await;
        self.work.desk.checkpoint()?;
        if let Err(failure) = checked {
            let text = format!("the verification was called off, and following goes on: {failure}");
            self.note("verify", text.clone()).await?;
            self.work.desk.send(Message::VerifyingEnds(text)).await?;
            self.work.desk.flush().await?;
        }
        Ok(Trigger::Done)
    }

    /// A runner of the same task that can be asked to end by itself.
    fn beside(&self) -> (Runner, CancellationToken) {
        let (desk, stop) = self.work.desk.child();
        let work = Work { desk, ..self.work.clone() };
        let runner = Runner { work, differs: Arc::default(), ..self.clone() };
        (runner, stop)
    }

    /// Reads a database again; left out when a former agent has done it.
    async fn verify_followed(&self, follower: &Follower) -> Result<()> {
        let dataset = follower.dataset();
        let step = StepKind::Verify(dataset.clone()).id();
        if self.done.contains(&step) {
            return Ok(());
        }
        let verifying = self.verifying.clone().unwrap_or_default();
        let checked = verifying.checked.get(dataset).cloned().unwrap_or_default();
        let schema = self.held_schema(dataset).await?;
        self.begins(&step).await?;
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        let check = Check::new(follower, database, schema, verifying.repair, checked).await?;
        self.persist(&step, || check.got_on(), || check.run().boxed()).await?;
        self.ends(step).await
    }

    async fn verify_trees(&self) -> Result<()> {
        for (dataset, target) in self.chosen() {
            let step = StepKind::Verify(dataset.clone()).id();
            if matches!(target, TargetDataset::Tree(_)) && !self.done.contains(&step) {
                self.begins(&step).await?;
                self.verify_tree(&dataset, &step).await?;
                self.ends(step).await?;
            }
        }
        Ok(())
    }

    /// Reads a tree again behind a pass over it: one that was interrupted leaves what is not in the index yet. What differs is asked
    /// for again by the next pass.
    async fn verify_tree(&self, dataset: &DatasetName, step: &str) -> Result<()> {
        let repair = self.verifying.as_ref().is_some_and(|verifying| verifying.repair);
        let tries = if repair { 2 } else { 1 };
        for n in 0..tries {
            let pass = || {
                async {
                    let TargetDataset::Tree(tree) = self.target(dataset)? else { return Ok(0) };
                    self.copy_tree(dataset, tree.clone(), &self.work).await?;
                    pass::verify::tree(self.work.clone(), dataset.clone(), tree, 0).await
                }
                .boxed()
            };
            let found = self.persist(step, || self.work.desk.recorded(), pass).await?;
            if found == 0 || n + 1 == tries {
                break;
            }
            self.work.desk.send(Message::RepairBegins(dataset.clone())).await?;
        }
        Ok(())
    }
}
