//! The plan: what a migration will do, as a value. It is made from two inventories and the options by a pure
//! function, shown, and approved by its digest; [`Plan::approve`] is the only way to something that can run.

mod acts;
mod approval;
mod backups;
mod behind;
mod course;
mod expected;
mod fitting;
mod lasted;
mod matching;
mod on_failure;
mod options;
#[cfg(test)]
mod sample;
mod steps;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dns::Advice;
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::name::DatasetName;

use self::acts::Acts;
pub use self::approval::ApprovedPlan;
use self::backups::BackupsWanted;
pub use self::behind::LeftBehind;
use self::course::Course;
pub(crate) use self::fitting::unfit;
pub use self::lasted::Lasted;
pub(crate) use self::matching::{matches_target, refuse_nothing};
pub use self::on_failure::{BadOnFailure, OnFailure};
pub use self::options::Options;
pub use self::steps::{PlannedStep, StepKind};

/// How fast the parts of a migration go, for expected times.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// Bytes per second from the source's disk to the target's.
    pub copy: f64,
    /// Bytes per second when the target's data is read again.
    pub reread: f64,
    /// What steps took in earlier migrations.
    pub lasted: Lasted,
}

/// One host as the plan saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The agent's name, from its certificate.
    pub agent: String,
    /// The inventory's structure: what must still be so at the start.
    pub structure: BTreeMap<String, String>,
}

/// What a migration will do. Serializes to the same bytes for the same hosts, data and options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this document's form.
    pub format: u32,
    /// The appliance's name.
    pub appliance: String,
    /// What the operator chose.
    pub options: Options,
    /// The source.
    pub source: Side,
    /// The target.
    pub target: Side,
    /// The steps, in order; copies of several datasets run side by side, as do their verifications.
    pub steps: Vec<PlannedStep>,
    /// The DNS records that change, where the target's manifest names any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Advice>,
    /// What stays at the source alone, and why. Left out of the document where there is nothing: earlier plans keep their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<LeftBehind>,
}

/// The version of the plan document that this release writes.
pub const PLAN_FORMAT: u32 = 1;

impl Plan {
    /// Makes the plan. Pure: equal arguments, equal plan.
    pub fn make(
        source: (&str, &Inventory),
        target: (&str, &Inventory),
        options: Options,
        rates: &Rates,
    ) -> Result<Plan, Failure> {
        let chosen = matching::choose(source.1, target.1, &options)?;
        options.check(source.1, target.1, &chosen)?;
        let backups = BackupsWanted::between(source.1, target.1, &chosen);
        let course = Course { chosen: &chosen, backups, options: &options, rates };
        let (mut steps, dns) = if options.follow {
            let moved: Vec<_> = chosen.iter().map(|dataset| &dataset.name).collect();
            let acts = Acts::between(&source.1.changeover, &target.1.changeover, &options, &moved)?;
            let dns = acts::records(source.1, target.1, &options)?;
            (course.live(&acts, dns.as_ref()), dns)
        } else {
            (course.of_one_moment(), None)
        };
        rates.lasted.correct(&mut steps);
        let left_behind = behind::behind(source.1, target.1, &chosen, &options);
        let side = |(agent, inventory): (&str, &Inventory)| Side {
            agent: agent.to_owned(),
            structure: inventory.structure(),
        };
        Ok(Plan {
            format: PLAN_FORMAT,
            appliance: source.1.appliance.name.clone(),
            options,
            source: side(source),
            target: side(target),
            steps,
            dns,
            left_behind,
        })
    }

    /// The bytes that the digest covers: this document as compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data: strings, numbers, lists and maps with string keys always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// How long it is expected to take.
    pub fn expected(&self) -> Duration {
        Duration::from_millis(self.steps.iter().map(|step| step.expected_ms).sum())
    }

    /// Names the plan.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Whether the plan has such a step.
    pub(crate) fn has(&self, wanted: impl Fn(&StepKind) -> bool) -> bool {
        self.steps.iter().any(|step| wanted(&step.step))
    }

    /// The datasets that the plan moves, in order.
    pub fn datasets(&self) -> impl Iterator<Item = &DatasetName> {
        self.steps.iter().filter_map(|s| match &s.step {
            StepKind::Copy(dataset) | StepKind::Fit(dataset) => Some(dataset),
            _ => None,
        })
    }
}
