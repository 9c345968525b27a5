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
use crate::failure::Failure;
use crate::journal::{Event, Record};
use crate::name::DatasetName;
use crate::pass::database::held_schema;
use crate::pass::{Message, TargetDataset, Work};
use crate::phase::{Task, Trigger};
use crate::plan::{Plan, StepKind};
use crate::ports::hooks::Moment;
use crate::ports::scratch::Trials;
use crate::ports::{Result, Source, Spools};
use crate::report::{Cutover, Verifying};
use crate::reserve::Reserve;
use crate::rows::Schema;

/// The first wait before a step is tried again; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Runs one task.
#[derive(Clone)]
pub(super) struct Runner {
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
    pub differs: Arc<AtomicBool>,
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
        self.begins(&id).await?;
        let work = Work { desk: self.work.desk.counting(), ..self.work.clone() };
        self.persist(&id, || work.desk.recorded(), || self.act(kind, &work).boxed()).await?;
        self.ends(id).await
    }

    /// Journals that a step begins.
    pub(super) async fn begins(&self, step: &str) -> Result<()> {
        let event = Event::StepStarted { step: step.to_owned() };
        self.work.desk.record(vec![Record::Event(event)]).await
    }

    /// Journals that a step is done.
    pub(super) async fn ends(&self, step: String) -> Result<()> {
        let event = Event::StepDone { step: step.clone() };
        self.work.desk.record(vec![Record::StepDone(step), Record::Event(event)]).await?;
        self.work.desk.flush().await
    }

    /// Tells the operator something.
    pub(super) async fn note(&self, item: &str, text: String) -> Result<()> {
        self.work.desk.send(Message::Note { item: item.to_owned(), text }).await
    }

    /// Tries until it is done, as long as failures are transient and `got_on` rises now and then; what it came to.
    pub(super) async fn persist<'a, T: 'a>(
        &'a self,
        step: &'a str,
        got_on: impl Fn() -> u64 + Send + 'a,
        act: impl Fn() -> BoxFuture<'a, Result<T>> + Send + 'a,
    ) -> Result<T> {
        // Since when it fails without getting on.
        let (mut wait, mut since, mut seen) = (FIRST_WAIT, None, 0);
        loop {
            self.work.desk.checkpoint()?;
            let failure = match act().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
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
            // Not as what is recorded otherwise: to try again is not to get on.
            self.work.desk.send(Message::Records(vec![Record::Event(event)])).await?;
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = self.work.desk.stopping() => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    pub(super) async fn held_schema(&self, dataset: &DatasetName) -> Result<Schema> {
        held_schema(&self.work, dataset).await
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
