//! What a host does to itself when it is changed over. All of it is named by the host's own manifest; what must be undone is written
//! down, durably, before anything is done.
//!
//! Every act is idempotent: answers get lost, and a step that was cut short is done again from its beginning.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{NameServer, Result};
use crate::changeover::{
    Bundle, CertificateFacts, CertificateMaterial, Facts, LabelFacts, Scope, ServiceFacts, SettingsFacts,
    SwapStanding,
};
use crate::name::{DatasetName, MigrationId};
use crate::replication::ReplicationFacts;

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
    /// its journal's last lines. What a socket or a timer among them starts is left to that. Those that a trial seals off are sealed off
    /// before they start, those that it leaves out stay stopped, until [`Services::release`].
    async fn start(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// The trial is over: what was sealed off is so no more, what was left out starts, each asked whether it is well.
    async fn release(&self, migration: &MigrationId) -> Result<()> {
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

    /// Puts back what was there before `apply`: files first, then rows of databases, which may be down. Done already, in part or as a whole,
    /// the rest is done.
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

    /// Restores this host's own settings in files, and then stands as rolled back; a reboot follows by [`Swap::reboot`]. Rows of databases,
    /// which may be down meanwhile, are put back by [`HostSettings::restore`].
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

/// The replicas of a host's databases, which its agent reaches over SQL.
///
/// A record of what a replica was is written before it is first touched.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// What part the servers play, and the replicas that are named for them. Changes nothing.
    async fn facts(&self) -> Result<Vec<ReplicationFacts>> {
        Ok(Vec::new())
    }

    /// At the source: they follow their primary no more, not after a restart either. What is written there waits for them.
    async fn deactivate(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// At the target: each holds what its primary holds at one moment, and is told to follow it from there. What it held under the
    /// same names is kept for `put_back`. Nothing is copied to one that followed this primary already. Cut short, it is begun anew.
    async fn set_up(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// At the target: they follow, and have caught up with what was written before the call. A failure tells what has stopped one.
    async fn activate(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// At the target: what differs between the replicas and their primaries, row by row, at one moment of the primary's log; where, never
    /// what. They stand still meanwhile, and then follow again.
    async fn differences(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Rows that `set_up` has copied and `differences` has compared, since the agent was started. Only rises.
    fn rows_done(&self) -> u64 {
        0
    }

    /// They are what they were before `deactivate` or `set_up`, and follow again whom they followed.
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

/// The label that tells users that what they see is on trial.
#[async_trait]
pub trait Label: Send + Sync {
    /// How it stands; none where the manifest has no label. Changes nothing.
    async fn facts(&self) -> Result<Option<LabelFacts>> {
        Ok(None)
    }

    /// Shows it. Refuses (operator) where something else is in its place.
    async fn show(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Whether it was ever to be shown for this migration, and is not forgotten.
    async fn is_known(&self, migration: &MigrationId) -> Result<bool> {
        let _ = migration;
        Ok(false)
    }

    /// Takes it away. Refuses (operator) where somebody has put something else in its place.
    async fn take_away(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Forgets that it was shown.
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
    /// The replicas of its databases.
    pub replicas: Arc<dyn Replicas>,
    /// The label of a trial.
    pub label: Arc<dyn Label>,
    /// The server of its DNS records; a target's alone.
    pub names: Arc<dyn NameServer>,
}

impl Changeover {
    /// One type plays every part.
    pub fn of<T>(host: Arc<T>) -> Self
    where
        T: Services + HostSettings + Swap + Certificates + Replicas + Label + 'static,
    {
        let names = Arc::new(Nothing);
        Self {
            services: host.clone(),
            settings: host.clone(),
            swap: host.clone(),
            certificates: host.clone(),
            replicas: host.clone(),
            label: host,
            names,
        }
    }

    /// What an inventory tells of it.
    pub async fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            maintains: true,
            services: self.services.facts().await?,
            settings: self.settings.facts().await?,
            certificates: self.certificates.facts().await?,
            replication: self.replicas.facts().await?,
            dns: self.names.facts().await?,
            label: self.label.facts().await?,
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
impl Replicas for Nothing {}
impl Label for Nothing {}
impl NameServer for Nothing {}
