//! The driver: one event loop that owns a migration's state. Workers send it messages, operators commands; it journals
//! before it acts or answers, and shows what it knows to watchers.

mod back;
mod backing_up;
mod changing;
mod ending;
mod fitness;
mod fitting;
mod handle;
mod hooks;
mod keeping;
mod licensing;
mod live;
mod notice;
mod planned;
mod records;
mod replicating;
mod tally;
mod task;
mod throttling;
mod trees;
mod trial;
mod verifying;
mod watchman;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

pub use self::handle::{Command, Handle, Status, at_rest};
use self::notice::Noticed;
use crate::calendar::Calendar;
use crate::failure::Failure;
use crate::follow::{Figures, TreeFigures};
use crate::journal::{Event, Holdings, Journal, Migration, Record};
use crate::name::DatasetName;
use crate::pass::{Desk, Message, TargetDataset, Work};
use crate::phase::{Operation, Phase, State, Task, Trigger};
use crate::plan::StepKind;
use crate::ports::scratch::Trials;
use crate::ports::{Credentials, Result, Source, Spools};
use crate::progress::{Amount, Meter, Progress};
use crate::report::{Back, When};
use crate::reserve::{Reserve, Room};
use crate::throttle::Throttle;
use crate::throttle::gate::Gate;
use crate::time::Clock;

/// What a driver works with.
#[derive(Clone)]
pub struct Ports {
    /// The source.
    pub source: Source,
    /// This host's own databases, for who follows them once they have taken over.
    pub here: Source,
    /// Where the datasets land.
    pub datasets: HashMap<DatasetName, TargetDataset>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// What the journal holds.
    pub holdings: Arc<dyn Holdings>,
    /// Where changes wait.
    pub spools: Arc<dyn Spools>,
    /// Where rows are tried, for a plan that has decisions about them.
    pub trials: Option<Trials>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The agents' certificates.
    pub credentials: Arc<dyn Credentials>,
}

/// How a driver behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Streams side by side.
    pub lanes: usize,
    /// How long a step is tried again by itself without getting on, before it fails.
    pub patience: Duration,
    /// How long a host waits for its peer after a reboot with swapped settings, before it takes its own back.
    pub swap_limit: Duration,
    /// How the source is throttled, until an operator says something else.
    pub throttle: Throttle,
    /// What is kept free of the disks.
    pub reserve: Reserve,
    /// What is planned for the appliance otherwise.
    pub calendar: Calendar,
}

impl Default for Settings {
    fn default() -> Self {
        let (throttle, reserve) = (Throttle::default(), Reserve::default());
        let calendar = Calendar::default();
        let (patience, swap_limit) = (Duration::from_secs(300), Duration::from_secs(120));
        Self { lanes: 4, patience, swap_limit, throttle, reserve, calendar }
    }
}

/// How often the status is renewed while work goes on.
const TICK: Duration = Duration::from_millis(100);
/// The shown share moves in steps of this size, each journaled before it is shown: a restart shows no less.
const SHOWN_STEP: f64 = 0.001;

/// Owns one migration until `stop` or its final phase.
pub struct Driver {
    ports: Ports,
    settings: Settings,
    migration: Migration,
    meter: Meter,
    last_event: u64,
    following: BTreeMap<DatasetName, Figures>,
    room: Option<Room>,
    following_trees: BTreeMap<DatasetName, TreeFigures>,
    status: watch::Sender<Status>,
    commands: mpsc::Receiver<Command>,
    throttles: mpsc::Receiver<throttling::Ask>,
    gate: Gate,
    stop: CancellationToken,
    task_began: Instant,
    /// Notices on their way.
    notices: JoinSet<Noticed>,
    /// Looks at what a planned cut-over needs, whose time has come.
    looks: JoinSet<Result<()>>,
}

/// The task being worked on.
struct Busy {
    messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
    end: tokio::task::JoinHandle<Result<Trigger>>,
}

impl Driver {
    /// A driver of `migration`, as the journal holds it, with the number of its last event.
    pub fn new(
        ports: Ports,
        settings: Settings,
        migration: Migration,
        last_event: u64,
        stop: CancellationToken,
    ) -> (Self, Handle) {
        let meter = Meter::new(task::steps(&migration), migration.shown);
        let (commands, inbox) = mpsc::channel(8);
        let (throttles, asked) = mpsc::channel(8);
        let throttle = migration.outcome.throttle.clone().unwrap_or_else(|| settings.throttle.clone());
        let gate = Gate::new(throttle, ports.clock.clone());
        let mut driver_status = Status {
            migration: migration.id.clone(),
            state: migration.state.clone(),
            allowed: handle::allowed(&migration),
            progress: Progress::default(),
            last_event,
            following: BTreeMap::new(),
            following_trees: BTreeMap::new(),
            cutover: migration.outcome.cutover,
            planned: migration.outcome.planned,
            throttle: None,
            room: None,
            differences: migration.outcome.known_differences(),
            kept: migration.outcome.kept.clone(),
            readiness: None,
        };
        let now = Instant::now();
        let (status, watch) = watch::channel(driver_status.clone());
        let mut driver = Self {
            ports,
            settings,
            migration,
            meter,
            last_event,
            following: BTreeMap::new(),
            room: None,
            following_trees: BTreeMap::new(),
            status,
            commands: inbox,
            throttles: asked,
            gate,
            stop,
            task_began: now,
            notices: JoinSet::new(),
            looks: JoinSet::new(),
        };
        driver_status.progress = driver.meter.read();
        // No more than is journaled: else the next status could show less.
        driver_status.progress.share = driver.migration.shown;
        driver_status.throttle = Some(driver.throttled());
        driver.status.send_replace(driver_status);
        (driver, Handle { commands, throttles, status: watch })
    }

    /// Runs until the migration has ended or `stop`. An error means that the journal cannot be written: nothing is
    /// acknowledged any more, and the agent must end.
    pub async fn run(mut self) -> Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut busy = self.begin_task().await?;
        self.give_owed_notice();
        while busy.is_some() || !self.migration.state.phase.is_final() {
            let due = self.until_due();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    if let Some(busy) = busy.take() { self.wind_down(busy).await?; }
                    return Ok(());
                }
                Some(command) = self.commands.recv() => busy = self.command(command, busy).await?,
                Some(ask) = self.throttles.recv() => self.set_throttle(ask).await?,
                Some(noticed) = self.notices.join_next() => self.take_noticed(noticed.ok()).await?,
                Some(looked) = self.looks.join_next() => busy = self.begin_planned(looked.ok(), busy).await?,
                () = sleep(due.unwrap_or_default()), if due.is_some() => self.look_ahead(),
                messages = next_messages(&mut busy) => match messages {
                    Some(messages) => self.take(messages).await?,
                    None => busy = self.end_task(busy.take()).await?,
                },
                _ = tick.tick(), if busy.is_some() => self.show().await?,
            }
        }
        Ok(())
    }

    /// Starts the workers of the task at hand, if there is one to work on.
    async fn begin_task(&mut self) -> Result<Option<Busy>> {
        let busy = self.migration.state.is_busy();
        let Some(task) = self.migration.state.task.filter(|_| busy) else { return Ok(None) };
        let (to, messages) = mpsc::channel(256);
        let stop = self.stop.child_token();
        let work = Work {
            migration: self.migration.id.clone(),
            pass: self.migration.pass,
            source: self.ports.source.clone(),
            holdings: self.ports.holdings.clone(),
            desk: Desk::new(to, stop.clone()),
            lanes: Arc::new(Semaphore::new(self.settings.lanes)),
            clock: self.ports.clock.clone(),
            throttle: throttling::gate_of(task, &self.gate),
        };
        self.meter = Meter::new(task::steps(&self.migration), self.migration.shown);
        self.recall_progress(task).await?;
        self.task_began = Instant::now();
        let tasks = task::Runner {
            work,
            datasets: self.ports.datasets.clone(),
            plan: self.migration.plan.clone(),
            done: self.migration.steps_done.clone(),
            patience: self.settings.patience,
            swap_limit: self.settings.swap_limit,
            differs: (task == Task::Pass && self.migration.outcome.differences_found > 0).into(),
            verified_passes: match task {
                Task::Pass => self.migration.outcome.verified_passes.clone(),
                _ => BTreeMap::new(),
            },
            spools: self.ports.spools.clone(),
            trials: self.ports.trials.clone(),
            here: self.ports.here.clone(),
            cutover: self.migration.outcome.cutover.unwrap_or_default(),
            reserve: self.settings.reserve,
            verifying: self.migration.outcome.verifying.clone(),
            alone: self.migration.outcome.alone,
        };
        Ok(Some(Busy { messages, stop, end: tokio::spawn(tasks.run(task)) }))
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
    async fn end_task(&mut self, busy: Option<Busy>) -> Result<Option<Busy>> {
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

    async fn command(&mut self, command: Command, busy: Option<Busy>) -> Result<Option<Busy>> {
        let Command { operation, terms, repair, by, answer } = command;
        let asked = Trigger::Asked(operation);
        if self.migration.state.next(asked.clone()).is_err() {
            let refused = self.transition(asked, Some(by)).await?;
            let _ = answer.send(refused.map_err(|r| self.explain(&r)));
            return Ok(busy);
        }
        let is_fit = self.refuse_unfit(operation, &terms);
        if let Err(refused) = self.look_at_calendar(operation, &terms).and(is_fit) {
            let _ = answer.send(Err(refused));
            return Ok(busy);
        }
        if operation == Operation::Cutover && matches!(terms.when, When::At(_) | When::Never) {
            self.set_time(terms, &by, answer).await?;
            return Ok(busy);
        }
        if operation == Operation::Verify
            && let Err(refused) = self.begin_verifying(repair)
        {
            let _ = answer.send(Err(refused));
            return Ok(busy);
        }
        if let Err(refused) = self.refuse_loss(operation, &terms) {
            let _ = answer.send(Err(refused));
            return Ok(busy);
        }
        if let Some(busy) = busy {
            self.wind_down(busy).await?;
        }
        if matches!(operation, Operation::Pause | Operation::Abort) {
            self.end_backups().await?;
        }
        // What was going on may have decided otherwise meanwhile: then it goes on.
        let is_fit = self.refuse_unfit(operation, &terms);
        if let Err(refused) = self.refuse_loss(operation, &terms).and(is_fit) {
            let _ = answer.send(Err(refused));
            return self.begin_task().await;
        }
        self.migration.outcome.alone |= operation == Operation::Abort && terms.alone;
        if operation == Operation::Cutover {
            self.set_terms(terms);
        }
        if let (Operation::Abort, true, Some(cutover)) =
            (operation, terms.discard, &mut self.migration.outcome.cutover)
        {
            cutover.back = Back::Ended;
        }
        let result = self.transition(asked, Some(by)).await?;
        // Whoever asked may have left; the state is journaled all the same.
        let _ = answer.send(result.map_err(|r| self.explain(&r)));
        self.begin_task().await
    }

    fn explain(&self, refused: &crate::phase::Refused) -> Failure {
        let allowed: Vec<&str> = self.migration.state.allowed().iter().map(|o| o.as_str()).collect();
        let hint = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        Failure::operator(format!("migration {}", self.migration.id), refused.to_string())
            .hint(format!("possible now: {hint}"))
    }

    /// Asks the workers to finish the chunk at hand, and takes what they still send.
    async fn wind_down(&mut self, mut busy: Busy) -> Result<()> {
        busy.stop.cancel();
        let mut batch = Vec::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                received = busy.messages.recv_many(&mut batch, 256) => match received {
                    0 => break,
                    _ => self.take(std::mem::take(&mut batch)).await?,
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

    /// Makes a transition: journaled first, then shown.
    async fn transition(
        &mut self,
        trigger: Trigger,
        by: Option<String>,
    ) -> Result<Result<State, crate::phase::Refused>> {
        // What verification found to differ is copied again: that is another pass.
        let is_mending = trigger == Trigger::Asked(Operation::Resume)
            && self.migration.state.task == Some(Task::Pass)
            && self.migration.outcome.differences_found > 0;
        let state = match self.migration.state.next(trigger) {
            Ok(state) => state,
            Err(refused) => return Ok(Err(refused)),
        };
        if state.phase == Phase::Aborting {
            self.migration.outcome.planned = None;
        }
        if state.task != Some(Task::VerifyLive) {
            self.migration.outcome.end_verifying();
        }
        let mut records = vec![Record::State(state.clone())];
        let new_task = state.task.is_some() && (state.task != self.migration.state.task || is_mending);
        if new_task {
            // What is opened at the source is opened for a pass: behind the fence it must be opened anew.
            self.migration.pass += u32::from(matches!(state.task, Some(Task::Pass | Task::CutOver)));
            records.push(Record::TaskBegun { pass: self.migration.pass });
            if !self.goes_on_as(&state) {
                self.migration.steps_done.clear();
            }
            records.extend(self.migration.steps_done.iter().cloned().map(Record::StepDone));
            self.migration.shown = 0.0;
            self.following.clear();
            self.room = None;
            self.following_trees.clear();
            if matches!(state.task, Some(Task::Pass | Task::Verify)) {
                self.migration.outcome.forget_verification();
            }
        }
        records.push(Record::Outcome(Box::new(self.migration.outcome.clone())));
        records.push(Record::Event(Event::State { state: state.clone(), by }));
        self.migration.state = state.clone();
        if new_task {
            // What the meter has seen is the task before: its share is not this one's.
            self.meter = Meter::new(task::steps(&self.migration), 0.0);
        } else if state.phase.is_final() {
            // As it will be shown once nobody drives it any more.
            self.meter = Meter::new(task::steps(&self.migration), self.migration.shown);
        }
        self.commit(&records).await?;
        self.show().await?;
        Ok(Ok(state))
    }

    async fn commit(&mut self, records: &[Record]) -> Result<()> {
        self.last_event += records.iter().filter(|r| matches!(r, Record::Event(_))).count() as u64;
        self.ports.journal.commit(&self.migration.id, self.ports.clock.now(), records).await
    }

    /// Renews what watchers see.
    async fn show(&mut self) -> Result<()> {
        let mut progress = self.meter.read();
        if progress.share >= self.migration.shown + SHOWN_STEP {
            self.migration.shown = progress.share;
            self.commit(&[Record::Shown(self.migration.shown)]).await?;
        }
        progress.share = self.migration.shown;
        self.status.send_replace(Status {
            migration: self.migration.id.clone(),
            state: self.migration.state.clone(),
            allowed: handle::allowed(&self.migration),
            progress,
            last_event: self.last_event,
            following: self.following.clone(),
            following_trees: self.following_trees.clone(),
            cutover: self.migration.outcome.cutover,
            planned: self.migration.outcome.planned,
            throttle: Some(self.throttled()),
            room: self.room.clone(),
            differences: self.migration.outcome.known_differences(),
            kept: self.migration.outcome.kept.clone(),
            readiness: None,
        });
        Ok(())
    }

    /// Takes messages: one journal transaction for all their records, then the answers to those who wait for it.
    async fn take(&mut self, messages: Vec<Message>) -> Result<()> {
        let mut records = Vec::new();
        let mut flushed = Vec::new();
        let mut is_told = false;
        for message in messages {
            // What is told at the end: a crash must not forget it once the step that found it is done.
            is_told |= matches!(
                message,
                Message::LeftOut(_)
                    | Message::CopyBegins(_)
                    | Message::Verified(..)
                    | Message::Cutover(_)
                    | Message::Checked(..)
                    | Message::RepairBegins(_)
                    | Message::VerifyingEnds(_)
                    | Message::BackedUp(_)
                    | Message::Kept { .. }
                    | Message::Fitted(..)
            );
            match message {
                Message::Records(more) => records.extend(more),
                Message::Flush(done) => flushed.push(done),
                Message::Following(dataset, figures) => drop(self.following.insert(dataset, figures)),
                Message::Room(room) => self.room = Some(room),
                Message::FollowingTree(dataset, figures) => {
                    self.following_trees.insert(dataset, figures);
                }
                other => records.extend(tally::count(other, &mut self.migration.outcome, &mut self.meter)),
            }
        }
        if is_told {
            records.push(Record::Outcome(Box::new(self.migration.outcome.clone())));
        }
        for record in &records {
            if let Record::Event(Event::StepStarted { step }) = record
                && let Some(step) = self.meter.step(step)
            {
                step.start();
            }
            if let Record::StepDone(step) = record {
                self.migration.steps_done.push(step.clone());
                if let Some(step) = self.meter.step(step) {
                    step.finish();
                }
            }
        }
        if !records.is_empty() {
            self.commit(&records).await?;
        }
        for done in flushed {
            // A worker that no longer waits has been stopped.
            let _ = done.send(());
        }
        Ok(())
    }
}

/// The next messages of the workers, several at once when they wait; `None` when the last worker has ended. Never
/// completes while there is no task.
async fn next_messages(busy: &mut Option<Busy>) -> Option<Vec<Message>> {
    let Some(busy) = busy else { return std::future::pending().await };
    let mut batch = Vec::new();
    (busy.messages.recv_many(&mut batch, 256).await > 0).then_some(batch)
}
