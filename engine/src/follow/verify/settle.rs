//! Looking at keys that may differ until each of them was quiet.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;

use super::{Check, Seen, Verdict};
use crate::digest::Digest;
use crate::failure::Failure;
use crate::pass::database::CHUNK_BYTES;
use crate::ports::{KeysRequest, Result};
use crate::rows::text::rows;
use crate::rows::{Key, KeyRange, RowsChunk, TableSpec};

/// How often keys are looked at before nothing is said of those that were changing each time.
const ROUNDS: usize = 12;
/// How often a key has to be found quiet and different.
const QUIET: u8 = 2;
/// Keys that are looked up at once.
const BATCH: usize = 4_000;

/// Keys of rows that may differ, and where they lie.
#[derive(Clone)]
pub struct Suspects {
    pub range: KeyRange,
    pub keys: HashSet<Key>,
}

/// What became of suspects.
#[derive(Default)]
pub struct Settled {
    /// What differs, and how.
    pub differ: Vec<(Key, &'static str)>,
    /// How many changed each time they were looked at.
    pub unsettled: u64,
    /// As they were given.
    pub suspects: Vec<Suspects>,
}

type Rows = HashMap<Key, Digest>;

impl Check<'_> {
    /// Looks at suspects until each was seen to be the same, or quiet and different.
    pub(super) async fn settle(&self, table: &TableSpec, suspects: Vec<Suspects>) -> Result<Settled> {
        let mut out = Settled { suspects: suspects.clone(), ..Settled::default() };
        let (mut open, mut found) = (suspects, HashMap::<Key, u8>::new());
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            self.follower.work.desk.checkpoint()?;
            let verdicts = self.look(table, &open).await?;
            for suspects in &mut open {
                suspects.keys.retain(|key| match verdicts.get(key) {
                    Some(Verdict::Same) => false,
                    Some(Verdict::Differs(what)) => {
                        let times = found.entry(key.clone()).or_default();
                        *times += 1;
                        let is_sure = *times == QUIET;
                        if is_sure {
                            out.differ.push((key.clone(), *what));
                        }
                        !is_sure
                    }
                    Some(Verdict::Moving) | None => true,
                });
            }
            open.retain(|suspects| !suspects.keys.is_empty());
        }
        out.unsettled = open.iter().map(|suspects| suspects.keys.len() as u64).sum();
        Ok(out)
    }

    /// Looks at both sides of some keys between two moments at which everything is carried out that was committed before.
    async fn look(&self, table: &TableSpec, open: &[Suspects]) -> Result<HashMap<Key, Verdict>> {
        let keys: Vec<Key> = open.iter().flat_map(|suspects| suspects.keys.iter().cloned()).collect();
        self.follower.course.watch(&table.name, keys.iter().cloned());
        let before = self.there(table, &keys).await?;
        self.follower.caught_up().await;
        let mut here = Rows::new();
        for suspects in open {
            self.here(table, suspects, &mut here).await?;
        }
        let after = self.there(table, &keys).await?;
        self.follower.caught_up().await;
        let is_told = self.follower.course.unwatch();
        let verdict = |key: Key| {
            let seen = Seen {
                before: before.get(&key),
                here: here.get(&key),
                after: after.get(&key),
                is_told: is_told(&key),
            };
            let verdict = seen.verdict();
            (key, verdict)
        };
        Ok(keys.into_iter().map(verdict).collect())
    }

    /// Rows of the source, as they are now.
    async fn there(&self, table: &TableSpec, keys: &[Key]) -> Result<Rows> {
        let mut out = Rows::new();
        for keys in keys.chunks(BATCH) {
            let request = KeysRequest {
                dataset: self.follower.dataset.clone(),
                table: table.name.clone(),
                keys: keys.to_vec(),
                budget: CHUNK_BYTES,
            };
            let mut chunks = self.follower.work.source.changes.keys(request).await?;
            let mut last = None;
            while let Some(chunk) = chunks.try_next().await? {
                last.clone_from(&chunk.header.range.until);
                self.add(table, &chunk, &mut out, |_| true)?;
            }
            if last.as_ref() != keys.last() {
                return Err(self.unreadable(table, "its stream ended before all keys were looked up"));
            }
        }
        Ok(out)
    }

    /// Rows of the target, as they are now.
    async fn here(&self, table: &TableSpec, suspects: &Suspects, out: &mut Rows) -> Result<()> {
        let mut range = suspects.range.clone();
        loop {
            let chunk = self.target.reread_part(&table.name, &range, CHUNK_BYTES).await?;
            self.add(table, &chunk, out, |key| suspects.keys.contains(key))?;
            if chunk.header.range.until == range.until {
                return Ok(());
            }
            range.after = chunk.header.range.until;
        }
    }

    fn add(
        &self,
        table: &TableSpec,
        chunk: &RowsChunk,
        out: &mut Rows,
        is_wanted: impl Fn(&Key) -> bool,
    ) -> Result<()> {
        let rows = rows(&chunk.block).map_err(|error| {
            self.unreadable(table, "its rows are not in the form of a block").because(error)
        })?;
        for row in rows {
            let key = table.key_of(row).ok_or_else(|| self.unreadable(table, "a row has no key"))?;
            if is_wanted(&key) {
                out.insert(key, Digest::of(row));
            }
        }
        Ok(())
    }

    fn unreadable(&self, table: &TableSpec, what: &str) -> Failure {
        Failure::transient(format!("{}, table {}", self.follower.dataset, table.name), what.to_owned())
    }
}
