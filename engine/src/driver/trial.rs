//! The trial: from when the target serves until it is accepted, or everything is undone. Users are shown a label; services are sealed off, or do not run
//! yet, as the target's manifest says.

use futures::FutureExt;

use super::task::Runner;
use crate::plan::StepKind;
use crate::ports::Result;
use crate::ports::hooks::Moment;

impl Runner {
    pub(super) async fn show_label(&self) -> Result<()> {
        self.own().label.show(&self.work.migration).await
    }

    /// The target was accepted: its services are what they are to stay, and users are warned no more. The label goes last: until then not all is
    /// as it will be.
    pub(super) async fn end_trial(&self) -> Result<()> {
        if self.plans(&StepKind::Serve) {
            self.each_until_done(|| self.own().services.release(&self.work.migration).boxed()).await?;
        }
        self.take_label_away().await
    }

    /// Part of an abort: a label that cannot be taken away keeps nothing else from being undone.
    pub(super) async fn take_label_back(&self) -> Result<()> {
        match self.take_label_away().await {
            Err(failure) if !failure.is_transient() => {
                self.work.desk.checkpoint()?;
                let text = format!("the label is still there: {failure}");
                self.note("label", text).await
            }
            done => done,
        }
    }

    /// Hooks are told where it was there, and once: it is forgotten after that alone.
    async fn take_label_away(&self) -> Result<()> {
        let (id, label) = (&self.work.migration, &self.own().label);
        if !self.plans(&StepKind::Label) || !label.is_known(id).await? {
            return Ok(());
        }
        self.each_until_done(|| label.take_away(id).boxed()).await?;
        self.tell_hooks(Moment::LabelOff).await?;
        self.each_until_done(|| label.forget(id).boxed()).await
    }
}
