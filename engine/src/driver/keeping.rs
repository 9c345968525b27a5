//! Datasets that are taken back: as they were before, with what users have worked on kept aside.

use super::task::Runner;
use crate::kept::Kept;
use crate::name::DatasetName;
use crate::pass::{Message, TargetDataset};
use crate::phase::Operation;
use crate::ports::{Keeper, Result};

/// What is told of a dataset of which something is kept.
fn note(kept: &Kept) -> String {
    let what = "what was migrated, with all that was written to it here, is kept";
    format!("{what}: {kept}; `handover {} --yes` removes it", Operation::Terminate)
}

impl Runner {
    /// Takes every dataset back, the last one first. Once the target had taken over, what was migrated is kept beside its place until somebody
    /// removes it.
    pub(super) async fn undo_datasets(&self) -> Result<()> {
        let datasets: Vec<&DatasetName> = self.plan.datasets().collect();
        for dataset in datasets.into_iter().rev() {
            let target = self.target(dataset)?;
            if self.cutover.committed {
                self.undo_and_keep(dataset, &target).await?;
            } else {
                match &target {
                    TargetDataset::Database(database) => database.undo().await?,
                    TargetDataset::Tree(tree) => tree.undo().await?,
                }
            }
            tracing::debug!(%dataset, "one dataset is taken back");
        }
        Ok(())
    }

    async fn undo_and_keep(&self, dataset: &DatasetName, target: &TargetDataset) -> Result<()> {
        let keeper: &dyn Keeper = target.keeper();
        keeper.undo_and_keep().await?;
        let Some(kept) = keeper.kept().await? else { return Ok(()) };
        let text = note(&kept);
        self.work.desk.send(Message::Kept { dataset: dataset.clone(), kept, text }).await
    }
}
