//! The task at hand: its workers are started, asked to end, and heard to the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::task::Runner;
use super::{Driver, TICK, steps, throttling};
use crate::failure::Failure;
use crate::pass::{Desk, Message, Work};
use crate::phase::{Task, Trigger};
use crate::plan::StepKind;
use crate::ports::Result;
use crate::progress::Amount;

/// The task being worked on.
pub(super) struct Busy {
    messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
    end: tokio::task::JoinHandle<Result<Trigger>>,
}

impl Busy {
    /// The next messages of the workers, several at once when they wait; `None` when the last worker has ended.
    async fn messages(&mut self) -> Option<Vec<Message>> {
        let mut batch = Vec::new();
        (self.messages.recv_many(&mut batch, 256).await > 0).then_some(batch)
    }
}

impl Driver {
    /// Starts the workers of the task at hand, if there is one to work on.
    pub(super) async fn begin_task(&mut self) -> Result<Option<Busy>> {
        let busy = self.migration.state.is_busy();
        let Some(task) = self.migration.state.task.filter(|_| busy) else { return Ok(None) };
        let (to, messages) = mpsc::channel(256);
        let stop = self.stop.child_token();
        let runner = self.runner(task, Desk::new(to, stop.clone()));
        self.meter = steps::meter(&self.migration);
        // What was known when the work was interrupted may be long ago.
        self.seen.following.clear();
        self.recall_progress(task).await?;
        self.task_began = Instant::now();
        Ok(Some(Busy { messages, stop, end: tokio::spawn(runner.run(task)) }))
    }

    fn runner(&self, task: Task, desk: Desk) -> Runner {
        let outcome = &self.migration.outcome;
        let work = Work {
            migration: self.migration.id.clone(),
            pass: self.migration.pass,
            source: self.ports.source.clone(),
            holdings: self.ports.holdings.clone(),
            desk,
            lanes: Arc::new(Semaphore::new(self.settings.lanes)),
            clock: self.ports.clock.clone(),
            throttle: throttling::gate_of(task, &self.gate),
        };
        Runner {
            work,
            datasets: self.ports.datasets.clone(),
            plan: self.migration.plan.clone(),
            done: self.migration.steps_done.clone(),
            patience: self.settings.patience,
            swap_limit: self.settings.swap_limit,
            differs: Arc::new((task == Task::Pass && outcome.differences_found > 0).into()),
            verified_passes: match task {
                Task::Pass => outcome.verified_passes.clone(),
                _ => BTreeMap::new(),
            },
            spools: self.ports.spools.clone(),
            trials: self.ports.trials.clone(),
            here: self.ports.here.clone(),
            cutover: outcome.cutover.unwrap_or_default(),
            reserve: self.settings.reserve,
            verifying: outcome.verifying.clone(),
            alone: outcome.alone,
        }
    }

    /// Shows what the journal holds of a first pass. (Of a later one it cannot tell which part of it this pass has found.)
    async fn recall_progress(&mut self, task: Task) -> Result<()> {
        if task != Task::Pass || self.migration.pass != 1 {
            return Ok(());
        }
        for dataset in self.migration.plan.datasets().cloned().collect::<Vec<_>>() {
            let held = self.ports.holdings.sums(&self.migration.id, &dataset).await?;
            if let Some(step) = self.meter.step(&StepKind::Copy(dataset).id()) {
                step.reach(Amount { rows: held.rows, files: held.files, bytes: held.bytes });
            }
        }
        self.meter.begin();
        Ok(())
    }

    /// Everything the workers sent is in; takes their result.
    pub(super) async fn end_task(&mut self, busy: Option<Busy>) -> Result<Option<Busy>> {
        let Some(busy) = busy else { return Ok(None) };
        let result = busy.end.await.unwrap_or_else(|panic| {
            Err(Failure::permanent("migration", "a worker ended unexpectedly")
                .because(panic)
                .hint("report this as a bug"))
        });
        self.migration.outcome.working_ms += self.task_began.elapsed().as_millis() as u64;
        let trigger = result.unwrap_or_else(Trigger::Failed);
        self.transition(trigger, None)
            .await?
            .map_err(|refused| Failure::permanent("migration", refused.to_string()))?;
        self.begin_task().await
    }

    /// Asks the workers to finish the chunk at hand, and takes what they still send.
    pub(super) async fn wind_down(&mut self, mut busy: Busy) -> Result<()> {
        busy.stop.cancel();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                messages = busy.messages() => match messages {
                    Some(messages) => self.take(messages).await?,
                    None => break,
                },
                // A statement that has begun is waited for: watchers see that it is.
                _ = tick.tick() => self.show().await?,
            }
        }
        // Its result is that it was stopped.
        let _ = busy.end.await;
        self.migration.outcome.working_ms += self.task_began.elapsed().as_millis() as u64;
        Ok(())
    }
}

/// The next messages of the task at hand, if there is one. Never completes while there is none.
pub(super) async fn next_messages(busy: &mut Option<Busy>) -> Option<Vec<Message>> {
    match busy {
        Some(busy) => busy.messages().await,
        None => std::future::pending().await,
    }
}
