//! Answers with rows.

use std::collections::VecDeque;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Answers, Result, RowSource};
use handover_engine::rows::{KeyRange, RowsChunk, RowsRequest, RowsWanted};
use rand::Rng;

use crate::model::{self, Table};
use crate::world::{Port, Site, World};

#[async_trait]
impl RowSource for Port {
    async fn rows(&self, request: RowsRequest) -> Result<Answers<RowsChunk>> {
        self.step(Site::Source, "rows").await?;
        let chunks = self.with(|world| answer(world, &request))?;
        let stream = futures::stream::unfold((self.clone(), chunks), |(port, mut chunks)| async move {
            let next = chunks.pop_front()?;
            if let Err(lost) = port.step(Site::Source, "a chunk of rows").await {
                return Some((Err(lost), (port, VecDeque::new())));
            }
            let chunk = port.with(|world| spoil(world, next, &mut chunks))?;
            Some((Ok(chunk), (port, chunks)))
        });
        Ok(stream.boxed())
    }
}

fn answer(world: &mut World, request: &RowsRequest) -> Result<VecDeque<RowsChunk>> {
    if world.mute {
        return Err(Failure::transient("rows", "the source does not answer"));
    }
    let lease = world.source.leases.get(&request.lease);
    let Some((dataset, _)) = lease.filter(|(_, snapshot)| *snapshot == request.snapshot).cloned() else {
        return Err(Failure::transient("rows", "the source no longer holds the snapshot"));
    };
    asks_for_nothing_held(world, &dataset, request);
    let table = &world.source.history[&request.snapshot.0].1[&request.table];
    let budget = world.source.budget.min(request.budget);
    let mut chunks = VecDeque::new();
    match &request.wanted {
        RowsWanted::Range(range) => cut(request, table, range.clone(), budget, &mut chunks),
        RowsWanted::Recheck(held) => {
            for held in held {
                let mut chunk =
                    model::read(&request.table, table, &held.range, budget.max(held.bytes.saturating_add(1)));
                let until = chunk.header.range.until.clone();
                let whole = until == held.range.until;
                if whole && chunk.header.digest == held.digest {
                    chunk.header.unchanged = true;
                    chunk.block = bytes::Bytes::new();
                }
                chunks.push_back(chunk);
                if !whole {
                    let rest = KeyRange { after: until, until: held.range.until.clone() };
                    cut(request, table, rest, budget, &mut chunks);
                }
            }
        }
    }
    world.sent.extend(chunks.iter().map(|chunk| chunk.header.digest));
    Ok(chunks)
}

fn cut(
    request: &RowsRequest,
    table: &Table,
    mut range: KeyRange,
    budget: u64,
    out: &mut VecDeque<RowsChunk>,
) {
    loop {
        let chunk = model::read(&request.table, table, &range, budget);
        let until = chunk.header.range.until.clone();
        out.push_back(chunk);
        if until == range.until {
            return;
        }
        range.after = until;
    }
}

/// The journal holds nothing of this snapshot that is asked for.
fn asks_for_nothing_held(world: &mut World, dataset: &DatasetName, request: &RowsRequest) {
    let held = world.books.held(dataset, &request.table);
    let held = held.iter().filter(|(snapshot, _)| *snapshot == request.snapshot);
    for (_, chunk) in held.cloned().collect::<Vec<_>>() {
        let asked = match &request.wanted {
            RowsWanted::Range(range) => model::covers(range, &chunk.range),
            RowsWanted::Recheck(chunks) => chunks.iter().any(|other| other.range == chunk.range),
        };
        // An empty table's one chunk reaches from end to end and holds nothing.
        if asked && chunk.rows > 0 {
            world.wrong(format!("{dataset}.{}: {:?} is asked for though held", request.table, chunk.range));
        }
    }
}

/// What can become of a chunk on its way; `None` when the stream ends before it, as if it were whole.
fn spoil(world: &mut World, mut chunk: RowsChunk, rest: &mut VecDeque<RowsChunk>) -> Option<RowsChunk> {
    if !world.strikes() {
        return Some(chunk);
    }
    match world.rng.random_range(0..3) {
        0 => {
            world.say("a chunk of rows comes twice");
            rest.push_front(chunk.clone());
        }
        1 if !chunk.block.is_empty() => {
            world.say("a chunk of rows is damaged");
            chunk.block = super::damaged(&chunk.block, &mut world.rng);
        }
        1 => {}
        _ => {
            world.say("an answer with rows ends too early, without an error");
            return None;
        }
    }
    Some(chunk)
}
