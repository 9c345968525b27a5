//! Which datasets are moved: those that were chosen of the source's, each matched by name with the target's.

use super::Options;
use crate::failure::Failure;
use crate::inventory::{Dataset, DatasetFacts, Inventory};

/// The source's datasets to copy, each checked against the target's of the same name.
pub(super) fn choose<'a>(
    source: &'a Inventory,
    target: &Inventory,
    options: &Options,
) -> Result<Vec<&'a Dataset>, Failure> {
    for wanted in &options.datasets {
        if !source.datasets.iter().any(|d| d.name == *wanted) {
            return Err(Failure::operator(
                format!("dataset {wanted}"),
                "the source's manifest does not name it",
            )
            .hint("`handover inspect` lists the datasets"));
        }
    }
    let chosen: Vec<&Dataset> = source.datasets.iter().filter(|dataset| options.chooses(dataset)).collect();
    refuse_nothing(source, &chosen)?;
    chosen.iter().try_for_each(|dataset| matches_target(dataset, target))?;
    Ok(chosen)
}

/// Refuses to move nothing: all names are known, and none of their datasets is left.
pub(crate) fn refuse_nothing(source: &Inventory, chosen: &[&Dataset]) -> Result<(), Failure> {
    if !chosen.is_empty() {
        return Ok(());
    }
    if !source.datasets.is_empty() {
        return Err(Failure::operator("plan", "there is nothing to move: all that was chosen are logs")
            .hint("plan without --without-logs, or choose other datasets"));
    }
    Err(Failure::operator("plan", "there is nothing to move: the source's manifest names no dataset")
        .hint("add [[database]] or [[files]] sections to the source's appliance.toml"))
}

/// Refuses a dataset that the target has no place for.
pub(crate) fn matches_target(dataset: &Dataset, target: &Inventory) -> Result<(), Failure> {
    let item = format!("dataset {}", dataset.name);
    if let DatasetFacts::Unreadable { problem, hint, .. } = &dataset.facts {
        return Err(
            Failure::operator(item, format!("the source cannot read it: {problem}")).hint(hint.clone())
        );
    }
    let Some(here) = target.datasets.iter().find(|d| d.name == dataset.name) else {
        return Err(Failure::operator(item, "the target's manifest does not name it")
            .hint("add a section of the same name to the target's appliance.toml, or choose datasets with --dataset"));
    };
    let fits = match (&dataset.facts, &here.facts) {
        (DatasetFacts::Database(a), DatasetFacts::Database(b)) => a.engine == b.engine,
        (DatasetFacts::Database(_), DatasetFacts::Unreadable { declared, .. }) => declared == "database",
        (DatasetFacts::Files(_), DatasetFacts::Unreadable { declared, .. }) => declared == "files",
        (DatasetFacts::Files(_), DatasetFacts::Files(_)) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Failure::operator(item, "it is of one kind at the source and of another at the target")
        .hint("declare it alike in both manifests"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::sample::{database, inventory};
    use crate::plan::sample::make;

    #[test]
    fn refuses_what_cannot_be_matched() {
        let missing = |declared: &str| DatasetFacts::Unreadable {
            declared: declared.into(),
            problem: "no such file".into(),
            hint: "mount it".into(),
        };
        let db = inventory(&[("db", database(1))]);
        let table = [
            (inventory(&[]), db.clone(), "plan: there is nothing to move"),
            (db.clone(), inventory(&[]), "dataset db: the target's manifest does not name it"),
            (
                inventory(&[("db", missing("database"))]),
                db.clone(),
                "dataset db: the source cannot read it: no such file",
            ),
            (db.clone(), inventory(&[("db", missing("files"))]), "dataset db: it is of one kind"),
        ];
        for (source, target, expected) in table {
            let failure = make(&source, &target, Options::default()).unwrap_err().to_string();
            assert!(failure.starts_with(expected), "{failure}");
        }
        assert!(make(&db, &inventory(&[("db", missing("database"))]), Options::default()).is_ok());
        let options = Options { datasets: vec!["nope".parse().unwrap()], ..Options::default() };
        assert!(make(&db, &db, options).unwrap_err().to_string().starts_with("dataset nope"));
    }
}
