//! The datasets that a manifest declares, ready to be read.

use std::sync::Arc;

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::gauge::Gauge;
use handover_engine::ports::{Database, FencedDatabase, LiveDatabase, Result, TreeReader};

use super::LocalSource;
use crate::database::Place;
use crate::manifest::{DatabaseSection, FilesSection, Manifest};
use crate::tree::{FileTree, Filter};

/// A dataset that a manifest declares.
pub(super) struct Declared {
    pub name: DatasetName,
    /// What the manifest leaves out of it.
    pub excluded: Vec<String>,
    /// Its files are logs.
    pub is_log: bool,
    pub readable: Readable,
}

/// What can be read.
pub(super) enum Readable {
    Database(Box<Known>),
    Tree(Box<KnownTree>),
}

/// A tree that can be read, and written to once the source has been replaced.
pub(super) struct KnownTree {
    pub section: FilesSection,
    pub reader: Arc<dyn TreeReader>,
}

/// A database that can be read.
pub(super) struct Known {
    pub place: Place,
    pub database: Arc<dyn Database>,
    pub live: Arc<dyn LiveDatabase>,
    pub fenced: Arc<dyn FencedDatabase>,
    pub gauge: Arc<dyn Gauge>,
    /// Held by whoever changes its fence, or what stands behind it.
    pub fencing: Arc<tokio::sync::Mutex<()>>,
}

/// All that `manifest` declares; `read` says how a database is read.
pub(super) fn all(
    manifest: &Manifest,
    read: impl Fn(&Place, &DatabaseSection) -> Arc<dyn Database>,
) -> Result<Vec<Declared>> {
    let databases = manifest.database.iter().map(|section| {
        let place = place(section)?;
        let database = read(&place, section);
        Ok(of_database(section, place, database))
    });
    databases.chain(manifest.trees().iter().map(of_tree)).collect()
}

fn of_database(section: &DatabaseSection, place: Place, database: Arc<dyn Database>) -> Declared {
    let (name, excluded) = (section.name.clone(), section.exclude.clone());
    let known = Known {
        database,
        live: place.live(name.clone(), excluded.clone()),
        fenced: place.fenced(name.clone()),
        gauge: place.gauge(name.clone(), section.replica()),
        fencing: Arc::default(),
        place,
    };
    Declared { name, excluded, is_log: false, readable: Readable::Database(Box::new(known)) }
}

fn of_tree(section: &FilesSection) -> Result<Declared> {
    let filter = Filter::new(&section.include, &section.exclude)?;
    let tree = FileTree::reader(section.name.clone(), section.root.clone(), filter);
    let tree = if section.is_log { tree.of_logs() } else { tree };
    Ok(Declared {
        name: section.name.clone(),
        excluded: section.exclude.clone(),
        is_log: section.is_log,
        readable: Readable::Tree(Box::new(KnownTree { section: section.clone(), reader: Arc::new(tree) })),
    })
}

/// Where a database is; a manifest that was read has been checked for it.
pub fn place(section: &DatabaseSection) -> Result<Place> {
    section.place().map_err(|problem| Failure::operator(format!("dataset {}", section.name), problem))
}

impl LocalSource {
    /// A database that the manifest names.
    pub(super) fn database(&self, name: &DatasetName) -> Result<&Known> {
        match self.readable(name) {
            Some(Readable::Database(known)) => Ok(known),
            _ => Err(unknown(name)),
        }
    }

    /// A tree that the manifest names, to be read.
    pub(super) fn tree(&self, name: &DatasetName) -> Result<&dyn TreeReader> {
        self.known_tree(name).map(|known| &*known.reader)
    }

    /// A tree that the manifest names.
    pub(super) fn known_tree(&self, name: &DatasetName) -> Result<&KnownTree> {
        match self.readable(name) {
            Some(Readable::Tree(tree)) => Ok(tree),
            _ => Err(unknown(name)),
        }
    }

    /// All databases, by name.
    pub(super) fn databases(&self) -> impl Iterator<Item = (&DatasetName, &Known)> {
        self.datasets.iter().filter_map(|declared| match &declared.readable {
            Readable::Database(known) => Some((&declared.name, &**known)),
            Readable::Tree(_) => None,
        })
    }

    fn readable(&self, name: &DatasetName) -> Option<&Readable> {
        self.datasets.iter().find(|declared| declared.name == *name).map(|declared| &declared.readable)
    }
}

fn unknown(name: &DatasetName) -> Failure {
    Failure::operator(format!("dataset {name}"), "the source's manifest does not name it")
        .hint("has the source's appliance.toml been changed? make a new plan")
}
