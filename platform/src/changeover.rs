//! What this host does to itself when it is changed over, as its manifest says: services through systemd, settings with the timer of a swap,
//! certificates that services serve, replicas of databases, DNS records through their server.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use handover_certificates::{LocalCertificates, Reloader};
use handover_dns::LocalNames;
use handover_engine::changeover::{SettingsRows, SwapStanding};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::settings_table::{At, SettingsTable, SettingsTables};
use handover_engine::time::Clock;
use handover_services::{HostBoot, LocalServices, Systemd};
use handover_settings::{LocalSettings, LocalSwap, SystemctlReboot};

use crate::access::Side;
use crate::label::LocalLabel;
use crate::manifest::{DatabaseSection, Manifest};
use crate::replicas::LocalReplicas;
use crate::source::{LocalSource, place};

/// This host's part in a changeover.
#[derive(Clone)]
pub struct LocalChangeover {
    services: Arc<LocalServices>,
    replicas: Arc<LocalReplicas>,
    ports: Changeover,
}

impl LocalChangeover {
    /// What `manifest` names; what must be undone is recorded below `state`.
    pub fn new(manifest: &Manifest, state: &Path, side: Side, clock: Arc<dyn Clock>) -> Self {
        let systemd = Arc::new(Systemd::new());
        let services = LocalServices::new(manifest.service.clone(), state, systemd.clone());
        let services = Arc::new(match side {
            Side::Source => services,
            Side::Target => services.at_target(),
        });
        let tables = Arc::new(Tables(manifest.database.clone()));
        let settings = LocalSettings::with_tables(manifest.settings.clone(), tables, state);
        let swap = LocalSwap::new(settings.clone(), Arc::new(HostBoot::new()), Arc::new(SystemctlReboot));
        let reloader = Arc::new(Reload(systemd));
        // It is the target that is on trial.
        let label = manifest.label.clone().filter(|_| side == Side::Target);
        let label = LocalLabel::new(label, state, reloader.clone());
        let certificates =
            LocalCertificates::new(manifest.certificate.clone(), state, reloader, clock.clone());
        // Names lead from one host to the other: the target's agent sees to that.
        let (certificates, dns) = match side {
            Side::Source => (certificates, None),
            Side::Target => (certificates.at_target(), manifest.dns.clone()),
        };
        let names = Arc::new(LocalNames::new(dns, state, clock));
        let certificates = match side {
            Side::Source => certificates,
            Side::Target => certificates.proved_by(names.clone()),
        };
        let replicas = Arc::new(LocalReplicas::new(manifest, state, side));
        let ports = Changeover {
            services: services.clone(),
            settings: Arc::new(settings),
            swap: Arc::new(swap),
            certificates: Arc::new(certificates),
            replicas: replicas.clone(),
            names,
            label: Arc::new(label),
        };
        Self { services, replicas, ports }
    }

    /// For the driver, and for the peer.
    pub fn ports(&self) -> Changeover {
        self.ports.clone()
    }

    /// Puts the source back online when its maintenance lasts longer than was agreed: its fences are lifted, its replicas
    /// follow again, and its services started.
    /// For as long as it is not dropped.
    pub async fn end_stale_maintenance(&self, source: &LocalSource) -> Infallible {
        let back_online = |migration| async move {
            self.take_settings_back(&migration).await?;
            source.lift_fences(&migration).await?;
            self.replicas.put_back_if_possible(&migration).await;
            Ok(())
        };
        self.services.end_stale_leases(back_online).await
    }

    /// Nobody is let in under the name and the address of another host.
    async fn take_settings_back(&self, migration: &MigrationId) -> Result<()> {
        let swap = &self.ports.swap;
        if !matches!(swap.standing(migration).await?, SwapStanding::Own | SwapStanding::RolledBack) {
            swap.roll_back(migration).await?;
        }
        if swap.reboot(migration).await? {
            return Err(Failure::transient("settings", "this host reboots with its own"));
        }
        // What is left are rows of databases.
        self.ports.settings.restore(migration).await
    }
}

/// Settings in the databases of this host.
struct Tables(Vec<DatabaseSection>);

impl SettingsTables for Tables {
    fn open(&self, rows: &SettingsRows, at: At<'_>) -> Result<Arc<dyn SettingsTable>> {
        let section = self.0.iter().find(|section| section.name == rows.dataset).ok_or_else(|| {
            Failure::operator(rows.to_string(), "this host's manifest does not name the database any more")
                .hint("write its [[database]] again, and resume; or abort")
        })?;
        Ok(place(section)?.settings_table(rows.clone(), at))
    }
}

/// Services take new certificates.
struct Reload(Arc<Systemd>);

#[async_trait]
impl Reloader for Reload {
    async fn reload(&self, unit: &str) -> Result<()> {
        self.0.reload_or_try_restart(unit).await
    }
}

/// Watches over a swap that `state` tells of, until it is confirmed or undone: needs neither the agent nor its manifest.
pub async fn watch_swap(state: &Path) -> Result<()> {
    handover_settings::watch(state, Arc::new(HostBoot::new()), Arc::new(SystemctlReboot)).await
}

/// Takes back what is swapped of this host's settings, by hand, and reboots: needs neither the agent nor its manifest. Whether anything was.
pub async fn take_swap_back(state: &Path) -> Result<bool> {
    handover_settings::take_back(state, Arc::new(HostBoot::new()), Arc::new(SystemctlReboot)).await
}
