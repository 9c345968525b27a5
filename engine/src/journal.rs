//! The target's durable record of its migrations: what is written ([`Record`]), and the ports to write and read it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{DatasetName, MigrationId};
use crate::phase::State;
use crate::plan::Plan;
use crate::ports::{Answers, Result};
use crate::report::Outcome;
use crate::rows::{HeldChunk, Schema, SnapshotId, TableName};
use crate::time::Timestamp;
use crate::tree::{Block, Entry, IndexEntry, RelPath, Spots};

/// A migration as the journal holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Its name.
    pub id: MigrationId,
    /// The approved plan.
    pub plan: Plan,
    /// The plan's digest.
    pub digest: Digest,
    /// Who started it: the operator's SPIFFE id.
    pub started_by: String,
    /// When.
    pub started_at: Timestamp,
    /// Its state.
    pub state: State,
    /// Steps of the task at hand that are done.
    pub steps_done: Vec<String>,
    /// Number of the pass at hand or, between passes, of the last one; the first is 1.
    pub pass: u32,
    /// The share of the task at hand that was last shown, so that a restart shows no less.
    pub shown: f64,
    /// What the passes have brought so far.
    pub outcome: Outcome,
}

impl Migration {
    /// One that begins.
    pub fn begun(id: MigrationId, plan: Plan, by: &str, at: Timestamp) -> Self {
        Self {
            id,
            digest: plan.digest(),
            plan,
            started_by: by.to_owned(),
            started_at: at,
            state: State::started(),
            steps_done: Vec::new(),
            pass: 1,
            shown: 0.0,
            outcome: Outcome::default(),
        }
    }
}

/// Something that happened, for watchers and the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The state changed.
    State {
        /// The new state.
        state: State,
        /// Who asked for it, where somebody did.
        by: Option<String>,
    },
    /// A step began.
    StepStarted {
        /// Its id.
        step: String,
    },
    /// A step was done.
    StepDone {
        /// Its id.
        step: String,
    },
    /// Something the operator should know.
    Note {
        /// The item it is about.
        item: String,
        /// What.
        text: String,
    },
    /// A failure that is tried again by itself.
    Retry {
        /// The step.
        step: String,
        /// What went wrong.
        failure: crate::failure::Failure,
        /// Milliseconds until the next try.
        after_ms: u64,
    },
}

/// An event with its place in the migration's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Counts from 1 without gaps; a watcher gives the last one it saw.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// One durable fact about a migration. Writing a record twice is the same as writing it once.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The state changed.
    State(State),
    /// A task begins: forget which steps of the last one were done.
    TaskBegun {
        /// Number of the pass.
        pass: u32,
    },
    /// A step of the task at hand is done.
    StepDone(String),
    /// Something happened.
    Event(Event),
    /// The share of the task that is shown.
    Shown(f64),
    /// What the passes have brought so far.
    Outcome(Box<Outcome>),
    /// A database is being loaded with this schema. Chunks held under another structure are dropped.
    Database {
        /// The database.
        dataset: DatasetName,
        /// The source's schema.
        schema: Box<Schema>,
    },
    /// A chunk of rows is applied, durably; its rows are those of `snapshot`. Replaces the chunk with the same start.
    Rows {
        /// The database.
        dataset: DatasetName,
        /// The table.
        table: TableName,
        /// The view of the source it was last found equal to.
        snapshot: SnapshotId,
        /// The chunk.
        chunk: HeldChunk,
    },
    /// A held chunk is about to be replaced: until another record says so, it is not known what rows stand there. It keeps its
    /// place, but belongs to no snapshot and has a digest that no rows have ([`HeldChunk::doubted`]).
    Doubted {
        /// The database.
        dataset: DatasetName,
        /// The table.
        table: TableName,
        /// The chunk, as it is held.
        chunk: HeldChunk,
    },
    /// Entries have landed.
    Landed {
        /// The tree.
        dataset: DatasetName,
        /// The entries.
        entries: Vec<Landing>,
    },
    /// Paths are gone from the tree, with all that they held.
    Gone {
        /// The tree.
        dataset: DatasetName,
        /// The paths.
        paths: Vec<RelPath>,
    },
    /// The next blocks of a large file are durable, out of sight.
    Partial {
        /// The tree.
        dataset: DatasetName,
        /// The file as it was when its first part was read.
        entry: Entry,
        /// Where these blocks begin; 0 drops what was held of the file before.
        offset: u64,
        /// The blocks.
        blocks: Vec<Block>,
        /// Where the segments began that brought contents.
        segments: Vec<u64>,
    },
}

/// One entry that has landed.
#[derive(Debug, Clone, PartialEq)]
pub struct Landing {
    /// The entry.
    pub entry: IndexEntry,
    /// For a large file, the blocks it consists of.
    pub blocks: Vec<Block>,
    /// For a large file, where the segments began that brought contents and are in no other record.
    pub segments: Vec<u64>,
}

/// The held part of a large file that has not landed yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PartialFile {
    /// The file as it was when its first part was read.
    pub entry: Entry,
    /// Its blocks so far, from offset 0.
    pub blocks: Vec<Block>,
}

impl PartialFile {
    /// Where the held part ends.
    pub fn end(&self) -> u64 {
        self.blocks.iter().map(|b| u64::from(b.len)).sum()
    }
}

/// What is held of a dataset, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sums {
    /// Rows.
    pub rows: u64,
    /// Tables that hold at least one chunk.
    pub tables: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of text blocks and files.
    pub bytes: u64,
}

/// Plans and migrations.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Keeps a plan, so that its digest can be started. Idempotent.
    async fn keep_plan(&self, plan: &Plan) -> Result<()>;

    /// The kept plans whose digest begins with these hex digits.
    async fn find_plans(&self, prefix: &str) -> Result<Vec<Plan>>;

    /// Begins a migration, unless one that has not ended is there: then a failure names it.
    async fn create(&self, migration: &Migration) -> Result<()>;

    /// Every migration, oldest first.
    async fn migrations(&self) -> Result<Vec<Migration>>;

    /// Writes records in order, all or none; durable when it returns.
    async fn commit(&self, id: &MigrationId, at: Timestamp, records: &[Record]) -> Result<()>;

    /// Events after `seq`, oldest first, at most `limit`.
    async fn events(&self, id: &MigrationId, seq: u64, limit: u32) -> Result<Vec<Logged>>;
}

/// What the journal holds of a migration's datasets.
#[async_trait]
pub trait Holdings: Send + Sync {
    /// The schema that the held chunks of a database have.
    async fn schema(&self, id: &MigrationId, dataset: &DatasetName) -> Result<Option<Schema>>;

    /// The held chunks of a table, each with the snapshot it was last found equal to, in the order they were first
    /// written (which is key order).
    async fn chunks(
        &self,
        id: &MigrationId,
        dataset: &DatasetName,
        table: &TableName,
    ) -> Result<Vec<(SnapshotId, HeldChunk)>>;

    /// The index of a tree, in tree order.
    fn index(&self, id: &MigrationId, dataset: &DatasetName) -> Answers<Vec<IndexEntry>>;

    /// What of the index lies at these places, in tree order.
    fn index_at(&self, id: &MigrationId, dataset: &DatasetName, spots: &Spots) -> Answers<Vec<IndexEntry>>;

    /// The blocks of a large file that has landed; empty for any other.
    async fn blocks(&self, id: &MigrationId, dataset: &DatasetName, path: &RelPath) -> Result<Vec<Block>>;

    /// Large files that are held in part.
    async fn partials(&self, id: &MigrationId, dataset: &DatasetName) -> Result<Vec<PartialFile>>;

    /// What is held, in numbers.
    async fn sums(&self, id: &MigrationId, dataset: &DatasetName) -> Result<Sums>;
}
