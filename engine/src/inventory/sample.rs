//! Inventories for tests: hosts of which nothing is said but what a test is about.

use super::{DatabaseFacts, Dataset, DatasetFacts, Inventory};

/// A dataset, and nothing found in its way.
pub(crate) fn dataset(name: &str, facts: DatasetFacts) -> Dataset {
    Dataset {
        name: name.parse().unwrap(),
        facts,
        findings: Vec::new(),
        following: Vec::new(),
        returning: Vec::new(),
        offers: None,
        excluded: Vec::new(),
    }
}

/// The facts of a database of so many bytes.
pub(crate) fn database(bytes: u64) -> DatasetFacts {
    DatasetFacts::Database(DatabaseFacts { engine: "sqlite".into(), bytes, ..DatabaseFacts::default() })
}

/// A host with these datasets.
pub(crate) fn host(datasets: Vec<Dataset>) -> Inventory {
    Inventory { agent_version: "1".into(), datasets, ..Inventory::default() }
}

/// The same, by their names.
pub(crate) fn inventory(datasets: &[(&str, DatasetFacts)]) -> Inventory {
    host(datasets.iter().map(|(name, facts)| dataset(name, facts.clone())).collect())
}
