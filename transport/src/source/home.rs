//! What is written to the trees of a source that has been replaced.

use handover_engine::chunk::Chunk;
use handover_engine::ports::{HomeTree, HomeTrees, TreeOp};
use handover_engine::tree::Entry;
use handover_proto::v1;
use tonic::{Status, Streaming};
use v1::BringHomeAct as Act;

use crate::failure::to_status;
use crate::frames::Receiver;
use crate::wire::{self, BadField, FromWire};

/// Entries or changes of one request at most.
const MOST: usize = 1 << 16;

fn bad(field: &'static str, problem: impl Into<String>) -> Status {
    BadField { field, problem: problem.into() }.into()
}

/// What the messages behind the head carry.
#[derive(Default)]
struct Carried {
    entries: Vec<Entry>,
    changes: Vec<TreeOp>,
    chunk: Option<Chunk>,
}

impl Carried {
    async fn of(mut messages: Streaming<v1::BringHomeRequest>) -> Result<Self, Status> {
        let (mut out, mut receiver) = (Self::default(), Receiver::default());
        while let Some(v1::BringHomeRequest { entries, changes, frame, .. }) = messages.message().await? {
            if out.entries.len() + entries.len() > MOST || out.changes.len() + changes.len() > MOST {
                return Err(bad("entries", format!("are more than {MOST}")));
            }
            for entry in entries {
                out.entries.push(FromWire::from_wire(entry)?);
            }
            for change in changes {
                out.changes.push(FromWire::from_wire(change)?);
            }
            let Some(frame) = frame else { continue };
            match receiver.take(frame).map_err(|e| bad("frame", e.to_string()))? {
                Some(chunk) if out.chunk.is_none() => out.chunk = Some(chunk),
                Some(_) => return Err(bad("frame", "is one too many")),
                None => {}
            }
        }
        Ok(out)
    }
}

/// Carries out one act.
pub async fn act(
    home: &dyn HomeTrees,
    mut messages: Streaming<v1::BringHomeRequest>,
) -> Result<v1::BringHomeReply, Status> {
    let head = messages.message().await?.and_then(|message| message.head);
    let head = head.ok_or_else(|| bad("head", "is missing"))?;
    let tree = HomeTree {
        dataset: wire::name("head.dataset", &head.dataset)?,
        migration: wire::name("head.migration", &head.migration)?,
    };
    let act = head.act();
    let Carried { entries, changes, chunk } = Carried::of(messages).await?;
    let mut reply = v1::BringHomeReply::default();
    match act {
        Act::Unspecified => return Err(bad("head.act", "is not known here")),
        Act::Begin => home.begin(&tree).await,
        Act::Look => home.refused(&tree, entries).await.map(|refused| {
            reply.refused = refused.into_iter().map(|path| Vec::from(path).into()).collect();
        }),
        Act::Stage => match chunk {
            Some(Chunk::Rows(_)) => return Err(bad("frame", "is of another kind")),
            Some(contents) if contents.is_whole() => home.stage(&tree, contents).await,
            Some(_) => return Err(bad("frame", "does not hold what its header describes")),
            None => return Err(bad("frame", "is missing: the request was cut off")),
        },
        Act::Land => home.land(&tree, entries).await,
        Act::Change => home.change(&tree, changes).await,
        Act::Keep => home.keep(&tree).await,
    }
    .map_err(to_status)?;
    Ok(reply)
}
