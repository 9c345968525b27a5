//! The source's service: the engine's source ports, served to the target agent alone.

mod backups;
mod bulk;
mod changeover;
mod fenced;
mod home;
mod licence;
mod scan;

use futures::StreamExt;
use futures::stream::BoxStream;
use handover_certs::identity::Role;
use handover_engine::change::LogPosition;
use handover_engine::chunk::Chunk;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{ChangesRequest, Parts, Source};
use handover_engine::time::Clock;
use handover_engine::tree::{Cursor, Spots};
use handover_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};
use v1::source_server::{Source as Service, SourceServer};

use crate::failure::to_status;
use crate::listen::caller;
use crate::wire::{self, BadField, FromWire, IntoWire};
use crate::{MAX_MESSAGE_BYTES, version};

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
    type ScanStream = scan::Replies;
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
        Ok(Response::new(scan::replies(dataset, batches)))
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

    async fn may_fence(
        &self,
        request: Request<v1::MayFenceRequest>,
    ) -> Result<Response<v1::FenceReply>, Status> {
        let dataset = wire::name("dataset", &from_target(request)?.dataset)?;
        self.source.changes.may_fence(&dataset).await.map_err(to_status)?;
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

    async fn bring_home(
        &self,
        request: Request<Streaming<v1::BringHomeRequest>>,
    ) -> Result<Response<v1::BringHomeReply>, Status> {
        home::act(&*self.source.home, from_target(request)?).await.map(Response::new)
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
