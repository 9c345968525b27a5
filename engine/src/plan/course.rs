//! The order of a plan's steps.

use super::acts::Acts;
use super::backups::BackupsWanted;
use super::expected::{
    REBOOTS_MS, STARTS_MS, STOPS_MS, bare, copy_step, finish_step, fit_step, lasting, refit_step,
    replicate_step, verify_step,
};
use super::{Options, PlannedStep, Rates, StepKind};
use crate::backup::Occasion;
use crate::dns::{Advice, Stage};
use crate::inventory::Dataset;
use crate::name::DatasetName;

/// What the steps of a plan follow from.
pub(super) struct Course<'a> {
    /// The datasets that are moved.
    pub chosen: &'a [&'a Dataset],
    /// The backups that are made.
    pub backups: BackupsWanted,
    /// What the operator chose.
    pub options: &'a Options,
    /// How fast it goes.
    pub rates: &'a Rates,
}

impl Course<'_> {
    /// A copy of one moment.
    pub fn of_one_moment(&self) -> Vec<PlannedStep> {
        let (chosen, rates) = (self.chosen, self.rates);
        let mut steps = self.backups.steps(Occasion::Start, chosen, rates);
        steps.push(bare(StepKind::Prepare));
        steps.extend(chosen.iter().map(|dataset| copy_step(dataset, rates)));
        steps.extend(chosen.iter().filter_map(|dataset| finish_step(dataset, rates)));
        steps.extend(chosen.iter().map(|dataset| verify_step(dataset, rates)));
        if self.databases().next().is_some() {
            steps.push(bare(StepKind::Publish));
        }
        steps
    }

    /// A copy that is kept up to date, and takes over.
    pub fn live(&self, acts: &Acts, dns: Option<&Advice>) -> Vec<PlannedStep> {
        let changes = |stage| dns.is_some_and(|advice| advice.has(stage));
        let mut steps = self.backups.steps(Occasion::Start, self.chosen, self.rates);
        steps.extend(self.copying());
        if changes(Stage::Before) {
            steps.push(bare(StepKind::Withdraw));
        }
        steps.extend(to_the_fence(acts));
        steps.extend(self.behind_the_fence(acts));
        steps.extend(self.taking_over(acts));
        steps.extend(self.in_use(acts));
        if changes(Stage::Cutover) {
            steps.push(bare(StepKind::Repoint));
        }
        if changes(Stage::End) {
            steps.push(bare(StepKind::Rejoin));
        }
        steps.extend(self.backups.steps(Occasion::Accept, self.chosen, self.rates));
        steps
    }

    /// The first copy. What is fitted is not followed by its keys, and is verified behind the fence.
    fn copying(&self) -> Vec<PlannedStep> {
        let mut steps = vec![bare(StepKind::Prepare)];
        if self.options.decisions.is_none() {
            steps.extend(self.each(StepKind::Capture));
        }
        steps.extend(self.chosen.iter().map(|dataset| match self.is_fitted(dataset) {
            true => fit_step(dataset, self.rates),
            false => copy_step(dataset, self.rates),
        }));
        if self.options.decisions.is_none() {
            steps.extend(self.databases().filter_map(|dataset| {
                let step = StepKind::Index(dataset.name.clone());
                Some(PlannedStep { step, ..finish_step(dataset, self.rates)? })
            }));
        }
        let copied = self.chosen.iter().filter(|dataset| !self.is_fitted(dataset));
        steps.extend(copied.map(|dataset| verify_step(dataset, self.rates)));
        steps
    }

    /// As long as the cut-over can be called off.
    fn behind_the_fence(&self, acts: &Acts) -> Vec<PlannedStep> {
        let mut steps = vec![bare(StepKind::Fence)];
        steps.extend(self.chosen.iter().map(|dataset| match self.is_fitted(dataset) {
            true => refit_step(dataset, self.rates),
            false => bare(StepKind::CatchUp(dataset.name.clone())),
        }));
        if acts.retained > 0 {
            steps.push(bare(StepKind::Retain));
        }
        steps.extend(self.each(StepKind::Finish));
        // What is written in one schema cannot be carried to another.
        if !self.options.one_way && self.options.decisions.is_none() {
            steps.extend(self.each(StepKind::Keep));
        }
        if acts.settings > 0 {
            steps.push(bare(StepKind::Configure));
        }
        if acts.swap {
            steps.push(lasting(StepKind::Reboot, REBOOTS_MS));
        }
        steps
    }

    /// Until users are let in at the target.
    fn taking_over(&self, acts: &Acts) -> Vec<PlannedStep> {
        let mut steps = vec![bare(StepKind::Publish)];
        if acts.certificates > 0 {
            steps.push(bare(StepKind::Certify));
        }
        if acts.label {
            steps.push(bare(StepKind::Label));
        }
        if acts.starting + acts.certificates > 0 {
            steps.push(lasting(StepKind::Serve, STARTS_MS * acts.starting as u64));
        }
        if self.options.licence {
            steps.push(bare(StepKind::Licence));
        }
        steps
    }

    /// What nobody has to wait for.
    fn in_use(&self, acts: &Acts) -> Vec<PlannedStep> {
        let mut steps: Vec<_> = self.each(StepKind::Settle).collect();
        if acts.replicas_here > 0 {
            steps.push(replicate_step(self.chosen, self.rates));
        }
        steps
    }

    fn databases(&self) -> impl Iterator<Item = &Dataset> {
        self.chosen.iter().copied().filter(|dataset| dataset.is_database())
    }

    /// A step for each database.
    fn each(&self, step: fn(DatasetName) -> StepKind) -> impl Iterator<Item = PlannedStep> {
        self.databases().map(move |dataset| bare(step(dataset.name.clone())))
    }

    /// Whether it is brought into the schema that stands at the target.
    fn is_fitted(&self, dataset: &Dataset) -> bool {
        self.options.decisions.is_some() && dataset.is_database()
    }
}

/// What the source's users notice before it is fenced off, and what is made ready for that.
fn to_the_fence(acts: &Acts) -> Vec<PlannedStep> {
    let mut steps = Vec::new();
    if acts.settings > 0 {
        steps.push(bare(StepKind::Stage));
    }
    if acts.maintenance {
        steps.push(lasting(StepKind::Maintain, STOPS_MS * acts.stopping.max(acts.starting) as u64));
    }
    if acts.replicas_there > 0 {
        steps.push(lasting(StepKind::Deactivate, STOPS_MS));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeover::{LabelFacts, ServiceFacts, Trial};
    use crate::dns::{RecordChange, RecordKind};
    use crate::inventory::sample::{database, inventory};
    use crate::inventory::{DatasetFacts, TreeFacts};
    use crate::plan::sample::{ids, make, rates};

    /// The course of a plan that moves no dataset.
    fn of_nothing<'a>(options: &'a Options, rates: &'a Rates) -> Course<'a> {
        Course { chosen: &[], backups: BackupsWanted::default(), options, rates }
    }

    #[test]
    fn copies_then_finishes_then_verifies_then_publishes() {
        let source = inventory(&[("db", database(5)), ("www", DatasetFacts::Files(TreeFacts::default()))]);
        let plan = make(&source, &source, Options::default()).unwrap();
        let expected = "prepare copy:db copy:www finish:db verify:db verify:www publish";
        assert_eq!(ids(&plan.steps), expected);
    }

    #[test]
    fn a_live_plan_captures_before_it_copies_and_publishes_behind_the_fence() {
        let source = inventory(&[("db", database(5)), ("www", DatasetFacts::Files(TreeFacts::default()))]);
        let follow = || Options { follow: true, ..Options::default() };
        let plan = make(&source, &source, follow()).unwrap();
        assert_eq!(
            ids(&plan.steps),
            "prepare capture:db copy:db copy:www index:db verify:db verify:www \
             fence catch-up:db catch-up:www finish:db keep:db publish settle:db"
        );
        assert_eq!(plan.datasets().count(), 2);
        // A source of this release goes into maintenance.
        let mut maintains = source.clone();
        maintains.changeover.maintains = true;
        let plan = make(&maintains, &source, follow()).unwrap();
        assert!(plan.steps.iter().any(|step| step.step == StepKind::Maintain));
        // The label is shown before anybody is let in.
        let mut labelled = source.clone();
        labelled.changeover.label = Some(LabelFacts { text: "On trial".into(), file: None, problem: None });
        labelled.changeover.services.push(ServiceFacts {
            unit: "web.service".into(),
            state: "active".into(),
            enabled: true,
            trial: Trial::Stopped,
            problem: None,
        });
        let plan = make(&maintains, &labelled, follow()).unwrap();
        let ids = ids(&plan.steps);
        assert!(ids.ends_with("publish label serve settle:db"), "{ids}");
        // Earlier plans have no word of it.
        let still = make(&source, &source, Options::default()).unwrap();
        assert!(!String::from_utf8(still.to_bytes()).unwrap().contains("follow"));
    }

    #[test]
    fn a_replica_is_deactivated_before_and_set_up_behind_what_users_wait_for() {
        let acts = Acts {
            maintenance: true,
            starting: 1,
            swap: true,
            settings: 1,
            replicas_there: 1,
            replicas_here: 1,
            ..Acts::default()
        };
        let options = Options { licence: true, ..Options::default() };
        assert_eq!(
            ids(&of_nothing(&options, &rates()).live(&acts, None)),
            "prepare stage maintain deactivate fence configure reboot publish serve licence replicate"
        );
    }

    #[test]
    fn records_change_before_anything_else_of_a_cutover_and_after_it() {
        let change = |at| RecordChange {
            at,
            name: "www.example.net.".to_owned(),
            kind: RecordKind::A,
            from: Default::default(),
            to: Default::default(),
            was_ttl: 60,
            ttl: 60,
        };
        for (stages, expected) in [
            (
                &[Stage::Before, Stage::Cutover, Stage::End][..],
                "prepare withdraw maintain fence publish repoint rejoin",
            ),
            (&[Stage::Cutover], "prepare maintain fence publish repoint"),
            (&[], "prepare maintain fence publish"),
        ] {
            let changes = stages.iter().map(|at| change(*at)).collect();
            let advice = Advice { server: "192.0.2.53:53".to_owned(), automatic: true, changes };
            let acts = Acts { maintenance: true, ..Acts::default() };
            let steps = of_nothing(&Options::default(), &rates()).live(&acts, Some(&advice));
            assert_eq!(ids(&steps), expected);
        }
    }
}
