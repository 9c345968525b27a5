//! The source's side of the ports on this host: what its manifest declares, and the snapshots held open under leases.

mod ahead;
mod captures;
mod fenced;
mod follow;
mod leases;
mod restoring;
mod signals;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::changeover::Facts;
use handover_engine::check::Finding;
use handover_engine::failure::Failure;
use handover_engine::follow::capture_id;
use handover_engine::inventory::{ApplianceFacts, Dataset, DatasetFacts, Inventory};
use handover_engine::licence::Standing;
use handover_engine::name::{DatasetName, LeaseId, MigrationId};
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::gauge::Gauge;
use handover_engine::ports::{
    Answers, ChangeSource, Database, DatabaseSnapshot, Direction, FencedDatabase, Followed, Licences,
    LiveDatabase, Opened, Parts, Result, RowSource, SourceHost, TreeReader, TreeSource,
};
use handover_engine::reserve::{Disk, LogKept};
use handover_engine::rows::{HeldChunk, KeyRange, RowsChunk, RowsRequest, RowsWanted, Schema, TableName};
use handover_engine::throttle;
use handover_engine::time::Clock;
use handover_engine::tree::{
    Changed, Cursor, Entry, FileRequest, PackChunk, PackRequest, PackedFile, Segment, Spots,
};
use tokio::sync::mpsc;

use self::ahead::Ahead;
pub use self::captures::CaptureLimits;
use self::captures::Captures;
use self::leases::Leases;
use self::signals::Signals;
use crate::access::{self, Side};
use crate::backups::Guard;
use crate::database::Place;
use crate::hooks::HookDirectory;
use crate::licence::LocalLicence;
use crate::manifest::{DatabaseSection, Manifest};
use crate::tree::{FileTree, Filter};

/// A table of more than this is cut into parts of about this size, which are copied side by side…
const PART_BYTES: u64 = 32 << 20;
/// …but into no more than this many.
const MOST_PARTS: usize = 64;
/// Chunks read ahead of the one being sent.
const AHEAD: usize = 1;

/// A dataset that can be read.
#[derive(Clone)]
enum Readable {
    Database(Box<Known>),
    Tree(Arc<dyn TreeReader>),
}

/// A database that can be read.
#[derive(Clone)]
struct Known {
    place: Place,
    database: Arc<dyn Database>,
    live: Arc<dyn LiveDatabase>,
    fenced: Arc<dyn FencedDatabase>,
    gauge: Arc<dyn Gauge>,
    /// Held by whoever puts its fence up or takes it away.
    fencing: Arc<tokio::sync::Mutex<()>>,
}

/// The source on this host.
pub struct LocalSource {
    appliance: ApplianceFacts,
    datasets: Vec<(DatasetName, Readable)>,
    scratch: PathBuf,
    by_name: HashMap<DatasetName, usize>,
    leases: Leases,
    captures: Captures,
    clock: Arc<dyn Clock>,
    signals: Signals,
    ahead: Ahead,
    /// Where its trees are.
    roots: Vec<PathBuf>,
    licence: LocalLicence,
    changeover: Changeover,
    /// What its manifest leaves out, by dataset.
    excluded: HashMap<DatasetName, Vec<String>>,
    /// Only looked at.
    hooks: HookDirectory,
    /// Asked before something is opened to be read.
    guard: OnceLock<Guard>,
}

impl LocalSource {
    /// What `manifest` declares. Private copies of databases are made in `scratch` below `state`; those of an earlier run are
    /// removed. A lease that is not renewed for `lease` ends.
    pub fn new(
        manifest: &Manifest,
        state: &Path,
        lease: Duration,
        limits: CaptureLimits,
        clock: Arc<dyn Clock>,
        changeover: Changeover,
    ) -> Result<Arc<Self>> {
        let read = |place: &Place, section: &DatabaseSection, scratch: &Path| {
            place.database(section.name.clone(), section.exclude.clone(), scratch.to_owned())
        };
        Self::reading(manifest, state, lease, limits, clock, changeover, read)
    }

    /// The databases that `manifest` declares, as they would be with the rows that were tried beside them.
    pub fn fitted(
        manifest: &Manifest,
        state: &Path,
        lease: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        let (limits, changeover) = (CaptureLimits::default(), Changeover::default());
        let read = |place: &Place, section: &DatabaseSection, scratch: &Path| {
            place.fitted(section.name.clone(), scratch.to_owned())
        };
        Self::reading(manifest, state, lease, limits, clock, changeover, read)
    }

    fn reading(
        manifest: &Manifest,
        state: &Path,
        lease: Duration,
        limits: CaptureLimits,
        clock: Arc<dyn Clock>,
        changeover: Changeover,
        read: impl Fn(&Place, &DatabaseSection, &Path) -> Arc<dyn Database>,
    ) -> Result<Arc<Self>> {
        let scratch = state.join("scratch");
        crate::sqlite::remove_stale_copies(&scratch)?;
        let mut datasets = Vec::new();
        for section in &manifest.database {
            let (name, exclude) = (section.name.clone(), section.exclude.clone());
            let place = place(section)?;
            let database = read(&place, section, &scratch);
            let live = place.live(name.clone(), exclude);
            let gauge = place.gauge(name.clone());
            let fenced = place.fenced(name.clone());
            datasets.push((
                name,
                Readable::Database(Box::new(Known {
                    place,
                    database,
                    live,
                    fenced,
                    gauge,
                    fencing: Arc::default(),
                })),
            ));
        }
        for section in manifest.trees() {
            let filter = Filter::new(&section.include, &section.exclude)?;
            let tree = FileTree::reader(section.name.clone(), section.root.clone(), filter);
            let tree = if section.is_log { tree.of_logs() } else { tree };
            datasets.push((section.name.clone(), Readable::Tree(Arc::new(tree))));
        }
        let by_name = datasets.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        let leases = Leases::new(lease);
        let captures = Captures::open(state, limits, clock.clone())?;
        let appliance = manifest.facts();
        let databases = manifest.database.iter().map(|section| (&section.name, &section.exclude));
        let trees = manifest.files.iter().map(|section| (&section.name, &section.exclude));
        let excluded =
            databases.chain(trees).map(|(name, exclude)| (name.clone(), exclude.clone())).collect();
        let roots = manifest.files.iter().map(|section| section.root.clone()).collect();
        let hooks = HookDirectory::new(manifest, crate::hooks::Side::Source);
        let (signals, ahead) = (Signals::default(), Ahead::new(clock.clone()));
        Ok(Arc::new(Self {
            appliance,
            datasets,
            scratch,
            by_name,
            leases,
            captures,
            clock,
            signals,
            ahead,
            roots,
            licence: manifest.local_licence(state),
            changeover,
            excluded,
            hooks,
            guard: OnceLock::new(),
        }))
    }

    /// Its licence.
    pub fn licence(&self) -> Arc<dyn Licences> {
        Arc::new(self.licence.clone())
    }

    /// Lets writers in again wherever they are fenced off for a migration: its maintenance is over.
    pub async fn lift_fences(&self, migration: &MigrationId) -> Result<()> {
        for (dataset, readable) in &self.datasets {
            let capture = capture_id(migration, dataset, Direction::Forth)?;
            if matches!(readable, Readable::Database(_)) && self.captures.is_fenced(dataset, &capture) {
                self.unfence(dataset, &capture).await?;
            }
        }
        Ok(())
    }

    /// Ends leases that are not renewed, until dropped. Run it as long as the source serves.
    pub async fn end_stale_leases(&self) {
        self.leases.watch().await;
    }

    async fn look(&self, name: &DatasetName, readable: &Readable) -> Dataset {
        let (declared, facts) = match readable {
            Readable::Database(known) => {
                ("database", known.database.facts().await.map(DatasetFacts::Database))
            }
            Readable::Tree(tree) => ("files", tree.facts().await.map(DatasetFacts::Files)),
        };
        let mut findings = match readable {
            Readable::Database(known) => access::of_reading(&known.place, name, &self.scratch).await,
            Readable::Tree(_) => access::of_reading_files(name),
        };
        let facts_are_known = facts.is_ok();
        if !facts_are_known {
            access::keep_errors(&mut findings);
        }
        let facts = facts.unwrap_or_else(|failure| unreadable(declared, &failure));
        let following = match readable {
            Readable::Database(known) if facts_are_known => access::of_following(&known.place, name).await,
            _ => Vec::new(),
        };
        let returning = match readable {
            Readable::Database(known) if facts_are_known => {
                access::of_returning(&known.place, name, Side::Source).await
            }
            _ => Vec::new(),
        };
        let excluded = self.excluded.get(name).cloned().unwrap_or_default();
        Dataset { name: name.clone(), facts, findings, following, returning, offers: None, excluded }
    }

    fn unknown(name: &DatasetName) -> Failure {
        Failure::operator(format!("dataset {name}"), "the source's manifest does not name it")
            .hint("has the source's appliance.toml been changed? make a new plan")
    }

    fn database(&self, name: &DatasetName) -> Result<Arc<dyn Database>> {
        match self.by_name.get(name).map(|at| &self.datasets[*at].1) {
            Some(Readable::Database(known)) => Ok(known.database.clone()),
            _ => Err(Self::unknown(name)),
        }
    }

    fn tree(&self, name: &DatasetName) -> Result<Arc<dyn TreeReader>> {
        match self.by_name.get(name).map(|at| &self.datasets[*at].1) {
            Some(Readable::Tree(tree)) => Ok(tree.clone()),
            _ => Err(Self::unknown(name)),
        }
    }
}

/// Where a database is; a manifest that was read has been checked for it.
pub fn place(section: &DatabaseSection) -> Result<Place> {
    section.place().map_err(|problem| Failure::operator(format!("dataset {}", section.name), problem))
}

/// What an inventory says of a dataset that could not be read.
pub fn unreadable(declared: &str, failure: &Failure) -> DatasetFacts {
    // The hint stands by itself.
    let what = format!("{}: {}", failure.item, failure.what);
    let problem = failure.causes.iter().fold(what, |text, cause| format!("{text}: {cause}"));
    DatasetFacts::Unreadable { declared: declared.to_owned(), problem, hint: failure.hint.clone() }
}

#[async_trait]
impl SourceHost for LocalSource {
    async fn inspect(&self) -> Result<Inventory> {
        let mut datasets = Vec::with_capacity(self.datasets.len());
        for (name, readable) in &self.datasets {
            datasets.push(self.look(name, readable).await);
        }
        let licence = self.licence.standing().await?;
        let changeover = self.changeover.facts().await?;
        let hooks = self.hooks.findings();
        inventory(self.appliance.clone(), datasets, licence, changeover, hooks, &*self.clock).await
    }

    async fn open(&self, lease: &LeaseId, dataset: &DatasetName, wanted: Parts) -> Result<Opened> {
        let database = self.database(dataset)?;
        let open = || async move {
            self.may_be_read()?;
            database.snapshot().await
        };
        let snapshot = self.leases.open(lease, dataset, open).await?;
        if let Some(schema) = self.leases.schema(lease, &snapshot.id()) {
            // The lease was only renewed: the tables are cut once.
            return Ok(Opened { snapshot: snapshot.id(), schema: Schema::clone(&schema) });
        }
        let mut schema = snapshot.schema().clone();
        for table in schema.tables.iter_mut().filter(|_| wanted == Parts::Cut) {
            let parts =
                usize::try_from(table.estimated_bytes / PART_BYTES).unwrap_or(MOST_PARTS).min(MOST_PARTS);
            if parts > 1 {
                let cuts = snapshot.split(&table.name, parts).await;
                table.cuts = cuts.inspect_err(|_| self.leases.give_up(lease, &snapshot.id()))?;
            }
        }
        self.leases.keep_schema(lease, &snapshot.id(), Arc::new(schema.clone()));
        Ok(Opened { snapshot: snapshot.id(), schema })
    }

    async fn close(&self, lease: &LeaseId) -> Result<()> {
        self.leases.close(lease);
        Ok(())
    }

    async fn room(&self, followed: Vec<Followed>) -> Result<(Vec<Disk>, BTreeMap<DatasetName, LogKept>)> {
        self.look_at_room(followed).await
    }

    async fn signals(&self, rate: Option<u64>) -> Result<Vec<throttle::Reading>> {
        self.ahead.set(rate);
        self.load().await
    }
}

/// An inventory of this host.
pub async fn inventory(
    appliance: ApplianceFacts,
    datasets: Vec<Dataset>,
    licence: Standing,
    changeover: Facts,
    hooks: Vec<Finding>,
    clock: &dyn Clock,
) -> Result<Inventory> {
    let host = tokio::task::spawn_blocking(crate::host::facts).await;
    Ok(Inventory {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at: clock.now(),
        appliance: ApplianceFacts { licence: licence.guid().map(str::to_owned), ..appliance },
        host: host.map_err(|e| Failure::transient("host", "its facts could not be read").because(e))?,
        datasets,
        licence,
        changeover,
        hooks,
    })
}

#[async_trait]
impl RowSource for LocalSource {
    async fn rows(&self, request: RowsRequest) -> Result<Answers<RowsChunk>> {
        let lease = self.leases.renewed(&request.lease);
        let Some((dataset, snapshot)) = lease.filter(|(_, snapshot)| snapshot.id() == request.snapshot)
        else {
            return Err(Failure::transient(
                format!("snapshot {}", request.snapshot.0),
                "the source no longer holds it (its lease has ended, or the agent was restarted)",
            )
            .hint("the copy goes on from a new snapshot by itself"));
        };
        let (to, chunks) = mpsc::channel(AHEAD);
        let leases = self.leases.clone();
        tokio::spawn(async move {
            let reading =
                Reading { dataset, snapshot, table: request.table, budget: request.budget.max(1), to };
            let renew = || drop(leases.renewed(&request.lease));
            let result = match request.wanted {
                RowsWanted::Range(range) => reading.range(range, renew).await,
                RowsWanted::Recheck(held) => reading.recheck(held, renew).await,
            };
            if let Err(failure) = result {
                // It may be lost with its connections: the next try is to find a new one, and to compare what is held.
                leases.give_up(&request.lease, &reading.snapshot.id());
                // The receiver may have gone: then nobody wants to know.
                let _ = reading.to.send(Err(failure)).await;
            }
        });
        let chunks = tokio_stream::wrappers::ReceiverStream::new(chunks).boxed();
        Ok(self.ahead.held(chunks, |chunk| chunk.header.bytes))
    }
}

/// One request for rows, being answered.
struct Reading {
    dataset: DatasetName,
    snapshot: Arc<dyn DatabaseSnapshot>,
    table: TableName,
    budget: u64,
    to: mpsc::Sender<Result<RowsChunk>>,
}

impl Reading {
    /// Sends a chunk; false when nobody wants more.
    async fn send(&self, chunk: RowsChunk) -> bool {
        let Some(name) = (!chunk.header.unchanged).then(|| chunk.header.range.after.clone()) else {
            return self.to.send(Ok(chunk)).await.is_ok();
        };
        let bytes = chunk.header.bytes;
        let key =
            name.map(|key| key.0.iter().map(|b| format!("{b:02x}")).collect::<String>()).unwrap_or_default();
        served(&self.dataset, &format!("table/{} after {key}", self.table.name), bytes);
        self.to.send(Ok(chunk)).await.is_ok()
    }

    async fn range(&self, mut range: KeyRange, renew: impl Fn()) -> Result<()> {
        loop {
            let chunk = self.snapshot.read(&self.table, &range, self.budget).await?;
            renew();
            let until = chunk.header.range.until.clone();
            let last = until == range.until;
            if !self.send(chunk).await || last {
                return Ok(());
            }
            range.after = until;
        }
    }

    /// Reads each held chunk again: one that is the same goes without its rows, one that is not goes as what is there
    /// now, cut anew where it has grown.
    async fn recheck(&self, held: Vec<HeldChunk>, renew: impl Fn() + Copy) -> Result<()> {
        for held in held {
            let budget = self.budget.max(held.bytes.saturating_add(1));
            let mut chunk = self.snapshot.read(&self.table, &held.range, budget).await?;
            renew();
            let whole = chunk.header.range == held.range;
            if whole && chunk.header.digest == held.digest {
                chunk.header.unchanged = true;
                chunk.block = bytes::Bytes::new();
            }
            let until = chunk.header.range.until.clone();
            if !self.send(chunk).await {
                return Ok(());
            }
            if !whole {
                self.range(KeyRange { after: until, until: held.range.until }, renew).await?;
            }
        }
        Ok(())
    }
}

/// Logs that contents were served, for those who count what is sent twice.
fn served(dataset: &DatasetName, chunk: &str, bytes: u64) {
    if crate::names_chunks() {
        let at_ms = crate::SystemClock.now().millis();
        tracing::debug!(target: "handover::served", %dataset, chunk, bytes, at_ms, "served");
    }
}

#[async_trait]
impl TreeSource for LocalSource {
    async fn scan(&self, dataset: &DatasetName) -> Result<Answers<Vec<Entry>>> {
        self.may_be_read()?;
        Ok(self.tree(dataset)?.scan())
    }

    async fn scan_at(&self, dataset: &DatasetName, spots: &Spots) -> Result<Answers<Vec<Entry>>> {
        self.may_be_read()?;
        Ok(self.tree(dataset)?.scan_at(spots))
    }

    async fn changed(&self, dataset: &DatasetName, since: Option<Cursor>, wait: Duration) -> Result<Changed> {
        self.tree(dataset)?.changed(since, wait).await
    }

    async fn pack(&self, request: PackRequest) -> Result<PackChunk> {
        let pack = self.tree(&request.dataset)?.pack(request.files.clone()).await?;
        for file in &pack.files {
            if let PackedFile::Contents { entry, len, .. } | PackedFile::Tail { entry, len, .. } = file {
                served(&request.dataset, &format!("file/{}", entry.path), *len);
            }
        }
        Ok(pack)
    }

    async fn file(&self, request: FileRequest) -> Result<Answers<Segment>> {
        let (dataset, path) = (request.dataset.clone(), request.path.clone());
        let segments = self.tree(&dataset)?.file(request);
        let segments = self.ahead.held(segments, |segment| segment.data.len() as u64);
        let logged = segments.inspect(move |segment| {
            if let Ok(segment) = segment
                && !segment.data.is_empty()
            {
                served(&dataset, &format!("file/{path}@{}", segment.offset), segment.data.len() as u64);
            }
        });
        Ok(logged.boxed())
    }
}
