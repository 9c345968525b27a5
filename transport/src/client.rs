//! A source on another host: the engine's source ports over gRPC.

mod backups;
mod changeover;
mod fenced;
mod follow;
mod home;
mod hooks;
mod licence;
mod trees;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use handover_certs::reload::Credentials;
use handover_engine::chunk::Chunk;
use handover_engine::chunk::room::{LARGE_BYTES, Room, Taken};
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::name::{DatasetName, LeaseId};
use handover_engine::ports::{Answers, Followed, Opened, Parts, Result, RowSource, SourceHost};
use handover_engine::rows::{RowsChunk, RowsRequest, SnapshotId};
use handover_engine::throttle::Reading;
use handover_engine::time::Timestamp;
use handover_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use v1::source_client::SourceClient;

use crate::connect::PeerEnds;
use crate::failure::from_status;
use crate::frames::Receiver;
use crate::wire::{FromWire, IntoWire, Told};
use crate::{MAX_MESSAGE_BYTES, connect, version};

pub(crate) use self::follow::batches;

type Announce = fn(Request<()>) -> Result<Request<()>, Status>;
type Client = SourceClient<InterceptedService<Channel, Announce>>;

/// Connections that bulk streams are spread over.
const CONNECTIONS: usize = 2;
/// Chunks of a stream that wait, decompressed, until the engine takes them.
const AHEAD: usize = 2;
/// A large chunk is received once the one before has been applied.
static ROOM: Room = Room::new();
/// A call that asks for no work must be answered within this time. Those that do (looking through trees, opening a snapshot that is
/// copied first) take as long as the data is large: there HTTP/2's keepalive tells whether the source is still alive.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The source agent at an address.
pub struct RemoteSource {
    peer: String,
    clients: Vec<Client>,
    next: AtomicUsize,
    ends: PeerEnds,
}

impl RemoteSource {
    /// A source at `address` (host:port), or else at one of `others`; connects when it is first called.
    pub fn new(address: &str, others: &[String], credentials: &Arc<Credentials>) -> Result<Self> {
        let addresses: Vec<String> = [address.to_owned()].into_iter().chain(others.iter().cloned()).collect();
        let (peer, ends) = (format!("source {address}"), PeerEnds::default());
        let client = |_| {
            let channel =
                connect::channel(&addresses, credentials.clone(), ends.clone()).map_err(|error| {
                    Failure::operator(&peer, "this is no address")
                        .because(error)
                        .hint("write it as host:port")
                })?;
            Ok(SourceClient::with_interceptor(channel, version::announce as Announce)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES))
        };
        let clients = (0..CONNECTIONS).map(client).collect::<Result<_>>()?;
        Ok(Self { peer, clients, next: AtomicUsize::new(0), ends })
    }

    /// The next connection in turn.
    fn client(&self) -> Client {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.clients[turn % self.clients.len()].clone()
    }

    fn failed(&self, status: Status) -> Failure {
        from_status(&self.peer, status)
    }

    /// How this source is named in plans and reports: by its address.
    pub fn identity(&self) -> String {
        self.peer.clone()
    }

    /// When the source's certificate ends; none before the first connection.
    pub fn certificate_ends(&self) -> Option<Timestamp> {
        self.ends.get()
    }

    /// Says hello: refuses another major version; returns the source's release and clock in milliseconds.
    pub async fn hello(&self) -> Result<(String, i64)> {
        let request = v1::HelloRequest {
            protocol_major: version::MAJOR,
            protocol_minor: version::MINOR,
            software: version::SOFTWARE.to_owned(),
        };
        let reply = self.client().hello(quick(request)).await.map_err(|s| self.failed(s))?.into_inner();
        version::check_reply(reply.protocol_major, reply.protocol_minor)
            .map_err(|what| Failure::operator(&self.peer, what))?;
        Ok((reply.software, reply.clock_ms))
    }

    /// Takes `bytes` of noise over all connections; returns how many came and how long that took.
    pub async fn probe(&self, bytes: u64) -> Result<(u64, Duration)> {
        let began = Instant::now();
        let share = bytes.div_ceil(CONNECTIONS as u64);
        let streams = (0..CONNECTIONS).map(|_| {
            let mut client = self.client();
            tokio::spawn(async move {
                let mut frames = client.probe(v1::ProbeRequest { bytes: share }).await?.into_inner();
                let mut sum = 0;
                while let Some(frame) = frames.message().await? {
                    sum += crate::probe::received(&frame);
                }
                Ok::<u64, Status>(sum)
            })
        });
        let mut sum = 0;
        for stream in futures::future::join_all(streams).await {
            sum += stream
                .map_err(|e| Failure::transient(&self.peer, "a probe ended").because(e))?
                .map_err(|s| self.failed(s))?;
        }
        Ok((sum, began.elapsed()))
    }

    /// Receives chunks on a task of their own, so that streams decompress side by side.
    fn chunks<T: Send + 'static>(
        &self,
        mut frames: Streaming<v1::Frame>,
        pick: impl Fn(Chunk) -> Option<T> + Send + 'static,
    ) -> Answers<T> {
        let (to, chunks) = mpsc::channel(AHEAD);
        let peer = self.peer.clone();
        tokio::spawn(async move {
            let mut receiver = Receiver::default();
            let mut room = None;
            loop {
                if receiver.arrived() > LARGE_BYTES && room.is_none() {
                    room = Some(ROOM.take().await);
                }
                let answer = match frames.message().await {
                    Ok(Some(frame)) => match receiver.take(frame) {
                        Ok(None) => continue,
                        Ok(Some(chunk)) => pick(hold(chunk, room.take())).ok_or_else(|| unexpected(&peer)),
                        Err(bad) => Err(Failure::from(bad)),
                    },
                    Ok(None) => match receiver.end() {
                        Ok(()) => return,
                        Err(bad) => Err(Failure::from(bad)),
                    },
                    Err(status) => Err(from_status(&peer, status)),
                };
                let last = answer.is_err();
                // Nobody takes it: the engine has given this stream up.
                if to.send(answer).await.is_err() || last {
                    return;
                }
            }
        });
        ReceiverStream::new(chunks).boxed()
    }
}

/// A chunk that gives the room it has taken back when its bytes are dropped.
fn hold(mut chunk: Chunk, room: Option<Taken>) -> Chunk {
    let data = match &mut chunk {
        Chunk::Rows(rows) => &mut rows.block,
        Chunk::Pack(pack) => &mut pack.data,
        Chunk::Segment(segment) => &mut segment.data,
    };
    if let Some(room) = room {
        *data = room.until_dropped(std::mem::take(data));
    }
    chunk
}

fn unexpected(peer: &str) -> Failure {
    Failure::permanent(peer, "it sent a chunk of another kind than was asked for")
        .hint("are both agents of the same release?")
}

/// A request with a time limit.
fn quick<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

#[async_trait]
impl SourceHost for RemoteSource {
    async fn inspect(&self) -> Result<Inventory> {
        let reply = self.client().inspect(v1::InspectRequest {}).await.map_err(|s| self.failed(s))?;
        read_document("inventory_json", &reply.into_inner().inventory_json)
    }

    async fn open(&self, lease: &LeaseId, dataset: &DatasetName, parts: Parts) -> Result<Opened> {
        let whole = parts == Parts::Whole;
        let request = v1::OpenRequest { lease: lease.to_string(), dataset: dataset.to_string(), whole };
        let reply = self.client().open(request).await.map_err(|s| self.failed(s))?.into_inner();
        let schema = read_document("schema_json", &reply.schema_json)?;
        Ok(Opened { snapshot: SnapshotId(reply.snapshot), schema })
    }

    async fn close(&self, lease: &LeaseId) -> Result<()> {
        let request = v1::CloseRequest { lease: lease.to_string() };
        self.client().close(quick(request)).await.map_err(|s| self.failed(s))?;
        Ok(())
    }

    async fn room(&self, followed: Vec<Followed>) -> Result<Told> {
        let request = quick(followed.into_wire());
        let reply = self.client().room(request).await.map_err(|s| self.failed(s))?;
        Ok(FromWire::from_wire(reply.into_inner())?)
    }

    async fn signals(&self, rate: Option<u64>) -> Result<Vec<Reading>> {
        let reply =
            self.client().signals(quick(v1::SignalsRequest { rate })).await.map_err(|s| self.failed(s))?;
        Ok(FromWire::from_wire(reply.into_inner())?)
    }
}

#[async_trait]
impl RowSource for RemoteSource {
    async fn rows(&self, request: RowsRequest) -> Result<Answers<RowsChunk>> {
        let frames = self.client().rows(request.into_wire()).await.map_err(|s| self.failed(s))?;
        Ok(self.chunks(frames.into_inner(), |chunk| match chunk {
            Chunk::Rows(rows) => Some(rows),
            _ => None,
        }))
    }
}

/// Reads a document that came over the wire.
pub(crate) fn read_document<T: serde::de::DeserializeOwned>(field: &'static str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        Failure::permanent(format!("message from the peer, field {field}"), "it is malformed")
            .because(error)
            .hint("are both agents of the same release?")
    })
}
