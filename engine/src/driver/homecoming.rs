//! Files that were written at the target: an abort brings them home, too.

use futures::FutureExt;

use super::task::Runner;
use crate::failure::Failure;
use crate::home::{Brought, Homecoming};
use crate::journal::Record;
use crate::pass::{Message, TargetDataset};
use crate::plan::Options;
use crate::ports::Result;
use crate::report::{Back, Difference};

/// Journaled once the files are home.
const HOME: &str = "files-home";

/// Whether an abort after the cut-over brings files home.
pub(super) fn files_come_home(options: &Options) -> bool {
    options.follow && !options.one_way
}

impl Runner {
    /// The trees' ways home; none where the target has not taken over, all is home already, or nobody wants it.
    fn homecomings(&self) -> Vec<Homecoming> {
        let is_wanted = files_come_home(&self.plan.options)
            && self.cutover.committed
            && self.cutover.back != Back::Ended
            && !self.done.iter().any(|done| done == HOME);
        if is_wanted { self.all_homecomings() } else { Vec::new() }
    }

    fn all_homecomings(&self) -> Vec<Homecoming> {
        let trees = self.chosen().into_iter().filter_map(|(dataset, target)| match target {
            TargetDataset::Tree(tree) => {
                Some(Homecoming::new(self.work.clone(), self.here.clone(), dataset, tree))
            }
            TargetDataset::Database(_) => None,
        });
        trees.collect()
    }

    /// Brings home the files that were written at the target: once settings, certificates and the label are what they were before, so that
    /// nothing of those goes with them; and before the target's trees are put back.
    pub(super) async fn bring_files_home(&self) -> Result<()> {
        let homecomings = self.homecomings();
        if homecomings.is_empty() {
            return Ok(());
        }
        for homecoming in &homecomings {
            let bring = || homecoming.bring().boxed();
            let brought = self.persist("bring-back", || homecoming.got_on(), bring).await.map_err(stuck)?;
            self.tell_brought(homecoming, brought).await?;
        }
        self.work.desk.record(vec![Record::StepDone(HOME.to_owned())]).await?;
        self.work.desk.flush().await
    }

    async fn tell_brought(&self, homecoming: &Homecoming, brought: Brought) -> Result<()> {
        let dataset = homecoming.dataset();
        let Brought { files, bytes, others, left, named } = brought;
        if files + others > 0 {
            let text = format!(
                "{files} files of {dataset} ({bytes} bytes) that were written at the target are at the source again, with {others} other changes"
            );
            self.note("abort", text).await?;
        }
        if left > named.len() as u64 {
            let text = format!("{left} things of {dataset} were not brought home: here are the first");
            self.note("abort", text).await?;
        }
        for (path, why) in named {
            let what = format!("not brought home: {why}; the target's is in what is kept aside there");
            self.note("abort", format!("{dataset}, {path}: {what}")).await?;
            let left_out = Difference { dataset: dataset.clone(), item: path.to_string(), what };
            self.work.desk.send(Message::LeftOut(left_out)).await?;
        }
        Ok(())
    }

    /// Nothing more is brought: what is home stays there, also where nobody wants the rest any more.
    pub(super) async fn settle_home(&self) -> Result<()> {
        if !files_come_home(&self.plan.options) || !self.cutover.committed {
            return Ok(());
        }
        for homecoming in self.all_homecomings() {
            self.persist("bring-back", || homecoming.got_on(), || homecoming.keep().boxed()).await?;
        }
        Ok(())
    }
}

/// Says what can be done where files cannot be brought home.
fn stuck(failure: Failure) -> Failure {
    if failure.is_transient() || failure.hint.contains("--discard") {
        return failure;
    }
    let first = if failure.hint.is_empty() {
        "put that right at the source".to_owned()
    } else {
        failure.hint.clone()
    };
    failure.hint(format!(
        "{first}, then `handover resume`; or `handover abort --discard`, which leaves in what is kept aside what is not home yet"
    ))
}
