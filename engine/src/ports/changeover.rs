//! What a host does to itself when it is changed over. All of it is named by the host's own manifest; what must be undone is written
//! down, durably, before anything is done.
//!
//! Every act is idempotent: answers get lost, and a step that was cut short is done again from its beginning.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Result;
use crate::changeover::{
    Bundle, CertificateFacts, CertificateMaterial, Facts, Scope, ServiceFacts, SettingsFacts, SwapStanding,
};
use crate::name::{DatasetName, MigrationId};

/// The services of a host.
#[async_trait]
pub trait Services: Send + Sync {
    /// How they stand. Changes nothing.
    async fn facts(&self) -> Result<Vec<ServiceFacts>> {
        Ok(Vec::new())
    }

    /// Stops them, the last one first, and keeps them from starting with the host. With a lease: once that is over, they are
    /// put back by themselves, unless they are held. Asked again, the lease begins anew. Refuses (operator) once a lease has ended,
    /// until [`Services::put_back`] was asked for.
    async fn stop(&self, migration: &MigrationId, lease: Option<Duration>) -> Result<()> {
        let _ = (migration, lease);
        Ok(())
    }

    /// They stay stopped, whatever comes. Refuses (operator) when they were put back meanwhile, or their lease is over.
    async fn hold(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Starts them, the first one first, each once those before it are well; enables them. A failure names the service and tells
    /// its journal's last lines. What a socket or a timer among them starts is left to that.
    async fn start(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// They are what they were before they were first stopped or started for this migration. Goes on past one that does not come up.
    async fn put_back(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Forgets what they were before.
    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }
}

/// The settings of a host.
#[async_trait]
pub trait HostSettings: Send + Sync {
    /// How they stand. Changes nothing.
    async fn facts(&self) -> Result<Vec<SettingsFacts>> {
        Ok(Vec::new())
    }

    /// What they are now.
    async fn read(&self, scope: Scope) -> Result<Bundle> {
        let _ = scope;
        Ok(Bundle::default())
    }

    /// Keeps what is to be put in place, durably, once it is sure that it can be. Sections that this host's manifest does not
    /// name are left out. Replaces what was staged for this migration before.
    async fn stage(&self, migration: &MigrationId, bundle: &Bundle) -> Result<()> {
        let _ = (migration, bundle);
        Ok(())
    }

    /// Puts in place what is staged.
    async fn apply(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Puts back what was there before `apply`.
    async fn restore(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// At the target: gives what the migration builds of these databases the rows that make this host the one it is, as they are in what
    /// stands at their place now. Where there is no such table yet, nothing is done.
    async fn retain(&self, migration: &MigrationId, datasets: &[DatasetName]) -> Result<()> {
        let _ = (migration, datasets);
        Ok(())
    }

    /// At the target: what the migration builds is as it was before `retain`. Nothing to do once it was published.
    async fn release(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Forgets what was staged, and what was there before.
    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }
}

/// A change of settings that a reboot belongs to, with a timer that undoes it.
#[async_trait]
pub trait Swap: Send + Sync {
    /// How far it is.
    async fn standing(&self, migration: &MigrationId) -> Result<SwapStanding> {
        let _ = migration;
        Ok(SwapStanding::Own)
    }

    /// Puts in place what is staged, with the dead-man timer running before anything is changed: not confirmed within `limit` of now, or
    /// of the next boot, the host restores its own settings and reboots, whether its agent runs or not. Asked again, nothing is done.
    async fn arm(&self, migration: &MigrationId, limit: Duration) -> Result<()> {
        let _ = (migration, limit);
        Ok(())
    }

    /// Reboots, unless this host was booted since it was armed, or since it restored its own, or nothing of the kind goes on. Whether it
    /// goes down: it answers before that.
    async fn reboot(&self, migration: &MigrationId) -> Result<bool> {
        let _ = migration;
        Ok(false)
    }

    /// The other host was found: it is given twice the time, from now on, to hear of it too.
    async fn met(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// The timer runs no more. What is staged of databases is put in place now: no timer could put it back without them. Refuses
    /// (operator) when this host has restored its own already.
    async fn confirm(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Restores this host's own settings, and then stands as rolled back; a reboot follows by [`Swap::reboot`].
    async fn roll_back(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }
}

/// The certificates of a host's services.
#[async_trait]
pub trait Certificates: Send + Sync {
    /// How they stand. Changes nothing.
    async fn facts(&self) -> Result<Vec<CertificateFacts>> {
        Ok(Vec::new())
    }

    /// At the source: those that its manifest lets go.
    async fn hand_out(&self) -> Result<Vec<CertificateMaterial>> {
        Ok(Vec::new())
    }

    /// At the target: refuses what `install` would refuse, while there is time to mend it. Changes nothing.
    async fn check(&self, from_source: &[CertificateMaterial]) -> Result<()> {
        let _ = from_source;
        Ok(())
    }

    /// At the target: puts new ones in place, those of the source or newly issued ones, as the manifest says. Each is checked before
    /// anything is changed: key, chain, names, dates.
    async fn install(&self, migration: &MigrationId, from_source: &[CertificateMaterial]) -> Result<()> {
        let _ = (migration, from_source);
        Ok(())
    }

    /// Has the services that run take what is in place, and asks them over TLS until it is served. A failure names what was served
    /// instead.
    async fn prove(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Puts back what was there before `install`, and has the services that run take it.
    async fn restore(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Forgets what was there before.
    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }
}

/// All of it, of one host.
#[derive(Clone)]
pub struct Changeover {
    /// Its services.
    pub services: Arc<dyn Services>,
    /// Its settings.
    pub settings: Arc<dyn HostSettings>,
    /// Changing them with a reboot.
    pub swap: Arc<dyn Swap>,
    /// Its certificates.
    pub certificates: Arc<dyn Certificates>,
}

impl Changeover {
    /// One type plays every part.
    pub fn of<T: Services + HostSettings + Swap + Certificates + 'static>(host: Arc<T>) -> Self {
        Self { services: host.clone(), settings: host.clone(), swap: host.clone(), certificates: host }
    }

    /// What an inventory tells of it.
    pub async fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            maintains: true,
            services: self.services.facts().await?,
            settings: self.settings.facts().await?,
            certificates: self.certificates.facts().await?,
        })
    }
}

impl Default for Changeover {
    fn default() -> Self {
        Self::of(Arc::new(Nothing))
    }
}

/// A host whose manifest names nothing of the kind.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Services for Nothing {}
impl HostSettings for Nothing {}
impl Swap for Nothing {}
impl Certificates for Nothing {}
