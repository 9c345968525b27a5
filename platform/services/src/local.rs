//! The services of this host.
//!
//! Two things keep order. Acts on the units take turns, so that none undoes half of another. Whose the services are is decided by their
//! record alone, which changes under a lock of its own: a `hold` need not wait until somebody has come up or down.

mod lease;
mod order;
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

use self::order::{Found, to_start, to_stop};
use crate::boot::{BootClock, HostBoot};
use crate::record::{Before, Lease, Record, Records, Standing};
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
            turn: Mutex::default(),
            changed: Notify::new(),
        }
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

    /// Makes them what they were. Goes on past what fails, since each that is up again is one less that is missed; tells the first failure.
    async fn restore(&self, record: &Record) -> Result<()> {
        let named = |unit: &str| self.sections.iter().find(|section| section.unit == unit).cloned();
        let section =
            |before: &Before| named(&before.unit).unwrap_or_else(|| ServiceSection::of(&before.unit));
        let sections: Vec<_> = record.units.iter().map(section).collect();
        let mut found = Vec::new();
        for section in &sections {
            found.push(Found { section, state: self.units.look(&section.unit).await? });
        }
        let ran = |f: &Found<'_>| {
            record.units.iter().any(|before| before.unit == f.section.unit && before.was_active)
        };
        // One that is called for may run whenever it is.
        let rested = |f: &&Found<'_>| !ran(f) && !f.is_triggered(&found);
        let not_to_run: Vec<_> = found.iter().filter(rested).cloned().collect();
        let to_run: Vec<_> = found.iter().filter(|f| ran(f)).cloned().collect();
        let mut done = vec![self.restore_files(record, &found).await, self.stop_all(&not_to_run).await];
        for group in to_start(&to_run) {
            done.extend(join_all(group.iter().map(|f| self.bring_up(f.section))).await);
        }
        first_failure(done)
    }

    /// Those that started with the host do so again, and no others.
    async fn restore_files(&self, record: &Record, found: &[Found<'_>]) -> Result<()> {
        let those = |file: &str, is_so: fn(&str) -> bool| -> Vec<&str> {
            let is_meant = |before: &Before, f: &Found<'_>| {
                before.unit == f.section.unit && before.file == file && is_so(&f.state.file)
            };
            let meant = found.iter().filter(|f| record.units.iter().any(|before| is_meant(before, f)));
            meant.map(|f| f.section.unit.as_str()).collect()
        };
        let no_more =
            [those("disabled", |now| now == "enabled"), those("enabled-runtime", |now| now == "enabled")];
        self.disable(&no_more.concat(), false).await?;
        self.enable(&those("enabled", |now| now != "enabled"), false).await?;
        self.enable(&those("enabled-runtime", |now| now != "enabled-runtime"), true).await
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
            let enabled = state.is_enabled();
            facts.push(ServiceFacts { unit: section.unit.clone(), state: state.active, enabled, problem });
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
        let found = self.find().await?;
        let can_be_enabled = |state: &UnitState| state.is_enabled() || state.file == "disabled";
        let before = found.iter().map(|f| before(f, &found, can_be_enabled(&f.state))).collect();
        self.take(migration, before, None).await?;
        for group in to_start(&found) {
            let ups = group.iter().map(async |f| match f.is_triggered(&found) {
                true => self.wait_for_triggered(f.section).await,
                false => self.bring_up(f.section).await,
            });
            first_failure(join_all(ups).await)?;
        }
        let meant =
            |record: &mut Option<Record>| Ok(record.iter().flat_map(|record| record.units.clone()).collect());
        let meant: Vec<Before> = self.records.with(migration, meant).await?;
        let is_meant = |f: &&Found<'_>| {
            let is_to_be = |before: &Before| before.unit == f.section.unit && before.is_to_be_enabled;
            !f.state.is_enabled() && meant.iter().any(is_to_be)
        };
        let to_enable: Vec<_> = found.iter().filter(is_meant).map(|f| f.section.unit.as_str()).collect();
        self.enable(&to_enable, false).await
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
