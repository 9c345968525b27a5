//! Verifying a copy while it is kept up to date.

use futures::FutureExt;
use tokio::sync::oneshot;

use super::Driver;
use super::task::Runner;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::follow::verify::Check;
use crate::journal::{Event, Record};
use crate::name::DatasetName;
use crate::pass::{self, Message, TargetDataset, Work};
use crate::phase::{Task, Trigger};
use crate::plan::StepKind;
use crate::ports::Result;

impl Driver {
    /// A verification was asked for. What it finds is put right by the changes that are followed, or else by another pass.
    pub(super) fn begin_verifying(&mut self, repair: bool) -> Result<()> {
        let is_live = self.migration.state.task == Some(Task::Follow);
        if repair && !is_live {
            let item = format!("migration {}", self.migration.id);
            return Err(Failure::operator(
                item,
                "what differs is put right by a pass, since nothing is followed",
            )
            .hint("`handover verify`, then `handover sync`, which copies again what differs"));
        }
        if is_live {
            self.migration.outcome.begin_verifying(repair);
        }
        Ok(())
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
            self.work.desk.send(Message::Note { item: "verify".to_owned(), text: text.clone() }).await?;
            self.work.desk.send(Message::VerifyingEnds(text)).await?;
            self.work.desk.flush().await?;
        }
        Ok(Trigger::Done)
    }

    /// A runner of the same task that can be asked to end by itself.
    fn beside(&self) -> (Runner, tokio_util::sync::CancellationToken) {
        let (desk, stop) = self.work.desk.child();
        let runner = Runner {
            work: Work { desk, ..self.work.clone() },
            datasets: self.datasets.clone(),
            plan: self.plan.clone(),
            done: self.done.clone(),
            patience: self.patience,
            swap_limit: self.swap_limit,
            verified_passes: self.verified_passes.clone(),
            differs: false.into(),
            spools: self.spools.clone(),
            trials: self.trials.clone(),
            here: self.here.clone(),
            cutover: self.cutover,
            reserve: self.reserve,
            verifying: self.verifying.clone(),
            alone: self.alone,
        };
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
            let pass = || async {
                let TargetDataset::Tree(tree) = self.target(dataset)? else { return Ok(0) };
                self.work.desk.send(Message::CopyBegins(dataset.clone())).await?;
                pass::tree::copy(self.work.clone(), dataset.clone(), tree.clone()).await?;
                pass::verify::tree(self.work.clone(), dataset.clone(), tree, 0).await
            };
            let found = std::sync::atomic::AtomicU64::new(0);
            let once = || {
                async {
                    found.store(pass().await?, std::sync::atomic::Ordering::Relaxed);
                    Ok(())
                }
                .boxed()
            };
            self.persist(step, || self.work.desk.recorded(), once).await?;
            if found.into_inner() == 0 || n + 1 == tries {
                break;
            }
            self.work.desk.send(Message::RepairBegins(dataset.clone())).await?;
        }
        Ok(())
    }

    async fn begins(&self, step: &str) -> Result<()> {
        let event = Event::StepStarted { step: step.to_owned() };
        self.work.desk.record(vec![Record::Event(event)]).await
    }

    async fn ends(&self, step: String) -> Result<()> {
        let event = Event::StepDone { step: step.clone() };
        self.work.desk.record(vec![Record::StepDone(step), Record::Event(event)]).await?;
        self.work.desk.flush().await
    }
}
