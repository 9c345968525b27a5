//! The licence of another host.

use async_trait::async_trait;
use bytes::Bytes;
use handover_engine::digest::Digest;
use handover_engine::licence::{Document, Standing};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Held, Licences, Result};
use handover_proto::v1;
use v1::licence_request::Act;

use super::{RemoteSource, quick, read_document};

impl RemoteSource {
    async fn licence(&self, migration: &MigrationId, act: Act) -> Result<v1::LicenceReply> {
        let request = v1::LicenceRequest { migration: migration.to_string(), act: Some(act) };
        let reply = self.client().licence(quick(request)).await.map_err(|s| self.failed(s))?;
        Ok(reply.into_inner())
    }
}

#[async_trait]
impl Licences for RemoteSource {
    async fn standing(&self) -> Result<Standing> {
        let reply = self.licence(&MigrationId::nobody(), Act::Standing(true)).await?;
        read_document("standing_json", &reply.standing_json)
    }

    async fn held(&self, migration: &MigrationId) -> Result<Held> {
        let reply = self.licence(migration, Act::Held(true)).await?;
        let v1::LicenceReply { valid, kept, is_of_kept, .. } = reply;
        Ok(Held { valid: valid.map(Document), kept: kept.map(Document), is_of_kept })
    }

    async fn keep(&self, migration: &MigrationId, document: &Document) -> Result<()> {
        self.licence(migration, Act::Keep(document.0.clone())).await.map(drop)
    }

    async fn withdraw(&self, migration: &MigrationId, digest: Digest) -> Result<()> {
        let digest = Bytes::copy_from_slice(&digest.0);
        self.licence(migration, Act::Withdraw(digest)).await.map(drop)
    }

    async fn instate(&self, migration: &MigrationId) -> Result<()> {
        self.licence(migration, Act::Instate(true)).await.map(drop)
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        self.licence(migration, Act::Forget(true)).await.map(drop)
    }
}
