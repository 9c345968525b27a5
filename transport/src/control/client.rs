//! The control API, called over gRPC.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use handover_certs::reload::Credentials;
use handover_engine::backup::{Host, Shelf};
use handover_engine::check::Finding;
use handover_engine::driver::Status;
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::name::MigrationId;
use handover_engine::phase::Operation;
use handover_engine::plan::{OnFailure, Options, Plan};
use handover_engine::ports::backups::{Order, Standing, Wanted};
use handover_engine::ports::{Answers, Result};
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::report::RehearsalReport;
use handover_engine::report::{Report, Terms, When};
use handover_engine::throttle::Change;
use handover_proto::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Request;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use v1::control_client::ControlClient;
use v1::host_backups_request::Act;

use super::{Control, Rehearsing, Seen};
use crate::client::read_document;
use crate::connect::PeerEnds;
use crate::failure::from_status;
use crate::wire::{BadField, IntoWire};
use crate::{MAX_MESSAGE_BYTES, connect, version, wire};

type Announce = fn(Request<()>) -> Result<Request<()>, tonic::Status>;
type Client = ControlClient<InterceptedService<Channel, Announce>>;

/// The target agent at an address.
pub struct RemoteControl {
    peer: String,
    client: Client,
}

impl RemoteControl {
    /// A target at `address` (host:port); connects when it is first called.
    pub fn new(address: &str, credentials: Arc<Credentials>) -> Result<Self> {
        let peer = format!("target {address}");
        let channel =
            connect::channel(&[address.to_owned()], credentials, PeerEnds::default()).map_err(|error| {
                Failure::operator(&peer, "this is no address").because(error).hint("write it as host:port")
            })?;
        let client = ControlClient::with_interceptor(channel, version::announce as Announce)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { peer, client })
    }

    fn failed(&self, status: tonic::Status) -> Failure {
        from_status(&self.peer, status)
    }

    async fn on_backups<T: DeserializeOwned>(&self, host: Host, act: Act) -> Result<T> {
        let request = v1::HostBackupsRequest { host: host.to_string(), act: Some(act) };
        let reply = self.client.clone().backups(request).await.map_err(|s| self.failed(s))?;
        read_document("answer_json", &reply.into_inner().answer_json)
    }
}

fn backup_document(value: &impl Serialize) -> Result<Bytes> {
    let json = serde_json::to_vec(value);
    Ok(json.map_err(|error| Failure::permanent("backups", "the order cannot be sent").because(error))?.into())
}

fn decisions_document(decisions: &Decisions) -> Result<Bytes> {
    let json = serde_json::to_vec(decisions);
    Ok(json.map_err(|error| Failure::permanent("decisions", "they cannot be sent").because(error))?.into())
}

fn plan_request(options: Options) -> Result<v1::PlanRequest> {
    let datasets = options.datasets.into_iter().map(Into::into).collect();
    let decisions_json = options.decisions.as_ref().map(decisions_document).transpose()?;
    Ok(v1::PlanRequest {
        overwrite: options.overwrite,
        datasets,
        follow: options.follow,
        one_way: options.one_way,
        licence: options.licence,
        swap: options.swap,
        data_only: options.data_only,
        decisions_json,
        without_logs: options.without_logs,
        on_failure: match options.on_failure {
            OnFailure::Stop => String::new(),
            other => other.to_string(),
        },
    })
}

/// Refuses a target of an earlier release, which leaves out of what is asked for what it does not know: it would replace the new version's
/// schema by the old one, wait for an operator who relies on its not waiting, or move what is to stay.
fn refuse_unknown(peer: &str, asked: &Options, understood: &Options) -> Result<()> {
    let with = if understood.decisions != asked.decisions {
        "decisions"
    } else if understood.on_failure != asked.on_failure {
        "--on-failure"
    } else if understood.without_logs != asked.without_logs {
        "--without-logs"
    } else {
        return Ok(());
    };
    Err(Failure::operator(peer, format!("it knows no plans with {with}"))
        .hint("upgrade the target's agent: both must be of this release"))
}

/// What a preflight has found, of all that was asked for.
fn findings(peer: &str, reply: &v1::CheckReply, asked: &Options) -> Result<Vec<Finding>> {
    // Those that do not tell know none of what is refused here.
    let understood = if reply.options_json.is_empty() {
        Options::default()
    } else {
        read_document("options_json", &reply.options_json)?
    };
    refuse_unknown(peer, asked, &understood)?;
    read_document("findings_json", &reply.findings_json)
}

/// `by` is not sent: the target reads it from our certificate.
#[async_trait]
impl Control for RemoteControl {
    async fn inspect(&self) -> Result<(Inventory, Inventory)> {
        let reply = self
            .client
            .clone()
            .inspect(v1::InspectRequest {})
            .await
            .map_err(|s| self.failed(s))?
            .into_inner();
        Ok((
            read_document("source_json", &reply.source_json)?,
            read_document("target_json", &reply.target_json)?,
        ))
    }

    async fn check(&self, options: Options) -> Result<Vec<Finding>> {
        let asked = options.clone();
        let reply =
            self.client.clone().check(plan_request(options)?).await.map_err(|s| self.failed(s))?.into_inner();
        findings(&self.peer, &reply, &asked)
    }

    async fn plan(&self, options: Options, _by: &str) -> Result<Plan> {
        let asked = options.clone();
        let reply =
            self.client.clone().plan(plan_request(options)?).await.map_err(|s| self.failed(s))?.into_inner();
        let plan: Plan = read_document("plan_json", &reply.plan_json)?;
        if plan.digest().to_string() != reply.digest {
            return Err(Failure::permanent(&self.peer, "the plan it sent does not have the digest it says"));
        }
        refuse_unknown(&self.peer, &asked, &plan.options)?;
        Ok(plan)
    }

    async fn start(&self, digest: &str, _by: &str) -> Result<MigrationId> {
        let request = v1::StartRequest { digest: digest.to_owned() };
        let reply = self.client.clone().start(request).await.map_err(|s| self.failed(s))?.into_inner();
        Ok(wire::name("migration", &reply.migration)?)
    }

    async fn list(&self) -> Result<Vec<Status>> {
        let reply =
            self.client.clone().list(v1::ListRequest {}).await.map_err(|s| self.failed(s))?.into_inner();
        reply.status_json.iter().map(|json| read_document("status_json", json)).collect()
    }

    async fn watch(&self, id: &MigrationId, after: u64) -> Result<Answers<Seen>> {
        let request = v1::WatchRequest { migration: id.to_string(), after };
        let replies = self.client.clone().watch(request).await.map_err(|s| self.failed(s))?.into_inner();
        let peer = self.peer.clone();
        let seen = replies.map(move |reply| {
            use v1::watch_reply::Kind;
            match reply.map_err(|status| from_status(&peer, status))?.kind {
                Some(Kind::EventJson(json)) => Ok(Seen::Event(read_document("event_json", &json)?)),
                Some(Kind::StatusJson(json)) => Ok(Seen::Status(read_document("status_json", &json)?)),
                None => Err(Failure::permanent(&peer, "it sent something that this release does not know")),
            }
        });
        Ok(seen.boxed())
    }

    async fn act(&self, id: &MigrationId, operation: Operation, terms: Terms, _by: &str) -> Result<Status> {
        let request = v1::ActRequest {
            migration: id.to_string(),
            operation: operation.to_string(),
            max_downtime_ms: Some(terms.max_downtime_ms),
            max_lag_ms: Some(terms.max_lag_ms),
            when: match terms.when {
                When::Now => None,
                When::At(at) => Some(v1::act_request::When::AtMs(at.millis())),
                When::DryRun => Some(v1::act_request::When::DryRun(true)),
                When::Never => Some(v1::act_request::When::Never(true)),
            },
            discard: terms.discard,
            alone: terms.alone,
            repair: false,
        };
        let reply = self.client.clone().act(request).await.map_err(|s| self.failed(s))?.into_inner();
        read_document("status_json", &reply.status_json)
    }

    async fn verify(&self, id: &MigrationId, repair: bool, _by: &str) -> Result<Status> {
        let request = v1::ActRequest {
            migration: id.to_string(),
            operation: Operation::Verify.to_string(),
            repair,
            ..v1::ActRequest::default()
        };
        let reply = self.client.clone().act(request).await.map_err(|s| self.failed(s))?.into_inner();
        read_document("status_json", &reply.status_json)
    }

    async fn throttle(&self, id: &MigrationId, change: Change, _by: &str) -> Result<Status> {
        let request = v1::ThrottleRequest { migration: id.to_string(), ..change.into_wire() };
        let reply = self.client.clone().throttle(request).await.map_err(|s| self.failed(s))?.into_inner();
        read_document("status_json", &reply.status_json)
    }

    async fn report(&self, id: &MigrationId) -> Result<Report> {
        let request = v1::ReportRequest { migration: id.to_string() };
        let reply = self.client.clone().report(request).await.map_err(|s| self.failed(s))?.into_inner();
        read_document("report_json", &reply.report_json)
    }

    async fn signed_report(&self, id: &MigrationId) -> Result<Vec<u8>> {
        let request = v1::ReportRequest { migration: id.to_string() };
        let reply = self.client.clone().signed_report(request).await.map_err(|s| self.failed(s))?;
        Ok(reply.into_inner().document.into())
    }

    async fn audit(&self, after: u64) -> Result<Vec<String>> {
        let reply =
            self.client.clone().audit(v1::AuditRequest { after }).await.map_err(|s| self.failed(s))?;
        let entries = reply.into_inner().entries;
        match entries.iter().find(|entry| entry.contains('\n')) {
            // It would pass for two.
            Some(_) => Err(BadField::bad("entries", "an entry is not one line").into()),
            None => Ok(entries),
        }
    }

    async fn rehearse(&self, decisions: Decisions, keep: bool, _by: &str) -> Result<Answers<Rehearsing>> {
        let decisions_json = decisions_document(&decisions)?;
        let request = v1::RehearseRequest { decisions_json, keep };
        let replies = self.client.clone().rehearse(request).await.map_err(|s| self.failed(s))?.into_inner();
        let peer = self.peer.clone();
        let told = replies.map(move |reply| {
            use v1::rehearse_reply::Kind;
            match reply.map_err(|status| from_status(&peer, status))?.kind {
                Some(Kind::Line(line)) => Ok(Rehearsing::Line(line)),
                Some(Kind::ReportJson(json)) => Ok(Rehearsing::Report(read_document("report_json", &json)?)),
                None => Err(Failure::permanent(&peer, "it sent something that this release does not know")),
            }
        });
        Ok(told.boxed())
    }

    async fn rehearsal(&self) -> Result<RehearsalReport> {
        let reply =
            self.client.clone().rehearsal(v1::RehearsalRequest {}).await.map_err(|s| self.failed(s))?;
        read_document("report_json", &reply.into_inner().report_json)
    }

    async fn begin_backups(&self, host: Host, wanted: Wanted, _by: &str) -> Result<Order> {
        self.on_backups(host, Act::BeginJson(backup_document(&wanted)?)).await
    }

    async fn backups_standing(&self, host: Host, order: &Order) -> Result<Standing> {
        self.on_backups(host, Act::StandingJson(backup_document(order)?)).await
    }

    async fn backups(&self, host: Host) -> Result<Shelf> {
        self.on_backups(host, Act::List(true)).await
    }

    async fn probe(&self, bytes: u64, _by: &str) -> Result<(u64, Duration)> {
        let reply = self
            .client
            .clone()
            .probe(v1::ProbeRequest { bytes })
            .await
            .map_err(|s| self.failed(s))?
            .into_inner();
        Ok((reply.bytes, Duration::from_nanos(reply.nanos)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::document;

    #[test]
    fn a_target_that_has_not_looked_at_what_was_asked_is_refused() {
        let findings_json = Bytes::from_static(b"[]");
        let knows = |asked: &Options| v1::CheckReply {
            findings_json: findings_json.clone(),
            options_json: document(asked).unwrap(),
        };
        let older = v1::CheckReply { findings_json: findings_json.clone(), options_json: Bytes::new() };
        let decides = Options { decisions: Some(Decisions::none()), ..Options::default() };
        let undoes = Options { on_failure: OnFailure::Undo, ..Options::default() };
        let leaves = Options { without_logs: true, ..Options::default() };
        for asked in [&Options::default(), &decides, &undoes, &leaves] {
            assert_eq!(findings("target t:1", &knows(asked), asked).unwrap(), []);
        }
        assert_eq!(findings("target t:1", &older, &Options::default()).unwrap(), []);
        for (asked, with) in [(decides, "decisions"), (undoes, "--on-failure"), (leaves, "--without-logs")] {
            let told = format!(
                "target t:1: it knows no plans with {with} (upgrade the target's agent: both must be of this release)"
            );
            for reply in [&older, &knows(&Options::default())] {
                let refused = findings("target t:1", reply, &asked).unwrap_err();
                assert_eq!(refused.to_string(), told);
            }
        }
    }
}
