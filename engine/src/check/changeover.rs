//! What stands in the way of a changeover beside the data.

use super::{Finding, Severity};
use crate::dns;
use crate::inventory::Inventory;
use crate::plan::Options;

/// Services, settings, certificates, replicas and DNS records, where the plan has something to do with them.
pub(super) fn changeover(
    source: &Inventory,
    target: &Inventory,
    options: &Options,
    findings: &mut Vec<Finding>,
) {
    if options.data_only || source.changeover.is_empty() && target.changeover.is_empty() {
        return;
    }
    if !options.follow {
        let what = "services, settings, certificates and replicas stay as they are: they change over with a cut-over";
        findings.push(Finding::new(Severity::Info, "manifest", what, "plan with --follow for one"));
        return;
    }
    for (side, facts) in [("source", &source.changeover), ("target", &target.changeover)] {
        findings.extend(facts.problems().map(|(item, problem)| {
            let hint =
                "mend that, or plan with --data-only to leave services, settings, certificates and replicas alone";
            Finding::new(Severity::Error, item, format!("at the {side}: {problem}"), hint)
        }));
    }
    if let Some(Err(failure)) = target
        .changeover
        .dns
        .as_ref()
        .filter(|dns| dns.problem.is_none())
        .map(|dns| dns::advise(&source.appliance, &target.appliance, dns, options.swap))
    {
        findings.push(Finding::refusal(failure));
    }
    for one in &source.changeover.settings {
        let left = if options.swap { false } else { one.group.is_of_the_host() };
        if !left && !target.changeover.settings.iter().any(|here| here.name == one.name) {
            let what = "the target's manifest has no such section: they are not copied";
            let hint = "add [[settings]] of the same name there, if they should be";
            findings.push(Finding::new(Severity::Info, format!("settings {}", one.name), what, hint));
        }
    }
}

/// Replicas of the source that nobody names stay with it.
pub(super) fn replicas(source: &Inventory, options: &Options, findings: &mut Vec<Finding>) {
    if options.data_only || !options.follow {
        return;
    }
    for one in source.changeover.replication.iter().filter(|one| one.replica.is_none()) {
        let Some(role) = one.role.as_ref().filter(|role| !role.replicas.is_empty()) else { continue };
        let what = format!(
            "it has replicas ({}) that the source's manifest does not name: they stay with it",
            role.replicas.join(", ")
        );
        let hint = "name one as `replica` of its [[database]], if the target is to have one, too";
        findings.push(Finding::new(Severity::Warning, format!("server {}", one.server), what, hint));
    }
}
