//! Verification under load: a copy is read again and compared while its source is in use and is followed.
//!
//! Range by range, the target's rows are compared with those of a snapshot of the source, which answers with the rows only where the
//! digests differ. Equal digests are proof for that moment. Where they differ, the rows that do are told by their keys, and
//! each key is looked at until it was quiet: nothing is a difference that a change on its way explains.

mod compare;
mod settle;
mod verdict;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;

pub use self::verdict::{Seen, Verdict};

use self::settle::{Settled, Suspects};
use self::view::View;
use super::Follower;
use crate::failure::Failure;
use crate::pass::Message;
use crate::pass::database::CHUNK_BYTES;
use crate::pass::database::cover::Course;
use crate::plan::StepKind;
use crate::ports::{DatabaseTarget, Result};
use crate::progress::Amount;
use crate::report::{Checked, Difference, Verified};
use crate::rows::{HeldChunk, Key, KeyRange, RowsRequest, RowsWanted, Schema, TableSpec};
use crate::throttle::gate::Kind;

/// Ranges that are compared with one request. Between two of them it is journaled how far it has got.
const RANGES: usize = 16;
/// Following goes first: while the copy is further behind, nothing is read.
const BEHIND_MS: u64 = 2_000;
/// How often it is looked whether it still is.
const LOOK: Duration = Duration::from_millis(50);
/// Tables that a note names.
const NAMED_TABLES: usize = 5;

/// The verification of one database.
pub struct Check<'a> {
    follower: &'a Follower,
    target: Arc<dyn DatabaseTarget>,
    schema: Schema,
    repair: bool,
    checked: Mutex<Checked>,
    views: AtomicU64,
    got_on: AtomicU64,
}

impl<'a> Check<'a> {
    /// Goes on where `checked` tells that a former one stood. `repair`: what differs is put right.
    pub async fn new(
        follower: &'a Follower,
        target: Arc<dyn DatabaseTarget>,
        schema: Schema,
        repair: bool,
        checked: Checked,
    ) -> Result<Check<'a>> {
        let is_new = checked == Checked::default();
        let check = Self {
            follower,
            target,
            schema,
            repair,
            checked: Mutex::new(checked),
            views: AtomicU64::default(),
            got_on: AtomicU64::default(),
        };
        if is_new {
            check.tell_left_out().await?;
        }
        let read = check.checked().read;
        check.progress(Amount { rows: read.rows, files: 0, bytes: read.bytes }).await?;
        Ok(check)
    }

    /// Rises with everything that is read.
    pub fn got_on(&self) -> u64 {
        self.got_on.load(Ordering::Relaxed)
    }

    /// Reads what is still to be read, and tells the driver what was found.
    pub async fn run(&self) -> Result<()> {
        let mut view = None;
        let done = self.tables(&mut view).await;
        if let Some(view) = view {
            self.close(view).await;
        }
        done?;
        let Checked { read, differ, unsettled, .. } = self.checked();
        let work = &self.follower.work;
        let at_ms = work.clock.now().millis();
        let verified = Verified { read, at_ms, differences: differ.count, unsettled };
        let message = Message::Verified(self.follower.dataset.clone(), work.pass, verified, differ.named);
        work.desk.send(message).await
    }

    fn checked(&self) -> Checked {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn tables(&self, view: &mut Option<View>) -> Result<()> {
        let tables: Vec<&TableSpec> = self.schema.tables.iter().filter(|table| table.followed).collect();
        loop {
            let checked = self.checked();
            let Some(table) = usize::try_from(checked.tables).ok().and_then(|at| tables.get(at)) else {
                return Ok(());
            };
            self.give_way().await?;
            self.part(view, table, checked).await?;
        }
    }

    /// Lets following go first.
    async fn give_way(&self) -> Result<()> {
        loop {
            self.follower.work.desk.checkpoint()?;
            if self.follower.figures().lag_ms <= BEHIND_MS {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Verifies the next ranges of a table, and journals that.
    async fn part(&self, view: &mut Option<View>, table: &TableSpec, mut checked: Checked) -> Result<()> {
        let (ranges, end) = self.ranges(table, checked.after.take()).await?;
        let mut amount = Amount::default();
        for range in &ranges {
            amount.rows += range.rows;
            amount.bytes += range.bytes;
        }
        let view = self.fresh(view).await?;
        let suspects = self.compare(view, table, ranges).await?;
        let mut settled = self.settle(table, suspects).await?;
        if self.repair && !settled.differ.is_empty() {
            // Journaled first: once they are put right, nobody finds them any more.
            let mut so_far = self.checked();
            self.differences(table, &settled).for_each(|difference| so_far.repaired.add(difference));
            self.keep(so_far.clone()).await?;
            self.put_right(table, &mut settled).await?;
            checked.repaired = so_far.repaired;
            self.differences(table, &settled).for_each(|still| checked.repaired.remove(&still));
        }
        self.differences(table, &settled).for_each(|difference| checked.differ.add(difference));
        checked.unsettled += settled.unsettled;
        checked.read.rows += amount.rows;
        checked.read.bytes += amount.bytes;
        if end.is_none() {
            checked.tables += 1;
            checked.read.tables += 1;
        }
        checked.after = end;
        self.progress(amount).await?;
        self.keep(checked).await?;
        self.got_on.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Journals how far it has got.
    async fn keep(&self, checked: Checked) -> Result<()> {
        let desk = &self.follower.work.desk;
        desk.send(Message::Checked(self.follower.dataset.clone(), checked.clone())).await?;
        desk.flush().await?;
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = checked;
        Ok(())
    }

    /// The next ranges of a table, as the target has them, and where the last one ends.
    async fn ranges(&self, table: &TableSpec, after: Option<Key>) -> Result<(Vec<HeldChunk>, Option<Key>)> {
        let (mut out, mut range) = (Vec::new(), KeyRange { after, until: None });
        while out.len() < RANGES {
            let chunk = self.target.reread_part(&table.name, &range, CHUNK_BYTES).await?;
            range.after = chunk.header.range.until.clone();
            out.push(chunk.held());
            if range.after.is_none() {
                break;
            }
        }
        Ok((out, range.after))
    }

    /// Has the source compare ranges; the keys of those rows that differ.
    async fn compare(&self, view: &View, table: &TableSpec, ranges: Vec<HeldChunk>) -> Result<Vec<Suspects>> {
        let broken = |what: &str| {
            let item = format!("{}, table {}", self.follower.dataset, table.name);
            Failure::transient(item, what.to_owned())
        };
        let bytes = ranges.iter().map(|range| range.bytes).sum();
        let work = &self.follower.work;
        // The source reads them all, however few it sends.
        work.throttle.take(Kind::Bulk, bytes, &work.desk).await?;
        work.throttle.settle(Kind::Bulk, bytes, bytes);
        let wanted = RowsWanted::Recheck(ranges);
        let mut course = Course::new(&wanted);
        let request = RowsRequest {
            lease: view.lease.clone(),
            snapshot: view.snapshot.clone(),
            table: table.name.clone(),
            wanted,
            budget: CHUNK_BYTES,
        };
        let mut chunks = work.source.rows.rows(request).await?;
        let mut out = Vec::new();
        while let Some(chunk) = chunks.try_next().await? {
            if !course.take(&chunk.header.range) {
                return Err(broken("a chunk arrived out of turn"));
            }
            if chunk.header.table != table.name || !chunk.is_whole() {
                return Err(broken("a chunk arrived damaged: its digest is not that of its rows"));
            }
            if chunk.header.unchanged {
                continue;
            }
            let here = self.target.reread(&table.name, &chunk.header.range).await?;
            let keys = compare::differing(table, &chunk.block, &here.block)
                .map_err(|error| broken("its rows are not in the form of a block").because(error))?;
            if !keys.is_empty() {
                out.push(Suspects { range: chunk.header.range, keys });
            }
        }
        if course.is_over() { Ok(out) } else { Err(broken("its stream ended before all chunks had arrived")) }
    }

    /// Has the rows that differ read and put in place again, and looks at them once more: what still differs remains.
    async fn put_right(&self, table: &TableSpec, settled: &mut Settled) -> Result<()> {
        let keys: HashSet<Key> = settled.differ.iter().map(|(key, _)| key.clone()).collect();
        self.follower.again(&table.name, keys.iter().cloned()).await?;
        self.follower.caught_up().await;
        let suspects = settled.suspects.drain(..).filter_map(|suspects| {
            let keys = suspects.keys.into_iter().filter(|key| keys.contains(key)).collect();
            Some(Suspects { keys, ..suspects }).filter(|suspects| !suspects.keys.is_empty())
        });
        let left = self.settle(table, suspects.collect()).await?;
        // One that changes all the time now is put in place anew with each change.
        let left: HashMap<Key, &str> = left.differ.into_iter().collect();
        settled.differ.retain(|(key, _)| left.contains_key(key));
        Ok(())
    }

    fn differences<'s>(
        &'s self,
        table: &'s TableSpec,
        settled: &'s Settled,
    ) -> impl Iterator<Item = Difference> + 's {
        settled.differ.iter().map(move |(key, what)| {
            let item = format!("table {}, {}", table.name, table.show_key(key, &self.schema.engine));
            Difference { dataset: self.follower.dataset.clone(), item, what: (*what).to_owned() }
        })
    }

    async fn progress(&self, amount: Amount) -> Result<()> {
        let step = StepKind::Verify(self.follower.dataset.clone()).id();
        self.follower.work.desk.send(Message::Progress { step, amount }).await
    }

    /// Notes which tables are not followed, and so cannot be compared now.
    async fn tell_left_out(&self) -> Result<()> {
        let tables: Vec<String> =
            self.schema.tables.iter().filter(|table| !table.followed).map(|t| t.name.to_string()).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let mut shown = tables.iter().take(NAMED_TABLES).cloned().collect::<Vec<_>>().join(", ");
        if tables.len() > NAMED_TABLES {
            shown.push_str(&format!(" and {} more", tables.len() - NAMED_TABLES));
        }
        let text =
            format!("not verified, since they are not followed but copied again at the cut-over: {shown}");
        let item = self.follower.dataset.to_string();
        self.follower.work.desk.send(Message::Note { item, text }).await
    }
}
