//! From a plan to something that can run: by its digest alone, and while both hosts are what it saw.

use std::collections::BTreeMap;

use super::Plan;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::inventory::Inventory;

/// A plan whose digest the operator gave: the only thing that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovedPlan {
    plan: Plan,
    digest: Digest,
}

impl ApprovedPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Plan {
    /// Approves the plan by the digest that the operator saw; refuses any other.
    pub fn approve(self, digest: Digest) -> Result<ApprovedPlan, Failure> {
        if self.digest() != digest {
            return Err(Failure::permanent(
                format!("plan {}", digest.short()),
                "the digest is that of another plan",
            )
            .hint("run `handover plan` and start the digest it prints"));
        }
        Ok(ApprovedPlan { plan: self, digest })
    }

    /// Refuses when a host is no longer what the plan saw, and names what changed.
    pub fn still_holds(&self, source: &Inventory, target: &Inventory) -> Result<(), Failure> {
        for (host, side, now) in [("source", &self.source, source), ("target", &self.target, target)] {
            if let Some(changed) = first_difference(&side.structure, &now.structure()) {
                return Err(Failure::operator(
                    format!("plan {}", self.digest().short()),
                    format!("the {host} has changed since the plan was made: {changed}"),
                )
                .hint("run `handover plan` again, look at what it says, and start the new digest"));
            }
        }
        Ok(())
    }
}

fn first_difference(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<String> {
    let gone = then.keys().find(|k| !now.contains_key(*k)).map(|k| format!("{k} is gone"));
    let new = now.keys().find(|k| !then.contains_key(*k)).map(|k| format!("{k} is new"));
    let other =
        then.iter().find(|(k, v)| now.get(*k).is_some_and(|n| n != *v)).map(|(k, _)| format!("{k} differs"));
    gone.or(new).or(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::sample::{database, inventory};
    use crate::plan::Options;
    use crate::plan::sample::make;

    #[test]
    fn only_the_digest_shown_approves() {
        let source = inventory(&[("db", database(5))]);
        let plan = make(&source, &source, Options::default()).unwrap();
        assert!(plan.clone().approve(plan.digest()).is_ok());
        assert!(plan.clone().approve(Digest::of(b"another")).is_err());
        let back: Plan = serde_json::from_slice(&plan.to_bytes()).unwrap();
        assert_eq!(back.digest(), plan.digest());
    }

    #[test]
    fn a_changed_host_is_named() {
        let source = inventory(&[("db", database(5))]);
        let plan = make(&source, &source, Options::default()).unwrap();
        assert_eq!(
            plan.still_holds(&inventory(&[("db", database(99))]), &source),
            Ok(()),
            "sizes may change"
        );
        let gone = plan.still_holds(&inventory(&[]), &source).unwrap_err();
        assert!(
            gone.what.ends_with("the source has changed since the plan was made: dataset db is gone"),
            "{gone}"
        );
        let mut other = source.clone();
        other.appliance.release = "9".into();
        let differs = plan.still_holds(&source, &other).unwrap_err();
        assert!(differs.what.contains("target") && differs.what.ends_with("release differs"), "{differs}");
    }
}
