//! Notice of a planned cut-over, through both hosts' hooks.

use handover_engine::name::MigrationId;
use handover_engine::ports::hooks::{Hooks, Moment, Occasion};
use handover_engine::report::When;

use super::Supervisor;

impl Supervisor {
    /// Tells both hosts' hooks that a cut-over was planned, or is planned no more. Beside everything else: nobody waits for them, and
    /// what goes wrong is logged.
    pub(super) fn give_notice(&self, id: &MigrationId, when: When) {
        let at = match when {
            When::At(at) => Some(at),
            When::Never => None,
            When::Now | When::DryRun => return,
        };
        let occasion = Occasion { migration: id.clone(), moment: Moment::Notice, at };
        let (source, here, stop) = (self.source.clone(), self.datasets.hooks(), self.stop.clone());
        self.drivers.spawn(async move {
            let tell = async {
                for (side, hooks) in [("source", &*source as &dyn Hooks), ("target", &*here)] {
                    match hooks.run(&occasion).await {
                        Ok(warnings) => {
                            for warning in warnings {
                                tracing::warn!(migration = %occasion.migration, side, warning, "a notice failed");
                            }
                        }
                        Err(failure) => {
                            tracing::warn!(migration = %occasion.migration, side, %failure, "no notice was given");
                        }
                    }
                }
            };
            tokio::select! {
                () = tell => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
