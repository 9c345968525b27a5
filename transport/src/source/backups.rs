//! Work on the backups of this host, served.

use handover_engine::ports::Backups;
use handover_engine::ports::backups::Order;
use handover_proto::v1;
use tonic::Status;
use v1::backups_request::Act;

use super::document;
use crate::client::read_document;
use crate::failure::to_status;
use crate::wire::BadField;

/// Does what a request asks for.
pub async fn act(backups: &dyn Backups, request: v1::BackupsRequest) -> Result<v1::BackupsReply, Status> {
    let act = request.act.ok_or_else(|| BadField { field: "act", problem: "is missing".to_owned() })?;
    let answer_json = match act {
        Act::BeginJson(json) => {
            let order: Order = read_document("begin_json", &json).map_err(to_status)?;
            backups.begin(&order).await.map_err(to_status)?;
            bytes::Bytes::new()
        }
        Act::StandingJson(json) => {
            let order: Order = read_document("standing_json", &json).map_err(to_status)?;
            document(&backups.standing(&order).await.map_err(to_status)?)?
        }
        Act::CancelJson(json) => {
            let order: Order = read_document("cancel_json", &json).map_err(to_status)?;
            backups.cancel(&order).await.map_err(to_status)?;
            bytes::Bytes::new()
        }
        Act::List(_) => document(&backups.list().await.map_err(to_status)?)?,
    };
    Ok(v1::BackupsReply { answer_json })
}

#[cfg(test)]
mod tests {
    use handover_engine::ports::NoBackups;

    use super::*;

    #[tokio::test]
    async fn what_is_not_understood_is_refused_by_its_field() {
        for (act, field) in [
            (None, "act"),
            (Some(Act::BeginJson("{\"do\":\"burn\"}".into())), "begin_json"),
            (Some(Act::StandingJson("{\"do\":\"verify\",\"id\":\"../x\"}".into())), "standing_json"),
            (Some(Act::CancelJson("{}".into())), "cancel_json"),
        ] {
            let refused = super::act(&NoBackups, v1::BackupsRequest { act }).await.unwrap_err();
            assert!(refused.message().contains(field), "{field}: {refused}");
        }
    }
}
