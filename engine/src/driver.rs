//! The driver: one event loop that owns a migration's state. Workers send it messages, operators commands; it journals
//! before it acts or answers, and shows what it knows to watchers.

mod act;
mod back;
mod backing_up;
mod busy;
mod changed;
mod changing;
mod command;
mod cutting_over;
mod ending;
mod fitness;
mod fitting;
mod handle;
mod homecoming;
mod hooks;
mod keeping;
mod leases;
mod licensing;
mod live;
mod notice;
mod planned;
mod records;
mod replicating;
mod serving;
mod status;
mod steps;
mod tally;
mod task;
mod throttling;
mod transition;
mod trees;
mod trial;
mod verifying;
mod watchman;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use self::busy::next_messages;
pub use self::command::Command;
pub use self::handle::Handle;
use self::notice::Noticed;
use self::status::Seen;
pub use self::status::{Status, at_rest};
use crate::calendar::Calendar;
use crate::journal::{Holdings, Journal, Migration};
use crate::name::DatasetName;
use crate::pass::TargetDataset;
use crate::ports::scratch::Trials;
use crate::ports::{Credentials, Result, Source, Spools};
use crate::progress::Meter;
use crate::reserve::Reserve;
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

/// Owns one migration until `stop` or its final phase.
pub struct Driver {
    ports: Ports,
    settings: Settings,
    migration: Migration,
    meter: Meter,
    last_event: u64,
    seen: Seen,
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

impl Driver {
    /// A driver of `migration`, as the journal holds it, with the number of its last event.
    pub fn new(
        ports: Ports,
        settings: Settings,
        migration: Migration,
        last_event: u64,
        stop: CancellationToken,
    ) -> (Self, Handle) {
        let mut meter = steps::meter(&migration);
        let progress = meter.read();
        let (commands, inbox) = mpsc::channel(8);
        let (throttles, asked) = mpsc::channel(8);
        let (status, watch) = watch::channel(Status::of(&migration, last_event, progress.clone()));
        let throttle = migration.outcome.throttle.clone().unwrap_or_else(|| settings.throttle.clone());
        let driver = Self {
            gate: Gate::new(throttle, ports.clock.clone()),
            ports,
            settings,
            migration,
            meter,
            last_event,
            seen: Seen::default(),
            status,
            commands: inbox,
            throttles: asked,
            stop,
            task_began: Instant::now(),
            notices: JoinSet::new(),
            looks: JoinSet::new(),
        };
        driver.show_as_journaled(progress);
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
}
