//! What a host does to itself when it is changed over, served.

use std::time::Duration;

use handover_engine::changeover::{Bundle, Scope};
use handover_engine::name::MigrationId;
use handover_engine::ports::changeover::Changeover;
use handover_proto::v1;
use serde::Serialize;
use tonic::Status;
use v1::change_over_request::Act;

use super::document;
use crate::client::read_document;
use crate::failure::to_status;
use crate::wire::{self, BadField};

/// Does what a request asks for.
pub async fn act(host: &Changeover, request: v1::ChangeOverRequest) -> Result<v1::ChangeOverReply, Status> {
    let id: MigrationId = wire::name("migration", &request.migration)?;
    let act = request.act.ok_or_else(|| bad("act", "is missing"))?;
    let done = match act {
        Act::StopServicesMs(ms) => host.services.stop(&id, (ms > 0).then(|| Duration::from_millis(ms))).await,
        Act::HoldServices(_) => host.services.hold(&id).await,
        Act::PutServicesBack(_) => host.services.put_back(&id).await,
        Act::ForgetServices(_) => host.services.forget(&id).await,
        Act::ReadSettings(scope) => {
            return answer(&host.settings.read(scope_named(&scope)?).await.map_err(to_status)?);
        }
        Act::StageSettingsJson(json) => {
            let bundle: Bundle = read_document("stage_settings_json", &json).map_err(to_status)?;
            host.settings.stage(&id, &bundle).await
        }
        Act::RestoreSettings(_) => host.settings.restore(&id).await,
        Act::ForgetSettings(_) => host.settings.forget(&id).await,
        Act::SwapStanding(_) => return answer(&host.swap.standing(&id).await.map_err(to_status)?),
        Act::ArmSwapMs(ms) => host.swap.arm(&id, Duration::from_millis(ms)).await,
        Act::Reboot(_) => return answer(&host.swap.reboot(&id).await.map_err(to_status)?),
        Act::ConfirmSwap(_) => host.swap.confirm(&id).await,
        Act::RollSwapBack(_) => host.swap.roll_back(&id).await,
        Act::DeactivateReplicas(_) => host.replicas.deactivate(&id).await,
        Act::PutReplicasBack(_) => host.replicas.put_back(&id).await,
        Act::ForgetReplicas(_) => host.replicas.forget(&id).await,
        Act::HandOutCertificates(_) => {
            return answer(&host.certificates.hand_out().await.map_err(to_status)?);
        }
    };
    done.map(|()| v1::ChangeOverReply::default()).map_err(to_status)
}

fn answer(value: &impl Serialize) -> Result<v1::ChangeOverReply, Status> {
    Ok(v1::ChangeOverReply { answer_json: document(value)? })
}

fn bad(field: &'static str, problem: &str) -> BadField {
    BadField { field, problem: problem.to_owned() }
}

fn scope_named(name: &str) -> Result<Scope, BadField> {
    [Scope::Basic, Scope::All]
        .into_iter()
        .find(|scope| scope.as_str() == name)
        .ok_or_else(|| bad("read_settings", "is neither `basic` nor `all`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_understood_is_refused_by_its_field() {
        for (migration, act, field) in [
            ("../x", Some(Act::Reboot(true)), "migration"),
            ("m", None, "act"),
            ("m", Some(Act::ReadSettings("some".to_owned())), "read_settings"),
            ("m", Some(Act::StageSettingsJson("{\"settings\":1}".into())), "stage_settings_json"),
        ] {
            let request = v1::ChangeOverRequest { migration: migration.to_owned(), act };
            let refused = super::act(&Changeover::default(), request).await.unwrap_err();
            assert!(refused.message().contains(field), "{field}: {refused}");
        }
    }
}
