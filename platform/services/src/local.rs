//! The services of this host.
//!
//! Two things keep order. Acts on the units take turns, so that none undoes half of another. Whose the services are is decided by their
//! record alone, which changes under a lock of its own: a `hold` need not wait until somebody has come up or down.

mod lease;
mod order;
mod restore;
mod trial;
mod well;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use handover_engine::changeover::ServiceFacts;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::Services;
use tokio::sync::{Mutex, Notify};

use self::order::{Found, to_stop};
use crate::boot::{BootClock, HostBoot};
use crate::record::{Before, Lease, Record, Records, Standing};
use crate::seal::Seals;
use crate::section::ServiceSection;
use crate::units::{UnitState, Units};

/// A unit that starts again by itself is stopped again so often.
const STOPS: usize = 5;

/// The services of this host, as its manifest names them.
pub struct LocalServices {
    sections: Vec<ServiceSection>,
    units: Arc<dyn Units>,
    clock: Arc<dyn BootClock>,
    records: Records,
    seals: Seals,
    /// What they are to be on trial counts here.
    is_target: bool,
    /// Acts on the units, one after another.
    turn: Mutex<()>,
    /// A record has changed: who watches the leases looks again.
    changed: Notify,
}

impl LocalServices {
    /// Those of `sections`; what is recorded for migrations goes into a directory of `state`.
    pub fn new(sections: Vec<ServiceSection>, state: &Path, units: Arc<dyn Units>) -> Self {
        Self {
            sections,
            units,
            clock: Arc::new(HostBoot::new()),
            records: Records::new(state.join("services")),
            seals: Seals::default(),
            is_target: false,
            turn: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The same, of a host that is moved to.
    #[must_use]
    pub fn at_target(self) -> Self {
        Self { is_target: true, ..self }
    }

    /// The same, its leases counted by another clock than the host's.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn BootClock>) -> Self {
        Self { clock, ..self }
    }

    /// All that are named. Refuses where one cannot be handled: nothing was done by then.
    async fn find(&self) -> Result<Vec<Found<'_>>> {
        let mut out = Vec::new();
        for section in &self.sections {
            let state = self.units.look(&section.unit).await?;
            match state.problem(&section.unit) {
                // One that is masked runs not, and is started by nobody.
                Some((what, hint)) if state.load != "masked" => {
                    return Err(Failure::operator(item(&section.unit), what).hint(hint));
                }
                _ => out.push(Found { section, state }),
            }
        }
        Ok(out)
    }

    /// Keeps them from starting with the host, and stops them.
    async fn take_down(&self, found: &[Found<'_>]) -> Result<()> {
        let with_file = |file: &str| -> Vec<&str> {
            found.iter().filter(|f| f.state.file == file).map(|f| f.section.unit.as_str()).collect()
        };
        self.disable(&with_file("enabled"), false).await?;
        self.disable(&with_file("enabled-runtime"), true).await?;
        self.stop_all(found).await
    }

    async fn disable(&self, units: &[&str], only_this_boot: bool) -> Result<()> {
        if units.is_empty() { Ok(()) } else { self.units.disable(units, only_this_boot).await }
    }

    async fn enable(&self, units: &[&str], only_this_boot: bool) -> Result<()> {
        if units.is_empty() { Ok(()) } else { self.units.enable(units, only_this_boot).await }
    }

    /// Stops those that run, in their order, until none does: something may have started one meanwhile.
    async fn stop_all(&self, found: &[Found<'_>]) -> Result<()> {
        for _ in 0..STOPS {
            for group in to_stop(found) {
                first_failure(join_all(group.iter().map(|f| self.stop_one(f.section))).await)?;
            }
            if self.running(found).await?.is_none() {
                return Ok(());
            }
        }
        let Some(unit) = self.running(found).await? else { return Ok(()) };
        let hint = format!(
            "name what starts it too: systemctl show --property TriggeredBy --property RequiredBy --property WantedBy {unit}"
        );
        Err(Failure::operator(item(unit), format!("it was stopped {STOPS} times, and starts again"))
            .hint(hint))
    }

    async fn stop_one(&self, section: &ServiceSection) -> Result<()> {
        if self.units.look(&section.unit).await?.is_down() {
            return Ok(());
        }
        tracing::info!(unit = section.unit, "stopping a service");
        self.units.stop(&section.unit, section.stop_limit()).await
    }

    /// One that runs.
    async fn running<'a>(&self, found: &[Found<'a>]) -> Result<Option<&'a str>> {
        for Found { section, .. } in found {
            if !self.units.look(&section.unit).await?.is_down() {
                return Ok(Some(section.unit.as_str()));
            }
        }
        Ok(None)
    }

    /// Records how they were before they were touched, and that they are the migration's. Refuses once a lease has ended: whoever renews
    /// it then believes that nobody was let in meanwhile.
    async fn take(&self, migration: &MigrationId, units: Vec<Before>, lease: Option<Lease>) -> Result<()> {
        let take = move |record: &mut Option<Record>| {
            let record = record.get_or_insert_with(Record::new);
            if matches!(record.standing, Standing::Ended { .. }) {
                return Err(has_ended());
            }
            record.add(units);
            record.standing = Standing::Taken { lease };
            Ok(())
        };
        self.records.with(migration, take).await?;
        self.changed.notify_one();
        Ok(())
    }
}

#[async_trait]
impl Services for LocalServices {
    async fn facts(&self) -> Result<Vec<ServiceFacts>> {
        let mut facts = Vec::new();
        for section in &self.sections {
            // What cannot be told of one is its problem, not the inventory's.
            let (state, problem) = match self.units.look(&section.unit).await {
                Ok(state) => {
                    let problem = state.problem(&section.unit).map(|(what, hint)| format!("{what}: {hint}"));
                    (state, problem)
                }
                Err(failure) => (UnitState::default(), Some(failure.to_string())),
            };
            let (unit, enabled, trial) = (section.unit.clone(), state.is_enabled(), section.on_trial());
            let problem = match problem {
                None => self.seal_problem(&trial).await,
                problem => problem,
            };
            facts.push(ServiceFacts { unit, state: state.active, enabled, trial, problem });
        }
        Ok(facts)
    }

    async fn stop(&self, migration: &MigrationId, lease: Option<std::time::Duration>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let found = self.find().await?;
        // With a lease they come back; without one they are stopped to be started once they take over, and then for good.
        let is_to_be =
            |state: &UnitState| state.is_enabled() || (lease.is_none() && state.file == "disabled");
        let before = found.iter().map(|f| before(f, &found, is_to_be(&f.state))).collect();
        let lease = lease.map(|length| Lease::new(&self.clock.now(), length));
        self.take(migration, before, lease).await?;
        self.take_down(&found).await?;
        let still = |record: &mut Option<Record>| match record {
            Some(Record { standing: Standing::Taken { .. }, .. }) => Ok(()),
            _ => Err(has_ended()),
        };
        self.records.with(migration, still).await
    }

    async fn hold(&self, migration: &MigrationId) -> Result<()> {
        let clock = self.clock.clone();
        let stands = move |record: Option<&Record>| match record.map(|record| &record.standing) {
            Some(Standing::Taken { lease })
                if lease.as_ref().is_none_or(|lease| lease.left(&clock.now()).is_some()) =>
            {
                Ok(())
            }
            Some(Standing::Taken { .. } | Standing::Ended { .. }) => Err(has_ended()),
            Some(Standing::Back) => Err(refused("they were put back for this migration, and run")),
            None => Err(refused("they were not stopped for this migration")),
        };
        let look = stands.clone();
        self.records.with(migration, move |record| look(record.as_ref())).await?;
        // What one of them has written since would be lost.
        let found = self.find().await?;
        if let Some(unit) = self.running(&found).await? {
            return Err(refused(&format!("{unit} runs again")));
        }
        let hold = move |record: &mut Option<Record>| {
            stands(record.as_ref())?;
            if let Some(record) = record {
                record.standing = Standing::Taken { lease: None };
            }
            Ok(())
        };
        self.records.with(migration, hold).await
    }

    async fn start(&self, migration: &MigrationId) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.start_on_trial(migration).await
    }

    async fn release(&self, migration: &MigrationId) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.end_trial(migration).await
    }

    async fn put_back(&self, migration: &MigrationId) -> Result<()> {
        let _turn = self.turn.lock().await;
        let Some(record) = self.records.with(migration, |record| Ok(record.clone())).await? else {
            return Ok(());
        };
        if !matches!(record.standing, Standing::Back | Standing::Ended { is_back: true }) {
            self.restore(&record).await?;
        }
        // A lease that is over and has not come to its end is left to who watches it.
        let back = |record: &mut Option<Record>| {
            if let Some(record) = record
                && record.standing != (Standing::Ended { is_back: false })
            {
                record.standing = Standing::Back;
                record.end_trial();
            }
            Ok(())
        };
        self.records.with(migration, back).await
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let _turn = self.turn.lock().await;
        let forget = |record: &mut Option<Record>| match record.as_ref().map(|record| &record.standing) {
            Some(Standing::Ended { is_back: false }) => {
                Err(Failure::transient("services", "they are being put back").hint("wait until they are"))
            }
            _ => {
                *record = None;
                Ok(())
            }
        };
        self.records.with(migration, forget).await
    }
}

/// As a unit is named to the operator.
fn item(unit: &str) -> String {
    format!("service {unit}")
}

fn before(of: &Found<'_>, all: &[Found<'_>], is_to_be_enabled: bool) -> Before {
    let Found { section, state } = of;
    // What a timer has just run is not to be run once more.
    let is_passing = state.is_oneshot && of.is_triggered(all);
    let is_active =
        matches!(state.active.as_str(), "active" | "activating" | "reloading" | "refreshing" | "maintenance");
    let was_active = is_active && !is_passing;
    Before { unit: section.unit.clone(), was_active, file: state.file.clone(), is_to_be_enabled }
}

fn has_ended() -> Failure {
    refused("the source has put itself back online: the lease of its maintenance is over")
}

fn refused(what: &str) -> Failure {
    let hint = "what was written there meanwhile counts: cut over once more, or abort";
    Failure::operator("services", what).hint(hint)
}

/// One that somebody must look into comes before one that goes away by itself.
fn first_failure(done: Vec<Result<()>>) -> Result<()> {
    let mut failures: Vec<_> = done.into_iter().filter_map(Result::err).collect();
    failures.sort_by_key(Failure::is_transient);
    failures.into_iter().next().map_or(Ok(()), Err)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
