//! The control API's service. Operators may do everything, watchers may look.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use handover_certs::identity::Role;
use handover_engine::backup::{BadHost, Host};
use handover_engine::phase::Operation;
use handover_engine::plan::{BadOnFailure, OnFailure, Options};
use handover_engine::ports::backups::Order;
use handover_engine::report::{Terms, When};
use handover_engine::throttle::Change;
use handover_engine::time::{Clock, Timestamp};
use handover_proto::v1;
use tonic::{Request, Response, Status};
use v1::control_server::{Control as Service, ControlServer};

use super::{Control, Rehearsing, Seen};
use crate::MAX_MESSAGE_BYTES;
use crate::client::read_document;
use crate::failure::to_status;
use crate::listen::caller;
use crate::source::{document, hello};
use crate::wire::{self, BadField, FromWire};

const READ: &[Role] = &[Role::Operator, Role::Watcher];
const WRITE: &[Role] = &[Role::Operator];

/// Serves a [`Control`].
pub struct ControlService {
    control: Arc<dyn Control>,
    clock: Arc<dyn Clock>,
}

impl ControlService {
    /// The gRPC service, to be added to a server.
    pub fn server(control: Arc<dyn Control>, clock: Arc<dyn Clock>) -> ControlServer<ControlService> {
        ControlServer::new(Self { control, clock })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

fn options(request: v1::PlanRequest) -> Result<Options, Status> {
    let datasets = request.datasets.iter().map(|name| wire::name("datasets", name));
    let datasets = datasets.collect::<Result<_, BadField>>()?;
    let decisions = request.decisions_json.as_deref().map(|json| read_document("decisions_json", json));
    let decisions = decisions.transpose().map_err(to_status)?;
    let on_failure = on_failure(&request.on_failure)?;
    let v1::PlanRequest { overwrite, follow, one_way, licence, swap, data_only, without_logs, .. } = request;
    Ok(Options {
        overwrite,
        datasets,
        follow,
        one_way,
        licence,
        swap,
        data_only,
        without_logs,
        decisions,
        on_failure,
    })
}

/// Those who say nothing of it leave it to the operator.
fn on_failure(text: &str) -> Result<OnFailure, BadField> {
    if text.is_empty() {
        return Ok(OnFailure::Stop);
    }
    text.parse().map_err(|bad: BadOnFailure| BadField { field: "on_failure", problem: bad.to_string() })
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Service for ControlService {
    type RehearseStream = BoxStream<'static, Result<v1::RehearseReply, Status>>;
    type WatchStream = BoxStream<'static, Result<v1::WatchReply, Status>>;

    async fn hello(&self, request: Request<v1::HelloRequest>) -> Answer<v1::HelloReply> {
        caller(&request, READ)?;
        Ok(Response::new(hello(self.clock.now().millis())))
    }

    async fn inspect(&self, request: Request<v1::InspectRequest>) -> Answer<v1::InspectBothReply> {
        caller(&request, READ)?;
        let (source, target) = self.control.inspect().await.map_err(to_status)?;
        let (source_json, target_json) = (document(&source)?, document(&target)?);
        Ok(Response::new(v1::InspectBothReply { source_json, target_json }))
    }

    async fn check(&self, request: Request<v1::PlanRequest>) -> Answer<v1::CheckReply> {
        caller(&request, READ)?;
        let options = options(request.into_inner())?;
        let options_json = document(&options)?;
        let findings = self.control.check(options).await.map_err(to_status)?;
        Ok(Response::new(v1::CheckReply { findings_json: document(&findings)?, options_json }))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::PlanReply> {
        let by = caller(&request, WRITE)?.to_string();
        let plan = self.control.plan(options(request.into_inner())?, &by).await.map_err(to_status)?;
        let (plan_json, digest) = (plan.to_bytes().into(), plan.digest().to_string());
        Ok(Response::new(v1::PlanReply { plan_json, digest }))
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Answer<v1::StartReply> {
        let by = caller(&request, WRITE)?.to_string();
        let digest = request.into_inner().digest;
        let id = self.control.start(&digest, &by).await.map_err(to_status)?;
        Ok(Response::new(v1::StartReply { migration: id.to_string() }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListReply> {
        caller(&request, READ)?;
        let migrations = self.control.list().await.map_err(to_status)?;
        let status_json = migrations.iter().map(document).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListReply { status_json }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        caller(&request, READ)?;
        let request = request.into_inner();
        let id = wire::name("migration", &request.migration)?;
        let seen = self.control.watch(&id, request.after).await.map_err(to_status)?;
        let replies = seen.map(|seen| {
            use v1::watch_reply::Kind;
            let kind = match seen.map_err(to_status)? {
                Seen::Event(event) => Kind::EventJson(document(&event)?),
                Seen::Status(status) => Kind::StatusJson(document(&status)?),
            };
            Ok(v1::WatchReply { kind: Some(kind) })
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn act(&self, request: Request<v1::ActRequest>) -> Answer<v1::ActReply> {
        let by = caller(&request, WRITE)?.to_string();
        let request = request.into_inner();
        let operation = Operation::named(&request.operation).ok_or_else(|| BadField {
            field: "operation",
            problem: format!("`{}` is unknown to this release", request.operation),
        })?;
        let id = wire::name("migration", &request.migration)?;
        if operation == Operation::Verify {
            let status = self.control.verify(&id, request.repair, &by).await.map_err(to_status)?;
            return Ok(Response::new(v1::ActReply { status_json: document(&status)? }));
        }
        let own = Terms::default();
        let when = match request.when {
            None => When::Now,
            Some(v1::act_request::When::AtMs(ms)) => When::At(Timestamp::from_millis(ms)),
            Some(v1::act_request::When::DryRun(_)) => When::DryRun,
            Some(v1::act_request::When::Never(_)) => When::Never,
        };
        let terms = Terms {
            when,
            max_downtime_ms: request.max_downtime_ms.unwrap_or(own.max_downtime_ms),
            max_lag_ms: request.max_lag_ms.unwrap_or(own.max_lag_ms),
            discard: request.discard,
            alone: request.alone,
        };
        let status = self.control.act(&id, operation, terms, &by).await.map_err(to_status)?;
        Ok(Response::new(v1::ActReply { status_json: document(&status)? }))
    }

    async fn throttle(&self, request: Request<v1::ThrottleRequest>) -> Answer<v1::ThrottleReply> {
        let by = caller(&request, WRITE)?.to_string();
        let request = request.into_inner();
        let id = wire::name("migration", &request.migration)?;
        let change = Change::from_wire(request)?;
        let status = self.control.throttle(&id, change, &by).await.map_err(to_status)?;
        Ok(Response::new(v1::ThrottleReply { status_json: document(&status)? }))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Answer<v1::ReportReply> {
        caller(&request, READ)?;
        let id = wire::name("migration", &request.into_inner().migration)?;
        let report = self.control.report(&id).await.map_err(to_status)?;
        Ok(Response::new(v1::ReportReply { report_json: document(&report)? }))
    }

    async fn signed_report(&self, request: Request<v1::ReportRequest>) -> Answer<v1::SignedReportReply> {
        caller(&request, READ)?;
        let id = wire::name("migration", &request.into_inner().migration)?;
        let document = self.control.signed_report(&id).await.map_err(to_status)?.into();
        Ok(Response::new(v1::SignedReportReply { document }))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Answer<v1::AuditReply> {
        caller(&request, READ)?;
        let entries = self.control.audit(request.into_inner().after).await.map_err(to_status)?;
        Ok(Response::new(v1::AuditReply { entries }))
    }

    async fn rehearse(&self, request: Request<v1::RehearseRequest>) -> Answer<Self::RehearseStream> {
        let by = caller(&request, WRITE)?.to_string();
        let request = request.into_inner();
        let decisions = read_document("decisions_json", &request.decisions_json).map_err(to_status)?;
        let told = self.control.rehearse(decisions, request.keep, &by).await.map_err(to_status)?;
        let replies = told.map(|told| {
            use v1::rehearse_reply::Kind;
            let kind = match told.map_err(to_status)? {
                Rehearsing::Line(line) => Kind::Line(line),
                Rehearsing::Report(report) => Kind::ReportJson(document(&report)?),
            };
            Ok(v1::RehearseReply { kind: Some(kind) })
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn rehearsal(&self, request: Request<v1::RehearsalRequest>) -> Answer<v1::RehearsalReply> {
        caller(&request, READ)?;
        let report = self.control.rehearsal().await.map_err(to_status)?;
        Ok(Response::new(v1::RehearsalReply { report_json: document(&report)? }))
    }

    async fn backups(&self, request: Request<v1::HostBackupsRequest>) -> Answer<v1::HostBackupsReply> {
        use v1::host_backups_request::Act;
        let is_work = matches!(request.get_ref().act, Some(Act::BeginJson(_)));
        let by = caller(&request, if is_work { WRITE } else { READ })?.to_string();
        let v1::HostBackupsRequest { host, act } = request.into_inner();
        let bad = |field, problem: String| BadField { field, problem };
        let host: Host = host.parse().map_err(|error: BadHost| bad("host", error.to_string()))?;
        let answer_json = match act.ok_or_else(|| bad("act", "is missing".to_owned()))? {
            Act::BeginJson(json) => {
                let wanted = read_document("begin_json", &json).map_err(to_status)?;
                document(&self.control.begin_backups(host, wanted, &by).await.map_err(to_status)?)?
            }
            Act::StandingJson(json) => {
                let order: Order = read_document("standing_json", &json).map_err(to_status)?;
                document(&self.control.backups_standing(host, &order).await.map_err(to_status)?)?
            }
            Act::List(_) => document(&self.control.backups(host).await.map_err(to_status)?)?,
        };
        Ok(Response::new(v1::HostBackupsReply { answer_json }))
    }

    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Answer<v1::ProbeReply> {
        let by = caller(&request, WRITE)?.to_string();
        let (bytes, time) = self.control.probe(request.into_inner().bytes, &by).await.map_err(to_status)?;
        Ok(Response::new(v1::ProbeReply { bytes, nanos: time.as_nanos() as u64 }))
    }
}
