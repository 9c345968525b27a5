//! What steps move, and what they are expected to take.

use super::{PlannedStep, Rates, StepKind};
use crate::inventory::{Dataset, DatasetFacts};

/// What stopping a service is expected to take.
pub(super) const STOPS_MS: u64 = 500;
/// What starting one is expected to take, until it is well.
pub(super) const STARTS_MS: u64 = 1_000;
/// What a host is expected to be away for when it reboots.
pub(super) const REBOOTS_MS: u64 = 30_000;

/// A step that moves nothing.
pub(super) fn bare(step: StepKind) -> PlannedStep {
    PlannedStep { step, rows: 0, files: 0, bytes: 0, expected_ms: 100 }
}

/// A step that moves nothing, and takes its time.
pub(super) fn lasting(step: StepKind, expected_ms: u64) -> PlannedStep {
    PlannedStep { expected_ms: expected_ms.max(100), ..bare(step) }
}

fn expected_ms(bytes: u64, rate: f64, fixed_ms: u64) -> u64 {
    fixed_ms + (bytes as f64 * 1000.0 / rate.max(1.0)) as u64
}

/// Rows, files and bytes of a dataset.
fn sizes(dataset: &Dataset) -> (u64, u64, u64) {
    match &dataset.facts {
        DatasetFacts::Database(d) => (d.tables.iter().map(|t| t.rows).sum(), 0, d.bytes),
        DatasetFacts::Files(t) => (0, t.files, t.bytes),
        DatasetFacts::Unreadable { .. } => (0, 0, 0),
    }
}

pub(super) fn copy_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let (rows, files, bytes) = sizes(dataset);
    // A file costs about as much as 20 kB, over what its contents cost.
    let weight = bytes + rows * row_weight(dataset) + files * 20_000;
    let expected_ms = expected_ms(weight, rates.copy, 100);
    PlannedStep { step: StepKind::Copy(dataset.name.clone()), rows, files, bytes, expected_ms }
}

/// How many bytes cost as much as a row does, over what its contents cost: that differs with the server that takes it. (Measured
/// with rows of 100 to 200 bytes; what the two servers count as a database's bytes is not the same either.)
fn row_weight(dataset: &Dataset) -> u64 {
    match &dataset.facts {
        DatasetFacts::Database(facts) if facts.engine == "mariadb" => 200,
        DatasetFacts::Database(facts) if facts.engine == "postgres" => 0,
        _ => 100,
    }
}

/// Rows are tried, and those that fit are copied.
pub(super) fn fit_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let copy = copy_step(dataset, rates);
    PlannedStep { step: StepKind::Fit(dataset.name.clone()), expected_ms: 2 * copy.expected_ms, ..copy }
}

/// What behind the fence takes a time that grows with the data: rows are read at both places once more, and indexes are made.
pub(super) fn refit_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let indexes = finish_step(dataset, rates).map_or(0, |step| step.expected_ms);
    let expected_ms = 2 * verify_step(dataset, rates).expected_ms + indexes;
    lasting(StepKind::Refit(dataset.name.clone()), expected_ms)
}

pub(super) fn finish_step(dataset: &Dataset, rates: &Rates) -> Option<PlannedStep> {
    let DatasetFacts::Database(facts) = &dataset.facts else { return None };
    // An entry of an index costs about as much as 200 bytes. Where nothing is known of its indexes, two thirds of the database count.
    let weight = facts.index_entries.map_or(facts.bytes / 3 * 2, |entries| entries * 200);
    let expected_ms = expected_ms(weight, rates.copy * 2.0, 50);
    Some(PlannedStep { expected_ms, ..bare(StepKind::Finish(dataset.name.clone())) })
}

pub(super) fn verify_step(dataset: &Dataset, rates: &Rates) -> PlannedStep {
    let (rows, files, bytes) = sizes(dataset);
    let expected_ms = expected_ms(bytes + rows * 100 + files * 5_000, rates.reread, 50);
    PlannedStep { step: StepKind::Verify(dataset.name.clone()), rows, files, bytes, expected_ms }
}

/// Databases are copied once more, and compared: each row counts for both.
pub(super) fn replicate_step(chosen: &[&Dataset], rates: &Rates) -> PlannedStep {
    let databases = chosen.iter().filter(|dataset| dataset.is_database());
    let expected = |dataset: &&Dataset| {
        copy_step(dataset, rates).expected_ms + 2 * verify_step(dataset, rates).expected_ms
    };
    let rows: u64 = databases.clone().map(|dataset| 2 * sizes(dataset).0).sum();
    let step = lasting(StepKind::Replicate, STARTS_MS + databases.map(expected).sum::<u64>());
    PlannedStep { rows, ..step }
}

/// Datasets are written once, and read again: about what a copy takes.
pub(super) fn backup_step(step: StepKind, datasets: &[&Dataset], rates: &Rates) -> PlannedStep {
    let (rows, files, bytes) = datasets
        .iter()
        .map(|dataset| sizes(dataset))
        .fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
    let expected_ms = expected_ms(bytes + rows * 100 + files * 20_000, rates.copy, 500);
    PlannedStep { bytes, expected_ms, ..bare(step) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::sample::{dataset, inventory};
    use crate::inventory::{DatabaseFacts, TableFacts};
    use crate::plan::Options;
    use crate::plan::sample::{make, rates};
    use crate::rows::TableName;

    #[test]
    fn building_indexes_takes_as_long_as_they_have_entries() {
        let finish = |index_entries| {
            let facts = DatabaseFacts { bytes: 1 << 30, index_entries, ..DatabaseFacts::default() };
            let source = inventory(&[("db", DatasetFacts::Database(facts))]);
            let plan = make(&source, &source, Options::default()).unwrap();
            plan.steps.iter().find(|step| step.step.id() == "finish:db").unwrap().expected_ms
        };
        assert!(finish(None) > 3_000, "{}", finish(None));
        assert_eq!(finish(Some(0)), 50);
        assert_eq!(finish(Some(1_000_000)), 1050);
    }

    #[test]
    fn a_replica_takes_the_longer_the_more_rows_there_are() {
        let step = |rows| {
            let table = TableFacts { name: TableName::plain("t"), rows, bytes: 0 };
            let facts = DatabaseFacts { tables: vec![table], ..DatabaseFacts::default() };
            replicate_step(&[&dataset("shop", DatasetFacts::Database(facts))], &rates())
        };
        let (few, many) = (step(10), step(1_000_000));
        assert_eq!((few.rows, many.rows), (20, 2_000_000));
        assert!(many.expected_ms > few.expected_ms + 1000, "{} and {}", few.expected_ms, many.expected_ms);
    }
}
