//! One rehearsal of one database.
//!
//! Chunks that were tried before and that the source finds unchanged stand; others are loaded anew, and what their rows break goes to
//! quarantine. Then everything in quarantine is tried again in the order of the source's keys, so that what is found depends neither on the
//! order in which rows changed nor on earlier rehearsals: of rows that break a unique constraint the first one stays. At last
//! foreign keys are checked.
//!
//! Whatever step a crash falls between, the next rehearsal goes on: a chunk is in doubt while its rows are on their way, and a
//! row is recorded in quarantine before it leaves the scratch database.

mod chunks;
mod foreign;
mod settle;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::decision::Decisions;
use super::fit::{Fit, fit};
use super::quarantine;
use super::report::{DatabaseReport, TableReport};
use crate::check::{Finding, Severity};
use crate::digest::Digest;
use crate::failure::Failure;
use crate::name::{DatasetName, LeaseId};
use crate::ports::scratch::{Made, Scratch, TrialLedger};
use crate::ports::{Opened, Parts, Result, Source};
use crate::rows::{HeldChunk, Key, Schema, TableKey, TableName, TableSpec, text};

/// The lease of the source's snapshot is renewed this often.
const RENEW: Duration = Duration::from_secs(20);
/// A table with more rows in quarantine is loaded no further.
const MOST: u64 = 100_000;

/// What a rehearsal of a database works with.
pub struct Stage {
    /// The source.
    pub source: Source,
    /// The database.
    pub dataset: DatasetName,
    /// Where its rows are tried.
    pub scratch: Arc<dyn Scratch>,
    /// What was tried before.
    pub ledger: Arc<dyn TrialLedger>,
    /// What was decided.
    pub decisions: Arc<Decisions>,
    /// The decisions that were carried out, by their places.
    pub used: Arc<Mutex<BTreeSet<usize>>>,
    /// Takes lines that say how far it is.
    pub tell: Arc<dyn Fn(String) + Send + Sync>,
}

/// What was found, and how check scripts find the scratch database.
pub struct Found {
    /// The report.
    pub report: DatabaseReport,
    /// Names and values of environment variables.
    pub environment: Vec<(String, String)>,
    /// The source's schema, as of when its rows were read.
    pub source: Schema,
    /// Tables of the source whose rows are kept by a module of the engine: they were not tried.
    pub untried: Vec<TableName>,
}

/// Rehearses. `fresh` names the scratch database where it is made anew: it must never have been used before. The source's snapshot is
/// held open as long as this takes.
pub async fn rehearse(stage: Stage, fresh: &str) -> Result<Found> {
    let lease = lease(&stage.dataset, fresh)?;
    let host = stage.source.host.clone();
    let opened = host.open(&lease, &stage.dataset, Parts::Whole).await?;
    let (dataset, snapshot) = (stage.dataset.clone(), opened.snapshot.clone());
    let renew = async {
        loop {
            tokio::time::sleep(RENEW).await;
            match host.open(&lease, &dataset, Parts::Whole).await {
                Ok(again) if again.snapshot != snapshot => {
                    return Failure::transient(dataset.to_string(), "the source's snapshot has ended")
                        .hint("rehearse again: what was tried stands");
                }
                Ok(_) => {}
                Err(failure) => return failure,
            }
        }
    };
    let done = tokio::select! {
        done = work(stage, lease.clone(), opened, fresh) => done,
        failure = renew => Err(failure),
    };
    // It ends by itself if this gets lost.
    let _ = host.close(&lease).await;
    done
}

fn lease(dataset: &DatasetName, fresh: &str) -> Result<LeaseId> {
    let digest = Digest::of(format!("rehearsal/{fresh}/{dataset}").as_bytes());
    let name = format!("r-{}", digest.short());
    name.parse().map_err(|e| Failure::permanent("lease", "cannot be named").because(e))
}

async fn work(stage: Stage, lease: LeaseId, opened: Opened, fresh: &str) -> Result<Found> {
    let made = stage.scratch.make(&opened.schema, fresh).await?;
    let continued = stage.ledger.begin(&stage.dataset, &made.token).await?;
    let report = DatabaseReport {
        dataset: stage.dataset.clone(),
        own_schema: made.wanted.own,
        continued,
        chunks_loaded: 0,
        chunks_kept: 0,
        bytes_loaded: 0,
        findings: Vec::new(),
        tables: Vec::new(),
    };
    let environment = made.wanted.environment.clone();
    let mut trial =
        Trial { stage, lease, opened, made, report, tables: BTreeMap::new(), taken: HashSet::new() };
    trial.run().await?;
    let Trial { report, opened, made, .. } = trial;
    let source = opened.schema;
    let untried = source.tables.iter().map(|table| table.name.clone());
    let untried = untried.filter(|name| made.wanted.untried.contains(name)).collect();
    Ok(Found { report, environment, source, untried })
}

/// A table that is tried.
struct Table {
    spec: TableSpec,
    fit: Fit,
    /// Each chunk's place in the order of the source's keys, and the position before its first row.
    order: HashMap<u64, (u64, u64)>,
    rows: u64,
}

impl Table {
    /// A row's place in the order of the source's keys. A row of a chunk that is not known comes last.
    fn place(&self, number: u64) -> (u64, u64) {
        let (chunk, row) = quarantine::place(number);
        (self.order.get(&chunk).map_or(u64::MAX, |(place, _)| *place), row)
    }

    /// The key of a source's row, as people read it.
    fn key_of(&self, row: &[u8], number: u64, engine: &str) -> String {
        match self.spec.key_of(row) {
            Some(key) => self.spec.show_key(&key, engine),
            None => self.position_of(number),
        }
    }

    fn position_of(&self, number: u64) -> String {
        let (chunk, row) = quarantine::place(number);
        let before = self.order.get(&chunk).map_or(0, |(_, before)| *before);
        format!("row {}", before + row + 1)
    }
}

/// The position that a key of a table without a key stands for.
fn position(key: Option<&Key>) -> u64 {
    let digits = |key: &Key| {
        let text = std::str::from_utf8(&key.0).ok()?;
        text.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    key.and_then(digits).unwrap_or(0)
}

/// The decisions that were already carried out on a row: each is once at most.
type Taken = HashSet<(TableName, u64, usize)>;

struct Trial {
    stage: Stage,
    lease: LeaseId,
    opened: Opened,
    made: Made,
    report: DatabaseReport,
    /// By the source's names.
    tables: BTreeMap<TableName, Table>,
    taken: Taken,
}

impl Trial {
    async fn run(&mut self) -> Result<()> {
        self.missing_parents();
        for spec in self.opened.schema.tables.clone() {
            self.load_table(spec).await?;
        }
        let names: Vec<TableName> = self.tables.keys().cloned().collect();
        for name in &names {
            self.settle_table(name).await?;
        }
        self.check_foreign_keys().await?;
        for name in names {
            let mut entries = self.stage.ledger.entries(&self.stage.dataset, &name, None).await?;
            let table = self.tried(&name)?;
            entries.sort_by_key(|entry| table.place(entry.number));
            let report = TableReport::of(name, table.rows, &entries);
            self.report.tables.push(report);
        }
        self.report.tables.sort_by(|a, b| a.table.cmp(&b.table));
        Ok(())
    }

    /// Tells of tables of the new system that production does not have.
    fn missing_parents(&mut self) {
        let engine = &self.opened.schema.engine;
        let has = |name: &TableName| {
            let mut tables = self.opened.schema.tables.iter();
            tables.any(|table| {
                table.name == *name || engine == "sqlite" && table.name.name.eq_ignore_ascii_case(&name.name)
            })
        };
        let new: Vec<_> = self.made.wanted.tables.iter().filter(|table| !has(&table.name)).collect();
        let finding = |name: &TableName| {
            let what = "it is new: production has no such table";
            Finding::new(
                Severity::Info,
                format!("table {name}"),
                what,
                "see that the new system fills it itself",
            )
        };
        self.report.findings.extend(new.iter().map(|table| finding(&table.name)));
    }

    async fn load_table(&mut self, spec: TableSpec) -> Result<()> {
        let (fit, findings) = fit(&self.opened.schema.engine, &spec, &self.made.wanted);
        self.report.findings.extend(findings);
        let name = spec.name.clone();
        let Some(fit) = fit else {
            self.report.tables.push(TableReport::untried(name, spec.estimated_rows));
            return Ok(());
        };
        self.tables.insert(name.clone(), Table { spec, fit, order: HashMap::new(), rows: 0 });
        self.load_chunks(&name).await
    }

    fn tried(&self, name: &TableName) -> Result<&Table> {
        self.tables.get(name).ok_or_else(|| Failure::permanent(format!("table {name}"), "it is not tried"))
    }

    fn tell(&self, line: String) {
        (self.stage.tell)(format!("{}: {line}", self.stage.dataset));
    }

    fn use_decision(&self, at: usize) {
        self.stage.used.lock().unwrap_or_else(PoisonError::into_inner).insert(at);
    }

    fn engine(&self) -> &str {
        &self.opened.schema.engine
    }
}

/// The chunks that follow each other from the table's beginning on, in that order; the others, which a crash has cut off from them.
fn chain(chunks: Vec<(u64, HeldChunk)>) -> (Vec<(u64, HeldChunk)>, Vec<u64>) {
    let mut by_start: HashMap<Option<Key>, (u64, HeldChunk)> = HashMap::new();
    let mut loose = Vec::new();
    for chunk in chunks {
        if let Some(other) = by_start.insert(chunk.1.range.after.clone(), chunk) {
            loose.push(other.0);
        }
    }
    let (mut out, mut at) = (Vec::new(), None);
    while let Some(chunk) = by_start.remove(&at) {
        at = chunk.1.range.until.clone();
        out.push(chunk);
        if at.is_none() {
            break;
        }
    }
    loose.extend(by_start.into_values().map(|(id, _)| id));
    (out, loose)
}

fn malformed(table: &TableName, error: text::BadText) -> Failure {
    Failure::permanent(format!("table {table}"), "a chunk is malformed").because(error)
}

fn is_positioned(spec: &TableSpec) -> bool {
    spec.key == TableKey::Position
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::KeyRange;

    #[test]
    fn chunks_are_chained_as_far_as_they_follow_each_other() {
        let key = |k: &'static str| Key(bytes::Bytes::from_static(k.as_bytes()));
        let chunk = |id: u64, after: Option<&'static str>, until: Option<&'static str>| {
            let range = KeyRange { after: after.map(key), until: until.map(key) };
            (id, HeldChunk { range, rows: 1, bytes: 1, digest: Digest::of(b"") })
        };
        for (chunks, order, loose) in [
            (vec![], vec![], vec![]),
            (vec![chunk(4, None, None)], vec![4], vec![]),
            (vec![chunk(2, Some("b"), None), chunk(1, None, Some("b"))], vec![1, 2], vec![]),
            (vec![chunk(3, Some("c"), None), chunk(1, None, Some("b"))], vec![1], vec![3]),
            (vec![chunk(3, Some("c"), None)], vec![], vec![3]),
        ] {
            let (chained, left) = chain(chunks);
            assert_eq!(chained.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), order);
            assert_eq!(left, loose);
        }
    }

    #[test]
    fn positions_are_read_whatever_the_engine() {
        for (key, expected) in [("i12", 12), ("12", 12), ("x", 0)] {
            assert_eq!(position(Some(&Key(bytes::Bytes::copy_from_slice(key.as_bytes())))), expected);
        }
        assert_eq!(position(None), 0);
    }
}
