//! The source's service: the engine's source ports, served to the target agent alone.

mod backups;
mod bulk;
mod changeover;
mod fenced;
mod licence;

use futures::StreamExt;
use futures::stream::BoxStream;
use handover_certs::identity::Role;
use handover_engine::change::LogPosition;
use handover_engine::chunk::Chunk;
use handover_engine::failure::Failure;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{ChangesRequest, Parts, Source};
use handover_engine::time::Clock;
use handover_engine::tree::{Cursor, Entry, Spots};
use handover_proto::v1;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};
use v1::source_server::{Source as Service, SourceServer};

use crate::failure::to_status;
use crate::listen::caller;
use crate::wire::{self, BadField, FromWire, IntoWire};
use crate::{MAX_MESSAGE_BYTES, version};

/// Entries of one scan message, and their bytes: bounded well below the largest message, however long paths and attributes are.
const SCAN_BATCH: usize = 512;
const SCAN_BYTES: usize = 8 << 20;
/// Blocks of a basis that are taken at most: a file of 64 KiB blocks that is 4 TiB large.
const MAX_BASIS: usize = 64 << 20;

/// Keys that are looked up for one request at most.
const MAX_KEYS: usize = 1 << 20;
/// A call for changes waits no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Serves `source`.
pub struct SourceService {
    source: Source,
    clock: Arc<dyn Clock>,
}

impl SourceService {
    /// The gRPC service, to be added to a server.
    pub fn server(source: Source, clock: Arc<dyn Clock>) -> SourceServer<SourceService> {
        SourceServer::new(Self { source, clock })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

type Frames = BoxStream<'static, Result<v1::Frame, Status>>;

fn from_target<T>(request: Request<T>) -> Result<T, Status> {
    caller(&request, &[Role::Target])?;
    Ok(request.into_inner())
}

#[tonic::async_trait]
impl Service for SourceService {
    type RowsStream = Frames;
    type ScanStream = BoxStream<'static, Result<v1::ScanReply, Status>>;
    type PackStream = Frames;
    type FileStream = Frames;
    type ProbeStream = Frames;
    type KeysStream = Frames;
    type FindChildrenStream = BoxStream<'static, Result<v1::KeysReply, Status>>;

    async fn hello(&self, request: Request<v1::HelloRequest>) -> Result<Response<v1::HelloReply>, Status> {
        caller(&request, &[Role::Target])?;
        Ok(Response::new(hello(self.clock.now().millis())))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<v1::InspectReply>, Status> {
        from_target(request)?;
        let inventory = self.source.host.inspect().await.map_err(to_status)?;
        Ok(Response::new(v1::InspectReply { inventory_json: document(&inventory)? }))
    }

    async fn open(&self, request: Request<v1::OpenRequest>) -> Result<Response<v1::OpenReply>, Status> {
        let request = from_target(request)?;
        let (lease, dataset) =
            (wire::name("lease", &request.lease)?, wire::name("dataset", &request.dataset)?);
        let parts = if request.whole { Parts::Whole } else { Parts::Cut };
        let opened = self.source.host.open(&lease, &dataset, parts).await.map_err(to_status)?;
        let schema_json = document(&opened.schema)?;
        Ok(Response::new(v1::OpenReply { snapshot: opened.snapshot.0, schema_json }))
    }

    async fn close(&self, request: Request<v1::CloseRequest>) -> Result<Response<v1::CloseReply>, Status> {
        let request = from_target(request)?;
        self.source.host.close(&wire::name("lease", &request.lease)?).await.map_err(to_status)?;
        Ok(Response::new(v1::CloseReply {}))
    }

    async fn rows(&self, request: Request<v1::RowsRequest>) -> Result<Response<Frames>, Status> {
        let request = FromWire::from_wire(from_target(request)?)?;
        let chunks = self.source.rows.rows(request).await.map_err(to_status)?;
        Ok(Response::new(bulk::frames(chunks.map(|chunk| chunk.map(Chunk::Rows)).boxed())))
    }

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let v1::ScanRequest { dataset, spots } = from_target(request)?;
        let (dataset, spots) = (wire::name("dataset", &dataset)?, Spots::from_wire(spots)?);
        let batches = if spots.is_empty() {
            self.source.trees.scan(&dataset).await
        } else {
            self.source.trees.scan_at(&dataset, &spots).await
        };
        let batches = batches.map_err(to_status)?;
        let replies = batches.flat_map(move |batch| {
            let replies = match batch {
                Ok(entries) => scan_replies(&dataset, entries),
                Err(failure) => vec![Err(to_status(failure))],
            };
            futures::stream::iter(replies)
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn changed(
        &self,
        request: Request<v1::ChangedRequest>,
    ) -> Result<Response<v1::ChangedReply>, Status> {
        let v1::ChangedRequest { dataset, cursor, wait_ms } = from_target(request)?;
        let dataset = wire::name("dataset", &dataset)?;
        let since = Some(cursor).filter(|cursor| !cursor.is_empty()).map(Cursor);
        let wait = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
        let changed = self.source.trees.changed(&dataset, since, wait).await.map_err(to_status)?;
        Ok(Response::new(changed.into_wire()))
    }

    async fn pack(&self, request: Request<v1::PackRequest>) -> Result<Response<Frames>, Status> {
        let request = FromWire::from_wire(from_target(request)?)?;
        let pack = self.source.trees.pack(request).await.map_err(to_status)?;
        Ok(Response::new(bulk::frames(futures::stream::iter([Ok(Chunk::Pack(pack))]).boxed())))
    }

    async fn file(&self, request: Request<Streaming<v1::FileRequest>>) -> Result<Response<Frames>, Status> {
        let request = bulk::file_request(from_target(request)?).await?;
        let segments = self.source.trees.file(request).await.map_err(to_status)?;
        Ok(Response::new(bulk::frames(segments.map(|segment| segment.map(Chunk::Segment)).boxed())))
    }

    async fn begin_capture(
        &self,
        request: Request<v1::CaptureRequest>,
    ) -> Result<Response<v1::PositionReply>, Status> {
        let (dataset, capture) = captured(&from_target(request)?)?;
        let position = self.source.changes.begin(&dataset, &capture).await.map_err(to_status)?;
        Ok(Response::new(v1::PositionReply { position: position.0 }))
    }

    async fn changes(
        &self,
        request: Request<v1::ChangesRequest>,
    ) -> Result<Response<v1::ChangesReply>, Status> {
        let mut request = ChangesRequest::from_wire(from_target(request)?)?;
        request.wait = request.wait.min(LONGEST_WAIT);
        let changes = self.source.changes.changes(request).await.map_err(to_status)?;
        Ok(Response::new(changes.into_wire()))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmReply>, Status> {
        let v1::ConfirmRequest { dataset, capture, until } = from_target(request)?;
        let (dataset, capture) = captured(&v1::CaptureRequest { dataset, capture })?;
        let until = LogPosition(until);
        self.source.changes.confirm(&dataset, &capture, &until).await.map_err(to_status)?;
        Ok(Response::new(v1::ConfirmReply {}))
    }

    async fn end_capture(
        &self,
        request: Request<v1::EndCaptureRequest>,
    ) -> Result<Response<v1::EndCaptureReply>, Status> {
        let v1::EndCaptureRequest { dataset, capture, keep_fence } = from_target(request)?;
        let (dataset, capture) = captured(&v1::CaptureRequest { dataset, capture })?;
        self.source.changes.end(&dataset, &capture, keep_fence).await.map_err(to_status)?;
        Ok(Response::new(v1::EndCaptureReply {}))
    }

    async fn keys(&self, request: Request<Streaming<v1::KeysRequest>>) -> Result<Response<Frames>, Status> {
        let request = bulk::keys_request(from_target(request)?).await?;
        let chunks = self.source.changes.keys(request).await.map_err(to_status)?;
        Ok(Response::new(bulk::frames(chunks.map(|chunk| chunk.map(Chunk::Rows)).boxed())))
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Result<Response<v1::FenceReply>, Status> {
        let v1::FenceRequest { dataset, capture, wait_ms } = from_target(request)?;
        let (dataset, capture) = captured(&v1::CaptureRequest { dataset, capture })?;
        let wait = Duration::from_millis(wait_ms);
        self.source.changes.fence(&dataset, &capture, wait).await.map_err(to_status)?;
        Ok(Response::new(v1::FenceReply {}))
    }

    async fn unfence(
        &self,
        request: Request<v1::CaptureRequest>,
    ) -> Result<Response<v1::FenceReply>, Status> {
        let (dataset, capture) = captured(&from_target(request)?)?;
        self.source.changes.unfence(&dataset, &capture).await.map_err(to_status)?;
        Ok(Response::new(v1::FenceReply {}))
    }

    async fn make_ready(
        &self,
        request: Request<v1::CaptureRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        let fence = fenced::fence(&from_target(request)?)?;
        self.source.fenced.make_ready(&fence).await.map_err(to_status)?;
        Ok(Response::new(v1::WriteReply {}))
    }

    async fn stand_down(
        &self,
        request: Request<v1::CaptureRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        let fence = fenced::fence(&from_target(request)?)?;
        self.source.fenced.stand_down(&fence).await.map_err(to_status)?;
        Ok(Response::new(v1::WriteReply {}))
    }

    async fn write(
        &self,
        request: Request<Streaming<v1::WriteRequest>>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        fenced::write(&*self.source.fenced, from_target(request)?).await?;
        Ok(Response::new(v1::WriteReply {}))
    }

    async fn clear(&self, request: Request<v1::TableRequest>) -> Result<Response<v1::WriteReply>, Status> {
        let (fence, table) = fenced::table(from_target(request)?)?;
        self.source.fenced.clear(&fence, &table).await.map_err(to_status)?;
        Ok(Response::new(v1::WriteReply {}))
    }

    async fn find_children(
        &self,
        request: Request<v1::ChildrenRequest>,
    ) -> Result<Response<Self::FindChildrenStream>, Status> {
        let keys = fenced::children(&*self.source.fenced, from_target(request)?).await?;
        Ok(Response::new(futures::stream::iter(keys.into_iter().map(Ok)).boxed()))
    }

    async fn set_positions(
        &self,
        request: Request<v1::PositionsRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        let v1::PositionsRequest { dataset, capture, schema_json } = from_target(request)?;
        let fence = fenced::fence(&v1::CaptureRequest { dataset, capture })?;
        let schema = crate::client::read_document("schema_json", &schema_json).map_err(to_status)?;
        self.source.fenced.set_positions(&fence, &schema).await.map_err(to_status)?;
        Ok(Response::new(v1::WriteReply {}))
    }

    async fn licence(
        &self,
        request: Request<v1::LicenceRequest>,
    ) -> Result<Response<v1::LicenceReply>, Status> {
        licence::act(&*self.source.licences, from_target(request)?).await.map(Response::new)
    }

    async fn change_over(
        &self,
        request: Request<v1::ChangeOverRequest>,
    ) -> Result<Response<v1::ChangeOverReply>, Status> {
        changeover::act(&self.source.changeover, from_target(request)?).await.map(Response::new)
    }

    async fn backups(
        &self,
        request: Request<v1::BackupsRequest>,
    ) -> Result<Response<v1::BackupsReply>, Status> {
        backups::act(&*self.source.backups, from_target(request)?).await.map(Response::new)
    }

    async fn room(&self, request: Request<v1::RoomRequest>) -> Result<Response<v1::RoomReply>, Status> {
        let followed = FromWire::from_wire(from_target(request)?)?;
        let told = self.source.host.room(followed).await.map_err(to_status)?;
        Ok(Response::new(told.into_wire()))
    }

    async fn signals(
        &self,
        request: Request<v1::SignalsRequest>,
    ) -> Result<Response<v1::SignalsReply>, Status> {
        let rate = from_target(request)?.rate;
        let readings = self.source.host.signals(rate).await.map_err(to_status)?;
        Ok(Response::new(readings.into_wire()))
    }

    async fn run_hooks(
        &self,
        request: Request<v1::HooksRequest>,
    ) -> Result<Response<v1::HooksReply>, Status> {
        let occasion = FromWire::from_wire(from_target(request)?)?;
        let warnings = self.source.hooks.run(&occasion).await.map_err(to_status)?;
        Ok(Response::new(v1::HooksReply { warnings }))
    }

    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Result<Response<Frames>, Status> {
        Ok(Response::new(crate::probe::frames(from_target(request)?.bytes)))
    }
}

/// What a request about a capture names.
fn captured(request: &v1::CaptureRequest) -> Result<(DatasetName, CaptureId), BadField> {
    Ok((wire::name("dataset", &request.dataset)?, wire::name("capture", &request.capture)?))
}

/// Entries as messages; one that no message can carry ends the scan, by name.
fn scan_replies(dataset: &DatasetName, entries: Vec<Entry>) -> Vec<Result<v1::ScanReply, Status>> {
    let (mut replies, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        let path = entry.path.clone();
        let entry: v1::Entry = entry.into_wire();
        let len = entry.encoded_len();
        if len > MAX_MESSAGE_BYTES / 2 {
            let item = format!("{dataset}, {path}");
            let failure =
                Failure::operator(item, format!("its extended attributes are too large: {len} bytes"))
                    .hint("leave it out (`exclude` in the source's manifest), or remove attributes");
            replies.push(Err(to_status(failure)));
            return replies;
        }
        if open.len() == SCAN_BATCH || bytes + len > SCAN_BYTES && !open.is_empty() {
            replies.push(Ok(v1::ScanReply { entries: std::mem::take(&mut open) }));
            bytes = 0;
        }
        bytes += len;
        open.push(entry);
    }
    if !open.is_empty() {
        replies.push(Ok(v1::ScanReply { entries: open }));
    }
    replies
}

/// What both services say of themselves.
pub(crate) fn hello(clock_ms: i64) -> v1::HelloReply {
    v1::HelloReply {
        protocol_major: version::MAJOR,
        protocol_minor: version::MINOR,
        software: version::SOFTWARE.to_owned(),
        clock_ms,
    }
}

/// A document as it travels.
pub(crate) fn document<T: serde::Serialize>(value: &T) -> Result<bytes::Bytes, Status> {
    let json = serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))?;
    Ok(json.into())
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
    use super::*;
    use handover_engine::tree::{EntryKind, Meta, RelPath, Stamp};

    fn entry(name: &str, attribute: usize) -> Entry {
        let xattrs = [(b"user.a".to_vec(), vec![7; attribute])].into();
        let meta = Meta { mode: 0o644, uid: 0, gid: 0, mtime: Default::default(), xattrs };
        let kind = EntryKind::File { size: 0, sparse: false, linked: false };
        Entry { path: RelPath::new(name.as_bytes()).unwrap(), kind, meta, stamp: Stamp::default() }
    }

    #[test]
    fn large_attributes_travel_in_messages_of_their_own() {
        let dataset: DatasetName = "www".parse().unwrap();
        let entries: Vec<Entry> = (0..700).map(|n| entry(&format!("f{n}"), 64 << 10)).collect();
        let replies = scan_replies(&dataset, entries);
        let replies: Vec<v1::ScanReply> = replies.into_iter().collect::<Result<_, _>>().unwrap();
        assert!(replies.iter().all(|reply| reply.encoded_len() <= SCAN_BYTES + 1024));
        assert_eq!(replies.iter().map(|reply| reply.entries.len()).sum::<usize>(), 700);
        let small = scan_replies(&dataset, (0..700).map(|n| entry(&format!("f{n}"), 1)).collect());
        assert_eq!(small.len(), 2);
        let none = scan_replies(&dataset, vec![entry("a", 1), entry("huge", MAX_MESSAGE_BYTES)]);
        let status = none.into_iter().last().unwrap().unwrap_err();
        assert!(status.message().contains("www, huge"), "{status:?}");
    }
}
