//! What the target's manifest declares: where datasets land, and what stands there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::inventory::{DatabaseFacts, Dataset, DatasetFacts, Inventory, TreeFacts};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::pass::TargetDataset;
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::hooks::Hooks;
use handover_engine::ports::scratch::Trials;
use handover_engine::ports::{Licences, Result, Source, TreeReader};
use handover_engine::time::Clock;
use handover_platform::SystemClock;
use handover_platform::access::{self, Side};
use handover_platform::changeover::LocalChangeover;
use handover_platform::database::Place;
use handover_platform::hooks;
use handover_platform::manifest::{FilesSection, Manifest};
use handover_platform::source::{CaptureLimits, LocalSource, inventory, place, unreadable};
use handover_platform::tree::{FileTree, Filter};

use crate::rehearsals::Rehearsals;

/// How long a snapshot of this host's databases is held open that nobody reads any more.
const LEASE: Duration = Duration::from_secs(120);

/// This host's databases as a source.
pub struct Here {
    /// They.
    pub source: Arc<LocalSource>,
    /// The agent's files of them.
    pub directory: PathBuf,
}

/// The target's datasets.
pub struct LocalDatasets {
    manifest: Manifest,
    /// Where the agent's files of its own databases are, by migration.
    here: PathBuf,
    /// How much these databases keep for a source that follows them.
    capture_bytes: u64,
    /// One for all: its hooks run one after another.
    hooks: Arc<dyn Hooks>,
    /// What it does to itself.
    changeover: Changeover,
    rehearsals: Arc<Rehearsals>,
}

fn filter(section: &FilesSection) -> Result<Filter> {
    Filter::new(&section.include, &section.exclude)
}

impl LocalDatasets {
    /// What `manifest` declares; a bad glob is refused now, not when it is first needed.
    pub fn new(manifest: Manifest, state: &Path, capture_bytes: u64) -> Result<Self> {
        manifest.trees().iter().try_for_each(|section| filter(section).map(drop))?;
        let hooks = hooks::of_target(&manifest, Arc::new(SystemClock));
        let rehearsals = Arc::new(Rehearsals::new(&manifest, state.to_owned())?);
        let changeover = LocalChangeover::new(&manifest, state, Side::Target, Arc::new(SystemClock)).ports();
        Ok(Self { manifest, here: state.join("here"), capture_bytes, hooks, changeover, rehearsals })
    }

    /// The places where `migration` lands.
    pub fn of(&self, migration: &MigrationId) -> Result<HashMap<DatasetName, TargetDataset>> {
        let mut out = HashMap::new();
        for section in &self.manifest.database {
            let target = place(section)?.target(section.name.clone(), migration);
            out.insert(section.name.clone(), TargetDataset::Database(target));
        }
        for section in &self.manifest.trees() {
            let tree =
                FileTree::target(section.name.clone(), section.root.clone(), filter(section)?, migration);
            let tree = if section.is_log { tree.of_logs() } else { tree };
            out.insert(section.name.clone(), TargetDataset::Tree(Arc::new(tree)));
        }
        Ok(out)
    }

    /// This host's databases, to be followed once they have taken over for `migration`.
    pub fn here(&self, migration: &MigrationId) -> Result<Here> {
        let directory = self.here.join(migration.as_str());
        let failed = |error| {
            Failure::operator(directory.display().to_string(), "cannot be made")
                .because(error)
                .hint("is the state directory writable?")
        };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let limits = CaptureLimits { bytes: self.capture_bytes, ..CaptureLimits::default() };
        let source = LocalSource::new(
            &self.manifest,
            &directory,
            LEASE,
            limits,
            Arc::new(SystemClock),
            Changeover::default(),
        )?;
        Ok(Here { source, directory })
    }

    /// Where a migration tries rows that brings databases into their schemas here. Also what its leases are watched by.
    pub fn trials(&self, migration: &MigrationId) -> Result<(Trials, Arc<LocalSource>)> {
        let directory = self.here.join(migration.as_str()).join("fitted");
        let fitted = LocalSource::fitted(&self.manifest, &directory, LEASE, Arc::new(SystemClock))?;
        Ok((self.rehearsals.trials(Source::of(fitted.clone()))?, fitted))
    }

    /// Rehearsals of this host's databases.
    pub fn rehearsals(&self) -> Arc<Rehearsals> {
        self.rehearsals.clone()
    }

    /// This host's hooks.
    pub fn hooks(&self) -> Arc<dyn Hooks> {
        self.hooks.clone()
    }

    /// What this host does to itself when it is changed over.
    pub fn changeover(&self) -> Changeover {
        self.changeover.clone()
    }

    /// Removes what [`Self::here`] has made for other migrations, which have ended.
    pub fn keep_only(&self, migrations: &[MigrationId]) {
        let is_over =
            |name: &std::ffi::OsStr| !migrations.iter().any(|id| name.to_str() == Some(id.as_str()));
        for entry in std::fs::read_dir(&self.here).into_iter().flatten().flatten() {
            if is_over(&entry.file_name())
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "what is left of a migration is not removed");
            }
        }
    }

    /// Where files and databases in files land.
    pub fn places(&self) -> Result<Vec<PathBuf>> {
        let mut out: Vec<PathBuf> = self.manifest.files.iter().map(|section| section.root.clone()).collect();
        for section in &self.manifest.database {
            if let Place::Sqlite(path) = place(section)? {
                out.push(path);
            }
        }
        Ok(out)
    }

    /// What stands on this host now. A dataset that is not there yet is an empty one.
    pub async fn inspect(&self, clock: &dyn Clock) -> Result<Inventory> {
        let nobody = MigrationId::nobody();
        let mut datasets = Vec::new();
        for section in &self.manifest.database {
            let place = place(section)?;
            let (engine, location) = (place.engine().to_owned(), place.location());
            let empty = DatabaseFacts { engine, location, ..DatabaseFacts::default() };
            let name = section.name.clone();
            let mut findings = access::of_making(&place, &name).await;
            let facts = match place.target(name.clone(), &nobody).occupied().await {
                Ok(facts) => DatasetFacts::Database(facts.unwrap_or(empty)),
                Err(failure) => {
                    access::keep_errors(&mut findings);
                    unreadable("database", &failure)
                }
            };
            let offers = access::offers(&place, &name).await;
            let returning = access::of_returning(&place, &name, Side::Target).await;
            let (following, excluded) = (Vec::new(), Vec::new());
            let is_log = false;
            datasets.push(Dataset { name, facts, findings, following, returning, offers, excluded, is_log });
        }
        for section in &self.manifest.trees() {
            let facts = self.tree(section).await?;
            let findings = access::of_making_files(&section.root, &section.name);
            let name = section.name.clone();
            let (following, returning, excluded) = (Vec::new(), Vec::new(), Vec::new());
            let (offers, is_log) = (None, section.is_log);
            datasets.push(Dataset { name, facts, findings, following, returning, offers, excluded, is_log });
        }
        let licence = self.manifest.local_licence(&self.here).standing().await?;
        let hooks = hooks::HookDirectory::new(&self.manifest, hooks::Side::Target).findings();
        let changeover = self.changeover.facts().await?;
        inventory(self.manifest.facts(), datasets, licence, changeover, hooks, clock).await
    }

    async fn tree(&self, section: &FilesSection) -> Result<DatasetFacts> {
        let root = section.root.display().to_string();
        if !section.root.exists() {
            return Ok(DatasetFacts::Files(TreeFacts { root, ..TreeFacts::default() }));
        }
        let tree = FileTree::reader(section.name.clone(), section.root.clone(), filter(section)?);
        Ok(tree.facts().await.map_or_else(|failure| unreadable("files", &failure), DatasetFacts::Files))
    }
}
