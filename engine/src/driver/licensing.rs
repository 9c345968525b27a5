//! The licence's part in a migration: it moves once the target has taken over, and an abort takes it home.

use futures::FutureExt;

use super::task::Runner;
use crate::licence;
use crate::plan::StepKind;
use crate::ports::Result;

impl Runner {
    /// Before the source is fenced off, as long as it can be called off.
    pub(super) async fn licence_may_move(&self) -> Result<()> {
        if !self.plan.options.licence {
            return Ok(());
        }
        let look = || {
            async {
                let (there, here) = (&self.work.source.licences, &self.here.licences);
                let (source, target) = tokio::try_join!(there.standing(), here.standing())?;
                licence::refuse_unmet(&source, &target, self.work.clock.now())
            }
            .boxed()
        };
        self.persist("licence", || self.work.desk.recorded(), look).await
    }

    pub(super) async fn carry_licence(&self) -> Result<()> {
        let (source, target) = (&*self.work.source.licences, &*self.here.licences);
        licence::carry(source, target, &self.work.migration).await
    }

    /// Part of an abort, before the source is written to again.
    pub(super) async fn bring_licence_back(&self) -> Result<()> {
        let (source, target) = (&*self.work.source.licences, &*self.here.licences);
        let act = || licence::bring_back(source, target, &self.work.migration).boxed();
        self.with_licence(act).await?;
        self.tell_undone(&[StepKind::Licence], None).await
    }

    /// An abort is not possible any more.
    pub(super) async fn forget_licence(&self) -> Result<()> {
        let (source, target) = (&*self.work.source.licences, &*self.here.licences);
        let act = || licence::forget(source, target, &self.work.migration).boxed();
        self.with_licence(act).await
    }

    async fn with_licence<'a>(
        &'a self,
        act: impl Fn() -> futures::future::BoxFuture<'a, Result<()>> + Send + 'a,
    ) -> Result<()> {
        if !self.plan.options.licence {
            return Ok(());
        }
        self.persist("licence", || self.work.desk.recorded(), act).await
    }
}
