//! DNS records at a cut-over: users are led away from the source first, and to the target once it has taken over. Changed by updates, or by
//! the operator, who is waited for.

use futures::FutureExt;

use super::task::Runner;
use crate::dns::{self, Advice, RecordChange, Stage};
use crate::failure::Failure;
use crate::plan::StepKind;
use crate::ports::{NameServer, Result};

impl Runner {
    fn names(&self) -> &dyn NameServer {
        &*self.own().names
    }

    /// Makes the changes of a stage, or finds them made.
    pub(super) async fn change_records(&self, at: Stage) -> Result<()> {
        let Some(advice) = &self.plan.dns else { return Ok(()) };
        let changes: Vec<_> = advice.at(at).cloned().collect();
        if advice.automatic {
            return self.names().change(&self.work.migration, &changes).await;
        }
        let lacking = self.names().lacking(&changes).await?;
        if lacking.is_empty() {
            return Ok(());
        }
        Err(Failure::operator("dns", format!("{} has to be told:\n{}", advice.server, lines(&lacking)))
            .hint("change these records, then `handover resume`"))
    }

    /// The first step of a cut-over. A failure to be answered is one of updates: the cut-over is called off. The operator is waited for.
    pub(super) async fn withdraw(&self) -> Result<Option<Failure>> {
        let done = self.stage(|kind| *kind == StepKind::Withdraw).await;
        match (done, &self.plan.dns) {
            (Err(failure), Some(Advice { automatic: true, .. })) => {
                self.work.desk.checkpoint()?;
                Ok(Some(failure))
            }
            (done, _) => done.map(|()| None),
        }
    }

    /// Records lead to the target before its certificates are asked for, and before services start: a CA may look for it by its name, and users'
    /// resolvers take their time. What fails here is the step's to do, when nothing has to wait for it.
    pub(super) async fn repoint_early(&self) -> Result<()> {
        let Some(Advice { automatic: true, .. }) = &self.plan.dns else { return Ok(()) };
        if self.plans(&StepKind::Repoint)
            && let Err(failure) = self.change_records(Stage::Cutover).await
        {
            self.work.desk.checkpoint()?;
            tracing::info!(%failure, "the target's names are changed later");
        }
        Ok(())
    }

    /// Users are led to the source again. What is not led back is told, keeps nothing else from it, and is not forgotten.
    pub(super) async fn records_back(&self) -> Result<()> {
        let Some(advice) = &self.plan.dns else { return Ok(()) };
        if !advice.automatic {
            return self.tell_records_back(advice).await;
        }
        let restore = || self.names().restore(&self.work.migration).boxed();
        let Err(failure) = self.each_until_done(restore).await else { return self.forget_records().await };
        self.work.desk.checkpoint()?;
        self.note("dns", format!("its records are not all what they were: {failure}")).await
    }

    /// The operator's records: which of them are to be set back.
    async fn tell_records_back(&self, advice: &Advice) -> Result<()> {
        match self.names().lacking(&dns::undone(&advice.changes)).await {
            Ok(lacking) if lacking.is_empty() => Ok(()),
            Ok(lacking) => {
                self.note("dns", format!("set back at {}:\n{}", advice.server, lines(&lacking))).await
            }
            Err(failure) => {
                self.work.desk.checkpoint()?;
                self.note("dns", format!("whether records are to be set back is not known: {failure}")).await
            }
        }
    }

    /// What was changed is not taken back any more.
    pub(super) async fn forget_records(&self) -> Result<()> {
        let Some(Advice { automatic: true, .. }) = &self.plan.dns else { return Ok(()) };
        self.each_until_done(|| self.names().forget(&self.work.migration).boxed()).await
    }
}

fn lines(changes: &[RecordChange]) -> String {
    changes
        .iter()
        .flat_map(RecordChange::lines)
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
