//! What the operator chose for a plan, and what of it cannot be.

use serde::{Deserialize, Serialize};

use super::{OnFailure, fitting};
use crate::failure::Failure;
use crate::inventory::{Dataset, Inventory};
use crate::licence;
use crate::name::DatasetName;
use crate::rehearsal::decision::Decisions;

/// What the operator chose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Replace what the target's datasets hold already.
    #[serde(default)]
    pub overwrite: bool,
    /// Only these datasets; all when empty.
    #[serde(default)]
    pub datasets: Vec<DatasetName>,
    /// Follow the source's changes from the copy to the cut-over. Left out of the document where it is not so: earlier plans keep
    /// their digests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Let the source not follow the target once that has taken over: an abort loses what was written there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_way: bool,
    /// Move the licence at the cut-over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub licence: bool,
    /// Let both hosts exchange all their settings at the cut-over, and reboot; otherwise the target takes the basic ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub swap: bool,
    /// Leave services, settings and certificates alone, whatever the manifests name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data_only: bool,
    /// Leave the logs where they are: datasets that are declared as such.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_logs: bool,
    /// Bring the databases into the schemas that stand at the target, and do this about rows that do not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Decisions>,
    /// What it leads to when the target has taken over and does not come up.
    #[serde(default, skip_serializing_if = "OnFailure::is_stop")]
    pub on_failure: OnFailure,
}

impl Options {
    /// Whether a dataset of the source's is to be moved.
    pub(crate) fn chooses(&self, dataset: &Dataset) -> bool {
        let is_named = self.datasets.is_empty() || self.datasets.contains(&dataset.name);
        is_named && !(self.without_logs && dataset.is_log)
    }

    /// Refuses what cannot be done between these hosts.
    pub(super) fn check(
        &self,
        source: &Inventory,
        target: &Inventory,
        chosen: &[&Dataset],
    ) -> Result<(), Failure> {
        if self.decisions.is_some() {
            fitting::may_fit(target, chosen, self)?;
        }
        if self.swap && !self.follow {
            return Err(without_cutover("settings", "they are swapped"));
        }
        if self.without_logs
            && let Some(one) = chosen.iter().find(|one| target.is_log(&one.name))
        {
            let what = "it is a log by the target's manifest, and none by what the source tells";
            return Err(Failure::operator(format!("dataset {}", one.name), what)
                .hint("upgrade the source's agent, or declare it alike in both manifests"));
        }
        self.on_failure.check(self)?;
        if !self.licence {
            return Ok(());
        }
        if !self.follow {
            return Err(without_cutover("licence", "it moves"));
        }
        licence::refuse_unmet(&source.licence, &target.licence, source.taken_at)
    }
}

pub(super) fn without_cutover(item: &str, what: &str) -> Failure {
    Failure::operator(item, format!("{what} at the cut-over of a plan that follows its source"))
        .hint("plan with --follow, too")
}
