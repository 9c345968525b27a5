//! Hooks: telling both hosts the moments of a migration.

use futures::FutureExt;

use super::task::Runner;
use crate::journal::Record;
use crate::pass;
use crate::ports::Result;
use crate::ports::hooks::{Hooks, Moment, Occasion};

impl Runner {
    /// Tells that the migration starts, in its first pass.
    pub(super) async fn begin_hooks(&self) -> Result<()> {
        if self.work.pass > 1 {
            return Ok(());
        }
        self.tell_hooks(Moment::BeforeStart).await
    }

    /// Tells both hosts of a moment, the source first (of the target's own that one alone), unless they were told already in this task. A failure is that of a hook that
    /// stops the migration; what cannot be stopped any more goes on with a note.
    pub(super) async fn tell_hooks(&self, moment: Moment) -> Result<()> {
        if self.was_told(moment) {
            return Ok(());
        }
        for (side, hooks) in [("source", &self.work.source.hooks), ("target", &self.here.hooks)] {
            if side == "source" && moment.is_of_target() {
                continue;
            }
            match self.run_hooks(&**hooks, moment).await {
                Ok(()) => {}
                Err(failure) if moment.can_stop() => return Err(failure),
                Err(failure) => {
                    // Stopped by the operator, or by the agent's end: it is told again.
                    self.work.desk.checkpoint()?;
                    self.note("hooks", format!("the {side}'s hooks at {moment}: {failure}")).await?;
                }
            }
        }
        self.work.desk.record(vec![Record::StepDone(mark(moment))]).await?;
        self.work.desk.flush().await
    }

    /// Whether hooks were told of a moment before this task was taken up again.
    pub(super) fn was_told(&self, moment: Moment) -> bool {
        self.done.contains(&mark(moment))
    }

    /// Ends what runs when the work is stopped: nobody has to wait for a hook that hangs.
    async fn run_hooks(&self, hooks: &dyn Hooks, moment: Moment) -> Result<()> {
        let occasion = Occasion { migration: self.work.migration.clone(), moment, at: None };
        let run = || {
            let occasion = &occasion;
            async move {
                let warnings = tokio::select! {
                    biased;
                    () = self.work.desk.stopping() => return Err(pass::stopped()),
                    warnings = hooks.run(occasion) => warnings?,
                };
                for text in warnings {
                    self.note("hooks", text).await?;
                }
                Ok(())
            }
            .boxed()
        };
        // Of the last moments the source is told once: it may be gone for good by then.
        if matches!(moment, Moment::AfterAccept | Moment::AfterAbort | Moment::AfterFinalize) {
            return run().await;
        }
        self.persist("hooks", || self.work.desk.recorded(), run).await
    }
}

/// What is journaled once both hosts were told.
fn mark(moment: Moment) -> String {
    format!("hooks:{moment}")
}
