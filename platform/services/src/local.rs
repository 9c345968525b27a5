//! The services of this host.
//!
//! Two things keep order. Acts on the units take turns, so that none undoes half of another. Whose the services are is decided by their
//! record alone, which changes under a lock of its own: a `hold` need not wait until somebody has come up or down.

mod lease;
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

use crate::boot::{BootClock, HostBoot};
use crate::record::{Before, Lease, Record, Records, Standing};
use crate::section::ServiceSection;
use crate::units::{UnitState, Units};

/// A unit that starts again by itself is stopped again so often.
const STOPS: usize = 5;

/// The services of this host, as its manifest names them.
pub struct LocalServices {
    /// Lowest order first.
    sections: Vec<ServiceSection>,
    units: Arc<dyn Units>,
    clock: Arc<dyn BootClock>,
    records: Records,
    /// Acts on the units, one after another.
    turn: Mutex<()>,
    /// A record has changed: who watches the leases looks again.
    changed: Notify,
}

/// A unit that is named, and how it stands.
type Found<'a> = (&'a ServiceSection, UnitState);

impl LocalServices {
    /// Those of `sections`; what is recorded for migrations goes into a directory of `state`.
    pub fn new(mut sections: Vec<ServiceSection>, state: &Path, units: Arc<dyn Units>) -> Self {
        sections.sort_by_key(|section| section.order);
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
        let looks = self.sections.iter().map(async |section| {
            let state = self.units.look(&section.unit).await?;
            match state.problem(&section.unit) {
                // One that is masked runs not, and is started by nobody.
                Some((what, hint)) if state.load != "masked" => {
                    Err(Failure::operator(item(&section.unit), what).hint(hint))
                }
                _ => Ok((section, state)),
            }
        });
        join_all(looks).await.into_iter().collect()
    }

    /// Keeps them from starting with the host, and stops them, the last one first.
    async fn take_down(&self, found: &[Found<'_>]) -> Result<()> {
        let with_file = |file: &str| -> Vec<&str> {
            found
                .iter()
                .filter(|(_, state)| state.file == file)
                .map(|(section, _)| section.unit.as_str())
                .collect()
        };
        self.disable(&with_file("enabled"), false).await?;
        self.disable(&with_file("enabled-runtime"), true).await?;
        let sections: Vec<_> = found.iter().map(|(section, _)| *section).collect();
        self.stop_all(&sections).await
    }

    async fn disable(&self, units: &[&str], only_this_boot: bool) -> Result<()> {
        if units.is_empty() { Ok(()) } else { self.units.disable(units, only_this_boot).await }
    }

    async fn enable(&self, units: &[&str], only_this_boot: bool) -> Result<()> {
        if units.is_empty() { Ok(()) } else { self.units.enable(units, only_this_boot).await }
    }

    /// Stops those that run, the last one first, until none does: a socket or a timer may have started one meanwhile.
    async fn stop_all(&self, sections: &[&ServiceSection]) -> Result<()> {
        for _ in 0..STOPS {
            for group in groups(sections).into_iter().rev() {
                first_failure(join_all(group.iter().map(|section| self.stop_one(section))).await)?;
            }
            if self.running(sections).await?.is_empty() {
                return Ok(());
            }
        }
        let running = self.running(sections).await?;
        let Some(unit) = running.first() else { return Ok(()) };
        let hint = format!(
            "name what starts it too, with a higher order: systemctl show --property TriggeredBy --property RequiredBy {unit}"
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

    async fn running<'a>(&self, sections: &[&'a ServiceSection]) -> Result<Vec<&'a str>> {
        let mut out = Vec::new();
        for section in sections {
            if !self.units.look(&section.unit).await?.is_down() {
                out.push(section.unit.as_str());
            }
        }
        Ok(out)
    }

    /// Makes them what they were. Goes on past what fails, since each that is up again is one less that is missed; tells the first failure.
    async fn restore(&self, record: &Record) -> Result<()> {
        let named = |unit: &str| self.sections.iter().find(|section| section.unit == unit).cloned();
        let mut all: Vec<_> = record
            .units
            .iter()
            .map(|before| (named(&before.unit).unwrap_or_else(|| ServiceSection::of(&before.unit)), before))
            .collect();
        all.sort_by_key(|(section, _)| section.order);
        let (to_run, not_to_run): (Vec<_>, Vec<_>) = all.iter().partition(|(_, before)| before.was_active);
        let sections = |of: Vec<&'_ (ServiceSection, &Before)>| {
            of.into_iter().map(|(section, _)| section.clone()).collect()
        };
        let (to_run, not_to_run): (Vec<ServiceSection>, Vec<ServiceSection>) =
            (sections(to_run), sections(not_to_run));
        let mut done = vec![self.restore_files(record).await];
        done.push(self.stop_all(&not_to_run.iter().collect::<Vec<_>>()).await);
        for group in groups(&to_run.iter().collect::<Vec<_>>()) {
            done.extend(join_all(group.iter().map(|section| self.bring_up(section))).await);
        }
        first_failure(done)
    }

    /// Those that started with the host do so again, and no others.
    async fn restore_files(&self, record: &Record) -> Result<()> {
        let mut now = Vec::new();
        for before in &record.units {
            now.push((before, self.units.look(&before.unit).await?));
        }
        let those = |file: &str, is_so: fn(&UnitState) -> bool| -> Vec<&str> {
            let meant = now.iter().filter(|(before, state)| before.file == file && is_so(state));
            meant.map(|(before, _)| before.unit.as_str()).collect()
        };
        let no_more = [
            those("disabled", |state| state.file == "enabled"),
            those("enabled-runtime", |state| state.file == "enabled"),
        ];
        self.disable(&no_more.concat(), false).await?;
        self.enable(&those("enabled", |state| state.file != "enabled"), false).await?;
        self.enable(&those("enabled-runtime", |state| state.file != "enabled-runtime"), true).await
    }

    /// Records how they were before they were touched, and that they are the migration's.
    async fn take(&self, migration: &MigrationId, units: Vec<Before>, lease: Option<Lease>) -> Result<()> {
        let take = move |record: &mut Option<Record>| {
            let record = record.get_or_insert_with(Record::new);
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
        let looks = self.sections.iter().map(async |section| {
            let state = self.units.look(&section.unit).await?;
            let problem = state.problem(&section.unit).map(|(what, hint)| format!("{what}: {hint}"));
            let enabled = state.is_enabled();
            Ok(ServiceFacts { unit: section.unit.clone(), state: state.active, enabled, problem })
        });
        join_all(looks).await.into_iter().collect()
    }

    async fn stop(&self, migration: &MigrationId, lease: Option<std::time::Duration>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let found = self.find().await?;
        let before =
            found.iter().map(|(section, state)| before(section, state, state.is_enabled())).collect();
        let lease = lease.map(|length| Lease::new(&self.clock.now(), length));
        self.take(migration, before, lease).await?;
        self.take_down(&found).await?;
        let still = |record: &mut Option<Record>| {
            Ok(matches!(record, Some(Record { standing: Standing::Taken { .. }, .. })))
        };
        if self.records.with(migration, still).await? {
            return Ok(());
        }
        Err(Failure::transient("services", "their lease was over before they were stopped").hint(
            "they are put back, and then stopped again; give them a longer lease if it comes to this again",
        ))
    }

    async fn hold(&self, migration: &MigrationId) -> Result<()> {
        let clock = self.clock.clone();
        let hold = move |record: &mut Option<Record>| match record.as_mut().map(|record| &mut record.standing)
        {
            Some(Standing::Taken { lease })
                if lease.as_ref().is_none_or(|lease| lease.left(&clock.now()).is_some()) =>
            {
                *lease = None;
                Ok(())
            }
            Some(Standing::Taken { .. } | Standing::Ended { .. }) => Err(has_ended()),
            Some(Standing::Back) => Err(refused("they were put back for this migration, and run")),
            None => Err(refused("they were not stopped for this migration")),
        };
        self.records.with(migration, hold).await
    }

    async fn start(&self, migration: &MigrationId) -> Result<()> {
        let _turn = self.turn.lock().await;
        let found = self.find().await?;
        let refuse_ended = |record: &mut Option<Record>| match record.as_ref().map(|record| &record.standing)
        {
            Some(Standing::Ended { .. }) => Err(has_ended()),
            _ => Ok(()),
        };
        self.records.with(migration, refuse_ended).await?;
        let can_be_enabled = |state: &UnitState| state.is_enabled() || state.file == "disabled";
        let before =
            found.iter().map(|(section, state)| before(section, state, can_be_enabled(state))).collect();
        self.take(migration, before, None).await?;
        let sections: Vec<_> = found.iter().map(|(section, _)| *section).collect();
        for group in groups(&sections) {
            first_failure(join_all(group.iter().map(|section| self.bring_up(section))).await)?;
        }
        let meant =
            |record: &mut Option<Record>| Ok(record.iter().flat_map(|record| record.units.clone()).collect());
        let meant: Vec<Before> = self.records.with(migration, meant).await?;
        let is_meant = |(section, state): &&Found<'_>| {
            !state.is_enabled()
                && meant.iter().any(|before| before.unit == section.unit && before.is_to_be_enabled)
        };
        let to_enable: Vec<_> =
            found.iter().filter(is_meant).map(|(section, _)| section.unit.as_str()).collect();
        self.enable(&to_enable, false).await
    }

    async fn put_back(&self, migration: &MigrationId) -> Result<()> {
        let _turn = self.turn.lock().await;
        let Some(record) = self.records.with(migration, |record| Ok(record.clone())).await? else {
            return Ok(());
        };
        if matches!(record.standing, Standing::Back | Standing::Ended { is_back: true }) {
            return Ok(());
        }
        self.restore(&record).await?;
        // A lease that was over meanwhile has an end of its own.
        let back = |record: &mut Option<Record>| {
            if let Some(Record { standing: standing @ Standing::Taken { .. }, .. }) = record {
                *standing = Standing::Back;
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

fn before(section: &ServiceSection, state: &UnitState, is_to_be_enabled: bool) -> Before {
    let was_active =
        matches!(state.active.as_str(), "active" | "activating" | "reloading" | "refreshing" | "maintenance");
    Before { unit: section.unit.clone(), was_active, file: state.file.clone(), is_to_be_enabled }
}

fn has_ended() -> Failure {
    refused("the source has put itself back online: the lease of its maintenance is over")
}

fn refused(what: &str) -> Failure {
    let hint = "what was written there meanwhile counts: cut over once more, or abort";
    Failure::operator("services", what).hint(hint)
}

/// Those of equal order beside each other, the lowest first. They come in that order.
fn groups<'a>(sections: &[&'a ServiceSection]) -> Vec<Vec<&'a ServiceSection>> {
    sections.chunk_by(|one, other| one.order == other.order).map(<[_]>::to_vec).collect()
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
