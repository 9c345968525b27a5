//! Starting a plan that the operator has approved.

use handover_engine::check::holds_data;
use handover_engine::expiry;
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::journal::{Event, Journal, Migration, Record};
use handover_engine::name::MigrationId;
use handover_engine::plan::{ApprovedPlan, Plan};
use handover_engine::ports::Result;
use handover_engine::time::Clock;
use handover_platform::SystemClock;
use tokio::sync::OwnedMutexGuard;

use super::Supervisor;

/// The least of a digest that names a plan.
const DIGEST_PREFIX: usize = 8;

impl Supervisor {
    /// Starts the plan of this digest.
    pub(super) async fn start_plan(&self, digest: &str, by: &str) -> Result<MigrationId> {
        let _restores = self.refuse_while_restoring().await?;
        let plan = self.kept_plan(digest).await?;
        let (source, target) = self.both().await?;
        self.settings.calendar.refuse_start(SystemClock.now(), plan.expected())?;
        let expiries = expiry::of_plan(&source, &target, &plan.options);
        self.refuse_ending(&expiries, plan.expected())?;
        plan.still_holds(&source, &target)?;
        Self::refuse_occupied(&plan, &target)?;
        let turn = match plan.options.decisions {
            Some(_) => Some(self.turn_to_fit().await?),
            None => None,
        };
        let digest = plan.digest();
        let migration = self.begin(&plan.approve(digest)?, by)?;
        let id = migration.id.clone();
        self.remember_expiries(&id, expiries);
        let stopping = || Failure::transient("agent", "the agent is stopping");
        let (me, by) = (self.me.upgrade().ok_or_else(stopping)?, by.to_owned());
        // On a task of its own: a client that goes away meanwhile must not leave it half begun.
        let begun = tokio::spawn(async move {
            let _turn = turn;
            me.take_on(migration, by).await
        });
        begun.await.map_err(|_| stopping())??;
        Ok(id)
    }

    /// Nobody else tries rows in the scratch databases, nor begins to before the migration is known.
    async fn turn_to_fit(&self) -> Result<OwnedMutexGuard<()>> {
        let turn = self.turn_to_rehearse()?;
        self.refuse_while_fitting().await?;
        Ok(turn)
    }

    /// Journals a new migration, and runs it.
    async fn take_on(&self, migration: Migration, by: String) -> Result<()> {
        // What can be refused is refused before anything is journaled.
        self.datasets.of(&migration.id)?;
        self.store.create(&migration).await?;
        let driven = async {
            let event = Event::State { state: migration.state.clone(), by: Some(by.clone()) };
            self.store.commit(&migration.id, SystemClock.now(), &[Record::Event(event)]).await?;
            tracing::info!(migration = %migration.id, plan = %migration.digest.short(), by, "a migration starts");
            self.drive(migration).await
        };
        // Journaled, and nobody would drive it: whoever starts the agent again takes it up.
        driven.await.inspect_err(|failure| self.give_up(failure.clone()))
    }

    async fn kept_plan(&self, digest: &str) -> Result<Plan> {
        let item = format!("plan {digest}");
        if digest.len() < DIGEST_PREFIX {
            let what = format!("give at least the first {DIGEST_PREFIX} digits of its digest");
            return Err(Failure::operator(item, what));
        }
        let mut plans = self.store.find_plans(digest).await?;
        match (plans.pop(), plans.is_empty()) {
            (Some(plan), true) => Ok(plan),
            (Some(_), false) => Err(Failure::operator(item, "several plans begin so: give more digits")),
            (None, _) => Err(Failure::operator(item, "this target has made no such plan")
                .hint("run `handover plan` and start the digest it prints")),
        }
    }

    /// Refuses a target that holds data, unless the plan says that it is replaced.
    fn refuse_occupied(plan: &Plan, target: &Inventory) -> Result<()> {
        if plan.options.overwrite {
            return Ok(());
        }
        for name in plan.datasets() {
            if target.datasets.iter().any(|d| d.name == *name && holds_data(&d.facts)) {
                return Err(Failure::operator(
                    format!("dataset {name}"),
                    "the target holds data of it already",
                )
                .hint(
                    "plan with --overwrite to replace it (abort brings it back until finalize), or empty it",
                ));
            }
        }
        Ok(())
    }

    fn begin(&self, approved: &ApprovedPlan, by: &str) -> Result<Migration> {
        let now = SystemClock.now();
        let stamp: String = now.to_string().chars().filter(char::is_ascii_digit).take(14).collect();
        let noise = handover_engine::digest::Digest::of(
            format!("{}{}{:?}", self.notary.identity(), approved.digest(), now).as_bytes(),
        );
        let id = format!("m-{stamp}-{}", &noise.short()[..4]);
        let id = id.parse().map_err(|e| Failure::permanent("migration", "cannot be named").because(e))?;
        Ok(Migration::begun(id, approved.plan().clone(), by, now))
    }
}
