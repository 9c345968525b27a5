//! The target in memory: what is durable survives a crash, what is only staged does not.

mod database;
mod files;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use handover_engine::kept::Kept;
use handover_engine::name::DatasetName;
use handover_engine::ports::{DatabaseTarget, Keeper, Result, TreeTarget};
use handover_engine::rows::{Schema, TableName};
use handover_engine::tree::{Entry, EntryKind, RelPath};
use rand::Rng;
use rand::rngs::StdRng;

use super::model::{Node, Part, Rows, Table, Tree};
use super::world::{PerDataset, Port, databases};

/// A database that stands or is being built.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    pub schema: Schema,
    pub rows: Rows,
    /// Its second half has been made.
    pub finished: bool,
}

/// A database at the target.
#[derive(Debug, Clone, Default)]
pub struct Place {
    pub building: Option<Base>,
    pub published: Option<Base>,
    /// What was published is of this migration, and another pass may start from it.
    pub is_ours: bool,
    /// What stood there before the migration.
    pub before: Option<Option<Base>>,
}

/// The tree at the target.
#[derive(Default)]
pub struct Ground {
    pub tree: Tree,
    /// What stood there before the migration.
    pub before: Option<Tree>,
    /// Small files, staged; lost with a crash.
    pub staged: BTreeMap<RelPath, (Entry, Bytes)>,
    /// Large files in the making; of these, a crash leaves what is durable.
    pub making: BTreeMap<RelPath, Vec<Part>>,
    pub durable: BTreeMap<RelPath, Vec<Part>>,
}

/// The target host.
#[derive(Default)]
pub struct TargetSide {
    pub bases: PerDataset<Place>,
    pub ground: Ground,
}

impl TargetSide {
    /// An empty host, or one on which something stands already.
    pub fn make(rng: &mut StdRng, moment: &mut u64) -> Self {
        let mut side = Self::default();
        for database in databases() {
            let mut place = Place::default();
            if rng.random_bool(0.3) {
                let table = Table::from([(1, "old".to_owned())]);
                let rows = Rows::from([(TableName::plain("old"), table)]);
                place.published = Some(Base { schema: super::model::schema(&rows, 0), rows, finished: true });
            }
            side.bases.insert(database, place);
        }
        *moment += 1;
        let root = Node::new(EntryKind::Directory, Vec::new(), 0o700, *moment);
        side.ground.tree.insert(RelPath::root(), root);
        for name in [&b"a"[..], b"c", b"old"] {
            if rng.random_bool(0.3) {
                *moment += 1;
                let node = Node::file(vec![Part::of(Bytes::from_static(b"old"))], 0o600, *moment);
                side.ground.tree.insert(RelPath::new(name).expect("a path"), node);
            }
        }
        side
    }

    /// What a crash leaves.
    pub fn crash(&mut self) {
        self.ground.staged.clear();
        self.ground.making = self.ground.durable.clone();
    }
}

/// A database of the target.
pub struct BasePort {
    pub port: Port,
    pub dataset: DatasetName,
}

/// The tree of the target.
pub struct GroundPort {
    pub port: Port,
}

/// No migration takes over here: there is nothing to keep.
macro_rules! keeps_nothing {
    ($port:ty) => {
        #[async_trait]
        impl Keeper for $port {
            async fn undo_and_keep(&self) -> Result<()> {
                self.undo().await
            }

            async fn kept(&self) -> Result<Option<Kept>> {
                Ok(None)
            }

            async fn remove_kept(&self) -> Result<()> {
                Ok(())
            }
        }
    };
}

keeps_nothing!(BasePort);
keeps_nothing!(GroundPort);
