//! The backups of another host.

use async_trait::async_trait;
use bytes::Bytes;
use handover_engine::backup::Shelf;
use handover_engine::failure::Failure;
use handover_engine::ports::backups::{Order, Standing};
use handover_engine::ports::{Backups, Result};
use handover_proto::v1;
use v1::backups_request::Act;

use super::{RemoteSource, quick, read_document};

impl RemoteSource {
    async fn backups(&self, act: Act) -> Result<Bytes> {
        let request = quick(v1::BackupsRequest { act: Some(act) });
        let reply = self.client().backups(request).await.map_err(|s| self.failed(s))?;
        Ok(reply.into_inner().answer_json)
    }
}

fn document(order: &Order) -> Result<Bytes> {
    let json = serde_json::to_vec(order);
    Ok(json.map_err(|error| Failure::permanent("backups", "the order cannot be sent").because(error))?.into())
}

#[async_trait]
impl Backups for RemoteSource {
    async fn begin(&self, order: &Order) -> Result<()> {
        self.backups(Act::BeginJson(document(order)?)).await.map(drop)
    }

    async fn standing(&self, order: &Order) -> Result<Standing> {
        read_document("answer_json", &self.backups(Act::StandingJson(document(order)?)).await?)
    }

    async fn cancel(&self, order: &Order) -> Result<()> {
        self.backups(Act::CancelJson(document(order)?)).await.map(drop)
    }

    async fn list(&self) -> Result<Shelf> {
        read_document("answer_json", &self.backups(Act::List(true)).await?)
    }
}
