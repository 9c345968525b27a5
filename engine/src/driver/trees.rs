//! Following trees, and passing over them before a cut-over.

use futures::FutureExt;
use futures::future::try_join_all;

use super::task::Runner;
use crate::follow::TreeFollower;
use crate::pass::{self, TargetDataset};
use crate::ports::Result;

impl Runner {
    /// The followers of the plan's trees.
    pub(super) fn tree_followers(&self) -> Vec<TreeFollower> {
        let trees = self.chosen().into_iter().filter_map(|(dataset, target)| match target {
            TargetDataset::Tree(tree) => Some(TreeFollower::new(self.work.clone(), dataset, tree)),
            TargetDataset::Database(_) => None,
        });
        trees.collect()
    }

    /// Keeps the trees up to date until the work is stopped.
    pub(super) async fn follow_trees(&self) -> Result<()> {
        let followers = self.tree_followers();
        let following = followers
            .iter()
            .map(|follower| async move { tokio::try_join!(self.follow_tree(follower), follower.show()) });
        try_join_all(following).await.map(drop)
    }

    async fn follow_tree(&self, follower: &TreeFollower) -> Result<()> {
        loop {
            let round = || follower.round().boxed();
            let pause = self.persist("follow", || self.work.desk.recorded(), round).await?;
            tokio::select! {
                biased;
                () = self.work.desk.stopping() => return Err(pass::stopped()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
