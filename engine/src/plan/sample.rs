//! Plans for tests.

use super::{Lasted, Options, Plan, PlannedStep, Rates};
use crate::failure::Failure;
use crate::inventory::Inventory;

/// Rates that nothing is corrected by.
pub(super) fn rates() -> Rates {
    Rates { copy: 1e8, reread: 1e9, lasted: Lasted::default() }
}

/// The plan between two hosts.
pub(super) fn make(source: &Inventory, target: &Inventory, options: Options) -> Result<Plan, Failure> {
    Plan::make(("a", source), ("b", target), options, &rates())
}

/// The steps by name, in order.
pub(super) fn ids(steps: &[PlannedStep]) -> String {
    let ids: Vec<_> = steps.iter().map(|step| step.step.id()).collect();
    ids.join(" ")
}
