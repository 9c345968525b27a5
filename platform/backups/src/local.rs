//! The backups of this host, and the work on them: one piece at a time, on tasks of its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use handover_engine::backup::{Backup, Shelf};
use handover_engine::failure::Failure;
use handover_engine::name::{BackupId, DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::ports::backups::{Backups, Order, Standing};
use handover_engine::time::Clock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::contents::Dataset;
use crate::make::{self, Wanted};
use crate::restore;
use crate::shelf::Directory;
use crate::tool::Tools;
use crate::work::{Steps, Work, blocking};

/// How soon what a restore has left is looked at again, at first and at last.
const AGAIN: Duration = Duration::from_secs(2);
const AT_LAST: Duration = Duration::from_secs(60);
/// How long work that was stopped is waited for.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Refuses a restore while that would not be safe.
pub type Guard = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// Tells which migrations of this host have not ended: what was backed up for them stays, however many backups there are.
pub type Running = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<MigrationId>>> + Send + Sync>;

/// What a host's backups are made of, and where they lie.
pub struct Setting {
    /// What can be backed up.
    pub datasets: Vec<Dataset>,
    /// Where backups lie.
    pub directory: PathBuf,
    /// How many are kept; all of them where nothing is said.
    pub keep: Option<usize>,
    /// The engines' programs.
    pub tools: Tools,
    /// Asked before anything is restored.
    pub guard: Guard,
    /// Asked before an old backup is removed.
    pub running: Running,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// The backups of this host.
#[derive(Clone)]
pub struct LocalBackups(Arc<Inner>);

struct Inner {
    setting: Setting,
    directory: Directory,
    jobs: Mutex<HashMap<Order, Job>>,
    /// Held by whoever works.
    turn: tokio::sync::Mutex<()>,
    /// A restore may have left something.
    left: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A piece of work.
struct Job {
    bytes: Arc<AtomicU64>,
    /// None while it goes on.
    ended: Option<Standing>,
    /// Ends it.
    stop: CancellationToken,
    /// It has ended, and nothing of it goes on.
    over: CancellationToken,
}

impl LocalBackups {
    /// What an earlier agent has left half made is removed, and a restore that was cut short is ended or taken back, as soon as that can be.
    /// Work ends with `stop`. In a runtime.
    pub fn new(setting: Setting, stop: CancellationToken) -> Result<Self> {
        let directory = Directory::new(setting.directory.clone());
        directory.clear()?;
        let inner = Arc::new(Inner {
            setting,
            directory,
            jobs: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            left: Notify::new(),
            stop,
            tasks: TaskTracker::new(),
        });
        inner.tasks.spawn(inner.clone().keep_settled());
        Ok(Self(inner))
    }

    /// The backup of a restore that goes on or was cut short, and is not settled.
    pub fn unsettled(&self) -> Result<Option<BackupId>> {
        Ok(self.0.directory.notes().all()?.into_iter().next().map(|note| note.backup))
    }

    /// Refuses (operator) while something is restored, waits to be, or was cut short and is not settled yet.
    pub fn refuse_while_restoring(&self) -> Result<()> {
        let restored = {
            let jobs = self.0.jobs();
            let mut restores = jobs
                .iter()
                .filter(|(order, job)| matches!(order, Order::Restore { .. }) && job.ended.is_none());
            restores.next().map(|(order, _)| order.id().clone())
        };
        let Some(id) = restored.map_or_else(|| self.unsettled(), |id| Ok(Some(id)))? else { return Ok(()) };
        let what = "it is being restored at this host: nothing is copied from there meanwhile";
        Err(Failure::operator(format!("backup {id}"), what)
            .hint("wait for its end (`handover audit` tells it; why it cannot end, the log of that host's agent), and resume or begin again then"))
    }

    /// Waits until nothing is worked on any more, after `stop`.
    pub async fn ended(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn jobs(&self) -> MutexGuard<'_, HashMap<Order, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be refused at once.
    fn look(&self, order: &Order) -> Result<()> {
        match order {
            Order::Make { id, datasets, .. } => {
                Directory::admits(id)?;
                self.chosen(datasets).map(drop)
            }
            Order::Verify { id } => self.directory.get(id).map(drop),
            Order::Restore { id, .. } => {
                (self.setting.guard)()?;
                self.directory.get(id).map(drop)
            }
        }
    }

    fn chosen(&self, names: &[DatasetName]) -> Result<Vec<&Dataset>> {
        if names.is_empty() {
            return Ok(self.setting.datasets.iter().collect());
        }
        let find = |name: &DatasetName| {
            self.setting.datasets.iter().find(|dataset| dataset.name == *name).ok_or_else(|| {
                Failure::operator(format!("dataset {name}"), "this host's manifest does not name it")
                    .hint("`handover inspect` lists the datasets of both hosts")
            })
        };
        names.iter().map(find).collect()
    }

    /// What a piece of work needs.
    fn work(&self, bytes: Arc<AtomicU64>, stop: CancellationToken) -> Result<Work> {
        let tools = self.setting.tools.clone();
        Ok(Work { tools, scratch: self.directory.scratch()?, bytes, stop, steps: Steps::default() })
    }

    /// Ends or takes back what restores have left, by itself, again and again until that is done: a server may be away for long.
    async fn keep_settled(self: Arc<Self>) {
        let mut pause = AGAIN;
        let settle = async {
            loop {
                let settled = {
                    let _turn = self.turn.lock().await;
                    let settled = self.settle(&self.setting.datasets.iter().collect::<Vec<_>>()).await;
                    settled.and_then(|()| self.refuse_unknown())
                };
                match settled {
                    Ok(()) => {
                        pause = AGAIN;
                        self.left.notified().await;
                    }
                    Err(failure) => {
                        tracing::warn!(%failure, "it is tried again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(AT_LAST);
                    }
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = settle => {}
        }
    }

    async fn settle(&self, datasets: &[&Dataset]) -> Result<()> {
        let notes = self.directory.notes();
        if notes.all()?.is_empty() {
            return Ok(());
        }
        let work = self.work(Arc::default(), self.stop.child_token())?;
        let _stop = work.stop.clone().drop_guard();
        restore::settle_all(datasets, &notes, &work).await
    }

    /// What is left of a restore keeps everything else from beginning: it must not be left without a word.
    fn refuse_unknown(&self) -> Result<()> {
        let known = |name: &DatasetName| self.setting.datasets.iter().any(|dataset| dataset.name == *name);
        let Some(note) = self.directory.notes().all()?.into_iter().find(|note| !known(&note.dataset)) else {
            return Ok(());
        };
        let what = format!(
            "the restore of backup {} was cut short, and this host's manifest no longer names it",
            note.backup
        );
        Err(Failure::operator(format!("dataset {}", note.dataset), what).hint(
            "nothing starts meanwhile: put its section back into appliance.toml and restart the agent, which ends the restore or takes it back",
        ))
    }

    /// Removes the oldest backups until no more are left than are to be kept.
    async fn thin_out(&self, newest: &Backup) -> Result<()> {
        let Some(keep) = self.setting.keep else { return Ok(()) };
        self.directory.thin_out(keep, newest, &(self.setting.running)().await?)
    }

    async fn carry_out(
        &self,
        order: &Order,
        bytes: Arc<AtomicU64>,
        stop: CancellationToken,
    ) -> Result<Standing> {
        let work = self.work(bytes, stop)?;
        // However this ends, what it has begun ends too.
        let _stop = work.stop.clone().drop_guard();
        match order {
            Order::Make { id, occasion, migration, datasets } => {
                self.settle(&self.chosen(datasets)?).await?;
                let backup = match self.directory.read(id)? {
                    Some(whole) => whole,
                    None => {
                        let now = self.setting.clock.now();
                        let (occasion, migration) = (*occasion, migration.as_ref());
                        let wanted = Wanted { id, occasion, migration, now, host: host_name() };
                        let backup =
                            make::make(&self.directory, &self.chosen(datasets)?, wanted, &work).await?;
                        tracing::info!(backup = %id, bytes = backup.bytes(), "a backup is made, and verified");
                        if let Err(failure) = self.thin_out(&backup).await {
                            tracing::warn!(%failure, "there are more backups than are to be kept");
                        }
                        backup
                    }
                };
                Ok(Standing::Made { backup: Box::new(backup) })
            }
            Order::Verify { id } => {
                let backup = self.directory.get(id)?;
                for kept in &backup.datasets {
                    make::verify(kept, &self.directory.place(id), &work).await?;
                }
                Ok(Standing::Verified { backup: Box::new(backup) })
            }
            Order::Restore { id, dataset } => {
                (self.setting.guard)()?;
                let backup = self.directory.get(id)?;
                self.settle(&self.chosen(dataset.as_slice())?).await?;
                let datasets = &self.setting.datasets;
                let restored =
                    restore::restore(&self.directory, datasets, &backup, dataset.as_ref(), &work).await;
                // Where that is so is looked at again soon.
                self.left.notify_one();
                Ok(Standing::Restored { datasets: restored? })
            }
        }
    }
}

fn stopped(order: &Order) -> Failure {
    Failure::transient(format!("backup {}", order.id()), "it was stopped")
}

/// The host's own name.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[async_trait]
impl Backups for LocalBackups {
    async fn begin(&self, order: &Order) -> Result<()> {
        self.0.look(order)?;
        let bytes = Arc::new(AtomicU64::new(0));
        let (stop, over) = (self.0.stop.child_token(), CancellationToken::new());
        {
            let mut jobs = self.0.jobs();
            if jobs.get(order).is_some_and(|job| job.ended.is_none()) {
                return Ok(());
            }
            let (stop, over) = (stop.clone(), over.clone());
            jobs.insert(order.clone(), Job { bytes: bytes.clone(), ended: None, stop, over });
        }
        let (inner, order) = (self.0.clone(), order.clone());
        self.0.tasks.spawn(async move {
            let _over = over.drop_guard();
            let work = async {
                let _turn = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(stopped(&order)),
                    turn = inner.turn.lock() => turn,
                };
                let mut carrying = pin!(inner.carry_out(&order, bytes, stop.child_token()));
                let done = tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    done = &mut carrying => Some(done),
                };
                if done.is_none() {
                    // What works on threads of its own is told, too, and ends at its next step.
                    let _ = tokio::time::timeout(ENDS_WITHIN, carrying).await;
                    // Nothing is left of it before somebody else has his turn.
                    if let Order::Make { id, .. } = &order {
                        inner.directory.give_up(id);
                    }
                }
                done.unwrap_or_else(|| Err(stopped(&order)))
            };
            let done = tokio::select! {
                biased;
                () = inner.stop.cancelled() => Err(Failure::transient("agent", "the agent is stopping")),
                done = work => done,
            };
            let ended = done.unwrap_or_else(|failure| {
                tracing::warn!(backup = %order.id(), %failure, "work on a backup was given up");
                Standing::Failed { failure }
            });
            if let Some(job) = inner.jobs().get_mut(&order) {
                job.ended = Some(ended);
            }
        });
        Ok(())
    }

    async fn standing(&self, order: &Order) -> Result<Standing> {
        let jobs = self.0.jobs();
        let Some(job) = jobs.get(order) else { return Ok(Standing::Unknown) };
        let running = || Standing::Running { bytes: job.bytes.load(Ordering::Relaxed) };
        Ok(job.ended.clone().unwrap_or_else(running))
    }

    async fn cancel(&self, order: &Order) -> Result<()> {
        if let Order::Restore { id, .. } = order {
            let what =
                "a restore goes on to its end: the data that it puts in place would be neither old nor new";
            return Err(Failure::operator(format!("backup {id}"), what).hint("wait for it"));
        }
        let over = match self.0.jobs().get(order) {
            Some(job) if job.ended.is_none() => {
                job.stop.cancel();
                job.over.clone()
            }
            _ => return Ok(()),
        };
        over.cancelled().await;
        Ok(())
    }

    async fn list(&self) -> Result<Shelf> {
        let directory = self.0.directory.clone();
        blocking("backups", move || directory.list()).await
    }
}
