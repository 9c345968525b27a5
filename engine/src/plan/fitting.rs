//! Whether databases of the source can be brought into the schemas that stand at the target, and which tables find no place there.

use super::{LeftBehind, Options};
use crate::check::{Finding, Severity};
use crate::failure::Failure;
use crate::inventory::{DatabaseFacts, Dataset, DatasetFacts, Inventory};
use crate::rehearsal::fit::is_same_table;

/// What keeps a plan with decisions from being carried out.
pub(crate) fn unfit(target: &Inventory, chosen: &[&Dataset], options: &Options) -> Vec<Finding> {
    let error = |item: &str, what: &str, hint: &str| Finding::new(Severity::Error, item, what, hint);
    let mut out = Vec::new();
    if !options.follow {
        let what = "they are carried out by a plan that cuts over to the target";
        out.push(error("decisions", what, "plan with --follow, too"));
    }
    if options.swap {
        let what = "settings are not exchanged between hosts of different releases";
        out.push(error("settings", what, "plan without --swap: the target takes the basic ones"));
    }
    if let Some(Err(bad)) = options.decisions.as_ref().map(|decisions| decisions.check()) {
        out.push(error("decisions", &bad.to_string(), "correct the file"));
    }
    let databases: Vec<_> = chosen.iter().filter(|one| one.is_database()).map(|one| &one.name).collect();
    let is_bare =
        |facts: &DatasetFacts| matches!(facts, DatasetFacts::Database(facts) if facts.tables.is_empty());
    for name in &databases {
        let here = target.datasets.iter().find(|here| here.name == **name);
        if here.is_some_and(|here| is_bare(&here.facts)) {
            let what = "there is no schema at the target that its rows could be fitted into";
            let hint = "install the new version there first, or plan without --decisions";
            out.push(error(&format!("dataset {name}"), what, hint));
        }
    }
    if databases.is_empty() {
        let what = "there is no database whose rows they could be about";
        out.push(error("decisions", what, "plan without --decisions"));
    }
    out
}

/// Refuses a plan that cannot be carried out.
pub(super) fn may_fit(target: &Inventory, chosen: &[&Dataset], options: &Options) -> Result<(), Failure> {
    match unfit(target, chosen, options).into_iter().next() {
        None => Ok(()),
        Some(Finding { item, what, hint, .. }) => Err(Failure::operator(item, what).hint(hint)),
    }
}

/// The tables of a database that the target's schema lacks.
pub(super) fn homeless(dataset: &Dataset, target: &Inventory) -> Vec<LeftBehind> {
    let here = target.datasets.iter().find(|here| here.name == dataset.name).map(|here| &here.facts);
    let (DatasetFacts::Database(there), Some(DatasetFacts::Database(here))) = (&dataset.facts, here) else {
        return Vec::new();
    };
    let has = |facts: &DatabaseFacts, name| {
        facts.tables.iter().any(|table| is_same_table(&facts.engine, &table.name, name))
    };
    let mut out: Vec<LeftBehind> = there
        .tables
        .iter()
        .filter(|table| !has(here, &table.name))
        .map(|table| LeftBehind {
            item: format!("dataset {}, table {}", dataset.name, table.name),
            why: "the target's schema has no such table".to_owned(),
        })
        .collect();
    out.sort_by(|a, b| a.item.cmp(&b.item));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::sample::inventory;
    use crate::inventory::{TableFacts, TreeFacts};
    use crate::plan::Plan;
    use crate::plan::sample::{self, ids};
    use crate::rehearsal::decision::Decisions;
    use crate::rows::TableName;

    fn host(tables: &[&str]) -> Inventory {
        let table = |name: &&str| TableFacts { name: TableName::plain(*name), rows: 9, bytes: 900 };
        let facts = DatabaseFacts {
            engine: "sqlite".into(),
            bytes: 900,
            tables: tables.iter().map(table).collect(),
            ..DatabaseFacts::default()
        };
        let facts =
            [("db", DatasetFacts::Database(facts)), ("www", DatasetFacts::Files(TreeFacts::default()))];
        let mut host = inventory(&facts);
        for dataset in &mut host.datasets {
            dataset.following = vec![Finding::new(Severity::Error, "db", "no log", "switch it on")];
        }
        host
    }

    fn options() -> Options {
        Options { follow: true, overwrite: true, decisions: Some(Decisions::none()), ..Options::default() }
    }

    fn make(target: &Inventory, options: Options) -> Result<Plan, Failure> {
        sample::make(&host(&["Users", "old"]), target, options)
    }

    #[test]
    fn databases_are_fitted_and_trees_copied() {
        let plan = make(&host(&["users", "new"]), options()).unwrap();
        assert_eq!(
            ids(&plan.steps),
            "prepare fit:db copy:www verify:www fence refit:db catch-up:www finish:db publish settle:db"
        );
        assert_eq!(plan.datasets().count(), 2);
        let left: Vec<_> = plan.left_behind.iter().map(|one| one.item.as_str()).collect();
        assert_eq!(left, ["dataset db, table old"]);
        let again: Plan = serde_json::from_slice(&plan.to_bytes()).unwrap();
        assert_eq!(again.digest(), plan.digest());
        let other = Options { decisions: None, ..options() };
        assert_ne!(make(&host(&["users"]), other).unwrap().digest(), plan.digest());
    }

    #[test]
    fn what_cannot_be_fitted_is_refused_and_told() {
        for (target, options, part) in [
            (host(&[]), options(), "no schema at the target"),
            (host(&["users"]), Options { follow: false, ..options() }, "cuts over"),
            (host(&["users"]), Options { swap: true, ..options() }, "exchanged"),
            (
                host(&["users"]),
                Options { datasets: vec!["www".parse().unwrap()], ..options() },
                "no database",
            ),
            (host(&["users"]), Options { decisions: Some(Decisions::default()), ..options() }, "format"),
        ] {
            let told = crate::check::compare(&host(&["users"]), &target, 0, &options);
            assert!(told.iter().any(|finding| finding.what.contains(part)), "{part}: {told:?}");
            let refused = make(&target, options).unwrap_err().to_string();
            assert!(refused.contains(part), "{part}: {refused}");
        }
        let told = crate::check::compare(&host(&["users"]), &host(&["users"]), 0, &options());
        assert!(!told.iter().any(|finding| finding.what.contains("no log")), "{told:?}");
    }
}
