//! The ends of a migration: everything undone, or everything kept for good.

use futures::FutureExt;

use super::Driver;
use super::homecoming::files_come_home;
use super::task::Runner;
use crate::backup::Host;
use crate::failure::Failure;
use crate::journal::Record;
use crate::pass::{Message, TargetDataset};
use crate::phase::{Condition, Operation, Phase, State, Task};
use crate::plan::StepKind;
use crate::ports::Result;
use crate::ports::hooks::Moment;
use crate::report::{Back, Terms};

impl Runner {
    /// Nothing can be undone any more, and nothing is left for that.
    pub(super) async fn finalize(&self) -> Result<()> {
        // Whoever finalizes at once after accepting has interrupted it.
        self.take_leave().await?;
        self.look_for_what_is_ours().await?;
        self.each(|target| {
            async move {
                match target {
                    TargetDataset::Database(database) => database.forget().await,
                    TargetDataset::Tree(tree) => tree.forget().await,
                }
            }
            .boxed()
        })
        .await?;
        self.forget_licence().await?;
        self.forget_retained().await?;
        self.end_following(self.cutover.live_at.is_some()).await?;
        self.forget_changes().await?;
        self.forget_records().await?;
        self.forget_trials().await
    }

    /// What is done once the target is accepted, which is backed up first: an abort would still bring everything back. Of a copy of one moment,
    /// which nobody accepts, nothing.
    pub(super) async fn take_leave(&self) -> Result<()> {
        if !self.plan.options.follow {
            return Ok(());
        }
        self.back_up_again(Host::Target).await?;
        self.part().await?;
        self.end_trial().await?;
        self.back_up_again(Host::Source).await?;
        self.tell_hooks(Moment::AfterAccept).await
    }

    /// Nothing is built any more: only the note of what it was goes.
    async fn forget_retained(&self) -> Result<()> {
        if self.plans(&StepKind::Retain) { self.release_settings().await } else { Ok(()) }
    }

    /// What was copied must be found before it is undone or kept for good: a file system that is not mounted looks like one where there is
    /// nothing to do. Asked once for each dataset; whoever resumes goes on without it.
    async fn look_for_what_is_ours(&self) -> Result<()> {
        for dataset in self.plan.datasets() {
            let mark = format!("looked:{dataset}");
            if self.done.contains(&mark) {
                continue;
            }
            let target = self.target(dataset)?;
            self.work.desk.record(vec![Record::StepDone(mark)]).await?;
            let held = self.work.holdings.sums(&self.work.migration, dataset).await?;
            if held.rows + held.files == 0 {
                continue;
            }
            let is_there = match &target {
                TargetDataset::Database(database) => database.is_prepared().await?,
                TargetDataset::Tree(tree) => tree.is_prepared().await?,
            };
            if !is_there {
                self.work.desk.flush().await?;
                return Err(Failure::operator(
                    format!("dataset {dataset}"),
                    "nothing of this migration is found at its place",
                )
                .hint(
                    "is its file system mounted, and the manifest as it was? `handover resume` looks again, and goes on without what is not there",
                ));
            }
        }
        self.work.desk.flush().await
    }

    /// Everything is what it was before the migration: the last thing done is the first one undone.
    pub(super) async fn undo(&self) -> Result<()> {
        if self.alone {
            return self.undo_alone().await;
        }
        // First: whatever keeps it from coming home is mended while everything else is still there.
        self.bring_licence_back().await?;
        self.stop_own_services().await?;
        self.bring_back().await?;
        self.take_label_back().await?;
        self.change_back().await?;
        self.try_replicas_here_back().await?;
        self.look_for_what_is_ours().await?;
        self.bring_files_home().await?;
        self.undo_datasets().await?;
        self.forget_retained().await?;
        self.close_leases().await;
        // The target is as it was: the source may be written to again.
        self.end_following(false).await?;
        self.settle_home().await?;
        self.services_back().await?;
        // Those that cannot be reached keep nobody from working, and are asked again by `resume`.
        self.replicas_there_back().await?;
        self.replicas_here_back().await?;
        self.records_back().await?;
        self.forget_trials().await?;
        self.forget_changes().await
    }

    /// The same at this host alone. The target never served for this migration: there is nothing to bring home.
    async fn undo_alone(&self) -> Result<()> {
        self.own_changes_back().await?;
        self.look_for_what_is_ours().await?;
        self.undo_datasets().await?;
        self.forget_retained().await?;
        self.forget_trials().await?;
        self.own_services_back().await?;
        self.records_back().await?;
        self.forget_own_changes().await?;
        let text = "the source was given up: nothing was undone there; what it keeps for this migration ends by itself";
        self.work.desk.send(Message::Note { item: "abort".to_owned(), text: text.to_owned() }).await
    }
}

impl Driver {
    /// Whether a task goes on with what the one at hand has done: whoever finalizes at once after accepting has interrupted that, and what was
    /// told then is not told again.
    pub(super) fn goes_on_as(&self, next: &State) -> bool {
        (self.migration.state.phase, next.task) == (Phase::Accepted, Some(Task::Finalize))
    }

    /// Refuses an abort where the target has what the source has not, unless somebody says that it need not.
    pub(super) fn refuse_loss(&self, operation: Operation, terms: &Terms) -> Result<()> {
        let cutover = self.migration.outcome.cutover.filter(|cutover| cutover.committed);
        let Some(cutover) = cutover.filter(|_| operation == Operation::Abort) else { return Ok(()) };
        let item = format!("migration {}", self.migration.id);
        if terms.alone {
            // The source is gone for good.
            return Err(Failure::operator(
                item,
                "the target has taken over: what was written there would be lost",
            )
            .hint("`handover accept` keeps it; `handover abort` brings it back to the source"));
        }
        let phase = self.migration.state.phase;
        if terms.discard || phase == Phase::Aborting {
            return Ok(());
        }
        let keeps = self.migration.plan.has(|kind| matches!(kind, StepKind::Keep(_)));
        let mut hint = String::new();
        let what = match cutover.back {
            Back::Following => match self.blocked() {
                None => return Ok(()),
                Some(failure) => {
                    hint.push_str("; where it can be mended, mend it and `handover resume` first");
                    format!(
                        "the source has stopped following the target ({}: {}): what was written there since would not be at the source",
                        failure.item, failure.what
                    )
                }
            },
            Back::Returned => return Ok(()),
            // Not yet: what has taken over in part alone is brought home, too. And files are, by the abort itself.
            Back::Not if keeps || self.moves_files_alone() && phase != Phase::Accepted => return Ok(()),
            Back::Not => {
                let since = cutover.live_at.map_or_else(String::new, |at| format!(" {at}"));
                format!(
                    "the target has taken over, and the source does not follow it: what was written there since{since} would not be at the source"
                )
            }
            Back::Ended => {
                "the target was accepted, and the source follows it no more: what was written there since would not be at the source"
                    .to_owned()
            }
        };
        let keep = if phase == Phase::Accepted { Operation::Finalize } else { Operation::Accept };
        Err(Failure::operator(item, what).hint(format!(
            "`handover {keep}` keeps it; `handover abort --discard` leaves it in what is kept aside{hint}"
        )))
    }

    /// Whether all that is written at the target is files that come home.
    fn moves_files_alone(&self) -> bool {
        let plan = &self.migration.plan;
        files_come_home(&plan.options)
            && !plan.has(|kind| matches!(kind, StepKind::Capture(_) | StepKind::Fit(_)))
    }

    /// Why nothing more of what is written at the target comes to the source. An abort would find that out behind the target's fence. A host that is away
    /// may be back by then.
    pub(super) fn blocked(&self) -> Option<&Failure> {
        match &self.migration.state {
            State { phase: Phase::Trial, condition: Condition::Failed(failure), .. } => {
                Some(failure).filter(|failure| !failure.is_transient())
            }
            _ => None,
        }
    }
}
