//! What both hosts do to themselves at a cut-over, beside the data: services stop, settings change with or without a reboot,
//! certificates are put in place, services start. And the way back of all that.
//!
//! Every act is a port's, idempotent, with its undo record at the host that acts. The order keeps the way back open: settings are changed,
//! and hosts rebooted, while the cut-over can still be called off; certificates and services follow once the target's data is in place.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::task::Runner;
use crate::changeover::{Bundle, Scope, SwapStanding};
use crate::failure::Failure;
use crate::name::DatasetName;
use crate::pass;
use crate::plan::StepKind;
use crate::ports::Result;
use crate::ports::changeover::Changeover;

/// The source stays in maintenance for so much longer than a cut-over may take, before it puts itself back online.
const GRACE: Duration = Duration::from_secs(30);
/// A host that is asked to reboot goes down within this time.
const GOES_DOWN_WITHIN: Duration = Duration::from_secs(120);

impl Runner {
    pub(super) fn there(&self) -> &Changeover {
        &self.work.source.changeover
    }

    pub(super) fn own(&self) -> &Changeover {
        &self.here.changeover
    }

    /// Whether the plan has such a step.
    pub(super) fn plans(&self, wanted: &StepKind) -> bool {
        self.plan.has(|kind| kind == wanted)
    }

    /// What steps beside the data are expected to add to the time that users wait for, in milliseconds.
    pub(super) fn beside_ms(&self) -> u64 {
        use StepKind::{Certify, Configure, Deactivate, Label, Maintain, Reboot, Serve};
        let is_beside = |kind: &StepKind| {
            matches!(kind, Certify | Configure | Deactivate | Label | Maintain | Reboot | Serve)
        };
        let beside = self.plan.steps.iter().filter(|step| is_beside(&step.step));
        beside.map(|step| step.expected_ms).sum()
    }

    /// Both hosts get what they are to put in place: the target the source's settings, and, where they are swapped, the other way round.
    pub(super) async fn stage_settings(&self) -> Result<()> {
        let (id, there, here) = (&self.work.migration, &self.there().settings, &self.own().settings);
        if !self.plan.options.swap {
            return here.stage(id, &self.beside_data(there.read(Scope::Basic).await?)).await;
        }
        // Both are read before either is kept: what is staged changes nothing.
        let (theirs, ours) = futures::try_join!(there.read(Scope::All), here.read(Scope::All))?;
        here.stage(id, &self.beside_data(theirs)).await?;
        there.stage(id, &self.beside_data(ours)).await
    }

    /// Without the rows of databases that are moved: the source's come with their database, and the source's own database stays what it is,
    /// behind its fence.
    fn beside_data(&self, mut bundle: Bundle) -> Bundle {
        let is_moved = |dataset: &DatasetName| self.plan.datasets().any(|moved| moved == dataset);
        bundle.settings.retain(|setting| !setting.dataset().is_some_and(is_moved));
        bundle
    }

    /// The target keeps the rows that make it the host it is.
    pub(super) async fn retain_settings(&self) -> Result<()> {
        let moved: Vec<DatasetName> = self.plan.datasets().cloned().collect();
        self.own().settings.retain(&self.work.migration, &moved).await
    }

    /// Takes that back where the cut-over was called off: the copy is the source's again.
    pub(super) async fn release_settings(&self) -> Result<()> {
        self.each_until_done(|| self.own().settings.release(&self.work.migration).boxed()).await
    }

    /// Stops the services of both hosts. Those of the source come back by themselves if the target is gone for too long.
    pub(super) async fn maintain(&self) -> Result<()> {
        let allowed = Duration::from_millis(self.cutover.terms.max_downtime_ms);
        let (id, lease) = (&self.work.migration, allowed.saturating_add(GRACE));
        self.there().services.stop(id, Some(lease)).await?;
        self.own().services.stop(id, None).await
    }

    /// From here on the source does not come back online by itself.
    pub(super) async fn hold_source(&self) -> Result<()> {
        if !self.plans(&StepKind::Maintain) {
            return Ok(());
        }
        let hold = || self.there().services.hold(&self.work.migration).boxed();
        self.persist("maintain", || self.work.desk.recorded(), hold).await
    }

    /// Puts settings in place: at the target, or at both hosts with timers that undo it.
    pub(super) async fn configure(&self) -> Result<()> {
        let id = &self.work.migration;
        if !self.plan.options.swap {
            return self.own().settings.apply(id).await;
        }
        self.there().swap.arm(id, self.swap_limit).await?;
        self.own().swap.arm(id, self.swap_limit).await
    }

    /// Reboots both hosts, and goes on once they have found each other again. This agent ends within it, and takes it up again.
    pub(super) async fn reboot(&self) -> Result<()> {
        let (id, there, own) = (&self.work.migration, &self.there().swap, &self.own().swap);
        match own.standing(id).await? {
            // What belongs to it may not all be done.
            SwapStanding::Confirmed => own.confirm(id).await,
            SwapStanding::Own => {
                Err(Failure::operator("settings", "this host's are no longer those of the swap")
                    .hint("`handover abort` puts everything back"))
            }
            SwapStanding::Armed => {
                // Whether it was heard or not: where the settings are exchanged, neither host finds the other before both are changed.
                if let Err(failure) = there.reboot(id).await {
                    tracing::info!(%failure, "the source did not say that it reboots");
                }
                self.reboot_this().await
            }
            SwapStanding::RolledBack => self.take_swap_back().await.and_then(|()| Err(rolled_back())),
            SwapStanding::Up => match there.standing(id).await? {
                SwapStanding::Up | SwapStanding::Confirmed => {
                    own.met(id).await?;
                    there.confirm(id).await?;
                    own.confirm(id).await
                }
                SwapStanding::Armed => {
                    there.reboot(id).await?;
                    // It is asked again, until its timer has undone everything.
                    Err(Failure::transient("source", "it has not rebooted yet"))
                }
                SwapStanding::Own | SwapStanding::RolledBack => {
                    self.take_swap_back().await.and_then(|()| Err(rolled_back()))
                }
            },
        }
    }

    /// Reboots this host where that is still to be done; this agent's end comes with it.
    async fn reboot_this(&self) -> Result<()> {
        if !self.own().swap.reboot(&self.work.migration).await? {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.work.desk.stopping() => Err(pass::stopped()),
            () = tokio::time::sleep(GOES_DOWN_WITHIN) => {
                Err(Failure::operator("host", "it was asked to reboot, and does not").hint("reboot it, then resume"))
            }
        }
    }

    /// Both hosts get their own settings back and are booted with them, where they had others.
    ///
    /// First both note it, durably, and then both are booted: a host that has noted it boots with its own settings whatever comes. The
    /// source cannot be told any more once this host has left the address at which it finds it, so that this host comes second; where
    /// nothing was confirmed yet, timers undo it on both.
    async fn take_swap_back(&self) -> Result<()> {
        let (id, there, own) = (&self.work.migration, &self.there().swap, &self.own().swap);
        let is_changed = |standing| !matches!(standing, SwapStanding::Own | SwapStanding::RolledBack);
        let theirs = async {
            if is_changed(there.standing(id).await?) {
                there.roll_back(id).await?;
            }
            Ok(())
        };
        let (theirs, standing) = (theirs.await, own.standing(id).await?);
        if matches!(standing, SwapStanding::Up | SwapStanding::Confirmed) {
            theirs.clone()?;
        }
        if is_changed(standing) {
            own.roll_back(id).await?;
        }
        let reboots = there.reboot(id).await;
        self.reboot_this().await?;
        theirs?;
        if reboots? {
            return Err(Failure::transient("source", "it reboots with its own settings"));
        }
        Ok(())
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
        self.own().services.start(&self.work.migration).await?;
        self.own().certificates.prove(&self.work.migration).await
    }

    /// Before writers are let in at the source again: everything at both hosts is what it was. (The source's services start once its fence is
    /// gone: [`Self::services_back`].)
    pub(super) async fn change_back(&self) -> Result<()> {
        let id = &self.work.migration;
        if self.plans(&StepKind::Reboot) {
            self.each_until_done(|| self.take_swap_back().boxed()).await?;
        }
        if self.plans(&StepKind::Certify) {
            self.each_until_done(|| self.own().certificates.restore(id).boxed()).await?;
        }
        // After a swap both hosts are themselves again by now, and what is left are rows of databases.
        if self.plans(&StepKind::Reboot) {
            self.each_until_done(|| self.there().settings.restore(id).boxed()).await?;
        }
        if self.plans(&StepKind::Configure) {
            self.each_until_done(|| self.own().settings.restore(id).boxed()).await?;
        }
        Ok(())
    }

    /// The services of both hosts are what they were before the cut-over. One that does not come up keeps nobody else from it.
    pub(super) async fn services_back(&self) -> Result<()> {
        if self.plans(&StepKind::Maintain) {
            let put_back = || self.there().services.put_back(&self.work.migration).boxed();
            let theirs = self.each_until_done(put_back).await;
            self.note_services("source", theirs).await?;
        }
        self.own_services_back().await
    }

    /// This host's are.
    pub(super) async fn own_services_back(&self) -> Result<()> {
        if !self.plans(&StepKind::Maintain) && !self.plans(&StepKind::Serve) {
            return Ok(());
        }
        let put_back = || self.own().services.put_back(&self.work.migration).boxed();
        let own = self.each_until_done(put_back).await;
        self.note_services("target", own).await
    }

    async fn note_services(&self, side: &str, back: Result<()>) -> Result<()> {
        match back {
            Err(failure) if failure.is_transient() => Err(failure),
            Err(failure) => {
                self.work.desk.checkpoint()?;
                let text = format!("the {side}'s services are not all what they were: {failure}");
                self.note("services", text).await
            }
            Ok(()) => Ok(()),
        }
    }

    /// This host's settings are its own, when the source is gone for good.
    pub(super) async fn own_changes_back(&self) -> Result<()> {
        let (id, own) = (&self.work.migration, self.own());
        if self.plans(&StepKind::Reboot) {
            if !matches!(own.swap.standing(id).await?, SwapStanding::Own | SwapStanding::RolledBack) {
                own.swap.roll_back(id).await?;
            }
            self.reboot_this().await?;
        }
        if self.plans(&StepKind::Configure) {
            self.each_until_done(|| own.settings.restore(id).boxed()).await?;
        }
        Ok(())
    }

    /// Nothing of that can be undone any more.
    pub(super) async fn forget_own_changes(&self) -> Result<()> {
        let (id, own) = (&self.work.migration, self.own());
        if self.plans(&StepKind::Maintain) || self.plans(&StepKind::Serve) {
            self.each_until_done(|| own.services.forget(id).boxed()).await?;
        }
        if self.plans(&StepKind::Stage) {
            self.each_until_done(|| own.settings.forget(id).boxed()).await?;
        }
        Ok(())
    }

    /// No service writes at the target any more: what was written there is about to be carried home, or given up. Before the decision
    /// to publish none was started.
    pub(super) async fn stop_own_services(&self) -> Result<()> {
        if !self.cutover.committed || !self.plans(&StepKind::Maintain) {
            return Ok(());
        }
        self.each_until_done(|| self.own().services.stop(&self.work.migration, None).boxed()).await
    }

    /// Nothing can be undone any more.
    pub(super) async fn forget_changes(&self) -> Result<()> {
        let id = &self.work.migration;
        if self.plans(&StepKind::Maintain) {
            self.each_until_done(|| self.there().services.forget(id).boxed()).await?;
        }
        if self.plans(&StepKind::Stage) {
            self.each_until_done(|| self.there().settings.forget(id).boxed()).await?;
        }
        self.forget_own_changes().await?;
        if self.plans(&StepKind::Certify) {
            self.each_until_done(|| self.own().certificates.forget(id).boxed()).await?;
        }
        self.forget_replicas().await
    }

    pub(super) async fn each_until_done<'a>(
        &'a self,
        act: impl Fn() -> BoxFuture<'a, Result<()>> + Send + 'a,
    ) -> Result<()> {
        self.persist("changeover", || self.work.desk.recorded(), act).await
    }
}

fn rolled_back() -> Failure {
    Failure::operator(
        "settings",
        "the hosts did not find each other with the swapped ones: both have their own again",
    )
    .hint("look at [[settings]] of both manifests and at [source] in target.toml, then cut over again")
}
