//! The source's side of the ports on this host: what its manifest declares, and the snapshots held open under leases.

mod ahead;
mod captures;
mod declared;
mod fenced;
mod follow;
mod home;
mod inventory;
mod leases;
mod restoring;
mod rows;
mod signals;
mod trees;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::inventory::{ApplianceFacts, Inventory};
use handover_engine::name::{DatasetName, LeaseId};
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::{Database, Followed, Licences, Opened, Parts, Result, SourceHost};
use handover_engine::reserve::{Disk, LogKept};
use handover_engine::rows::Schema;
use handover_engine::throttle;
use handover_engine::time::Clock;

use self::ahead::Ahead;
pub use self::captures::CaptureLimits;
use self::captures::Captures;
use self::declared::Declared;
pub use self::declared::place;
use self::home::Homes;
pub use self::inventory::{inventory, unreadable};
use self::leases::Leases;
use self::signals::Signals;
use crate::backups::Guard;
use crate::database::Place;
use crate::hooks::HookDirectory;
use crate::licence::LocalLicence;
use crate::manifest::{DatabaseSection, Manifest};

/// The source on this host.
pub struct LocalSource {
    appliance: ApplianceFacts,
    datasets: Vec<Declared>,
    /// Where private copies of databases are made.
    scratch: PathBuf,
    leases: Leases,
    captures: Captures,
    clock: Arc<dyn Clock>,
    signals: Signals,
    ahead: Ahead,
    /// Where its trees are.
    roots: Vec<PathBuf>,
    licence: LocalLicence,
    changeover: Changeover,
    homes: Homes,
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
        Ok(Arc::new(Self {
            appliance: manifest.facts(),
            datasets: declared::all(manifest, |place, section| read(place, section, &scratch))?,
            scratch,
            leases: Leases::new(lease),
            captures: Captures::open(state, limits, clock.clone())?,
            signals: Signals::default(),
            ahead: Ahead::new(clock.clone()),
            clock,
            roots: manifest.files.iter().map(|section| section.root.clone()).collect(),
            licence: manifest.local_licence(state),
            changeover,
            homes: Homes::default(),
            hooks: HookDirectory::new(manifest, crate::hooks::Side::Source),
            guard: OnceLock::new(),
        }))
    }

    /// Its licence.
    pub fn licence(&self) -> Arc<dyn Licences> {
        Arc::new(self.licence.clone())
    }

    /// Ends leases that are not renewed, until dropped. Run it as long as the source serves.
    pub async fn end_stale_leases(&self) {
        self.leases.watch().await;
    }
}

#[async_trait]
impl SourceHost for LocalSource {
    async fn inspect(&self) -> Result<Inventory> {
        let mut datasets = Vec::with_capacity(self.datasets.len());
        for declared in &self.datasets {
            datasets.push(self.look(declared).await);
        }
        let licence = self.licence.standing().await?;
        let changeover = self.changeover.facts().await?;
        let hooks = self.hooks.findings();
        inventory(self.appliance.clone(), datasets, licence, changeover, hooks, &*self.clock).await
    }

    async fn open(&self, lease: &LeaseId, dataset: &DatasetName, wanted: Parts) -> Result<Opened> {
        let known = self.database(dataset)?;
        let open = || async move {
            self.may_be_read()?;
            known.database.snapshot().await
        };
        let opened = self.leases.open(lease, dataset, open).await?;
        let snapshot = opened.id();
        if let Some(schema) = self.leases.schema(lease, &snapshot) {
            // The lease was only renewed: the tables are cut once.
            return Ok(Opened { snapshot, schema: Schema::clone(&schema) });
        }
        let mut schema = opened.schema().clone();
        if wanted == Parts::Cut {
            let cut = rows::cut(&*opened, &mut schema).await;
            cut.inspect_err(|_| self.leases.give_up(lease, &snapshot))?;
        }
        self.leases.keep_schema(lease, &snapshot, Arc::new(schema.clone()));
        Ok(Opened { snapshot, schema })
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

/// Logs that contents were served, for those who count what is sent twice.
fn served(dataset: &DatasetName, chunk: &str, bytes: u64) {
    if crate::names_chunks() {
        let at_ms = crate::SystemClock.now().millis();
        tracing::debug!(target: "handover::served", %dataset, chunk, bytes, at_ms, "served");
    }
}

/// Logs that contents were read and are what the target has, for those who count what is read twice.
fn compared(dataset: &DatasetName, chunk: &str, bytes: u64) {
    if crate::names_chunks() {
        tracing::debug!(target: "handover::served::same", %dataset, chunk, bytes, "compared");
    }
}
