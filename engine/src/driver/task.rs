//! What a task consists of: its steps in order, each tried again while its failures are transient.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use tokio::time::Instant;

use super::throttling;
use super::watchman::Watchman;
use crate::backup::Occasion;
use crate::dns::Stage;
use crate::failure::Failure;
use crate::journal::{Event, Migration, Record};
use crate::name::DatasetName;
use crate::pass::{self, Message, TargetDataset, Work};
use crate::phase::{Phase, Task, Trigger};
use crate::plan::{Plan, StepKind};
use crate::ports::hooks::Moment;
use crate::ports::scratch::Trials;
use crate::ports::{Parts, Result, Source, Spools};
use crate::progress::{StepProgress, StepState};
use crate::report::{Cutover, Verifying};
use crate::reserve::Reserve;
use crate::rows::Schema;

/// The first wait before a step is tried again; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A lease is renewed this often while its database is not being read.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// The steps of the task at hand, with those that are done marked.
pub fn steps(migration: &Migration) -> Vec<StepProgress> {
    let done = |step: &str| migration.steps_done.iter().any(|done| done == step);
    let planned = migration.plan.steps.iter().filter(|step| match migration.state.task {
        Some(Task::Verify | Task::VerifyLive) => matches!(step.step, StepKind::Verify(_)),
        Some(Task::Undo | Task::Finalize | Task::Follow | Task::FollowBack) => false,
        Some(Task::Part) => is_of_accepting(&step.step),
        // What was undone is no longer there.
        None if migration.state.phase == Phase::Aborted => false,
        Some(Task::Pass) => is_of_pass(migration, &step.step),
        Some(Task::CutOver) => is_of_cutover(migration, &step.step),
        None => migration.state.phase != Phase::Trial || !is_of_accepting(&step.step),
    });
    let finished = migration.state.task.is_none();
    planned
        .map(|step| {
            let mut progress = StepProgress::planned(step);
            if finished || done(&progress.step) {
                progress.state = StepState::Done;
                progress.bytes = progress.bytes_total;
                progress.rows = progress.rows_total;
                progress.files = progress.files_total;
            } else if migration.pass > 1 && matches!(step.step, StepKind::Copy(_) | StepKind::Fit(_)) {
                // What a later pass has to move is not known before it has looked.
                (progress.bytes_total, progress.rows_total, progress.files_total) = (0, 0, 0);
            }
            progress
        })
        .collect()
}

/// Whether a step belongs to a pass: what is backed up is so once.
fn is_of_pass(migration: &Migration, step: &StepKind) -> bool {
    let is_over = matches!(step, StepKind::BackUp(_)) && migration.pass > 1;
    !is_over && !is_of_cutover(migration, step) && !is_of_accepting(step)
}

/// Whether a step belongs to the cut-over; in a plan that does not follow its source none does.
fn is_of_cutover(migration: &Migration, step: &StepKind) -> bool {
    use StepKind::{BackUp, Capture, Copy, Fit, Index, Prepare, Verify};
    let is_before =
        matches!(step, BackUp(_) | Prepare | Capture(_) | Copy(_) | Fit(_) | Index(_) | Verify(_));
    migration.plan.options.follow && !is_before && !is_of_accepting(step)
}

/// Whether a step belongs to what comes with the target's being accepted.
fn is_of_accepting(step: &StepKind) -> bool {
    matches!(step, StepKind::BackUpAgain(_))
}

/// Runs one task.
pub struct Runner {
    pub work: Work,
    pub datasets: HashMap<DatasetName, TargetDataset>,
    pub plan: Plan,
    pub done: Vec<String>,
    pub patience: Duration,
    /// How long a host waits for its peer after a reboot with swapped settings, before it takes its own back.
    pub swap_limit: Duration,
    /// Up to which pass each tree's contents were read again.
    pub verified_passes: BTreeMap<DatasetName, u32>,
    /// Verification has found differences in this pass.
    pub differs: AtomicBool,
    /// Where changes wait.
    pub spools: Arc<dyn Spools>,
    /// Where rows are tried, for a plan that has decisions about them.
    pub trials: Option<Trials>,
    /// This host's own databases, once they have taken over.
    pub here: Source,
    /// The cut-over at hand, or the last one.
    pub cutover: Cutover,
    /// What is kept free of the disks.
    pub reserve: Reserve,
    /// The verification at hand of a copy that is followed.
    pub verifying: Option<Verifying>,
    /// The source is gone for good.
    pub alone: bool,
}

impl Runner {
    /// Works until the task is done; what that leads to.
    pub async fn run(self, task: Task) -> Result<Trigger> {
        if task == Task::CutOver || self.work.throttle.shown().rate.is_some() {
            throttling::tell(&self.work).await;
        }
        if !throttling::is_throttled(task) {
            return self.work_on(task).await;
        }
        let (desk, watchman) = (self.work.desk.clone(), Watchman::of(&self).await?);
        let work = self.work.clone();
        let mut working = std::pin::pin!(self.work_on(task));
        let failure = tokio::select! {
            biased;
            result = &mut working => return result,
            failure = throttling::attend(&work) => failure,
            failure = watchman.look() => failure,
        };
        // The chunks at hand are finished: what is begun anew must not meet what still goes on.
        desk.end();
        working.await.map_err(|_| failure)
    }

    async fn work_on(self, task: Task) -> Result<Trigger> {
        match task {
            Task::Pass if self.plan.options.follow => return self.live_pass().await,
            Task::Pass => self.pass().await?,
            Task::Follow => return self.follow().await,
            Task::VerifyLive => return self.verify_live().await,
            Task::CutOver => return self.cut_over().await,
            Task::FollowBack => return self.follow_back().await,
            Task::Part => self.take_leave().await?,
            Task::Verify => self.stage(|kind| matches!(kind, StepKind::Verify(_))).await?,
            Task::Undo => {
                self.undo().await?;
                self.tell_hooks(Moment::AfterAbort).await?;
            }
            Task::Finalize => {
                self.finalize().await?;
                self.tell_hooks(Moment::AfterFinalize).await?;
            }
        }
        Ok(Trigger::Done)
    }

    async fn pass(&self) -> Result<()> {
        self.begin_hooks().await?;
        self.back_up_first().await?;
        self.stage(|kind| *kind == StepKind::Prepare).await?;
        self.stage(|kind| matches!(kind, StepKind::Copy(_))).await?;
        self.close_leases().await;
        self.stage(|kind| matches!(kind, StepKind::Finish(_))).await?;
        self.stage(|kind| matches!(kind, StepKind::Verify(_))).await?;
        self.refuse_differences()?;
        self.tell_hooks(Moment::AfterCopy).await?;
        self.tell_hooks(Moment::BeforePublish).await?;
        self.stage(|kind| *kind == StepKind::Publish).await?;
        self.tell_hooks(Moment::AfterPublish).await
    }

    pub(super) fn refuse_differences(&self) -> Result<()> {
        if !self.differs.load(Ordering::Relaxed) {
            return Ok(());
        }
        let item = format!("migration {}", self.work.migration);
        Err(Failure::operator(item, "verification found differences: nothing is published")
            .hint("`handover report` names them; `handover resume` copies again what differs; `handover abort` undoes everything"))
    }

    /// Everything was read: the source need not hold its snapshots open any longer. It lets go by itself as well.
    pub(super) async fn close_leases(&self) {
        for (dataset, target) in self.chosen() {
            if matches!(target, TargetDataset::Database(_))
                && let Ok(lease) = pass::database::lease(&self.work, &dataset)
                && let Err(failure) = self.work.source.host.close(&lease).await
            {
                tracing::debug!(%dataset, %failure, "the source did not end a lease");
            }
        }
    }

    /// Runs the steps of one kind side by side; those that are done already are left out.
    pub(super) async fn stage(&self, wanted: impl Fn(&StepKind) -> bool) -> Result<()> {
        let steps = self.plan.steps.iter().map(|step| &step.step);
        let todo: Vec<&StepKind> =
            steps.filter(|kind| wanted(kind) && !self.done.contains(&kind.id())).collect();
        let mut running: futures::stream::FuturesUnordered<_> =
            todo.into_iter().map(|kind| self.step(kind)).collect();
        while running.try_next().await?.is_some() {}
        Ok(())
    }

    /// Runs one step until it is done, trying again while failures are transient and it gets on now and then.
    async fn step(&self, kind: &StepKind) -> Result<()> {
        let id = kind.id();
        let event = Event::StepStarted { step: id.clone() };
        self.work.desk.record(vec![Record::Event(event)]).await?;
        let work = Work { desk: self.work.desk.counting(), ..self.work.clone() };
        self.persist(&id, || work.desk.recorded(), || self.act(kind, &work).boxed()).await?;
        let event = Event::StepDone { step: id.clone() };
        self.work.desk.record(vec![Record::StepDone(id), Record::Event(event)]).await?;
        self.work.desk.flush().await
    }

    /// Tries until it is done, as long as failures are transient and `got_on` rises now and then.
    pub(super) async fn persist<'a>(
        &'a self,
        step: &'a str,
        got_on: impl Fn() -> u64 + Send + 'a,
        act: impl Fn() -> BoxFuture<'a, Result<()>> + Send + 'a,
    ) -> Result<()> {
        // Since when it fails without getting on.
        let (mut wait, mut since, mut seen) = (FIRST_WAIT, None, 0);
        loop {
            self.work.desk.checkpoint()?;
            let Err(failure) = act().await else { return Ok(()) };
            self.work.desk.checkpoint()?;
            let now = got_on();
            if now != seen {
                (wait, since, seen) = (FIRST_WAIT, None, now);
            }
            let since = since.get_or_insert_with(Instant::now);
            if !failure.is_transient() || since.elapsed() > self.patience {
                return Err(failure);
            }
            tracing::info!(step, %failure, "trying again");
            let event = Event::Retry { step: step.to_owned(), failure, after_ms: wait.as_millis() as u64 };
            self.work.desk.record(vec![Record::Event(event)]).await?;
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = self.work.desk.stopping() => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn act(&self, kind: &StepKind, work: &Work) -> Result<()> {
        // What a failed try has sent must be journaled before the next one asks what is held.
        self.work.desk.flush().await?;
        match kind {
            StepKind::BackUp(host) => self.back_up(*host, Occasion::Start, &kind.id(), work).await,
            StepKind::BackUpAgain(host) => self.back_up(*host, Occasion::Accept, &kind.id(), work).await,
            StepKind::Prepare => self.prepare().await,
            StepKind::Copy(dataset) => {
                work.desk.send(Message::CopyBegins(dataset.clone())).await?;
                match self.target(dataset)? {
                    TargetDataset::Database(database) => {
                        let copy = pass::database::copy(work.clone(), dataset.clone(), database);
                        self.renewing(dataset, copy).await
                    }
                    TargetDataset::Tree(tree) => {
                        pass::tree::copy(work.clone(), dataset.clone(), tree).await.map(drop)
                    }
                }
            }
            StepKind::Fit(dataset) => self.fit(dataset, work).await,
            StepKind::Refit(dataset) => self.refit(dataset, work).await,
            StepKind::Finish(dataset) => self.finish(dataset).await,
            StepKind::Verify(dataset) => {
                let differences = match self.target(dataset)? {
                    TargetDataset::Database(database) => {
                        // Behind a followed copy the rest of its schema waits for the cut-over.
                        let is_finished = !self.plan.options.follow;
                        pass::verify::database(work.clone(), dataset.clone(), database, is_finished).await
                    }
                    TargetDataset::Tree(tree) => {
                        let since = self.verified_passes.get(dataset).copied().unwrap_or(0);
                        pass::verify::tree(work.clone(), dataset.clone(), tree, since).await
                    }
                }?;
                self.differs.fetch_or(differences > 0, Ordering::Relaxed);
                Ok(())
            }
            StepKind::Capture(dataset) => self.follower(dataset).await?.begin().await,
            StepKind::Index(dataset) => {
                let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
                database.index(&self.held_schema(dataset).await?).await
            }
            StepKind::Fence => {
                // Half of the time that there is: what it leads to needs some too.
                let wait = Duration::from_millis(self.cutover.terms.max_downtime_ms / 2);
                let followers = self.fencing().await?;
                let fences: Vec<_> = followers.iter().map(|follower| follower.fence(wait).boxed()).collect();
                futures::future::try_join_all(fences).await.map(drop)
            }
            StepKind::CatchUp(dataset) => match self.target(dataset)? {
                TargetDataset::Database(database) => {
                    let follower = self.follower(dataset).await?;
                    let rest = pass::database::recopy(work.clone(), dataset.clone(), database.clone());
                    tokio::try_join!(follower.catch_up(), rest)?;
                    // Nothing else has read them yet: what is followed is verified under load.
                    pass::verify::recopied(work.clone(), dataset.clone(), database).await
                }
                TargetDataset::Tree(tree) => {
                    work.desk.send(Message::CopyBegins(dataset.clone())).await?;
                    pass::tree::copy(work.clone(), dataset.clone(), tree).await.map(drop)
                }
            },
            StepKind::Retain => self.retain_settings().await,
            StepKind::Keep(dataset) => self.keep(dataset).await,
            StepKind::Licence => self.carry_licence().await,
            StepKind::Stage => self.stage_settings().await,
            StepKind::Maintain => self.maintain().await,
            StepKind::Deactivate => self.deactivate_replicas().await,
            StepKind::Configure => self.configure().await,
            StepKind::Reboot => self.reboot().await,
            StepKind::Certify => self.certify().await,
            StepKind::Label => self.show_label().await,
            StepKind::Serve => self.serve().await,
            StepKind::Replicate => self.replicate(&kind.id()).await,
            StepKind::Withdraw => self.change_records(Stage::Before).await,
            StepKind::Repoint => self.change_records(Stage::Cutover).await,
            StepKind::Rejoin => self.change_records(Stage::End).await,
            StepKind::Settle(dataset) => {
                let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
                database.settle().await?;
                pass::verify::schema(work, dataset, &*database).await
            }
            StepKind::Publish => {
                self.each(|target| {
                    async move {
                        match target {
                            TargetDataset::Database(database) => database.publish().await,
                            TargetDataset::Tree(_) => Ok(()),
                        }
                    }
                    .boxed()
                })
                .await
            }
        }
    }

    /// Keeps a database's lease alive while `work` goes on: a long build between two reads must not lose the snapshot.
    async fn renewing(&self, dataset: &DatasetName, work: impl Future<Output = Result<()>>) -> Result<()> {
        let lease = pass::database::lease(&self.work, dataset)?;
        let renew = async {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                if let Err(failure) = self.work.source.host.open(&lease, dataset, Parts::Cut).await {
                    tracing::debug!(%dataset, %failure, "the lease was not renewed");
                }
            }
        };
        tokio::select! {
            biased;
            result = work => result,
            () = renew => Ok(()),
        }
    }

    /// The first pass finds the target as the plan allows it, or goes no further.
    async fn prepare(&self) -> Result<()> {
        for (dataset, target) in self.chosen() {
            let (is_ours, occupied) = match &target {
                TargetDataset::Database(database) => (
                    self.work.holdings.schema(&self.work.migration, &dataset).await?.is_some(),
                    database.occupied().await?.is_some(),
                ),
                TargetDataset::Tree(tree) => (tree.is_prepared().await?, tree.occupied().await?),
            };
            if occupied && !is_ours && self.work.pass == 1 && !self.plan.options.overwrite {
                return Err(Failure::operator(format!("dataset {dataset}"), "the target holds data of it already").hint(
                    "abort, then plan with --overwrite to replace it (abort brings it back until finalize), or empty it",
                ));
            }
        }
        Ok(())
    }

    async fn finish(&self, dataset: &DatasetName) -> Result<()> {
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        database.finish(&self.held_schema(dataset).await?).await?;
        // Whatever passes the fence was to be in the target by now.
        if self.plan.options.follow && !self.fits() {
            self.follower(dataset).await?.at_rest().await
        } else {
            Ok(())
        }
    }

    pub(super) async fn held_schema(&self, dataset: &DatasetName) -> Result<Schema> {
        let held = self.work.holdings.schema(&self.work.migration, dataset).await?;
        held.ok_or_else(|| {
            Failure::permanent(format!("dataset {dataset}"), "the journal has lost its schema")
                .hint("abort, and plan again")
        })
    }

    /// Does the same to every chosen dataset, the last one first.
    pub(super) async fn each(
        &self,
        act: impl Fn(TargetDataset) -> BoxFuture<'static, Result<()>>,
    ) -> Result<()> {
        let datasets: Vec<&DatasetName> = self.plan.datasets().collect();
        for dataset in datasets.into_iter().rev() {
            act(self.target(dataset)?).await?;
            tracing::debug!(%dataset, "one dataset is done");
        }
        Ok(())
    }

    pub(super) fn chosen(&self) -> Vec<(DatasetName, TargetDataset)> {
        let chosen =
            self.plan.datasets().filter_map(|name| Some((name.clone(), self.datasets.get(name)?.clone())));
        chosen.collect()
    }

    pub(super) fn target(&self, dataset: &DatasetName) -> Result<TargetDataset> {
        self.datasets.get(dataset).cloned().ok_or_else(|| {
            Failure::operator(format!("dataset {dataset}"), "the target's manifest no longer names it")
                .hint("put its section back into the target's appliance.toml and restart the agent")
        })
    }
}
