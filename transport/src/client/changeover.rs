//! What another host does to itself when it is changed over. Only what a source is asked for is here.

use std::time::Duration;

use async_trait::async_trait;
use handover_engine::changeover::{Bundle, CertificateMaterial, Scope, SwapStanding};
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::{Certificates, HostSettings, Label, Replicas, Services, Swap};
use handover_proto::v1;
use serde::de::DeserializeOwned;
use v1::change_over_request::Act;

use super::{RemoteSource, quick, read_document};

impl RemoteSource {
    async fn change(&self, migration: &MigrationId, act: Act) -> Result<v1::ChangeOverReply> {
        let request = v1::ChangeOverRequest { migration: migration.to_string(), act: Some(act) };
        // Services take as long to stop and to start as each is given at the source, and replicas as their servers take to answer.
        let takes_long = matches!(
            request.act,
            Some(
                Act::StopServicesMs(_)
                    | Act::PutServicesBack(_)
                    | Act::DeactivateReplicas(_)
                    | Act::PutReplicasBack(_)
            )
        );
        let mut client = self.client();
        let reply = match takes_long {
            false => client.change_over(quick(request)).await,
            true => client.change_over(request).await,
        };
        Ok(reply.map_err(|s| self.failed(s))?.into_inner())
    }

    async fn told<T: DeserializeOwned>(&self, migration: &MigrationId, act: Act) -> Result<T> {
        read_document("answer_json", &self.change(migration, act).await?.answer_json)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Services for RemoteSource {
    async fn stop(&self, migration: &MigrationId, lease: Option<Duration>) -> Result<()> {
        // Nothing is "never" here: a lease has a length.
        let ms = lease.map_or(0, |lease| millis(lease).max(1));
        self.change(migration, Act::StopServicesMs(ms)).await.map(drop)
    }

    async fn hold(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::HoldServices(true)).await.map(drop)
    }

    async fn put_back(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::PutServicesBack(true)).await.map(drop)
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::ForgetServices(true)).await.map(drop)
    }
}

#[async_trait]
impl HostSettings for RemoteSource {
    async fn read(&self, scope: Scope) -> Result<Bundle> {
        self.told(&MigrationId::nobody(), Act::ReadSettings(scope.as_str().to_owned())).await
    }

    async fn stage(&self, migration: &MigrationId, bundle: &Bundle) -> Result<()> {
        let json = serde_json::to_vec(bundle).unwrap_or_default();
        self.change(migration, Act::StageSettingsJson(json.into())).await.map(drop)
    }

    async fn restore(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::RestoreSettings(true)).await.map(drop)
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::ForgetSettings(true)).await.map(drop)
    }
}

#[async_trait]
impl Swap for RemoteSource {
    async fn standing(&self, migration: &MigrationId) -> Result<SwapStanding> {
        self.told(migration, Act::SwapStanding(true)).await
    }

    async fn arm(&self, migration: &MigrationId, limit: Duration) -> Result<()> {
        self.change(migration, Act::ArmSwapMs(millis(limit))).await.map(drop)
    }

    async fn reboot(&self, migration: &MigrationId) -> Result<bool> {
        self.told(migration, Act::Reboot(true)).await
    }

    async fn confirm(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::ConfirmSwap(true)).await.map(drop)
    }

    async fn roll_back(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::RollSwapBack(true)).await.map(drop)
    }
}

/// It is the target's alone.
impl Label for RemoteSource {}

#[async_trait]
impl Certificates for RemoteSource {
    async fn hand_out(&self) -> Result<Vec<CertificateMaterial>> {
        self.told(&MigrationId::nobody(), Act::HandOutCertificates(true)).await
    }
}

#[async_trait]
impl Replicas for RemoteSource {
    async fn deactivate(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::DeactivateReplicas(true)).await.map(drop)
    }

    async fn put_back(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::PutReplicasBack(true)).await.map(drop)
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        self.change(migration, Act::ForgetReplicas(true)).await.map(drop)
    }
}
