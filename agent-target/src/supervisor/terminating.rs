//! Removing what an abort has kept.

use std::collections::BTreeMap;

use handover_engine::driver::Status;
use handover_engine::failure::Failure;
use handover_engine::journal::{Event, Journal, Migration, Record};
use handover_engine::kept::Kept;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::phase::{Operation, Phase};
use handover_engine::ports::Result;
use handover_engine::time::Clock;
use handover_platform::SystemClock;

use super::Supervisor;

impl Supervisor {
    /// Removes what the abort of a migration has kept, dataset by dataset, each journaled once it is gone. Idempotent.
    pub(super) async fn remove_kept(&self, id: &MigrationId, by: &str) -> Result<Status> {
        let _alone = self.terminating.lock().await;
        let mut migration = self.migration(id).await?;
        if migration.state.phase != Phase::Aborted {
            let what = format!("{} is not possible: it is {}", Operation::Terminate, migration.state);
            return Err(Failure::operator(format!("migration {id}"), what)
                .hint("it removes what an abort has kept: `handover abort` first"));
        }
        tracing::info!(migration = %id, by, "what was kept of it is removed");
        let mut removed = Ok(());
        for (dataset, kept) in migration.outcome.kept.clone() {
            // One that is not to be had keeps no other one.
            let one = self.remove_one(&mut migration, &dataset, &kept).await;
            removed = removed.and(one);
        }
        self.keep_report(id).await;
        removed?;
        self.status(migration).await
    }

    async fn remove_one(&self, migration: &mut Migration, dataset: &DatasetName, kept: &Kept) -> Result<()> {
        let datasets = self.datasets.of(&migration.id)?;
        let target = datasets.get(dataset).ok_or_else(|| {
            let what = format!("the target's manifest no longer names it: {kept} is not removed");
            Failure::operator(format!("dataset {dataset}"), what)
                .hint("put its section back into the target's appliance.toml and restart the agent")
        })?;
        let keeper = target.keeper();
        let was_there = keeper.kept().await?.is_some();
        if !was_there {
            self.look_twice(migration, dataset, kept).await?;
        }
        keeper.remove_kept().await?;
        let text = if was_there {
            format!("what was kept is removed: {kept}")
        } else {
            format!("nothing is kept any more: {} was not found", kept.place)
        };
        migration.outcome.kept.remove(dataset);
        let note = Event::Note { item: format!("dataset {dataset}"), text };
        let records = [Record::Outcome(Box::new(migration.outcome.clone())), Record::Event(note)];
        self.store.commit(&migration.id, SystemClock.now(), &records).await
    }

    /// A file system that is not mounted looks like one where nothing is kept. Asked once for each dataset.
    async fn look_twice(&self, migration: &mut Migration, dataset: &DatasetName, kept: &Kept) -> Result<()> {
        let mark = format!("kept-not-found:{dataset}");
        if migration.steps_done.contains(&mark) {
            return Ok(());
        }
        migration.steps_done.push(mark.clone());
        self.store.commit(&migration.id, SystemClock.now(), &[Record::StepDone(mark)]).await?;
        let what = format!("what was kept is not found: {}", kept.place);
        Err(Failure::operator(format!("dataset {dataset}"), what).hint(
            "is its file system mounted, and the manifest as it was? `handover terminate` once more looks again, and forgets what is not there",
        ))
    }

    /// What aborted migrations have kept.
    pub(super) async fn all_kept(&self) -> Result<Vec<(MigrationId, BTreeMap<DatasetName, Kept>)>> {
        let migrations = self.store.migrations().await?;
        let kept = migrations.into_iter().map(|migration| (migration.id, migration.outcome.kept));
        Ok(kept.filter(|(_, kept)| !kept.is_empty()).collect())
    }
}
