//! Carrying out a window of changes.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::course::Course;
use crate::change::Change;
use crate::failure::Failure;
use crate::name::DatasetName;
use crate::pass::Work;
use crate::pass::database::CHUNK_BYTES;
use crate::ports::{KeyedTarget, KeysRequest, Result, Window};
use crate::rows::{Key, KeyedRows, RowsChunk, TableName};
use crate::throttle::gate::Kind;

/// Keys that are read and applied at once, at most and at least.
const BATCH: usize = 4_000;
const LEAST: usize = 250;

/// Makes the rows of a window what the source's are now; how many keys that were.
///
/// The keys may be read and applied in any order, and side by side. Where two rows change places in a unique column, one of them
/// may be put in place while the other, or an older self of the other, still stands there: that one goes, and its own key,
/// which is in this window or a later one, brings it back.
pub async fn carry(
    work: &Work,
    dataset: &DatasetName,
    target: &dyn KeyedTarget,
    window: Window,
    course: &Course,
) -> Result<u64> {
    let mut keys: Vec<HashSet<Key>> = vec![HashSet::new(); window.tables.len()];
    let mut children: BTreeMap<(usize, Vec<u32>), HashSet<Key>> = BTreeMap::new();
    let mut cleared = HashSet::new();
    for change in window.changes {
        let at = change.table() as usize;
        if at >= keys.len() {
            return Err(Failure::permanent(dataset.to_string(), "a change of no table"));
        }
        match change {
            Change::Row { key, .. } => drop(keys[at].insert(key)),
            Change::Cleared { .. } => drop(cleared.insert(at)),
            Change::Children { columns, values, .. } => {
                children.entry((at, columns)).or_default().insert(values);
            }
        }
    }
    // Rows that were there before a table was cleared are gone; those made since are told of by their keys.
    for at in cleared {
        course.clears(&window.tables[at]);
        target.clear(&window.tables[at]).await?;
    }
    // Looked up before the parents are touched: afterwards nothing leads to them any more.
    for ((at, columns), values) in children {
        let values: Vec<Key> = values.into_iter().collect();
        for some in values.chunks(BATCH) {
            keys[at].extend(target.children(&window.tables[at], &columns, some).await?);
        }
    }
    let lanes = work.lanes.available_permits().max(1);
    let mut batches = Vec::new();
    for (table, keys) in window.tables.iter().zip(keys) {
        course.carries(table, &keys);
        let mut keys: Vec<Key> = keys.into_iter().collect();
        // Rows that lie together are read and written together.
        keys.sort_unstable_by(Key::nearby);
        batches.extend(keys.chunks(even(keys.len(), lanes)).map(|keys| (table.clone(), keys.to_vec())));
    }
    let mut sum = 0;
    let mut running = futures::stream::iter(batches)
        .map(|(table, keys)| batch(work, dataset, target, table, keys))
        .buffer_unordered(lanes);
    while let Some(count) = running.try_next().await? {
        sum += count;
    }
    target.make_durable().await?;
    Ok(sum)
}

/// The size of batches that keep all lanes at work to the end.
fn even(keys: usize, lanes: usize) -> usize {
    let rounds = keys.div_ceil(lanes * BATCH).max(1);
    keys.div_ceil(lanes * rounds).clamp(LEAST, BATCH)
}

async fn batch(
    work: &Work,
    dataset: &DatasetName,
    target: &dyn KeyedTarget,
    table: TableName,
    keys: Vec<Key>,
) -> Result<u64> {
    let _lane = work.lanes.acquire().await.map_err(|_| crate::pass::stopped())?;
    let count = keys.len() as u64;
    let request = KeysRequest {
        dataset: dataset.clone(),
        table: table.clone(),
        keys: keys.clone(),
        budget: CHUNK_BYTES,
    };
    let chunks = work.source.changes.keys(request).await?;
    let mut chunks = work.throttle.held(chunks, Kind::Keys, &work.desk, |chunk| chunk.header.bytes);
    let mut rest = keys;
    while let Some(chunk) = chunks.try_next().await? {
        let keys = looked_up(&mut rest, &chunk).filter(|_| chunk.header.table == table && chunk.is_whole());
        let keys = keys.ok_or_else(|| foreign(dataset, &table))?;
        target.apply_keys(&[KeyedRows { keys, chunk }]).await?;
    }
    if rest.is_empty() { Ok(count) } else { Err(foreign(dataset, &table)) }
}

/// Takes the keys that a chunk answers from those that were asked for.
fn looked_up(rest: &mut Vec<Key>, chunk: &RowsChunk) -> Option<Vec<Key>> {
    let last = chunk.header.range.until.as_ref()?;
    let at = rest.iter().position(|key| key == last)?;
    let later = rest.split_off(at + 1);
    Some(std::mem::replace(rest, later))
}

fn foreign(dataset: &DatasetName, table: &TableName) -> Failure {
    Failure::permanent(
        format!("{dataset}, table {table}"),
        "the source answered for other keys than were asked for",
    )
    .hint("are both agents of the same release?")
}
