//! The certificates of this host.
//!
//! What is changed can be cut short at any point and be done again. In this order:
//!
//! 1. Every certificate is checked. Nothing has been changed so far.
//! 2. The undo record is written: for each file its contents, owner and mode, or that it is not there; what is to lie there; and which
//!    contents are ours.
//! 3. Per certificate: key and chain are written beside their places and made durable; the key is put in place, then the chain.
//!
//! Two files cannot be put in place in one act. A service that starts between the two finds a key that is not the certificate's, for as
//! long as it takes to rename a file; an agent that is cut short there finds in the record what is to be put in place (and does it, asked
//! to install), and what was there (and puts it back, asked to restore).

mod put;
mod survey;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::changeover::{CertificateAction, CertificateFacts, CertificateMaterial};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::changeover::Certificates;
use handover_engine::ports::{Challenges, Result};
use handover_engine::time::Clock;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::time::Instant;

use self::put::Due;
use self::survey::Survey;
use crate::acme::Orders;
use crate::checked::Checked;
use crate::item::{failed, item, unfit};
use crate::material::{self, Unfit};
use crate::record::{Record, Records};
use crate::section::{CertificateSection, Issuer, host_and_port};
use crate::{command, names, place, probe};

/// Has services take files that were changed.
#[async_trait]
pub trait Reloader: Send + Sync {
    /// Has the unit read its files anew, by a restart if it knows no other way, and waits until that is done. A unit that does not run
    /// stays as it is. Idempotent. A failure names the unit.
    async fn reload(&self, unit: &str) -> Result<()>;
}

/// Says at which points it may be cut short; what it returns ends the act there. Tests use it.
pub(crate) type Cut = Arc<dyn Fn(&'static str) -> std::io::Result<()> + Send + Sync>;

/// The certificates that this host's manifest names.
pub struct LocalCertificates {
    here: Here,
    reloader: Arc<dyn Reloader>,
    is_target: bool,
    /// One act after another: what was given up on comes to its end before anything else is looked at.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What threads that may wait for the disk work with.
#[derive(Clone)]
pub(crate) struct Here {
    pub sections: Arc<[CertificateSection]>,
    pub records: Records,
    pub orders: Orders,
    pub clock: Arc<dyn Clock>,
    pub cut: Cut,
}

impl LocalCertificates {
    /// Those of `sections`, which [`crate::check`] has found sound. Undo records go into a directory of `state`.
    pub fn new(
        sections: Vec<CertificateSection>,
        state: &Path,
        reloader: Arc<dyn Reloader>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (sections, records, orders) = (sections.into(), Records::new(state), Orders::new(state));
        let here = Here { sections, records, orders, clock, cut: Arc::new(|_| Ok(())) };
        Self { here, reloader, is_target: false, turn: Arc::default() }
    }

    /// This host is a target: what it tells of its certificates includes whether new ones can be issued and put in place.
    #[must_use]
    pub fn at_target(mut self) -> Self {
        self.is_target = true;
        self
    }

    /// Where authorities are shown that this host's names are ours.
    #[must_use]
    pub fn proved_by(mut self, challenges: Arc<dyn Challenges>) -> Self {
        self.here.orders.challenges = Some(challenges);
        self
    }

    #[cfg(test)]
    pub(crate) fn cut_by(mut self, cut: Cut) -> Self {
        self.here.cut = cut;
        self
    }

    /// Does something on a thread that may wait for the disk. It is done to its end, even when nobody waits for it any more.
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Here) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (here, turn) = (self.here.clone(), self.turn.clone().lock_owned().await);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            act(&here)
        });
        done.await.map_err(|e| Failure::transient("certificates", "they were not looked at").because(e))?
    }

    /// Obtains what others are to issue; each is recorded as soon as it is there.
    async fn obtain(&self, migration: &MigrationId, due: Vec<Due>) -> Result<()> {
        for Due { section, names } in due {
            let pair = match section.issuer() {
                Some(Issuer::Command(command)) => {
                    let directory = self.here.records.directory(migration).join("obtained");
                    let obtained = command::obtain(command, &names, &directory).await;
                    obtained.map_err(|bad| unfit(&section, "no new one was obtained", bad))?
                }
                Some(Issuer::Acme(acme)) => {
                    self.here.orders.obtain(&section, &acme, &names, migration).await?
                }
                _ => continue,
            };
            let checked = Checked::new(pair, self.here.clock.now(), &names)
                .map_err(|bad| unfit(&section, "what was obtained cannot be used", bad))?;
            let migration = migration.clone();
            self.with(move |here| here.know(&migration, &section, &checked)).await?;
        }
        Ok(())
    }

    async fn record(&self, migration: &MigrationId) -> Result<Option<Record>> {
        let migration = migration.clone();
        self.with(move |here| here.record(&migration)).await
    }

    /// Every unit once, in the manifest's order. The first failure is told when all have been asked.
    async fn reload(&self, record: &Record) -> Result<()> {
        let known = self.here.sections.iter().filter_map(|section| record.entries.get(&section.name));
        // Those of sections that are not in the manifest any more come last.
        let units = known.chain(record.entries.values()).flat_map(|entry| &entry.services);
        let (mut done, mut all) = (HashSet::new(), Ok(()));
        for unit in units.filter(|unit| done.insert(*unit)) {
            let reloaded = self.reloader.reload(unit).await;
            all = all.and(reloaded);
        }
        all
    }
}

impl LocalCertificates {
    /// Takes away what orders have left at a name server. One that is down keeps nobody from going back to what was.
    async fn clear_orders(&self, migration: &MigrationId) {
        if let Err(failure) = self.here.orders.clear(migration).await {
            tracing::warn!(%migration, %failure, "a text that proves a name is left at its server");
        }
    }
}

#[async_trait]
impl Certificates for LocalCertificates {
    async fn facts(&self) -> Result<Vec<CertificateFacts>> {
        let is_target = self.is_target;
        self.with(move |here| {
            let survey = Survey { now: here.clock.now(), is_target, orders: &here.orders };
            Ok(here.sections.iter().map(|section| survey.facts(section)).collect())
        })
        .await
    }

    async fn hand_out(&self) -> Result<Vec<CertificateMaterial>> {
        self.with(|here| {
            let let_go = |section: &&CertificateSection| section.action != CertificateAction::Keep;
            here.sections
                .iter()
                .filter(let_go)
                .filter_map(|section| handed_out(section).transpose())
                .collect()
        })
        .await
    }

    async fn check(&self, from_source: &[CertificateMaterial]) -> Result<()> {
        let offered = from_source.to_vec();
        self.with(move |here| here.check(&offered)).await
    }

    async fn install(&self, migration: &MigrationId, from_source: &[CertificateMaterial]) -> Result<()> {
        let (id, offered) = (migration.clone(), from_source.to_vec());
        let due = self.with(move |here| here.prepare(&id, &offered)).await?;
        self.obtain(migration, due).await?;
        let id = migration.clone();
        self.with(move |here| here.put(&id)).await
    }

    async fn prove(&self, migration: &MigrationId) -> Result<()> {
        let Some(record) = self.record(migration).await? else { return Ok(()) };
        self.reload(&record).await?;
        for section in self.here.sections.iter().filter(|section| record.entries.contains_key(&section.name))
        {
            prove(section).await?;
        }
        Ok(())
    }

    async fn restore(&self, migration: &MigrationId) -> Result<()> {
        let id = migration.clone();
        let reloaded = match self.with(move |here| here.restore(&id)).await? {
            Some(record) => self.reload(&record).await,
            None => Ok(()),
        };
        self.clear_orders(migration).await;
        reloaded
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        self.clear_orders(migration).await;
        let migration = migration.clone();
        self.with(move |here| {
            here.records.forget(&migration).map_err(|error| {
                Failure::operator("certificates", "what is kept of them cannot be removed")
                    .because(error)
                    .hint("mend that, then resume")
            })
        })
        .await
    }
}

/// None where there is nothing to hand out and the target issues its own.
fn handed_out(section: &CertificateSection) -> Result<Option<CertificateMaterial>> {
    let found = survey::read(section).map_err(failed(section, "it cannot be read"))?;
    if found.is_absent() && section.action == CertificateAction::Reissue {
        return Ok(None);
    }
    let pair = found.pair().map_err(|bad| unfit(section, "it cannot be handed out", bad))?;
    crate::checked::keys_match(&pair).map_err(|bad| unfit(section, "it cannot be handed out", bad))?;
    let (chain, key) = (pair.chain_pem(), pair.key_pem());
    Ok(Some(CertificateMaterial { name: section.name.clone(), chain, key }))
}

/// Asks each place until it serves what lies on disk.
async fn prove(section: &CertificateSection) -> Result<()> {
    if section.probe.is_empty() {
        return Ok(());
    }
    let wanted = in_place(section)?;
    let until = Instant::now() + section.probe_limit();
    for place in &section.probe {
        let name = name_to_ask(section, &wanted, place).map_err(|bad| unfit(section, "", bad))?;
        let Err(problem) = probe::until_served(place, &name, &wanted, until).await else { continue };
        let what = format!("{place} does not serve what is in place, {}: {problem}", probe::shown(&wanted));
        let hint = format!(
            "does the service there read {}? is it among `services`? `probe_name` is asked for; then resume",
            section.certificate.display()
        );
        return Err(Failure::operator(item(section), what).hint(hint));
    }
    Ok(())
}

fn in_place(section: &CertificateSection) -> Result<CertificateDer<'static>> {
    let read = place::resolve(&section.certificate).and_then(|place| place::read(&place));
    let stored = read.map_err(failed(section, "what is in place cannot be read"))?;
    let contents = stored.map(|stored| stored.contents).unwrap_or_default();
    let mut chain = material::certificates(&contents).map_err(|bad| unfit(section, "in its place", bad))?;
    Ok(chain.swap_remove(0))
}

fn name_to_ask(
    section: &CertificateSection,
    wanted: &CertificateDer<'_>,
    place: &str,
) -> std::result::Result<ServerName<'static>, Unfit> {
    let first = || names::to_ask_for(&section.names);
    let served = || crate::checked::parse(wanted).ok().and_then(|leaf| names::to_ask_for(&names::of(&leaf)));
    let host = || host_and_port(place).map(|(host, _)| host.to_owned());
    let name = section.probe_name.clone().or_else(first).or_else(served).or_else(host).unwrap_or_default();
    ServerName::try_from(name.clone())
        .map_err(|_| Unfit::new(format!("`{name}` cannot be asked for"), "set `probe_name` in its section"))
}

#[cfg(test)]
mod tests;
