//! The target's answer to operators and watchers: makes plans, starts drivers, and knows every migration.

mod backing_up;
mod looking;
mod readiness;
mod rehearsing;
mod reporting;
mod restoring;
mod starting;
mod terminating;
mod watching;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::backup::{Host, Shelf};
use handover_engine::check::{Finding, Severity};
use handover_engine::driver::{Driver, Handle, Ports, Settings, Status};
use handover_engine::expiry::Expiry;
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::journal::{Journal, Migration};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::pass::TargetDataset;
use handover_engine::phase::Operation;
use handover_engine::plan::{Options, Plan};
use handover_engine::ports::backups::{Order, Standing, Wanted};
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::{Answers, Result, Source};
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::report::RehearsalReport;
use handover_engine::report::{Report, Terms};
use handover_engine::throttle::Change;
use handover_platform::SystemClock;
use handover_platform::backups::LocalBackups;
use handover_platform::spool::SpoolDirectory;
use handover_platform::store::Store;
use handover_transport::client::RemoteSource;
use handover_transport::control::{Control, Rehearsing, Seen};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::readiness::AgentsOf;
use crate::datasets::LocalDatasets;
use crate::notary::Notary;

/// Entries of the audit log that are sent at once.
const ENTRIES: u32 = 1000;

/// The target agent's brain.
pub struct Supervisor {
    /// For work that goes on when its caller leaves.
    me: Weak<Self>,
    notary: Notary,
    source: Arc<RemoteSource>,
    datasets: LocalDatasets,
    backups: LocalBackups,
    /// Restores that were begun, so that nothing starts meanwhile.
    restores: tokio::sync::Mutex<Vec<(Host, Order)>>,
    /// What an abort has kept is removed by one call at a time.
    terminating: tokio::sync::Mutex<()>,
    store: Store,
    spools: Arc<SpoolDirectory>,
    settings: Settings,
    stop: CancellationToken,
    running: Mutex<HashMap<MigrationId, Handle>>,
    drivers: TaskTracker,
    broken: Mutex<Option<Failure>>,
    /// What migrations need that ends one day, as their hosts told when they were started.
    expiries: Mutex<HashMap<MigrationId, Vec<Expiry>>>,
}

impl Supervisor {
    /// Made at start; `stop` ends everything.
    #[expect(clippy::too_many_arguments, reason = "what an agent is made of, put together in one place")]
    pub fn new(
        notary: Notary,
        source: Arc<RemoteSource>,
        datasets: LocalDatasets,
        backups: LocalBackups,
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
            backups,
            restores: tokio::sync::Mutex::default(),
            terminating: tokio::sync::Mutex::default(),
            store,
            spools,
            settings,
            stop,
            running,
            drivers,
            broken,
            expiries: Mutex::default(),
        })
    }

    /// The agent ends, and says why.
    pub fn give_up(&self, failure: Failure) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.stop.cancel();
    }

    /// Takes up every migration that has not ended.
    pub async fn carry_on(self: &Arc<Self>) -> Result<()> {
        self.take_up_restores().await?;
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
        // One that fits rows goes on with what was tried.
        if !migrations.iter().any(rehearsing::fits) {
            let rehearsals = self.datasets.rehearsals();
            self.drivers.spawn(async move { rehearsals.recover().await });
        }
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
        let (trials, fitted) = match rehearsing::fits(&migration) {
            true => self.datasets.trials(&id).map(|(trials, fitted)| (Some(trials), Some(fitted)))?,
            false => (None, None),
        };
        let ports = Ports {
            source: Source::of(self.source.clone())
                .with_home(self.source.clone())
                .with_hooks(self.source.clone())
                .with_licences(self.source.clone())
                .with_changeover(Changeover::of(self.source.clone()))
                .with_backups(self.source.clone()),
            here: Source::of(here.source.clone())
                .with_hooks(self.datasets.hooks())
                .with_licences(here.source.licence())
                .with_changeover(self.datasets.changeover())
                .with_backups(Arc::new(self.backups.clone())),
            datasets: self.datasets.of(&id)?,
            journal: Arc::new(self.store.clone()),
            holdings: Arc::new(self.store.clone()),
            spools: self.spools.clone(),
            trials,
            clock: Arc::new(SystemClock),
            credentials: Arc::new(AgentsOf(self.me.clone())),
        };
        show_hidden(&ports.datasets).await;
        let last = self.store.last_event(&id).await?;
        let settings = self.settings.clone();
        let (driver, handle) = Driver::new(ports, settings, migration, last, self.stop.child_token());
        self.table().insert(id.clone(), handle);
        let (me, stop) = (self.me.clone(), self.stop.clone());
        self.drivers.spawn(async move {
            let run = driver.run();
            let watch = async {
                let fitted = async {
                    match &fitted {
                        Some(fitted) => fitted.end_stale_leases().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::join!(here.source.end_stale_leases(), here.source.end_stale_captures(), fitted)
            };
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

    async fn status(&self, migration: Migration) -> Result<Status> {
        // What is kept of one that has ended is not its driver's any more.
        let is_over = migration.state.phase.is_final();
        if let Some(handle) = self.handle(&migration.id).filter(|_| !is_over) {
            return Ok(self.shown(handle.status().borrow().clone()));
        }
        let last_event = self.store.last_event(&migration.id).await?;
        Ok(self.shown(handover_engine::driver::at_rest(migration, last_event)))
    }
}

#[async_trait]
impl Control for Supervisor {
    async fn inspect(&self) -> Result<(Inventory, Inventory)> {
        self.both().await
    }

    async fn check(&self, options: Options) -> Result<Vec<Finding>> {
        match self.findings(&options).await {
            Ok(mut findings) => {
                findings.extend(self.unready_to_start());
                findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
                Ok(findings)
            }
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
        self.start_plan(digest, by).await
    }

    async fn list(&self) -> Result<Vec<Status>> {
        let mut out = Vec::new();
        for migration in self.store.migrations().await? {
            out.push(self.status(migration).await?);
        }
        Ok(out)
    }

    async fn watch(&self, id: &MigrationId, after: u64) -> Result<Answers<Seen>> {
        self.seen(id, after).await
    }

    async fn act(&self, id: &MigrationId, operation: Operation, terms: Terms, by: &str) -> Result<Status> {
        if operation == Operation::Terminate {
            return self.remove_kept(id, by).await;
        }
        let handle = self.driven(id, operation).await?;
        self.refuse_expired(id, operation, &terms).await?;
        handle.ask(operation, terms, by).await?;
        tracing::info!(migration = %id, %operation, by, "an operation was asked for");
        let status = handle.status().borrow().clone();
        Ok(self.shown(status))
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
        Ok(self.shown(status))
    }

    async fn verify(&self, id: &MigrationId, repair: bool, by: &str) -> Result<Status> {
        let handle = self.driven(id, Operation::Verify).await?;
        handle.verify(repair, by).await?;
        tracing::info!(migration = %id, repair, by, "a verification was asked for");
        let status = handle.status().borrow().clone();
        Ok(self.shown(status))
    }

    async fn report(&self, id: &MigrationId) -> Result<Report> {
        self.report_now(id).await
    }

    async fn signed_report(&self, id: &MigrationId) -> Result<Vec<u8>> {
        self.notary.sign(&self.report_now(id).await?)
    }

    async fn audit(&self, after: u64) -> Result<Vec<String>> {
        self.store.audit(after, ENTRIES).await
    }

    async fn rehearse(&self, decisions: Decisions, keep: bool, by: &str) -> Result<Answers<Rehearsing>> {
        self.begin_rehearsal(decisions, keep, by).await
    }

    async fn rehearsal(&self) -> Result<RehearsalReport> {
        self.datasets.rehearsals().last_report()
    }

    async fn begin_backups(&self, host: Host, wanted: Wanted, by: &str) -> Result<Order> {
        self.begin_backup_work(host, wanted, by).await
    }

    async fn backups_standing(&self, host: Host, order: &Order) -> Result<Standing> {
        self.backups_of(host).standing(order).await
    }

    async fn backups(&self, host: Host) -> Result<Shelf> {
        self.backups_of(host).list().await
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
