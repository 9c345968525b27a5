//! What is written to a source that has been replaced.

use handover_engine::chunk::Chunk;
use handover_engine::chunk::room::{LARGE_BYTES, Room};
use handover_engine::ports::{Fence, FencedSource};
use handover_engine::rows::{Key, KeyedRows, TableName};
use handover_proto::v1;
use tonic::{Status, Streaming};

use super::{MAX_KEYS, captured};
use crate::client::batches;
use crate::failure::to_status;
use crate::frames::Receiver;
use crate::wire::{self, BadField};

/// Large chunks are taken in one after another.
static ROOM: Room = Room::new();

/// The fence that a request names.
pub fn fence(request: &v1::CaptureRequest) -> Result<Fence, BadField> {
    let (dataset, capture) = captured(request)?;
    Ok(Fence { dataset, capture })
}

/// The fence and the table that a request names.
pub fn table(request: v1::TableRequest) -> Result<(Fence, TableName), BadField> {
    let v1::TableRequest { dataset, capture, table } = request;
    Ok((fence(&v1::CaptureRequest { dataset, capture })?, wire::table(table)?))
}

fn bad(field: &'static str, problem: impl Into<String>) -> Status {
    BadField { field, problem: problem.into() }.into()
}

/// Takes in one chunk, and writes it.
pub async fn write(
    source: &dyn FencedSource,
    mut messages: Streaming<v1::WriteRequest>,
) -> Result<(), Status> {
    let first = messages.message().await?.and_then(|message| message.head);
    let v1::WriteHead { dataset, capture, fill } = first.ok_or_else(|| bad("head", "is missing"))?;
    let fence = fence(&v1::CaptureRequest { dataset, capture })?;
    let (mut keys, mut chunk, mut receiver, mut room) = (Vec::new(), None, Receiver::default(), None);
    while let Some(v1::WriteRequest { keys: more, frame, .. }) = messages.message().await? {
        if keys.len() + more.len() > MAX_KEYS {
            return Err(bad("keys", format!("are more than {MAX_KEYS}")));
        }
        keys.extend(more.into_iter().map(Key));
        if receiver.arrived() > LARGE_BYTES && room.is_none() {
            room = Some(ROOM.take().await);
        }
        let Some(frame) = frame else { continue };
        let taken = receiver.take(frame).map_err(|e| bad("frame", e.to_string()))?;
        match taken {
            Some(Chunk::Rows(rows)) if chunk.is_none() => chunk = Some(rows),
            Some(_) => return Err(bad("frame", "is of another kind, or one too many")),
            None => {}
        }
    }
    let chunk = chunk.ok_or_else(|| bad("frame", "is missing: the request was cut off"))?;
    if !chunk.is_whole() {
        return Err(bad("frame", "does not hold what its header describes"));
    }
    if fill {
        return source.fill(&fence, chunk).await.map_err(to_status);
    }
    source.apply_keys(&fence, KeyedRows { keys, chunk }).await.map_err(to_status)
}

/// Looks for rows by their values; their keys, as messages.
pub async fn children(
    source: &dyn FencedSource,
    request: v1::ChildrenRequest,
) -> Result<Vec<v1::KeysReply>, Status> {
    let v1::ChildrenRequest { table: place, columns, values } = request;
    let (fence, table) = table(place.ok_or_else(|| bad("table", "is missing"))?)?;
    if values.len() > MAX_KEYS {
        return Err(bad("values", format!("are more than {MAX_KEYS}")));
    }
    let values: Vec<Key> = values.into_iter().map(Key).collect();
    let keys = source.children(&fence, &table, &columns, &values).await.map_err(to_status)?;
    Ok(batches(keys).into_iter().map(|keys| v1::KeysReply { keys }).collect())
}
