//! The source in memory: rows and files that change while they are read, snapshots that end with a restart, answers that
//! are lost, come twice, are cut short or damaged.

mod change;
mod files;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::name::{CaptureId, DatasetName, LeaseId, MigrationId};
use handover_engine::ports::{
    Answers, ChangeSource, ChangesRequest, Direction, Fence, FencedSource, KeysRequest, Opened, Parts,
    Result, SourceHost, Spool, Spools,
};
use handover_engine::rows::{Key, KeyedRows, RowsChunk, Schema, SnapshotId, TableName};
use rand::Rng;
use rand::rngs::StdRng;

use super::model::{Node, Part, Rows, Tree, schema};
use super::world::{PerDataset, Port, Site, databases};

/// The source host.
pub struct SourceSide {
    pub rows: PerDataset<Rows>,
    pub schema_version: u32,
    pub tree: Tree,
    /// Open snapshots by lease; gone with a restart.
    pub leases: BTreeMap<LeaseId, (DatasetName, SnapshotId)>,
    /// What each snapshot ever opened has shown.
    pub history: BTreeMap<String, (Schema, Rows)>,
    /// Text bytes of a chunk, however much is asked for: small, so that tables have many.
    pub budget: u64,
}

impl SourceSide {
    pub fn make(rng: &mut StdRng, moment: &mut u64) -> Self {
        let mut rows = PerDataset::new();
        for database in databases() {
            let table = |n: i32| TableName::plain(format!("t{n}"));
            let tables: Rows = (0..rng.random_range(1..4)).map(|n| (table(n), BTreeMap::new())).collect();
            rows.insert(database, tables);
        }
        let mut side = Self {
            rows,
            schema_version: 1,
            tree: Tree::new(),
            leases: BTreeMap::new(),
            history: BTreeMap::new(),
            budget: rng.random_range(30..200),
        };
        side.fill(rng, moment);
        side
    }

    fn fill(&mut self, rng: &mut StdRng, moment: &mut u64) {
        for table in self.rows.values_mut().flat_map(BTreeMap::values_mut) {
            for _ in 0..rng.random_range(0..40) {
                let key = rng.random_range(0..200);
                table.insert(key, change::first(key));
            }
        }
        *moment += 1;
        let root = Node::new(handover_engine::tree::EntryKind::Directory, Vec::new(), 0o755, *moment);
        self.tree.insert(handover_engine::tree::RelPath::root(), root);
        for _ in 0..rng.random_range(5..20) {
            change::files(&mut self.tree, rng, moment);
        }
    }

    pub fn restart(&mut self) {
        self.leases.clear();
    }

    pub fn change(&mut self, rng: &mut StdRng, moment: &mut u64) -> String {
        change::some(self, rng, moment)
    }

    fn open(&mut self, lease: &LeaseId, dataset: &DatasetName) -> Opened {
        let held = self.leases.get(lease).map(|(_, snapshot)| snapshot.clone());
        let snapshot = held.unwrap_or_else(|| {
            let snapshot = SnapshotId(format!("s{}", self.history.len()));
            let rows = self.rows[dataset].clone();
            self.history.insert(snapshot.0.clone(), (schema(&rows, self.schema_version), rows));
            self.leases.insert(lease.clone(), (dataset.clone(), snapshot.clone()));
            snapshot
        });
        Opened { schema: self.history[&snapshot.0].0.clone(), snapshot }
    }
}

/// Bytes with one bit that is not as it was.
fn damaged(bytes: &[u8], rng: &mut StdRng) -> bytes::Bytes {
    let mut bytes = bytes.to_vec();
    let at = rng.random_range(0..bytes.len());
    bytes[at] ^= 1 << rng.random_range(0..8);
    bytes.into()
}

fn part(len: usize, rng: &mut StdRng) -> Part {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes[..]);
    Part::of(bytes.into())
}

#[async_trait]
impl SourceHost for Port {
    async fn inspect(&self) -> Result<Inventory> {
        Err(Failure::permanent("source", "a driver does not inspect"))
    }

    async fn open(&self, lease: &LeaseId, dataset: &DatasetName, _: Parts) -> Result<Opened> {
        self.step(Site::Source, "open").await?;
        let opened = self.with(|world| world.source.open(lease, dataset));
        self.with(|world| world.say(format!("{dataset}: snapshot {}", opened.snapshot.0)));
        self.step(Site::Source, "opened").await?;
        Ok(opened)
    }

    async fn close(&self, lease: &LeaseId) -> Result<()> {
        self.step(Site::Source, "close").await?;
        self.with(|world| world.source.leases.remove(lease));
        Ok(())
    }
}

/// Nothing is followed here: `tests/following.rs` and `cutover.rs` explore that.
fn not_followed() -> Failure {
    Failure::permanent("source", "nothing of this plan is followed")
}

#[async_trait]
impl ChangeSource for Port {
    async fn begin(&self, _: &DatasetName, _: &CaptureId) -> Result<LogPosition> {
        Err(not_followed())
    }

    async fn changes(&self, _: ChangesRequest) -> Result<Changes> {
        Err(not_followed())
    }

    async fn confirm(&self, _: &DatasetName, _: &CaptureId, _: &LogPosition) -> Result<()> {
        Err(not_followed())
    }

    async fn end(&self, _: &DatasetName, _: &CaptureId, _: bool) -> Result<()> {
        Err(not_followed())
    }

    async fn keys(&self, _: KeysRequest) -> Result<Answers<RowsChunk>> {
        Err(not_followed())
    }

    async fn fence(&self, _: &DatasetName, _: &CaptureId, _: Duration) -> Result<()> {
        Err(not_followed())
    }

    async fn may_fence(&self, _: &DatasetName) -> Result<()> {
        Err(not_followed())
    }

    async fn unfence(&self, _: &DatasetName, _: &CaptureId) -> Result<()> {
        Err(not_followed())
    }
}

#[async_trait]
impl FencedSource for Port {
    async fn make_ready(&self, _: &Fence) -> Result<()> {
        Err(not_followed())
    }

    async fn apply_keys(&self, _: &Fence, _: KeyedRows) -> Result<()> {
        Err(not_followed())
    }

    async fn clear(&self, _: &Fence, _: &TableName) -> Result<()> {
        Err(not_followed())
    }

    async fn children(&self, _: &Fence, _: &TableName, _: &[u32], _: &[Key]) -> Result<Vec<Key>> {
        Err(not_followed())
    }

    async fn fill(&self, _: &Fence, _: RowsChunk) -> Result<()> {
        Err(not_followed())
    }

    async fn stand_down(&self, _: &Fence) -> Result<()> {
        Err(not_followed())
    }

    async fn set_positions(&self, _: &Fence, _: &Schema) -> Result<()> {
        Err(not_followed())
    }
}

#[async_trait]
impl Spools for Port {
    async fn spool(&self, _: &MigrationId, _: &DatasetName, _: Direction) -> Result<Arc<dyn Spool>> {
        Err(not_followed())
    }
}
