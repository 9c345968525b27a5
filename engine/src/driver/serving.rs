//! Users are let in at the target: its certificates are put in place, its services started, and asked for what they serve. Where it does not come
//! up, the plan says what that leads to.

use futures::FutureExt;

use super::task::Runner;
use crate::failure::{Class, Failure};
use crate::journal::Record;
use crate::phase::Trigger;
use crate::plan::{OnFailure, StepKind};
use crate::ports::Result;
use crate::ports::hooks::Moment;

/// Journaled before certificates that are not served are taken back: whoever tries again puts them in place first.
const TAKEN_BACK: &str = "certificates-taken-back";

impl Runner {
    /// All that users wait for once the target has taken over. A failure that stays is the operator's, or ends the migration; how, where it does.
    pub(super) async fn let_users_in(&self) -> Result<Option<Trigger>> {
        let Err(failure) = self.come_up().await else { return Ok(None) };
        // Stopped by the operator, or by the agent's end: it goes on, or is undone for that.
        self.work.desk.checkpoint()?;
        if self.plan.options.on_failure == OnFailure::Stop {
            return Err(failure);
        }
        // There is nothing to resume any more.
        let failure = failure.hint("put it right, then plan and start again");
        self.note("cutover", format!("everything is undone, as the plan says: {failure}")).await?;
        Ok(Some(Trigger::GivenUp(failure)))
    }

    async fn come_up(&self) -> Result<()> {
        self.stage(|kind| *kind == StepKind::Certify).await?;
        self.stage(|kind| *kind == StepKind::Label).await?;
        if self.plans(&StepKind::Label) {
            self.tell_hooks(Moment::LabelOn).await?;
        }
        self.stage(|kind| *kind == StepKind::Serve).await
    }

    /// Checks and puts in place the certificates at the target.
    pub(super) async fn certify(&self) -> Result<()> {
        let theirs = self.there().certificates.hand_out().await?;
        self.own().certificates.install(&self.work.migration, &theirs).await
    }

    /// Before the source is fenced off: what would be refused later is refused now.
    pub(super) async fn certificates_are_fit(&self) -> Result<()> {
        if !self.plans(&StepKind::Certify) {
            return Ok(());
        }
        let look = || {
            async {
                let theirs = self.there().certificates.hand_out().await?;
                self.own().certificates.check(&theirs).await
            }
            .boxed()
        };
        self.each_until_done(look).await
    }

    /// Starts the target's services, and sees them serve their certificates.
    pub(super) async fn serve(&self) -> Result<()> {
        let id = &self.work.migration;
        if self.done.iter().any(|done| done == TAKEN_BACK) {
            self.certify().await?;
            self.tell_changed(&StepKind::Certify).await?;
        }
        self.own().services.start(id).await?;
        let prove = || self.own().certificates.prove(id).boxed();
        let Err(mut failure) = self.persist("serve", || self.work.desk.recorded(), prove).await else {
            return Ok(());
        };
        self.work.desk.checkpoint()?;
        if failure.is_transient() {
            // It was tried for as long as it is to be.
            failure.class = Class::NeedsOperator;
        }
        // Where everything is undone, they go with everything else, and nobody waits for that.
        if self.plans(&StepKind::Certify) && self.plan.options.on_failure == OnFailure::Stop {
            self.take_certificates_back(&mut failure).await?;
        }
        Err(failure)
    }

    /// What was there before is in place again, and services have read it. The failure says so.
    async fn take_certificates_back(&self, failure: &mut Failure) -> Result<()> {
        self.work.desk.record(vec![Record::StepDone(TAKEN_BACK.to_owned())]).await?;
        self.work.desk.flush().await?;
        let restore = || self.own().certificates.restore(&self.work.migration).boxed();
        match self.each_until_done(restore).await {
            Ok(()) => {
                failure.what.push_str("; what was in place before is so again");
                self.tell_undone(&[StepKind::Certify], None).await?;
            }
            Err(other) => {
                self.work.desk.checkpoint()?;
                let text = format!("what was in place before is not all so again: {other}");
                self.note("certificates", text).await?;
            }
        }
        Ok(())
    }
}
