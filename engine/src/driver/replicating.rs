//! Replicas: those of the source are taken from their primary at a cut-over, and the target gets its own once it is in use. And the way
//! back of both.
//!
//! The source's stand still while the target is tried: what is brought home by an abort reaches them through their primary. The
//! target's are given a copy of it while users work there, so that nobody waits for them.

use std::time::Duration;

use futures::FutureExt;

use super::task::Runner;
use crate::failure::Failure;
use crate::pass::{self, Message};
use crate::plan::StepKind;
use crate::ports::Result;
use crate::progress::Amount;

/// How often it is looked how far they are.
const LOOK: Duration = Duration::from_millis(500);
/// So many differences are named.
const NAMED: usize = 5;

impl Runner {
    /// The source's replicas follow no more.
    pub(super) async fn deactivate_replicas(&self) -> Result<()> {
        self.there().replicas.deactivate(&self.work.migration).await
    }

    /// The target's replicas hold what it holds, follow it, and were compared with it.
    pub(super) async fn replicate(&self, step: &str) -> Result<()> {
        let (id, replicas) = (&self.work.migration, &self.own().replicas);
        let work = async {
            replicas.set_up(id).await?;
            replicas.activate(id).await?;
            let differences = replicas.differences().await?;
            // They stood still for that.
            replicas.activate(id).await?;
            refuse(&differences)
        };
        let before = replicas.rows_done();
        let tell = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let rows = replicas.rows_done().saturating_sub(before);
                let amount = Amount { rows, ..Amount::default() };
                self.work.desk.send(Message::Reached { step: step.to_owned(), amount }).await?;
            }
        };
        // It takes as long as the data is large, and is begun anew as after a crash.
        tokio::select! {
            biased;
            () = self.work.desk.stopping() => Err(pass::stopped()),
            done = work => done,
            told = tell => told,
        }
    }

    /// The target's replicas are what they were. Before its databases are: these are not to be replicated any more.
    pub(super) async fn replicas_here_back(&self) -> Result<()> {
        if !self.plans(&StepKind::Replicate) {
            return Ok(());
        }
        self.each_until_done(|| self.own().replicas.put_back(&self.work.migration).boxed()).await
    }

    /// The same, as far as they answer: nobody who works waits for them. They are asked again afterwards.
    pub(super) async fn try_replicas_here_back(&self) -> Result<()> {
        if !self.plans(&StepKind::Replicate) {
            return Ok(());
        }
        if let Err(failure) = self.own().replicas.put_back(&self.work.migration).await {
            self.work.desk.checkpoint()?;
            let text = format!("the target's replica is put back at the end: {failure}");
            self.note("replicas", text).await?;
        }
        Ok(())
    }

    /// The source's replicas follow again.
    pub(super) async fn replicas_there_back(&self) -> Result<()> {
        if !self.plans(&StepKind::Deactivate) {
            return Ok(());
        }
        self.each_until_done(|| self.there().replicas.put_back(&self.work.migration).boxed()).await
    }

    /// Nothing of the replicas can be undone any more.
    pub(super) async fn forget_replicas(&self) -> Result<()> {
        let id = &self.work.migration;
        if self.plans(&StepKind::Deactivate) {
            self.each_until_done(|| self.there().replicas.forget(id).boxed()).await?;
        }
        if self.plans(&StepKind::Replicate) {
            self.each_until_done(|| self.own().replicas.forget(id).boxed()).await?;
        }
        Ok(())
    }
}

fn refuse(differences: &[String]) -> Result<()> {
    let Some(first) = differences.first() else { return Ok(()) };
    let named: Vec<&str> = differences.iter().take(NAMED).map(String::as_str).collect();
    let item = format!("replica of {}", first.split(':').next().unwrap_or_default());
    let what =
        format!("the replica differs from its primary in {} places: {}", differences.len(), named.join("; "));
    Err(Failure::operator(item, what).hint(
        "is anybody else writing to it? `STOP SLAVE; RESET SLAVE ALL` there, and `handover resume` sets it up anew; resume alone compares again",
    ))
}
