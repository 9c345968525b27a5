//! The source's streams: chunks are compressed on blocking threads, one ahead of the link.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use futures::stream::BoxStream;
use handover_engine::chunk::Chunk;
use handover_engine::chunk::room::{LARGE_BYTES, Room};
use handover_engine::ports::{Answers, KeysRequest};
use handover_engine::rows::Key;
use handover_engine::tree::FileRequest;
use handover_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::MAX_KEYS;
use crate::FRAME_BYTES;
use crate::failure::to_status;
use crate::frames::{Compressor, Took, data_frames, header_frame, split};
use crate::wire::{self, BadField, FromWire};

/// Blocks of a basis that are taken at most: a file of 64 KiB blocks that is 4 TiB large.
const MAX_BASIS: usize = 64 << 20;
/// Frames that wait for the link: a chunk of the usual size.
const AHEAD: usize = 4;
/// Bytes that are compressed before their frames are sent: a chunk of the usual size.
const PART: usize = 4 * FRAME_BYTES;
/// Large chunks are sent one after another.
static ROOM: Room = Room::new();

/// Compressors between two streams. Each small chunk may be a stream of its own: it goes on with what the one before has learnt of
/// the link.
static IDLE: Mutex<Vec<Compressor>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Compressor>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The frames of a stream of chunks. Ends after the first failure.
pub fn frames(mut chunks: Answers<Chunk>) -> BoxStream<'static, Result<v1::Frame, Status>> {
    let (to, frames) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut compressor = idle().pop().unwrap_or_default();
        let mut took = None;
        while let Some(chunk) = chunks.next().await {
            if let Some(took) = took.take() {
                compressor.adapt(took);
            }
            let result = match chunk {
                Ok(chunk) => send(chunk, compressor, &to).await,
                Err(failure) => Err(to_status(failure)),
            };
            match result {
                Ok(Some((back, time))) => (compressor, took) = (back, Some(time)),
                // The receiver has gone: nobody wants the rest.
                Ok(None) => return,
                Err(status) => return drop(to.send(Err(status)).await),
            }
        }
        if let Some(Took { compressing, waiting }) = took {
            // Nobody has waited for the last frames yet.
            let began = Instant::now();
            let _ = to.reserve_many(AHEAD).await;
            compressor.adapt(Took { compressing, waiting: waiting + began.elapsed() });
        }
        idle().push(compressor);
    });
    ReceiverStream::new(frames).boxed()
}

type Sender = mpsc::Sender<Result<v1::Frame, Status>>;

/// Compresses and sends one chunk, and tells how long each took. A large one is compressed part by part: all of its frames would be as
/// much again.
async fn send(
    chunk: Chunk,
    mut compressor: Compressor,
    to: &Sender,
) -> Result<Option<(Compressor, Took)>, Status> {
    let (header, mut data) = split(chunk);
    let _room = if data.len() > LARGE_BYTES { Some(ROOM.take().await) } else { None };
    if to.send(Ok(header_frame(header))).await.is_err() {
        return Ok(None);
    }
    let mut took = Took::default();
    while !data.is_empty() {
        let part = data.split_to(data.len().min(PART));
        let work = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let frames = data_frames(part, &mut compressor);
            (compressor, frames, began.elapsed())
        });
        let (back, frames, time) = work.await.map_err(|error| Status::internal(error.to_string()))?;
        compressor = back;
        took.compressing += time;
        for frame in frames {
            let began = Instant::now();
            if to.send(Ok(frame)).await.is_err() {
                return Ok(None);
            }
            took.waiting += began.elapsed();
        }
    }
    Ok(Some((compressor, took)))
}

/// Puts a request for keys together from its messages.
pub async fn keys_request(mut messages: Streaming<v1::KeysRequest>) -> Result<KeysRequest, Status> {
    let mut message = messages.message().await?;
    let head = message.as_mut().and_then(|message| message.head.take());
    let head = head.ok_or(BadField { field: "head", problem: "is missing".to_owned() })?;
    let mut request = KeysRequest {
        dataset: wire::name("head.dataset", &head.dataset)?,
        table: wire::table(head.table)?,
        keys: Vec::new(),
        budget: head.budget,
    };
    while let Some(v1::KeysRequest { keys, .. }) = message {
        if request.keys.len() + keys.len() > MAX_KEYS {
            return Err(BadField { field: "keys", problem: format!("are more than {MAX_KEYS}") }.into());
        }
        request.keys.extend(keys.into_iter().map(Key));
        message = messages.message().await?;
    }
    Ok(request)
}

/// Puts a file request together from its messages.
pub async fn file_request(mut messages: Streaming<v1::FileRequest>) -> Result<FileRequest, Status> {
    let first = messages.message().await?.unwrap_or_default();
    let head = first.head.ok_or(BadField { field: "head", problem: "is missing".to_owned() })?;
    let mut request = FileRequest {
        dataset: wire::name("head.dataset", &head.dataset)?,
        path: wire::path("head.path", head.path)?,
        offset: head.offset,
        begun_as: head.begun_as.map(FromWire::from_wire).transpose()?,
        basis: Vec::new(),
    };
    let mut blocks = first.basis;
    loop {
        within_bounds(request.basis.len() + blocks.len())?;
        for block in blocks {
            request.basis.push(FromWire::from_wire(block)?);
        }
        match messages.message().await? {
            Some(message) => blocks = message.basis,
            None => return Ok(request),
        }
    }
}

/// Refuses a basis that no file of a sane size has.
fn within_bounds(blocks: usize) -> Result<(), BadField> {
    if blocks <= MAX_BASIS {
        return Ok(());
    }
    Err(BadField { field: "basis", problem: format!("has more than {MAX_BASIS} blocks") })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frames::tests::rows;

    /// The level that the next stream begins with, once the last one has ended.
    async fn learnt() -> i32 {
        loop {
            if let Some(compressor) = idle().last() {
                return compressor.level();
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn short_streams_learn_from_each_other_how_slow_the_link_is() {
        for _ in 0..6 {
            let chunks = futures::stream::iter([Ok(rows(vec![b'a'; FRAME_BYTES]))]).boxed();
            let mut frames = frames(chunks);
            while let Some(frame) = frames.next().await {
                frame.unwrap();
                // Many times what compressing takes.
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            learnt().await;
        }
        assert!(learnt().await > Compressor::default().level(), "{}", learnt().await);
    }
}
