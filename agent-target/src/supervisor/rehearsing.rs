//! Rehearsing: one at a time, and not while a migration changes over.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::journal::{Journal, Migration};
use handover_engine::phase::Phase;
use handover_engine::ports::{Answers, Result, Source};
use handover_engine::rehearsal::decision::Decisions;
use handover_transport::control::Rehearsing;
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::Supervisor;
use crate::rehearsals::Order;

/// How often it is looked whether a migration has begun to change over.
const LOOK: Duration = Duration::from_secs(1);
/// Lines that wait for whoever listens; who is slower than that misses some.
const LINES: usize = 256;

impl Supervisor {
    /// Begins a rehearsal. It goes on when nobody listens any more.
    pub(super) async fn begin_rehearsal(
        &self,
        decisions: Decisions,
        keep: bool,
        by: &str,
    ) -> Result<Answers<Rehearsing>> {
        decisions.check().map_err(|bad| {
            Failure::operator("decisions", "they cannot be carried out").because(bad).hint("correct the file")
        })?;
        self.refuse_while_changing_over().await?;
        let rehearsals = self.datasets.rehearsals();
        let turn = self.turn_to_rehearse()?;
        self.refuse_while_fitting().await?;
        let (to, told) = mpsc::channel(LINES);
        let lines = to.clone();
        let tell = move |line: String| {
            tracing::info!("rehearsal: {line}");
            let _ = lines.try_send(Ok(Rehearsing::Line(line)));
        };
        let order = Order { decisions, keep, by: by.to_owned(), tell: Arc::new(tell) };
        let source = Source::of(self.source.clone());
        let (me, stop) = (self.me.clone(), self.stop.clone());
        self.drivers.spawn(async move {
            let _turn = turn;
            let watch = async {
                loop {
                    tokio::time::sleep(LOOK).await;
                    let Some(me) = me.upgrade() else { return stopping() };
                    if let Err(failure) = me.refuse_while_changing_over().await {
                        return failure;
                    }
                }
            };
            let done = tokio::select! {
                done = rehearsals.run(&source, order) => done,
                failure = watch => Err(failure),
                () = stop.cancelled() => Err(stopping()),
            };
            if let Err(failure) = &done {
                tracing::warn!(%failure, "a rehearsal has ended early");
                if !stop.is_cancelled() {
                    rehearsals.recover_now().await;
                }
            }
            let _ = to.send(done.map(|report| Rehearsing::Report(Box::new(report)))).await;
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(told).boxed())
    }

    /// Held by whoever rehearses, or begins a migration that fits rows.
    pub(super) fn turn_to_rehearse(&self) -> Result<OwnedMutexGuard<()>> {
        self.datasets.rehearsals().turn.clone().try_lock_owned().map_err(|_| {
            Failure::operator("rehearsal", "one is going on")
                .hint("wait for its end: `handover rehearse --show` tells what it found")
        })
    }

    /// The scratch databases are in use by a migration that fits rows, until it has ended.
    pub(super) async fn refuse_while_fitting(&self) -> Result<()> {
        let migrations = self.store.migrations().await?;
        match migrations.into_iter().find(|migration| !migration.state.phase.is_final() && fits(migration)) {
            None => Ok(()),
            Some(migration) => {
                let what = format!("migration {} fits rows in the scratch databases", migration.id);
                Err(Failure::operator("rehearsal", what).hint(
                    "`handover cutover --dry-run` tries its rows again; finalize or abort it before others are tried",
                ))
            }
        }
    }

    /// Between the fence and the end of a migration the source is not what production is.
    async fn refuse_while_changing_over(&self) -> Result<()> {
        let migrations = self.store.migrations().await?;
        let is_in_the_way = |phase: Phase| match phase {
            Phase::Draft | Phase::Approved | Phase::Copying | Phase::Following | Phase::Rehearsing => false,
            Phase::CuttingOver | Phase::Trial | Phase::Accepted | Phase::Aborting => true,
            Phase::Finalized | Phase::Aborted => false,
        };
        match migrations.into_iter().find(|migration| is_in_the_way(migration.state.phase)) {
            None => Ok(()),
            Some(migration) => Err(Failure::operator(
                "rehearsal",
                format!("migration {} is {}", migration.id, migration.state),
            )
            .hint("rehearse before the cut-over, or when the migration has ended")),
        }
    }
}

/// Whether a migration brings databases into the target's schemas.
pub(super) fn fits(migration: &Migration) -> bool {
    migration.plan.options.decisions.is_some()
}

fn stopping() -> Failure {
    Failure::transient("agent", "the agent is stopping").hint("rehearse again when it runs")
}
