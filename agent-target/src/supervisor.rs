//! The target's answer to operators and watchers: makes plans, starts drivers, and knows every migration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::check::{Finding, Severity, compare, holds_data};
use handover_engine::driver::{Driver, Handle, Ports, Settings, Status};
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::journal::{Event, Holdings, Journal, Logged, Migration, Record};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::pass::TargetDataset;
use handover_engine::phase::{Operation, State};
use handover_engine::plan::{ApprovedPlan, Options, Plan, Rates};
use handover_engine::ports::{Answers, Result, Source, SourceHost};
use handover_engine::report::{Made, Outcome, Report, Terms};
use handover_engine::throttle::Change;
use handover_engine::time::Clock;
use handover_platform::SystemClock;
use handover_platform::spool::SpoolDirectory;
use handover_platform::store::Store;
use handover_transport::client::RemoteSource;
use handover_transport::control::{Control, Seen};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::datasets::LocalDatasets;
use crate::notary::Notary;

/// Bytes that are sent to measure the way to the source before a plan is made.
const PROBE: u64 = 16 << 20;
/// Bytes per second that readers and loaders reach where the link is faster.
const HOST_RATE: f64 = 150e6;
/// Bytes per second at which a target's data is read again.
const REREAD_RATE: f64 = 600e6;
/// The least of a digest that names a plan.
const DIGEST_PREFIX: usize = 8;
/// Events that a watcher gets at once.
const EVENTS: u32 = 256;
/// Entries of the audit log that are sent at once.
const ENTRIES: u32 = 1000;

/// The target agent's brain.
pub struct Supervisor {
    /// For work that goes on when its caller leaves.
    me: Weak<Self>,
    notary: Notary,
    source: Arc<RemoteSource>,
    datasets: LocalDatasets,
    store: Store,
    spools: Arc<SpoolDirectory>,
    settings: Settings,
    stop: CancellationToken,
    running: Mutex<HashMap<MigrationId, Handle>>,
    drivers: TaskTracker,
    broken: Mutex<Option<Failure>>,
}

impl Supervisor {
    /// Made at start; `stop` ends everything.
    pub fn new(
        notary: Notary,
        source: Arc<RemoteSource>,
        datasets: LocalDatasets,
        store: Store,
        spools: SpoolDirectory,
        settings: Settings,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let spools = Arc::new(spools);
        let (running, drivers, broken) = (Mutex::default(), TaskTracker::new(), Mutex::default());
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            notary,
            source,
            datasets,
            store,
            spools,
            settings,
            stop,
            running,
            drivers,
            broken,
        })
    }

    /// The agent ends, and says why.
    pub fn give_up(&self, failure: Failure) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.stop.cancel();
    }

    /// Journals a new migration, and runs it.
    async fn take_on(&self, migration: Migration, by: String) -> Result<()> {
        // What can be refused is refused before anything is journaled.
        self.datasets.of(&migration.id)?;
        self.store.create(&migration).await?;
        let driven = async {
            let event = Event::State { state: migration.state.clone(), by: Some(by.clone()) };
            self.store.commit(&migration.id, SystemClock.now(), &[Record::Event(event)]).await?;
            tracing::info!(migration = %migration.id, plan = %migration.digest.short(), by, "a migration starts");
            self.drive(migration).await
        };
        // Journaled, and nobody would drive it: whoever starts the agent again takes it up.
        driven.await.inspect_err(|failure| self.give_up(failure.clone()))
    }

    /// Takes up every migration that has not ended.
    pub async fn carry_on(&self) -> Result<()> {
        let mut migrations = self.store.migrations().await?;
        for ended in migrations.extract_if(.., |migration| migration.state.phase.is_final()) {
            // The agent ended before it had signed it.
            if !self.notary.has(&ended.id) {
                self.keep_report(&ended.id).await;
            }
        }
        let names: Vec<MigrationId> = migrations.iter().map(|migration| migration.id.clone()).collect();
        self.spools.keep_only(&names)?;
        self.datasets.keep_only(&names);
        for migration in migrations {
            tracing::info!(migration = %migration.id, state = %migration.state, "taking up a migration");
            self.drive(migration).await?;
        }
        Ok(())
    }

    /// Waits until all drivers have ended, after `stop`. An error when one had to end because its journal cannot be written.
    pub async fn ended(&self) -> Result<()> {
        self.drivers.close();
        self.drivers.wait().await;
        match self.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<MigrationId, Handle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive(&self, migration: Migration) -> Result<()> {
        let id = migration.id.clone();
        let here = self.datasets.here(&id)?;
        let ports = Ports {
            source: Source::of(self.source.clone()),
            here: Source::of(here.source.clone()),
            datasets: self.datasets.of(&id)?,
            journal: Arc::new(self.store.clone()),
            holdings: Arc::new(self.store.clone()),
            spools: self.spools.clone(),
            clock: Arc::new(SystemClock),
        };
        show_hidden(&ports.datasets).await;
        let last = self.store.last_event(&id).await?;
        let settings = self.settings.clone();
        let (driver, handle) = Driver::new(ports, settings, migration, last, self.stop.child_token());
        self.table().insert(id.clone(), handle);
        let (me, stop) = (self.me.clone(), self.stop.clone());
        self.drivers.spawn(async move {
            let run = driver.run();
            let watch =
                async { tokio::join!(here.source.end_stale_leases(), here.source.end_stale_captures()) };
            let done = tokio::select! {
                done = run => done,
                _ = watch => Ok(()),
            };
            if done.is_ok() && !stop.is_cancelled() {
                // The migration has ended. What cannot be removed now is when the agent starts.
                let _ = std::fs::remove_dir_all(here.directory);
                if let Some(me) = me.upgrade() {
                    me.keep_report(&id).await;
                }
            }
            if let Err(failure) = done {
                // Without a journal nothing may be acknowledged: the agent ends, and whoever starts it again sees why.
                tracing::error!(migration = %id, %failure, "the journal cannot be written: the agent ends");
                if let Some(me) = me.upgrade() {
                    me.give_up(failure);
                }
            }
        });
        Ok(())
    }

    /// Both inventories; the source is greeted first, so that another protocol version is refused by name.
    async fn both(&self) -> Result<(Inventory, Inventory)> {
        self.source.hello().await?;
        let (source, target) = tokio::join!(self.source.inspect(), self.datasets.inspect(&SystemClock));
        Ok((source?, target?))
    }

    async fn findings(&self, options: &Options) -> Result<Vec<Finding>> {
        // Asked before the walks, which take as long as they take.
        let skew_ms = self.skew().await?;
        let (source, target) = self.both().await?;
        Ok(compare(&source, &target, skew_ms, options))
    }

    /// How far the source's clock is ahead of this host's, in milliseconds: its answer is taken to be of the middle of the question's
    /// way there and back (RFC 5905, section 8, with one of the two times).
    async fn skew(&self) -> Result<i64> {
        self.source.hello().await?;
        // The connection stands now: its making does not count.
        let asked = SystemClock.now().millis();
        let (_, there) = self.source.hello().await?;
        let answered = SystemClock.now().millis();
        Ok(there - (asked + answered) / 2)
    }

    /// The way to the source, rounded down to a power of two, so that the same hosts make the same plan.
    async fn rates(&self) -> Result<Rates> {
        let (bytes, time) = self.source.probe(PROBE).await?;
        let link = (bytes as f64 / time.as_secs_f64().max(1e-6)).max(1.0);
        Ok(Rates { copy: 2_f64.powf(link.log2().floor()).min(HOST_RATE), reread: REREAD_RATE })
    }

    async fn kept_plan(&self, digest: &str) -> Result<Plan> {
        let item = format!("plan {digest}");
        if digest.len() < DIGEST_PREFIX {
            let what = format!("give at least the first {DIGEST_PREFIX} digits of its digest");
            return Err(Failure::operator(item, what));
        }
        let mut plans = self.store.find_plans(digest).await?;
        match (plans.pop(), plans.is_empty()) {
            (Some(plan), true) => Ok(plan),
            (Some(_), false) => Err(Failure::operator(item, "several plans begin so: give more digits")),
            (None, _) => Err(Failure::operator(item, "this target has made no such plan")
                .hint("run `handover plan` and start the digest it prints")),
        }
    }

    /// Refuses a target that holds data, unless the plan says that it is replaced.
    fn refuse_occupied(plan: &Plan, target: &Inventory) -> Result<()> {
        if plan.options.overwrite {
            return Ok(());
        }
        for name in plan.datasets() {
            if target.datasets.iter().any(|d| d.name == *name && holds_data(&d.facts)) {
                return Err(Failure::operator(
                    format!("dataset {name}"),
                    "the target holds data of it already",
                )
                .hint(
                    "plan with --overwrite to replace it (abort brings it back until finalize), or empty it",
                ));
            }
        }
        Ok(())
    }

    fn begin(&self, approved: &ApprovedPlan, by: &str) -> Result<Migration> {
        let now = SystemClock.now();
        let stamp: String = now.to_string().chars().filter(char::is_ascii_digit).take(14).collect();
        let noise = handover_engine::digest::Digest::of(
            format!("{}{}{:?}", self.notary.identity(), approved.digest(), now).as_bytes(),
        );
        let id = format!("m-{stamp}-{}", &noise.short()[..4]);
        Ok(Migration {
            id: id.parse().map_err(|e| Failure::permanent("migration", "cannot be named").because(e))?,
            plan: approved.plan().clone(),
            digest: approved.digest(),
            started_by: by.to_owned(),
            started_at: now,
            state: State::started(),
            steps_done: Vec::new(),
            pass: 1,
            shown: 0.0,
            outcome: Outcome::default(),
        })
    }

    fn handle(&self, id: &MigrationId) -> Option<Handle> {
        self.table().get(id).cloned()
    }

    /// The way to a migration that has not ended.
    async fn driven(&self, id: &MigrationId, operation: Operation) -> Result<Handle> {
        let migration = self.migration(id).await?;
        self.handle(id).filter(|_| !migration.state.phase.is_final()).ok_or_else(|| {
            let what = format!("{operation} is not possible: it is {}", migration.state);
            Failure::operator(format!("migration {id}"), what).hint("possible now: nothing")
        })
    }

    async fn migration(&self, id: &MigrationId) -> Result<Migration> {
        let all = self.store.migrations().await?;
        all.into_iter().find(|m| m.id == *id).ok_or_else(|| {
            Failure::operator(format!("migration {id}"), "this target has no such migration")
                .hint("`handover list` names those it has")
        })
    }

    /// Signs the last report of a migration and keeps it. One that cannot be kept now is when the agent starts.
    async fn keep_report(&self, id: &MigrationId) {
        let kept = self.signed_report(id).await.and_then(|document| self.notary.keep(id, &document));
        if let Err(failure) = kept {
            tracing::warn!(migration = %id, %failure, "its signed report is not kept");
        }
    }

    /// All that has happened.
    async fn history(&self, id: &MigrationId) -> Result<Vec<Logged>> {
        let mut all: Vec<Logged> = Vec::new();
        loop {
            let after = all.last().map_or(0, |logged| logged.seq);
            let more = self.store.events(id, after, EVENTS).await?;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    async fn status(&self, migration: Migration) -> Result<Status> {
        if let Some(handle) = self.handle(&migration.id) {
            return Ok(handle.status().borrow().clone());
        }
        let last_event = self.store.last_event(&migration.id).await?;
        Ok(handover_engine::driver::at_rest(migration, last_event))
    }
}

#[async_trait]
impl Control for Supervisor {
    async fn inspect(&self) -> Result<(Inventory, Inventory)> {
        self.both().await
    }

    async fn check(&self, options: Options) -> Result<Vec<Finding>> {
        match self.findings(&options).await {
            Ok(findings) => Ok(findings),
            Err(failure) => {
                let what = failure
                    .causes
                    .iter()
                    .fold(failure.what.clone(), |text, cause| format!("{text}: {cause}"));
                Ok(vec![Finding::new(Severity::Error, failure.item, what, failure.hint)])
            }
        }
    }

    async fn plan(&self, options: Options, _by: &str) -> Result<Plan> {
        let (source, target) = self.both().await?;
        let rates = self.rates().await?;
        let name = self.source.identity();
        let plan = Plan::make((&name, &source), (&self.notary.identity(), &target), options, &rates)?;
        self.store.keep_plan(&plan).await?;
        Ok(plan)
    }

    async fn start(&self, digest: &str, by: &str) -> Result<MigrationId> {
        let plan = self.kept_plan(digest).await?;
        let (source, target) = self.both().await?;
        plan.still_holds(&source, &target)?;
        Self::refuse_occupied(&plan, &target)?;
        let digest = plan.digest();
        let migration = self.begin(&plan.approve(digest)?, by)?;
        let id = migration.id.clone();
        let stopping = || Failure::transient("agent", "the agent is stopping");
        let (me, by) = (self.me.upgrade().ok_or_else(stopping)?, by.to_owned());
        // On a task of its own: a client that goes away meanwhile must not leave it half begun.
        let begun = tokio::spawn(async move { me.take_on(migration, by).await });
        begun.await.map_err(|_| stopping())??;
        Ok(id)
    }

    async fn list(&self) -> Result<Vec<Status>> {
        let mut out = Vec::new();
        for migration in self.store.migrations().await? {
            out.push(self.status(migration).await?);
        }
        Ok(out)
    }

    async fn watch(&self, id: &MigrationId, after: u64) -> Result<Answers<Seen>> {
        let migration = self.migration(id).await?;
        let (to, seen) = mpsc::channel(16);
        let store = self.store.clone();
        let Some(handle) = self.handle(id) else {
            let status = self.status(migration).await?;
            let id = id.clone();
            tokio::spawn(async move {
                let mut cursor = after;
                if send_events(&store, &id, &mut cursor, &to).await {
                    let _ = to.send(Ok(Seen::Status(Box::new(status)))).await;
                }
            });
            return Ok(tokio_stream::wrappers::ReceiverStream::new(seen).boxed());
        };
        let (id, mut status) = (id.clone(), handle.status());
        tokio::spawn(async move {
            let mut cursor = after;
            loop {
                let now = status.borrow_and_update().clone();
                let last = now.state.phase.is_final();
                // Events first: whoever sees a status has seen what led to it.
                if now.last_event > cursor && !send_events(&store, &id, &mut cursor, &to).await {
                    return;
                }
                if to.send(Ok(Seen::Status(Box::new(now)))).await.is_err()
                    || last
                    || status.changed().await.is_err()
                {
                    return;
                }
            }
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(seen).boxed())
    }

    async fn act(&self, id: &MigrationId, operation: Operation, terms: Terms, by: &str) -> Result<Status> {
        let handle = self.driven(id, operation).await?;
        handle.ask(operation, terms, by).await?;
        tracing::info!(migration = %id, %operation, by, "an operation was asked for");
        let status = handle.status().borrow().clone();
        Ok(status)
    }

    async fn throttle(&self, id: &MigrationId, change: Change, by: &str) -> Result<Status> {
        let migration = self.migration(id).await?;
        let Some(handle) = self.handle(id).filter(|_| !migration.state.phase.is_final()) else {
            let what = format!("nothing is read for it any more: it is {}", migration.state);
            return Err(Failure::operator(format!("migration {id}"), what)
                .hint("[throttle] in the target's configuration is for the next one"));
        };
        handle.throttle(change, by).await?;
        tracing::info!(migration = %id, by, "throttling was changed");
        let status = handle.status().borrow().clone();
        Ok(status)
    }

    async fn verify(&self, id: &MigrationId, repair: bool, by: &str) -> Result<Status> {
        let handle = self.driven(id, Operation::Verify).await?;
        handle.verify(repair, by).await?;
        tracing::info!(migration = %id, repair, by, "a verification was asked for");
        let status = handle.status().borrow().clone();
        Ok(status)
    }

    async fn report(&self, id: &MigrationId) -> Result<Report> {
        let migration = self.migration(id).await?;
        let mut sums = std::collections::BTreeMap::new();
        for dataset in migration.plan.datasets() {
            sums.insert(dataset.clone(), self.store.sums(id, dataset).await?);
        }
        // Events first: what is in them has been written down.
        let events = self.history(id).await?;
        let (by, at) = (self.notary.identity(), SystemClock.now());
        let audit = self.store.audit_head().await?;
        Ok(Report::of(&migration, sums).with_history(events).made(Made { by, at, audit }))
    }

    async fn signed_report(&self, id: &MigrationId) -> Result<Vec<u8>> {
        self.notary.sign(&self.report(id).await?)
    }

    async fn audit(&self, after: u64) -> Result<Vec<String>> {
        self.store.audit(after, ENTRIES).await
    }

    async fn probe(&self, bytes: u64, _by: &str) -> Result<(u64, Duration)> {
        self.source.probe(bytes).await
    }
}

/// Gives files that were being changed when the agent ended their names back, whatever state the migration is in: a paused or
/// failed one does not prepare its trees before it is resumed.
async fn show_hidden(datasets: &HashMap<DatasetName, TargetDataset>) {
    for (dataset, target) in datasets {
        if let TargetDataset::Tree(tree) = target
            && let Err(failure) = tree.recover().await
        {
            // The next pass tries it again, and then it is the operator's to see.
            tracing::warn!(%dataset, %failure, "a file that was being changed is still hidden");
        }
    }
}

/// Sends all events after the cursor and moves it; false when the watcher has gone or the journal cannot be read.
async fn send_events(
    store: &Store,
    id: &MigrationId,
    cursor: &mut u64,
    to: &mpsc::Sender<Result<Seen>>,
) -> bool {
    loop {
        let events = match store.events(id, *cursor, EVENTS).await {
            Ok(events) => events,
            Err(failure) => {
                let _ = to.send(Err(failure)).await;
                return false;
            }
        };
        let Some(last) = events.last() else { return true };
        *cursor = last.seq;
        for event in events {
            if to.send(Ok(Seen::Event(event))).await.is_err() {
                return false;
            }
        }
    }
}
