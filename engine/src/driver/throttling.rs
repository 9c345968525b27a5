//! Throttling while a task is worked on: the source's signals, once a second, and what operators change.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Driver, Handle};
use crate::failure::Failure;
use crate::journal::{Event, Record};
use crate::pass::Work;
use crate::phase::Task;
use crate::ports::Result;
use crate::throttle::gate::Gate;
use crate::throttle::{Change, Throttled};

/// How often the source is asked for its signals.
const LOOK: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// An operator's change.
#[derive(Debug)]
pub(super) struct Ask {
    change: Change,
    by: String,
    answer: oneshot::Sender<()>,
}

impl Handle {
    /// Changes how the source is throttled; returns once it is journaled and kept to.
    pub async fn throttle(&self, change: Change, by: &str) -> Result<()> {
        let (answer, wait) = oneshot::channel();
        let gone = || Failure::transient("migration", "the agent is stopping");
        let ask = Ask { change, by: by.to_owned(), answer };
        self.throttles.send(ask).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
    }
}

impl Driver {
    /// Journals a change, then keeps to it.
    pub(super) async fn set_throttle(&mut self, ask: Ask) -> Result<()> {
        let Ask { change, by, answer } = ask;
        let own = self.settings.throttle.clone();
        let before = if change.reset { None } else { self.migration.outcome.throttle.take() };
        let now = before.unwrap_or_else(|| own.clone()).with(&change);
        let text = format!("{now}, says {by}");
        // What the configuration says need not be kept: it may say something else some day.
        let is_own = change.reset && now == own;
        self.migration.outcome.throttle = (!is_own).then(|| now.clone());
        let event = Event::Note { item: "throttle".to_owned(), text };
        self.commit(&[Record::Outcome(Box::new(self.migration.outcome.clone())), Record::Event(event)])
            .await?;
        self.gate.set(now);
        self.show().await?;
        // Whoever asked may have left; it is journaled all the same.
        let _ = answer.send(());
        Ok(())
    }

    /// What watchers see of it. Only what copies or follows is held back.
    pub(super) fn throttled(&self) -> Throttled {
        let shown = self.gate.shown();
        let is_held = self.migration.state.is_busy() && self.migration.state.task.is_some_and(is_throttled);
        if is_held { shown } else { Throttled { settings: shown.settings, ..Throttled::default() } }
    }
}

/// Whether a task is throttled. A cut-over is not: writers wait for it.
pub(super) fn is_throttled(task: Task) -> bool {
    matches!(task, Task::Pass | Task::Follow | Task::VerifyLive)
}

/// Keeps the gate to the source's signals, until dropped.
pub(super) async fn attend(work: &Work) -> Failure {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let told = timeout(PATIENCE, work.source.host.signals(work.throttle.shown().rate)).await;
        let told =
            told.unwrap_or_else(|_| Err(Failure::transient("source", "it did not tell its load in time")));
        if let Err(failure) = &told {
            tracing::debug!(%failure, "the source's load is not known");
        }
        work.throttle.step(told.ok());
    }
}

/// Tells the source the rate of a task before it begins: none for a cut-over, whatever was kept to before.
pub(super) async fn tell(work: &Work) {
    let told = timeout(PATIENCE, work.source.host.signals(work.throttle.shown().rate)).await;
    if let Ok(Err(failure)) = told {
        tracing::debug!(%failure, "the source does not know how it is throttled");
    }
}

/// The gate of a task.
pub(super) fn gate_of(task: Task, gate: &Gate) -> Gate {
    if is_throttled(task) { gate.clone() } else { Gate::default() }
}
