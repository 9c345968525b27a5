//! Reading the target's data again, and comparing it with what the journal holds of the source's.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};

use super::database::cover;
use super::merge::Sorted;
use super::{Message, Work};
use crate::failure::Failure;
use crate::journal::Record;
use crate::name::DatasetName;
use crate::plan::StepKind;
use crate::ports::{DatabaseTarget, Result, TreeTarget};
use crate::progress::Amount;
use crate::report::{Difference, NAMED, Verified};
use crate::rows::{HeldChunk, Key, Schema, TableName, TableSpec};
use crate::tree::{Entry, EntryKind, IndexEntry};

/// Files, or chunks of a table, that are read side by side.
const READERS: usize = 2;

struct Verifier {
    work: Work,
    dataset: DatasetName,
    step: String,
    found: Mutex<Found>,
}

/// Things that a note names.
const SHOWN: usize = 5;

/// The differences of one verification: all are counted, the first are named.
#[derive(Default)]
struct Found {
    count: u64,
    named: Vec<Difference>,
}

/// Reads a database's rows again, chunk by chunk, and its schema, where that is finished; the number of differences.
pub async fn database(
    work: Work,
    dataset: DatasetName,
    target: Arc<dyn DatabaseTarget>,
    is_finished: bool,
) -> Result<u64> {
    let verifier = Verifier::new(work, dataset);
    let Verifier { work, dataset, .. } = &verifier;
    let held = work.holdings.schema(&work.migration, dataset).await?;
    if let Some(held) = held.as_ref().filter(|_| is_finished) {
        let here = target.reread_schema().await?;
        for (object, what) in held.differences(&here) {
            verifier.differs(object, what);
        }
        tell_left_out(work, dataset, held, &here).await?;
    }
    let mut read = crate::journal::Sums::default();
    for table in held.iter().flat_map(|held| &held.tables) {
        let chunks = verifier.table(&target, table).await?;
        read.rows += chunks.rows;
        read.bytes += chunks.bytes;
        read.tables += 1;
    }
    verifier.done(read).await
}

/// Reads the tables again that cannot be followed, and so were copied once more behind the fence; fails where one differs.
pub async fn recopied(work: Work, dataset: DatasetName, target: Arc<dyn DatabaseTarget>) -> Result<()> {
    // What was copied last is held, too.
    work.desk.flush().await?;
    let verifier = Verifier::new(work, dataset);
    let Verifier { work, dataset, .. } = &verifier;
    let held = work.holdings.schema(&work.migration, dataset).await?;
    for table in held.iter().flat_map(|held| &held.tables).filter(|table| !table.followed) {
        verifier.table(&target, table).await?;
    }
    // The next attempt asks for what differs again.
    work.desk.flush().await?;
    let found = verifier.found.lock().unwrap_or_else(PoisonError::into_inner);
    if found.count == 0 {
        return Ok(());
    }
    let named: Vec<String> =
        found.named.iter().map(|found| format!("{}: {}", found.item, found.what)).collect();
    let what =
        format!("what was copied again behind the fence is not what the source holds: {}", some(&named));
    Err(Failure::operator(format!("dataset {dataset}"), what)
        .hint("`handover cutover` copies that anew; does anybody write to the target's copy?"))
}

/// Compares the schema of a published database with the source's, and tells of a difference.
pub async fn schema(work: &Work, dataset: &DatasetName, target: &dyn DatabaseTarget) -> Result<()> {
    let Some(held) = work.holdings.schema(&work.migration, dataset).await? else { return Ok(()) };
    let here = target.reread_schema().await?;
    let told: Vec<String> =
        held.differences(&here).into_iter().map(|(object, what)| format!("{object}: {what}")).collect();
    if !told.is_empty() {
        let text = format!("the target's schema is not the source's: {}", some(&told));
        work.desk.send(Message::Note { item: dataset.to_string(), text }).await?;
    }
    tell_left_out(work, dataset, &held, &here).await
}

/// Notes owners, definers and grants that did not come along.
async fn tell_left_out(work: &Work, dataset: &DatasetName, held: &Schema, here: &Schema) -> Result<()> {
    let lost = held.left_out(here);
    if lost.is_empty() {
        return Ok(());
    }
    let text = format!("owners, definers or grants are not the source's: {}", some(&lost));
    work.desk.send(Message::Note { item: dataset.to_string(), text }).await
}

/// The first of a list, and how many more there are.
pub(super) fn some(things: &[String]) -> String {
    let shown = things.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    match things.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// Reads a tree again, and looks that there is nothing else; the number of differences. Looks at everything's properties, and reads the
/// contents of the files that landed after pass `since`: those before were read when that pass was verified.
pub async fn tree(work: Work, dataset: DatasetName, target: Arc<dyn TreeTarget>, since: u32) -> Result<u64> {
    // What landed last is in the index, too.
    work.desk.flush().await?;
    let verifier = Verifier::new(work, dataset);
    let Verifier { work, dataset, .. } = &verifier;
    let mut index = Sorted::new("the journal's index", work.holdings.index(&work.migration, dataset));
    let mut here = Sorted::new("the target's scan", target.scan());
    let mut read = crate::journal::Sums::default();
    let mut files = Vec::new();
    loop {
        let heads = [index.path().await?, here.path().await?];
        let Some(path) = heads.into_iter().flatten().min() else { break };
        match (index.take(&path), here.take(&path)) {
            (Some(held), Some(entry)) => {
                if let Some(what) = unlike(&held.source, &entry) {
                    verifier.differs(path.to_string(), what);
                }
                if let Some(size) = entry.size().filter(|size| held.source.size() == Some(*size))
                    && held.pass > since
                {
                    read.files += 1;
                    read.bytes += size;
                    files.push(held);
                }
            }
            (Some(_), None) => verifier.differs(path.to_string(), "it is missing"),
            (None, _) => verifier.differs(path.to_string(), "it was not copied from the source"),
        }
        if files.len() >= 1024 {
            verifier.contents(&target, std::mem::take(&mut files)).await?;
        }
    }
    verifier.contents(&target, files).await?;
    verifier.done(read).await
}

/// What differs between an entry as it was at the source and as it is here.
fn unlike(source: &Entry, here: &Entry) -> Option<&'static str> {
    let (a, b) = (&source.meta, &here.meta);
    match (&source.kind, &here.kind) {
        (EntryKind::File { size: a, .. }, EntryKind::File { size: b, .. }) if a != b => {
            return Some("its size differs");
        }
        (EntryKind::File { .. }, EntryKind::File { .. }) => {}
        (a, b) if a != b => return Some("it is another kind of thing, or leads elsewhere"),
        // A further name has the properties of the first.
        (EntryKind::HardLink { .. }, _) => return None,
        _ => {}
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        Some("its owner differs")
    } else if a.mode != b.mode {
        Some("its mode differs")
    } else if a.mtime != b.mtime {
        Some("its time of modification differs")
    } else if a.xattrs != b.xattrs {
        Some("its extended attributes differ")
    } else {
        None
    }
}

impl Verifier {
    fn new(work: Work, dataset: DatasetName) -> Self {
        let step = StepKind::Verify(dataset.clone()).id();
        Self { work, dataset, step, found: Mutex::default() }
    }

    async fn table(&self, target: &Arc<dyn DatabaseTarget>, spec: &TableSpec) -> Result<Amount> {
        let mut read = Amount::default();
        let table = &spec.name;
        let chunks = self.work.holdings.chunks(&self.work.migration, &self.dataset, table).await?;
        // Rows that no chunk covers would not be read at all.
        if cover::missing(chunks.iter().map(|(_, held)| held), &spec.cuts)
            .is_none_or(|missing| !missing.is_empty())
        {
            self.differs(format!("table {table}"), "not all of its keys were copied");
        }
        let mut found = futures::stream::iter(chunks)
            .map(|(_, held)| self.chunk(target, table, held))
            .buffer_unordered(READERS);
        while let Some(amount) = found.try_next().await? {
            read.rows += amount.rows;
            read.bytes += amount.bytes;
            self.got_on(amount).await?;
        }
        Ok(read)
    }

    async fn chunk(
        &self,
        target: &Arc<dyn DatabaseTarget>,
        table: &TableName,
        held: HeldChunk,
    ) -> Result<Amount> {
        self.work.desk.checkpoint()?;
        let chunk = target.reread(table, &held.range).await?;
        if chunk.header.digest != held.digest {
            let shown = |key: &Option<Key>, open: &str| {
                key.as_ref().map_or(open.to_owned(), |key| key.0.escape_ascii().to_string())
            };
            let (from, to) = (shown(&held.range.after, "the start"), shown(&held.range.until, "the end"));
            let item = format!("table {table}, keys after {from} to {to}");
            // The next pass asks for it again, whatever the source says of its digest.
            let (dataset, table) = (self.dataset.clone(), table.clone());
            let chunk = held.clone();
            self.work.desk.record(vec![Record::Doubted { dataset, table, chunk }]).await?;
            self.differs(item, "its rows are not the source's");
        }
        Ok(Amount { rows: held.rows, files: 0, bytes: held.bytes })
    }

    async fn contents(&self, target: &Arc<dyn TreeTarget>, files: Vec<IndexEntry>) -> Result<()> {
        futures::stream::iter(files.into_iter().map(Ok::<_, Failure>))
            .map_ok(|file| async move {
                self.work.desk.checkpoint()?;
                let path = &file.source.path;
                let blocks = self.work.holdings.blocks(&self.work.migration, &self.dataset, path).await?;
                if !target.reread(&file, &blocks).await? {
                    self.differs(path.to_string(), "its contents are not the source's");
                    // Out of the index, so that the next pass asks for it again.
                    let (dataset, paths) = (self.dataset.clone(), vec![path.clone()]);
                    self.work.desk.record(vec![Record::Gone { dataset, paths }]).await?;
                }
                let bytes = file.source.size().unwrap_or(0);
                self.got_on(Amount { rows: 0, files: 1, bytes }).await
            })
            .try_buffer_unordered(READERS)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    fn differs(&self, item: String, what: &str) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.count += 1;
        if found.named.len() < NAMED {
            found.named.push(Difference { dataset: self.dataset.clone(), item, what: what.to_owned() });
        }
    }

    async fn got_on(&self, amount: Amount) -> Result<()> {
        self.work.desk.send(Message::Progress { step: self.step.clone(), amount }).await
    }

    /// Tells the driver; the number of differences.
    async fn done(self, read: crate::journal::Sums) -> Result<u64> {
        let Found { count: differences, named } =
            self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let at_ms = self.work.clock.now().millis();
        let verified = Verified { read, at_ms, differences, unsettled: 0 };
        self.work.desk.send(Message::Verified(self.dataset, self.work.pass, verified, named)).await?;
        Ok(differences)
    }
}
