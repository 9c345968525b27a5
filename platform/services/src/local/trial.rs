//! Starting on trial: some services run sealed off from the network, some not at all, until the trial is over.

use futures::future::join_all;
use handover_engine::changeover::Trial;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;

use super::order::{Found, to_start};
use super::{LocalServices, before, first_failure, item};
use crate::record::{Before, Record};
use crate::section::TrialKind;
use crate::units::UnitState;

impl LocalServices {
    /// What keeps a service from being run on trial as the manifest says; asked where it would be.
    pub(super) async fn seal_problem(&self, trial: &Trial) -> Option<String> {
        if !self.is_target || !matches!(trial, Trial::Sealed(_)) {
            return None;
        }
        if let Some(problem) = self.seals.problem() {
            return Some(problem);
        }
        match self.units.can_seal().await {
            Ok(true) => None,
            Ok(false) => Some(
                "it cannot be sealed off: this kernel does not keep a service from the network (no BPF for control groups): \
                 write trial = \"stopped\" or \"open\""
                    .to_owned(),
            ),
            Err(failure) => Some(failure.to_string()),
        }
    }

    /// Starts them, but for those that a trial leaves out, and seals off first what it seals off.
    pub(super) async fn start_on_trial(&self, migration: &MigrationId) -> Result<()> {
        let found = self.find().await?;
        let can_be_enabled = |state: &UnitState| state.is_enabled() || state.file == "disabled";
        let before = found.iter().map(|f| before(f, &found, can_be_enabled(&f.state))).collect();
        self.take(migration, before, None).await?;
        let (left_out, to_run): (Vec<_>, Vec<_>) =
            found.iter().cloned().partition(|f| is_left_out(f, &found));
        let sealed: Vec<_> =
            to_run.iter().filter(|f| f.section.trial == TrialKind::Sealed).cloned().collect();
        let names = |found: &[Found<'_>]| found.iter().map(|f| f.section.unit.clone()).collect::<Vec<_>>();
        let (these, those) = (names(&sealed), names(&left_out));
        let note = move |record: &mut Option<Record>| {
            if let Some(record) = record {
                // Sealed before and not any more, by a manifest that was changed since: still to be unsealed.
                record.sealed.extend(these);
                record.sealed.sort();
                record.sealed.dedup();
                record.left_out = those;
            }
            Ok(())
        };
        self.records.with(migration, note).await?;
        self.take_down(&left_out).await?;
        self.seal(&sealed, migration).await?;
        self.start_all(&to_run, migration).await?;
        match self.running(&left_out).await? {
            Some(unit) => Err(started_anyway(unit)),
            None => Ok(()),
        }
    }

    /// All run as they are to stay. Those that were sealed off are restarted.
    pub(super) async fn end_trial(&self, migration: &MigrationId) -> Result<()> {
        let record = self.records.with(migration, |record| Ok(record.clone())).await?;
        let Some(record) = record.filter(|record| !record.sealed.is_empty() || !record.left_out.is_empty())
        else {
            return Ok(());
        };
        self.unseal(&record.sealed).await?;
        let found = self.find().await?;
        self.start_all(&found, migration).await?;
        let done = |record: &mut Option<Record>| {
            record.iter_mut().for_each(Record::end_trial);
            Ok(())
        };
        self.records.with(migration, done).await
    }

    /// Starts them in their order, and enables those that are meant to be.
    async fn start_all(&self, found: &[Found<'_>], migration: &MigrationId) -> Result<()> {
        for group in to_start(found) {
            let ups = group.iter().map(async |f| match f.is_triggered(found) {
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

    /// Seals them off. One that runs and is not sealed yet is stopped before: what it has open it would keep.
    async fn seal(&self, sealed: &[Found<'_>], migration: &MigrationId) -> Result<()> {
        for Found { section, .. } in sealed {
            let unit = section.unit.as_str();
            let unwritten = |error| {
                Failure::operator(item(unit), "it cannot be sealed off")
                    .because(error)
                    .hint("let the agent write to /etc/systemd/system, or write trial = \"stopped\" or \"open\", then resume")
            };
            let is_there = self.seals.is_there(unit, &section.trial_allow, migration).map_err(unwritten)?;
            if !is_there || !self.is_read(unit).await? {
                self.stop_one(section).await?;
                self.seals.put(unit, &section.trial_allow, migration).map_err(unwritten)?;
            }
        }
        if sealed.is_empty() {
            return Ok(());
        }
        self.units.reload().await?;
        for Found { section, .. } in sealed {
            if !self.is_read(&section.unit).await? {
                let what = "systemd does not seal it off";
                let hint = format!("look at systemctl cat {}, then resume", section.unit);
                return Err(Failure::operator(item(&section.unit), what).hint(hint));
            }
        }
        Ok(())
    }

    /// Whether systemd has read its seal.
    async fn is_read(&self, unit: &str) -> Result<bool> {
        let place = self.seals.place(unit);
        let state = self.units.look(unit).await?;
        Ok(state.drop_ins.iter().any(|drop_in| *place == **drop_in))
    }

    /// Stops what is sealed off, and takes the seals away: it starts without. Goes on past what fails; tells the first failure.
    pub(super) async fn unseal(&self, units: &[String]) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let mut done = Vec::new();
        for unit in units {
            done.push(self.stop_one(&self.section(unit)).await);
            done.push(self.seals.remove(unit).map_err(|error| {
                let place = self.seals.place(unit);
                Failure::operator(item(unit), "its seal cannot be taken away")
                    .because(error)
                    .hint(format!("remove {}, systemctl daemon-reload, then resume", place.display()))
            }));
        }
        done.push(self.units.reload().await);
        first_failure(done)
    }
}

/// It does not run on trial, or it starts what does not.
fn is_left_out(of: &Found<'_>, all: &[Found<'_>]) -> bool {
    let is_stopped = |unit: &String| {
        all.iter().any(|other| other.section.unit == *unit && other.section.trial == TrialKind::Stopped)
    };
    of.section.trial == TrialKind::Stopped || of.state.triggers.iter().any(is_stopped)
}

fn started_anyway(unit: &str) -> Failure {
    let hint = format!(
        "name what starts it with trial = \"stopped\", too: systemctl show --property TriggeredBy --property RequiredBy --property WantedBy {unit}"
    );
    Failure::operator(item(unit), "it is not to run on trial, and something has started it").hint(hint)
}
